"""Answers that must have a form: a JSON schema, a regular expression or a grammar. llguidance says what may follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import MissingExtra, RequestError
from chatsmith.text.tokenizer import Tokenizer

MAX_LENGTH = 64 * 1024
"""The most characters of a schema, expression or grammar."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form of an answer: a JSON `schema` (its text), a `regex`, or a `grammar` in Lark's notation."""

    kind: Literal["schema", "regex", "grammar"]
    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MAX_LENGTH:
            raise RequestError(f"a {self.kind} may have {MAX_LENGTH:,} characters, not {len(self.text):,}")

    @classmethod
    def schema(cls, schema: dict[str, Any] | str) -> Constraint:
        """Any JSON that a JSON schema describes; {} is any JSON at all."""
        if isinstance(schema, str):
            return cls("schema", schema)
        try:
            return cls("schema", json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"this schema is no JSON: {error}") from None


# One way to write it: a model that has nothing to say could fill an answer with spaces and line ends.
# What a schema says of its own layout ("x-guidance") does not count.
_LAYOUT: Any = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "item_separator": ", ",
    "key_separator": ": ",
}


def embedded(schema: dict[str, Any]) -> str:
    """A JSON schema as a grammar embeds it after %json, laid out as `Constraint.schema` lays it out."""
    return json.dumps(schema | {"x-guidance": _LAYOUT})


_tokenizers: WeakKeyDictionary[Tokenizer, Any] = WeakKeyDictionary()


class Matcher:
    """One answer's way through a constraint."""

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer) -> None:
        try:
            import llguidance
        except ModuleNotFoundError:
            raise MissingExtra("llguidance", "constrain", "an answer of a given form") from None
        make = llguidance.LLMatcher
        try:
            if constraint.kind == "schema":
                grammar = make.grammar_from_json_schema(constraint.text, overrides=_LAYOUT)
            elif constraint.kind == "regex":
                grammar = make.grammar_from_regex(constraint.text)
            else:
                grammar = make.grammar_from_lark(constraint.text)
        except ValueError as error:
            raise _refused(constraint, str(error)) from None
        known = _tokenizers.get(tokenizer)
        if known is None:
            known = _tokenizers[tokenizer] = llguidance.LLTokenizer(_Wrapper(tokenizer))  # type: ignore[arg-type]
        self._vocab_size = tokenizer.vocab_size
        self._matcher = make(known, grammar, log_level=0)
        self._ends = tokenizer.stop_ids
        self._end = tokenizer.end_of_text
        self.fault: Literal["stuck", "large"] | None = None
        """Why no token could go on: the vocabulary has none, or there is more to keep track of than llguidance does.
        The end is then allowed for want of any, and the answer has not its form."""
        self._check(constraint)

    def _check(self, constraint: Constraint) -> None:
        if self._matcher.is_error():
            raise _refused(constraint, self._matcher.get_error())
        first = self.allowed()
        if self.fault == "large":
            raise _refused(constraint, self._matcher.get_error())
        if constraint.kind == "schema":  # whose answers are never empty
            first[[*self._ends, self._end]] = False
        if self.fault or not first.any():
            raise _refused(constraint, "no answer has this form")

    def allowed(self) -> NDArray[np.bool_]:
        """The tokens that may come next, [V] of bool."""
        allowed = np.zeros(self._vocab_size, np.bool_)
        if not self._matcher.is_stopped():
            bits = np.zeros(-(-self._vocab_size // 32), np.int32)
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            allowed = np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocab_size].astype(np.bool_)
        elif not self._matcher.is_error():  # it stops by itself where the form is complete
            allowed[self._end] = True
            return allowed
        if self._matcher.is_error():
            allowed[:] = False
            self.fault = "stuck" if self._matcher.get_error().startswith("NoExtension") else "large"
        elif not allowed.any():  # a vocabulary may lack what must come
            self.fault = "stuck"
        if self.fault or allowed[self._end]:
            allowed[list(self._ends)] = True
        return allowed

    def take(self, token: int) -> None:
        """A token has been chosen."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(self._end if token in self._ends else token)

    def copy(self) -> Matcher:
        """A second one that goes on from here."""
        other = object.__new__(Matcher)
        other.__dict__.update(self.__dict__, _matcher=self._matcher.deep_copy())
        return other


def _refused(constraint: Constraint, why: str) -> RequestError:
    first, *rest = why.strip().splitlines()
    # A fault in an expression is told below it, under a line that points to the place.
    causes = [line.removeprefix("error: ") for line in rest if line.startswith("error: ")]
    return RequestError(f"this {constraint.kind} cannot be used: {' '.join([first, *causes])[:200]}")


class _Wrapper:
    """A tokenizer as llguidance wants to see it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id, self.bos_token_id = tokenizer.end_of_text, None
        self.tokens = [_bytes(tokenizer, token) for token in range(tokenizer.vocab_size)]
        self._special = frozenset(tokenizer.added.values())
        self.special_token_ids = sorted(self._special)
        self._encode = tokenizer.encode_bytes
        self.is_tokenizer_wrapper = True

    def __call__(self, text: bytes | str) -> list[int]:
        """Ids of exactly these bytes, or of as many at their beginning as the vocabulary can write."""
        data = text.encode() if isinstance(text, str) else text
        ids, at = [], 0
        for token in self._encode(data):
            said = self.tokens[token]
            if token in self._special or not data.startswith(said, at):
                break
            ids.append(token)
            at += len(said)
        return ids


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    return tokenizer.decode_bytes([token])
