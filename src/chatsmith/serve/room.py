"""What every route works with: the model, the desk, the limits; and how a request is read, watched and refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from chatsmith.serve.body import ClientGone, parse, read_body
from chatsmith.serve.desk import Desk
from chatsmith.serve.errors import closing, too_slow
from chatsmith.serve.fields import read
from chatsmith.serve.limits import Limits
from chatsmith.serve.metrics import Metrics
from chatsmith.serve.rates import Rates
from chatsmith.serve.served import Served

T = TypeVar("T")
_SMALL = 2**14  # bytes of JSON that are parsed where they come in


class Room:
    """The shared parts of a running server. `desk` is there while the application runs."""

    desk: Desk

    def __init__(self, served: Served, limits: Limits) -> None:
        self.served, self.limits = served, limits
        self.metrics, self.rates = Metrics(), Rates(limits)
        self.draining = False

    @classmethod
    def of(cls, request: Request) -> Room:
        """The room of the application that a request came to."""
        room: Room = request.app.state.room
        return room

    def owner(self, request: Request) -> str:
        """Whose key it was; empty where none is needed."""
        return str(getattr(request.state, "owner", ""))

    async def read(self, request: Request, path: str) -> dict[str, Any]:
        """The fields of a request. Raises `ApiError` for what is wrong with them."""
        if self.draining:
            raise closing()
        body = await read_body(request, self.limits, self.limits.body_bytes)

        def understood() -> dict[str, Any]:
            return read(path, parse(body, self.limits.json_depth), self.served.bounds)

        fields = understood() if len(body) < _SMALL else await asyncio.to_thread(understood)
        self.served.check_name(fields["model"])
        return fields

    def spend(self, request: Request, tokens: int) -> None:
        """Book the tokens that a request may take; who has a key has so many a minute."""
        who = getattr(request.state, "payer", "")
        if who:
            self.rates.tokens(who, tokens)

    def give_back(self, request: Request, tokens: int) -> None:
        """Tokens that were booked and not used."""
        who = getattr(request.state, "payer", "")
        if who and tokens > 0:
            self.rates.give_back(who, tokens)

    def left(self, request: Request) -> float:
        """Seconds that a request still has."""
        return max(0.0, self.limits.request_seconds + request.state.began - time.perf_counter())

    async def within(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """Do something for a request, as long as somebody waits for it, within the time that a request has."""
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(gone(request))
        try:
            await asyncio.wait((doing, leaving), timeout=self.left(request), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if leaving.done():
                raise ClientGone
            raise too_slow(self.limits.request_seconds)
        finally:
            for task in (doing, leaving):
                task.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)


async def gone(request: Request) -> None:
    """Wait until nobody waits for an answer any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_response(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON that is text already."""
    return Response(text, status, headers, "application/json")
