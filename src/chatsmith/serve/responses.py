"""/v1/responses: its requests are conversations to answer as any other, and its answers are told as typed items."""

from __future__ import annotations

from itertools import count
from secrets import token_hex
from typing import Any

from chatsmith.generate.requests import Event
from chatsmith.serve.chat_kinds import Allowed
from chatsmith.serve.errors import ApiError, wrong
from chatsmith.serve.fields import SHOW_LOGPROBS
from chatsmith.serve.prepare import Fields, Prepared, prepare_chat
from chatsmith.serve.served import Served
from chatsmith.serve.tell import Teller, dumps

_NAMES = {"messages": "input", "max_completion_tokens": "max_output_tokens", "response_format": "text"}


def prepare_response(served: Served, fields: Fields, isolation: str) -> Prepared:
    """An input to answer."""
    if fields["top_logprobs"] and SHOW_LOGPROBS not in (fields["include"] or ()):
        raise wrong("top_logprobs", f'needs include to be ["{SHOW_LOGPROBS}"]')
    try:
        return prepare_chat(served, _as_chat(fields), isolation)
    except ApiError as error:  # a field is called as the one who asked called it
        name = _NAMES.get(error.field or "")
        if error.field is None or name is None:
            raise
        told = (
            name + error.message.removeprefix(error.field) if error.message.startswith(error.field) else error.message
        )
        raise ApiError(error.status, told, field=name, code=error.code) from None


def _as_chat(fields: Fields) -> Fields:
    """The same in the fields of /v1/chat/completions."""
    first = [] if fields["instructions"] is None else [{"role": "system", "content": fields["instructions"]}]
    return fields | {
        "messages": [*first, *fields["input"]],
        "max_completion_tokens": fields["max_output_tokens"],
        "max_tokens": None,
        "n": 1,
        "response_format": fields["text"][1] if fields["text"] else None,
        "logprobs": SHOW_LOGPROBS in (fields["include"] or ()),
    }


class ResponseTeller(Teller):
    """Tells of one answer as a response of typed items, or as the events in which they come about."""

    def __init__(self, served: Served, prepared: Prepared, fields: Fields, fingerprint: str) -> None:
        super().__init__(served, prepared, _as_chat(fields), fingerprint, chat=True)
        self.id = "resp_" + token_hex(12)
        self._asked = fields
        self._numbers = count()
        self._output: list[dict[str, Any]] = []  # items that are done
        self._status = "completed"
        # Of the message that is being told: its id, what was told of it, and what waits to be told.
        self._message, self._said, self._shown = "", "", list[dict[str, Any]]()
        self._next, self._entries = "", list[dict[str, Any]]()

    # ---- whole -----------------------------------------------------------------------------------------------------

    def whole(self, answers: dict[int, list[Event]]) -> dict[str, Any]:
        """See `Teller`."""
        [choice] = super().whole(answers)["choices"]
        message, shown = choice["message"], choice["logprobs"]
        calls = message.get("tool_calls", [])
        self._end(choice["finish_reason"])
        if message["content"] is not None:
            entries = shown["content"] if shown else []
            self._output.append(_message(_new("msg"), self._status, [_part(message["content"], entries)]))
        self._output += [_call(_new("fc"), call["id"], **call["function"]) for call in calls]
        return self._ended()

    # ---- in events -------------------------------------------------------------------------------------------------

    def opening(self) -> str:
        """See `Teller`."""
        response = self._response("in_progress")
        return "".join(self._event(f"response.{what}", response=response) for what in ("created", "in_progress"))

    def piece(self, index: int, event: Event, last: bool = False) -> str:
        """See `Teller`."""
        self.note(index, event)
        return self.told(index, event.text, event) + (self._finish([], event) if event.finish else "")

    def told(self, index: int, text: str, event: Event) -> str:
        """See `Teller`. What is blank before a call is no message: one begins with its first word."""
        self._next += text
        if self.logprobs and event.id is not None:
            self._entries.append(self.entry(event))
        if self.prepared.calls is not None and not self._message and not self._next.strip():
            return ""
        return self._delta()

    def calling(self, index: int, said: str, event: Event, shown: int, last: bool) -> str:
        """See `Teller`."""
        assert self.prepared.calls is not None
        _, calls = self.prepared.calls.parse(said)
        if not calls:
            self._next += said[shown:]
        return self._finish(calls, event)

    def ending(self) -> str:
        """See `Teller`."""
        return self._event(f"response.{self._status}", response=self._ended())

    def failing(self, error: ApiError) -> str:
        """See `Teller`."""
        told = error.body()["error"]
        code = "invalid_prompt" if error.status == 400 else "server_error"  # of the few that a response may have
        failed = self._response("failed", usage=self._used(), error={"code": code, "message": error.message})
        first = self._event("error", code=told["code"], message=told["message"], param=told["param"])
        return first + self._event("response.failed", response=failed)

    def _event(self, kind: str, **more: Any) -> str:
        told = {"type": kind, "sequence_number": next(self._numbers), **more}
        return f"event: {kind}\ndata: {dumps(told)}\n\n"

    def _of_text(self, kind: str, **more: Any) -> str:
        """An event of the message that is being told."""
        return self._event(kind, item_id=self._message, output_index=0, content_index=0, **more)

    def _delta(self) -> str:
        """The words that wait, and the message's beginning before the first of them."""
        if not self._next and not self._entries:
            return ""
        begun = self._begin()
        self._said, self._shown = self._said + self._next, self._shown + self._entries
        told = self._of_text("response.output_text.delta", delta=self._next, logprobs=self._entries)
        self._next, self._entries = "", []
        return begun + told

    def _begin(self) -> str:
        if self._message:
            return ""
        self._message = _new("msg")
        item = _message(self._message, "in_progress", [])
        added = self._event("response.output_item.added", output_index=0, item=item)
        return added + self._of_text("response.content_part.added", part=_part("", []))

    def _finish(self, calls: list[dict[str, Any]], event: Event) -> str:
        """The last events of the items: of the message, unless there are only calls, and of the calls."""
        self._end("tool_calls" if calls else event.finish)
        told = ""
        if self._message or not calls:
            told = self._delta() + self._begin()
            part = _part(self._said, self._shown)
            told += self._of_text("response.output_text.done", text=self._said, logprobs=self._shown)
            told += self._of_text("response.content_part.done", part=part)
            told += self._done(_message(self._message, self._status, [part]))
        for call in calls:
            place, item = len(self._output), _call(_new("fc"), call["id"], **call["function"])
            at = {"item_id": item["id"], "output_index": place}
            begun = item | {"status": "in_progress", "arguments": ""}
            told += self._event("response.output_item.added", output_index=place, item=begun)
            told += self._event("response.function_call_arguments.delta", delta=item["arguments"], **at)
            told += self._event(
                "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"], **at
            )
            told += self._done(item)
        return told

    def _done(self, item: dict[str, Any]) -> str:
        self._output.append(item)
        return self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    # ---- parts -----------------------------------------------------------------------------------------------------

    def _end(self, finish: str | None) -> None:
        self._status = "incomplete" if finish == "length" else "completed"

    def _ended(self) -> dict[str, Any]:
        reason = {"reason": "max_output_tokens"} if self._status == "incomplete" else None
        return self._response(self._status, usage=self._used(), incomplete_details=reason) | self.provenance()

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        """The response as it stands, with the settings that are in force."""
        asked, sampling = self._asked, self.prepared.sampling
        told = {
            "id": self.id,
            "object": "response",
            "created_at": self._top["created"],
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.served.name,
            "output": self._output,
            "usage": None,
            "instructions": asked["instructions"],
            "max_output_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_logprobs": asked["top_logprobs"],
            "reasoning": {"effort": None, "summary": None},
            "text": {"format": asked["text"][0] if asked["text"] else {"type": "text"}},
            "tools": [{"type": "function", **tool["function"], "strict": False} for tool in asked["tools"] or ()],
            "tool_choice": _choice(asked["tool_choice"]),
            "parallel_tool_calls": True,
            "metadata": asked["metadata"] or {},
            "user": asked["user"],
            "truncation": "disabled",
            "background": False,
            "store": False,
            "previous_response_id": None,
            "system_fingerprint": self._top["system_fingerprint"],
        }
        return told | more

    def _used(self) -> dict[str, Any]:
        """The tokens as this API counts them: what of the input was not in the cache is written there."""
        used = self.usage()
        read, cached = used["prompt_tokens"], used["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": read - cached},
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total_tokens"],
        }


def _new(kind: str) -> str:
    return f"{kind}_{token_hex(12)}"


def _choice(choice: str | tuple[str] | Allowed) -> str | dict[str, Any]:
    """How tools were to be chosen, as it was asked."""
    if isinstance(choice, str):
        return choice
    if isinstance(choice, Allowed):
        tools = [{"type": "function", "name": name} for name in choice.names]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return {"type": "function", "name": choice[0]}


def _part(said: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": entries}


def _message(identity: str, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": identity, "type": "message", "role": "assistant", "status": status, "content": parts}


def _call(identity: str, call: str, name: str, arguments: str) -> dict[str, Any]:
    told = {"id": identity, "type": "function_call", "status": "completed"}
    return told | {"call_id": call, "name": name, "arguments": arguments}
