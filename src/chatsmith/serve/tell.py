"""How answers are told: the pieces of OpenAI's responses, and of ours, from the engine's events."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from json.encoder import encode_basestring  # in C, and it keeps UTF-8
from secrets import token_hex
from typing import Any

import chatsmith
from chatsmith.generate.requests import Event, PromptScore, Top
from chatsmith.serve.errors import ApiError
from chatsmith.serve.prepare import Prepared, record
from chatsmith.serve.served import Served
from chatsmith.text.tokenizer import TextStream

_LEAST = -9999.0  # JSON knows no infinity; this is what OpenAI's API says in its place
_FINISH = {"eos": "stop", "stop": "stop", "length": "length"}


def dumps(value: Any) -> str:
    """Compact JSON, UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Teller:
    """Tells of one request's answers. `chat` says in which of the two forms."""

    def __init__(
        self, served: Served, prepared: Prepared, fields: dict[str, Any], fingerprint: str, chat: bool
    ) -> None:
        self.served, self.prepared, self.fields, self.chat = served, prepared, fields, chat
        self.fingerprint = fingerprint
        self.logprobs = bool(fields["logprobs"]) if chat else fields["logprobs"] is not None
        self.made: dict[int, list[int]] = {}
        self.cached: dict[int, int] = {}  # by answer: tokens of its prompt that were read before
        self._offsets: dict[int, int] = {}
        self._scores: dict[int, PromptScore] = {}  # by prompt: only the first of several answers carries it
        kind = "chat.completion" if chat else "text_completion"
        self.id = ("chatcmpl-" if chat else "cmpl-") + token_hex(12)
        self._top = {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": short(fingerprint),
        }
        chunk = self._top | ({"object": "chat.completion.chunk"} if chat else {})
        self._head = "data: " + dumps(chunk)[:-1] + ","
        self._usage = ',"usage":null' if fields["stream_options"] else ""
        self._before = '"delta":{"content":' if chat else '"text":'
        self._after = ("}" if chat else "") + ',"logprobs":null,"finish_reason":null}]' + self._usage + "}\n\n"

    # ---- whole -----------------------------------------------------------------------------------------------------

    def whole(self, answers: dict[int, list[Event]]) -> dict[str, Any]:
        """The response to a request that is not streamed."""
        choices = []
        for index, events in sorted(answers.items()):
            self.made[index] = [event.id for event in events if event.id is not None]
            self.cached[index] = events[0].reused
            said = "".join([event.text for event in events])
            finish = _FINISH[events[-1].finish or "length"]
            if self.chat:
                choices.append(self._reply(index, said, finish, events))
            else:
                choices.append(self._continued(index, said, finish, events))
        return self._top | {"choices": choices, "usage": self.usage()} | self.provenance()

    def _reply(self, index: int, said: str, finish: str, events: Sequence[Event]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if self.prepared.calls is not None:
            content, calls = self.prepared.calls.parse(said)
            if calls:
                message |= {"content": content, "tool_calls": calls}
                finish = "tool_calls"
        shown = {"content": [self.entry(event) for event in events if event.id is not None], "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": shown if self.logprobs else None,
            "finish_reason": finish,
        }

    def _continued(self, index: int, said: str, finish: str, events: Sequence[Event]) -> dict[str, Any]:
        echo = self._echo(index, events[0])
        shown = self.places(events, len(echo[0]), echo[1]) if self.logprobs else None
        return {"index": index, "text": echo[0] + said, "logprobs": shown, "finish_reason": finish}

    # ---- in pieces -------------------------------------------------------------------------------------------------

    def opening(self) -> str:
        """The first chunks, before any token."""
        if not self.chat:
            return ""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return "".join(self._chunk({"index": index, "delta": delta}) for index in range(self.prepared.samples))

    def note(self, index: int, event: Event) -> None:
        """Count a token."""
        self.cached.setdefault(index, event.reused)
        made = self.made.setdefault(index, [])
        if event.id is not None:
            made.append(event.id)

    def piece(self, index: int, event: Event, last: bool = False) -> str:
        """The chunk of one event; empty where there is nothing to show."""
        first = index not in self.made
        self.note(index, event)
        if event.finish is None and not self.logprobs and not (first and self.fields.get("echo")):
            if not event.text:
                return ""
            return self.words(index, event.text)
        choice: dict[str, Any] = {"index": index}
        if self.chat:
            choice["delta"] = {"content": event.text} if event.text or event.finish is None else {}
            shown = [self.entry(event)] if event.id is not None else []
            choice["logprobs"] = {"content": shown, "refusal": None} if self.logprobs else None
        else:
            echo = self._echo(index, event) if first else ("", None)
            choice["text"] = echo[0] + event.text
            offset = self._offsets.get(index, 0) + len(echo[0])
            choice["logprobs"] = self.places([event], offset, echo[1]) if self.logprobs else None
            self._offsets[index] = offset + len(event.text)
        choice["finish_reason"] = None if event.finish is None else _FINISH[event.finish]
        return self._chunk(choice, last)

    def words(self, index: int, text: str) -> str:
        """A chunk of text and nothing else: all but the text is ready."""
        return f'{self._head}"choices":[{{"index":{index},{self._before}{encode_basestring(text)}{self._after}'

    def told(self, index: int, text: str, event: Event) -> str:
        """A chunk of the words that an event let go, which may be none, with the probability of its token."""
        if not self.logprobs or event.id is None:
            return self.words(index, text) if text else ""
        delta = {"content": text} if text else {}
        shown = {"content": [self.entry(event)], "refusal": None}
        return self._chunk({"index": index, "delta": delta, "logprobs": shown})

    def _chunk(self, choice: dict[str, Any], last: bool = False) -> str:
        """A chunk; the last one says where the answers come from."""
        choice = {"logprobs": None, "finish_reason": None} | choice
        rest = "," + dumps(self.provenance())[1:] if last else "}"
        return f'{self._head}"choices":[{dumps(choice)}]{self._usage}{rest}\n\n'

    def calling(self, index: int, said: str, event: Event, shown: int, last: bool) -> str:
        """The last chunks of an answer that may call tools, of which `shown` characters were told already."""
        assert self.prepared.calls is not None
        _, calls = self.prepared.calls.parse(said)
        delta: dict[str, Any] = {"content": said[shown:]} if said[shown:] else {}
        if calls:
            delta = {"tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]}
        finish = "tool_calls" if calls else _FINISH[event.finish or "length"]
        return self._chunk({"index": index, "delta": delta}) + self._chunk(
            {"index": index, "delta": {}, "finish_reason": finish}, last
        )

    def ending(self) -> str:
        """What follows the last token."""
        if not self.fields["stream_options"]:
            return "data: [DONE]\n\n"
        return f'{self._head}"choices":[],"usage":{dumps(self.usage())}}}\n\ndata: [DONE]\n\n'

    def failing(self, error: ApiError) -> str:
        """What ends a stream that cannot go on."""
        return f"data: {dumps(error.body())}\n\n"

    # ---- parts -----------------------------------------------------------------------------------------------------

    def usage(self) -> dict[str, Any]:
        """Tokens read and made, and how many of those read were in the cache: answers to one prompt read it once."""
        made = sum(map(len, self.made.values()))
        read, samples = self.prepared.prompt_tokens, self.prepared.samples
        cached = sum(self.cached.get(place * samples, 0) for place in range(len(self.prepared.asked)))
        counted = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
        return counted | {"prompt_tokens_details": {"cached_tokens": cached}}

    def provenance(self) -> dict[str, Any]:
        """The seed and the settings, and all that `replay` needs to make the answers again."""
        return {
            "seed": self.prepared.sampling.seed,
            "replay": {
                "chatsmith": chatsmith.__version__,
                "fingerprint": self.fingerprint,
                "backend": self.served.model.engine.backend.name,
                "requests": [record(request) for request in self.prepared.requests],
                "answers": [self.made.get(index, []) for index in range(self.count)],
            },
        }

    @property
    def count(self) -> int:
        """The number of answers."""
        return len(self.prepared.asked) * self.prepared.samples

    def entry(self, event: Event) -> dict[str, Any]:
        """A token of a conversation with its probability."""
        assert event.id is not None
        top = [self._token(token, logprob) for token, logprob in event.top]
        return self._token(event.id, event.logprob) | {"top_logprobs": top}

    def _token(self, number: int, logprob: float) -> dict[str, Any]:
        return self.served.token(number) | {"logprob": max(logprob, _LEAST)}

    def places(self, events: Sequence[Event], offset: int, echo: dict[str, Any] | None) -> dict[str, Any]:
        """The probabilities of a continuation, in lists; those of an echoed prompt come first."""
        shown = echo or {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [], "ids": []}
        for event in events:
            if event.id is not None:
                self._place(shown, event.id, event.logprob, event.top, offset)
            offset += len(event.text)
        return shown

    def _place(self, shown: dict[str, Any], number: int, logprob: float | None, top: Top, offset: int) -> None:
        name = self.served.token(number)["token"]
        shown["ids"].append(number)
        shown["tokens"].append(name)
        shown["token_logprobs"].append(None if logprob is None else max(logprob, _LEAST))
        likeliest = {self.served.token(token)["token"]: max(value, _LEAST) for token, value in top}
        if logprob is not None:  # the token itself is always among them, as one more where it is not so likely
            likeliest.setdefault(name, max(logprob, _LEAST))
        shown["top_logprobs"].append(likeliest if logprob is not None and self.fields["logprobs"] else None)
        shown["text_offset"].append(offset)

    def _echo(self, index: int, first: Event) -> tuple[str, dict[str, Any] | None]:
        """The prompt of an answer, and the probabilities of its tokens where they are wanted."""
        place = index // self.prepared.samples
        said = self.prepared.texts[place] if self.prepared.texts else None
        if said is None:
            return "", None
        if not self.logprobs:
            return said, None
        shown: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [], "ids": []}
        request = self.prepared.requests[place]
        score = self._scores.get(place) or first.prompt
        assert score is not None
        self._scores[place] = score
        begin = self.prepared.begins[place]
        stream = TextStream(self.served.tokenizer)  # a character of several tokens counts where it ends
        pieces = [stream.push(token) for token in request.prompt[begin:]]
        # The space that some vocabularies put before a text is not in it.
        before = "".join(pieces) + stream.flush() == " " + said
        offset = -before
        for at, piece in enumerate(pieces, start=begin):
            logprob = score.logprobs[at - 1] if at else None
            top = score.top[at - 1] if at and score.top else ()
            self._place(shown, request.prompt[at], logprob, top, max(offset, 0))
            offset += len(piece)
        return said, shown


def short(fingerprint: str) -> str:
    """The fingerprint as responses show it."""
    return "fp_" + fingerprint[:24]
