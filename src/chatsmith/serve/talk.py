"""Answers over HTTP: a conversation's, a response's and a text's, whole or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatsmith.errors import ChatsmithError
from chatsmith.generate.requests import Event
from chatsmith.generate.stopping import StopText
from chatsmith.serve.desk import Answers
from chatsmith.serve.errors import ApiError, too_slow
from chatsmith.serve.fields import CHAT, RESPOND, WRITE
from chatsmith.serve.prepare import Prepared, prepare_chat, prepare_text
from chatsmith.serve.responses import ResponseTeller, prepare_response
from chatsmith.serve.room import Room, gone, json_response
from chatsmith.serve.tell import Teller, dumps


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions"""
    return await _answer(request, CHAT, prepare_chat, partial(Teller, chat=True))


async def respond(request: Request) -> Response:
    """POST /v1/responses"""
    return await _answer(request, RESPOND, prepare_response, ResponseTeller)


async def write(request: Request) -> Response:
    """POST /v1/completions"""
    return await _answer(request, WRITE, prepare_text, partial(Teller, chat=False))


async def _answer(
    request: Request, path: str, prepare: Callable[..., Prepared], tells: Callable[..., Teller]
) -> Response:
    room = Room.of(request)
    fields = await room.read(request, path)
    prepared = await asyncio.to_thread(prepare, room.served, fields, room.owner(request))
    teller = tells(room.served, prepared, fields, await room.served.fingerprint())
    room.spend(request, prepared.planned_tokens)
    answers = room.desk.ask(prepared.asked)
    try:
        await room.within(request, answers.taken())
    except BaseException as error:
        answers.close()
        if isinstance(error, ChatsmithError):  # it was refused, and cost nothing
            room.give_back(request, prepared.planned_tokens)
        raise
    if fields["stream"]:
        return _Stream(request, answers, teller)
    try:
        found = await room.within(request, _gather(answers, prepared.samples))
    finally:
        answers.close()
    told = await asyncio.to_thread(lambda: dumps(teller.whole(found)))
    _count(request, answers, teller)
    return json_response(told)


def _count(request: Request, answers: Answers, teller: Teller) -> None:
    """Book the tokens that an answer took in place of those it might have taken, and its speed if it ran alone."""
    room, usage = Room.of(request), teller.usage()
    if answers.alone and teller.count == 1 and usage["completion_tokens"] > 8:
        room.served.speed.note(usage["completion_tokens"] - 1, answers.last - answers.first)
    room.metrics.told(usage)
    room.give_back(request, teller.prepared.planned_tokens - usage["total_tokens"])


async def _gather(answers: Answers, samples: int) -> dict[int, list[Event]]:
    """All events of all answers, by answer."""
    found: dict[int, list[Event]] = {}
    while events := await answers.next():
        for place, event in events:
            found.setdefault(place * samples + event.index, []).append(event)
    return found


class _Held:
    """What an answer that may call tools has said, and how much of it could be shown."""

    def __init__(self, begin: str) -> None:
        self.said, self.shown = "", 0
        self._stopper = StopText((begin,))

    def push(self, text: str) -> str:
        """The words that are certain to be no part of a call."""
        self.said += text
        free = self._stopper.push(text)
        self.shown += len(free)
        return free


class _Stream(Response):
    """Chunks as they come, one write a step however many answers it moved on. It ends when the reader has gone."""

    def __init__(self, request: Request, answers: Answers, teller: Teller) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"})
        self._request, self._answers, self._teller = request, answers, teller
        self._room = Room.of(request)
        self._held: dict[int, _Held] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the answers; whatever happens, what is unfinished is taken back."""
        telling = asyncio.ensure_future(self._tell(send))
        leaving = asyncio.ensure_future(gone(self._request))
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._answers.close()
            leaving.cancel()
            if not telling.done():
                telling.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)
            _count(self._request, self._answers, self._teller)

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def write(text: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        await write(self._teller.opening())
        try:
            async with asyncio.timeout(self._room.left(self._request)):
                await self._pieces(write)
        except Exception as error:
            late = too_slow(self._room.limits.request_seconds)
            told = late if isinstance(error, TimeoutError) else ApiError.of(error)
            if told.status == 500:
                self._room.metrics.failed(error)
            await write(self._teller.failing(told), more=False)
            return
        await write(self._teller.ending(), more=False)

    async def _pieces(self, write: Any) -> None:
        left = self._teller.count
        samples = self._teller.prepared.samples
        ping = self._room.limits.ping_seconds
        while left:
            events = await self._answers.next(ping)
            if not events:
                await write(": still at work\n\n")
                continue
            pieces = []
            for place, event in events:
                left -= event.finish is not None
                pieces.append(self._piece(place * samples + event.index, event, not left))
            text = "".join(pieces)
            if text:
                await write(text)

    def _piece(self, index: int, event: Event, last: bool) -> str:
        calls = self._teller.prepared.calls
        if calls is None:
            return self._teller.piece(index, event, last)
        held = self._held.setdefault(index, _Held(calls.begin))
        free = held.push(event.text)
        self._teller.note(index, event)
        told = self._teller.told(index, free, event)
        return told + (self._teller.calling(index, held.said, event, held.shown, last) if event.finish else "")
