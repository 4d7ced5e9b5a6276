"""Every limit of the server in one table: what it is called, what it is unless told otherwise, and why it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.tables import Column, Table


def _limit(default: float, meaning: str, least: float = 1) -> Any:
    return field(default=default, metadata={"meaning": meaning, "least": least})


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server; see `explain` for what each is about. A request beyond one is refused, never cut."""

    body_bytes: int = _limit(2**20, "bytes of a request's body", 1024)
    header_bytes: int = _limit(2**14, "bytes of a request's headers", 1024)
    header_seconds: float = _limit(10, "seconds until a request's headers are there, and as many again for its body")
    idle_seconds: float = _limit(15, "seconds that a connection may wait for its next request")
    connections: int = _limit(256, "open connections")
    connections_per_address: int = _limit(64, "open connections from one address")
    json_depth: int = _limit(32, "levels of a request's JSON", 4)
    messages: int = _limit(128, "messages of a conversation")
    prompts: int = _limit(16, "prompts of one request")
    n: int = _limit(8, "answers to one prompt")
    answers: int = _limit(32, "answers of one request, over all prompts")
    stop: int = _limit(4, "stop texts")
    stop_characters: int = _limit(64, "characters of a stop text")
    top_logprobs: int = _limit(20, "likeliest tokens shown at each place")
    logit_bias: int = _limit(300, "tokens with a bias")
    tools: int = _limit(64, "tools of one request")
    schema_bytes: int = _limit(2**14, "bytes of a JSON schema", 64)
    temperature: float = _limit(2, "highest temperature", 0)
    next_count: int = _limit(200, "ranked tokens that /v1/next shows")
    running: int = _limit(8, "answers worked on at a time")
    waiting: int = _limit(64, "requests in the line; further ones get 429", 0)
    cache_bytes: int = _limit(
        2**30, "bytes of keys and values, with the beginnings that are kept to be read again", 2**20
    )
    request_seconds: float = _limit(300, "seconds of one request, its time in the line included")
    reader_seconds: float = _limit(30, "seconds that a reader may leave a full connection unread")
    ping_seconds: float = _limit(15, "seconds of silence after which a stream shows that it is alive")
    requests_per_minute: int = _limit(60, "requests a minute by one key")
    tokens_per_minute: int = _limit(60_000, "tokens a minute, read and written, by one key")
    drain_seconds: float = _limit(30, "seconds that running requests have when the server is told to stop", 0)

    @classmethod
    def of(cls, settings: Iterable[str] = ()) -> Limits:
        """The defaults with "name=number" settings; bytes may be written as in 512MiB.

        Raises `RequestError` for one that is unknown or out of bounds.
        """
        known = {entry.name: entry for entry in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        for setting in settings:
            name, is_set, text = setting.partition("=")
            entry = known.get(name.strip().replace("-", "_"))
            if entry is None:
                raise RequestError(f"no limit called {name!r}", did_you_mean(name, known))
            if not is_set:
                raise RequestError(f"limit {name} needs a number", f"for example {name}={entry.default}")
            whole = entry.type == "int"
            try:
                value = (_bytes(text) if entry.name.endswith("_bytes") else int(text)) if whole else float(text)
            except ValueError:
                raise RequestError(f"{entry.name} must be a {'whole ' if whole else ''}number, not {text!r}") from None
            if not entry.metadata["least"] <= value <= 2**40:
                raise RequestError(f"{entry.name} must be from {entry.metadata['least']:,} to {2**40:,}, not {text}")
            given[entry.name] = value
        return cls(**given)

    def explain(self) -> Table:
        """The limits in force."""
        rows = tuple((name, f"{value:,}", meaning) for name, value, meaning in self.rows())
        columns = (Column("limit", "left", code=True), Column("value"), Column("of what", "left", wrap=True))
        return Table("limits", columns, rows)

    def rows(self) -> list[tuple[str, float, str]]:
        """Name, value and meaning of each."""
        return [
            (entry.name, getattr(self, entry.name), str(entry.metadata["meaning"]))
            for entry in dataclasses.fields(self)
        ]


_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _bytes(text: str) -> int:
    """A number of bytes: 4096, 512MiB. Raises `ValueError`."""
    text = text.strip()
    unit = _UNITS.get(text[-3:], 1)
    return int(text.removesuffix(text[-3:]) if unit > 1 else text) * unit
