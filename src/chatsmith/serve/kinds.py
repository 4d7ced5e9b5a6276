"""The kinds of value that a request may have: how each is read from JSON, and the JSON schema that says the same.

What is read is bounded here, before anything is made of it. A bound is a number, or the name of one: of a limit of the
server ("top_logprobs") or of the model ("context", "vocab_size").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chatsmith.serve.errors import wrong
from chatsmith.text.tokenizer_engines import without_surrogates

Bounds = Mapping[str, float]
Schema = dict[str, Any]
Bound = float | str


class Kind(Protocol):
    """Reads a value that is not null, or says what is wrong with it."""

    def read(self, value: Any, name: str, bounds: Bounds) -> Any:
        """The value as the server works with it. Raises `ApiError` with the field's name."""

    def schema(self, bounds: Bounds) -> Schema:
        """What is read, as a JSON schema."""


def bound(of: Bound, bounds: Bounds) -> float:
    """The number behind a bound."""
    return bounds[of] if isinstance(of, str) else of


def listed(value: Any, name: str, most: float, least: int = 0) -> list[Any]:
    """A list of bounded length."""
    if not isinstance(value, list):
        raise wrong(name, f"must be a list, not {_kind(value)}")
    if not least <= len(value) <= most:
        raise wrong(name, f"must have from {least} to {most:,.0f} entries, not {len(value):,}")
    return value


def text(value: Any, name: str, most: float, least: int = 0) -> str:
    """A text of bounded length; halves of characters, which JSON can spell, become U+FFFD."""
    if not isinstance(value, str):
        raise wrong(name, f"must be a text, not {_kind(value)}")
    if not least <= len(value) <= most:
        raise wrong(name, f"must have from {least} to {most:,.0f} characters, not {len(value):,}")
    return without_surrogates(value)


def tellable(value: Any, name: str) -> Any:
    """JSON that can be written again: halves of characters in it become U+FFFD, and 1e999 is refused."""
    try:
        return json.loads(without_surrogates(json.dumps(value, ensure_ascii=False, allow_nan=False)))
    except ValueError:
        raise wrong(name, "must have numbers up to 1.8e308") from None


def mapping(value: Any, name: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(name, f"must be an object, not {_kind(value)}")
    return value


def whole(value: Any, name: str, low: float, high: float) -> int:
    """A whole number within bounds; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, f"must be a whole number, not {_kind(value)}")
    if not low <= value <= high:
        raise wrong(name, f"must be from {int(low)} to {int(high)}")
    return value


def _kind(value: Any) -> str:
    named = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return named.get(type(value), "a fraction" if isinstance(value, float) else "a number")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    low: Bound
    high: Bound

    def read(self, value: Any, name: str, bounds: Bounds) -> int:
        """See `Kind`."""
        return whole(value, name, bound(self.low, bounds), bound(self.high, bounds))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        low, high = int(bound(self.low, bounds)), int(bound(self.high, bounds))
        return {"type": "integer", "minimum": low, "maximum": high}


@dataclass(frozen=True, slots=True)
class Exactly:
    """A whole number that can only be one."""

    only: Bound
    why: str

    def read(self, value: Any, name: str, bounds: Bounds) -> int:
        """See `Kind`."""
        only = int(bound(self.only, bounds))
        if isinstance(value, bool) or value != only:
            raise wrong(name, f"must be {only} or left out: {self.why}")
        return only

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": "integer", "enum": [int(bound(self.only, bounds))]}


@dataclass(frozen=True, slots=True)
class Number:
    """A number, finite; `above` leaves out the lower bound itself."""

    low: Bound
    high: Bound
    above: bool = False

    def read(self, value: Any, name: str, bounds: Bounds) -> float:
        """See `Kind`."""
        low, high = bound(self.low, bounds), bound(self.high, bounds)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(name, f"must be a number, not {_kind(value)}")
        if not low <= value <= high or (self.above and value == low):  # NaN is in no interval
            raise wrong(name, f"must be {f'above {low:g}, up' if self.above else f'from {low:g}'} to {high:g}")
        return float(value)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        least = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", least: bound(self.low, bounds), "maximum": bound(self.high, bounds)}


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: Any, name: str, bounds: Bounds) -> bool:
        """See `Kind`."""
        if not isinstance(value, bool):
            raise wrong(name, f"must be true or false, not {_kind(value)}")
        return value

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Text:
    """A text."""

    most: Bound = "body_bytes"
    least: int = 0

    def read(self, value: Any, name: str, bounds: Bounds) -> str:
        """See `Kind`."""
        return text(value, name, bound(self.most, bounds), self.least)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": "string", "minLength": self.least, "maxLength": int(bound(self.most, bounds))}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, value: Any, name: str, bounds: Bounds) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or value not in self.words:
            raise wrong(name, f"must be one of {', '.join(self.words)}")
        return value

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Words:
    """A list of some of these words; read as a tuple."""

    words: tuple[str, ...]
    least: int = 1

    def read(self, value: Any, name: str, bounds: Bounds) -> tuple[str, ...]:
        """See `Kind`."""
        given = listed(value, name, len(self.words), self.least)
        return tuple(Choice(self.words).read(one, name, bounds) for one in given)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        one = Choice(self.words).schema(bounds)
        return {"type": "array", "items": one, "minItems": self.least, "maxItems": len(self.words)}


@dataclass(frozen=True, slots=True)
class Texts:
    """A text or a list of texts; read as a tuple."""

    count: Bound
    most: Bound
    least: int = 1

    def read(self, value: Any, name: str, bounds: Bounds) -> tuple[str, ...]:
        """See `Kind`."""
        values = [value] if isinstance(value, str) else listed(value, name, bound(self.count, bounds))
        return tuple(text(one, name, bound(self.most, bounds), self.least) for one in values)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        one = Text(self.most, self.least).schema(bounds)
        return {"anyOf": [one, {"type": "array", "items": one, "maxItems": int(bound(self.count, bounds))}]}


@dataclass(frozen=True, slots=True)
class Ids:
    """Token ids of the model's vocabulary, as many as the context holds."""

    least: int = 0

    def read(self, value: Any, name: str, bounds: Bounds) -> tuple[int, ...]:
        """See `Kind`."""
        most = bounds["vocab_size"] - 1
        return tuple(whole(one, name, 0, most) for one in listed(value, name, bounds["context"], self.least))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        one = {"type": "integer", "minimum": 0, "maximum": int(bounds["vocab_size"]) - 1}
        return {"type": "array", "items": one, "minItems": self.least, "maxItems": int(bounds["context"])}


@dataclass(frozen=True, slots=True)
class Prompts:
    """A text, a list of texts, a list of token ids, or a list of such lists; read as a list of texts and tuples."""

    def read(self, value: Any, name: str, bounds: Bounds) -> list[str | tuple[int, ...]]:
        """See `Kind`."""
        most = bounds["body_bytes"]
        if isinstance(value, str):
            return [text(value, name, most)]
        values = listed(value, name, bounds["body_bytes"], 1)
        if isinstance(values[0], int):
            return [Ids(1).read(values, name, bounds)]
        return [
            text(one, name, most) if isinstance(one, str) else Ids(1).read(one, name, bounds)
            for one in listed(values, name, bounds["prompts"], 1)
        ]

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        words, ids = Text().schema(bounds), Ids(1).schema(bounds)
        many = {"type": "array", "items": {"anyOf": [words, ids]}, "minItems": 1, "maxItems": int(bounds["prompts"])}
        return {"anyOf": [words, ids, many]}


@dataclass(frozen=True, slots=True)
class Biases:
    """An object from token ids, as text, to numbers that are added to their logits; read as pairs."""

    def read(self, value: Any, name: str, bounds: Bounds) -> tuple[tuple[int, float], ...]:
        """See `Kind`."""
        given = mapping(value, name)
        if len(given) > bounds["logit_bias"]:
            raise wrong(name, f"must have at most {bounds['logit_bias']:,.0f} entries, not {len(given):,}")
        pairs: dict[int, float] = {}
        for key, bias in given.items():
            if not (key.isascii() and key.isdigit() and len(key) <= 9 and int(key) < bounds["vocab_size"]):
                raise wrong(name, f"must name token ids from 0 to {bounds['vocab_size'] - 1:.0f}")
            pairs[int(key)] = Number(-100, 100).read(bias, name, bounds)
        return tuple(sorted(pairs.items()))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        number = Number(-100, 100).schema(bounds)
        names = {"pattern": "^[0-9]{1,9}$"}
        most = int(bounds["logit_bias"])
        return {"type": "object", "additionalProperties": number, "propertyNames": names, "maxProperties": most}


@dataclass(frozen=True, slots=True)
class Anything:
    """What clients send and this server has no use for: any JSON of the named types."""

    types: tuple[str, ...] = ("string", "number", "boolean", "object", "array")

    def read(self, value: Any, name: str, bounds: Bounds) -> None:
        """See `Kind`."""
        kinds = {"string": str, "number": (int, float), "boolean": bool, "object": dict, "array": list}
        wanted = [kinds[one] for one in self.types]
        if isinstance(value, bool) and "boolean" not in self.types:
            raise wrong(name, "must not be true or false")
        if not any(isinstance(value, one) for one in wanted):  # type: ignore[arg-type]
            raise wrong(name, f"must be of type {' or '.join(self.types)}")

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": list(self.types)}
