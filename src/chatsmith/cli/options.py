"""Flags that several commands share: settings of the library, under the same names."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from chatsmith.errors import RequestError

_MAX_STDIN = 16 * 2**20  # bytes; far beyond any context
_SAMPLING = Group("Sampling", sort_key=9)

Json = Annotated[bool, Parameter(name="--json", help="Print JSON.")]

Cache = Annotated[
    Literal["bf16", "int8"] | None,
    Parameter(help="What keys and values are kept in on the CPU (default: f32 for weights in f32, else bf16)."),
]
Field = Annotated[str | None, Parameter(help="The field of JSON, CSV or Parquet records that holds the text.")]
Duplicates = Annotated[
    Literal["keep", "exact", "near"], Parameter(help="Which documents that came before are dropped.")
]
Hidden = Annotated[bool, Parameter(help="Also read hidden files and folders.")]
Tests = Annotated[
    tuple[Path, ...],
    Parameter(name="--clean-of", help="Files of tests whose text is to be cut out; may be given several times."),
]


def _flag(help: str, **more: Any) -> Parameter:
    return Parameter(help=help, group=_SAMPLING, **more)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ChoiceFlags:
    """How a word is chosen; what is left out is the model folder's own setting, else the library's default."""

    temperature: Annotated[float | None, _flag("Below 1 sharper, above 1 wilder; 0 takes the likeliest token.")] = None
    top_k: Annotated[int | None, _flag("Keep only the k likeliest tokens; 0 keeps all.")] = None
    top_p: Annotated[float | None, _flag("Keep the fewest tokens that together reach this probability.")] = None
    min_p: Annotated[float | None, _flag("Keep tokens at least this fraction as likely as the likeliest.")] = None
    repetition_penalty: Annotated[float | None, _flag("Above 1: tokens already said become less likely.")] = None
    presence_penalty: Annotated[float | None, _flag("Above 0: tokens of the answer become less likely, -2 to 2.")] = (
        None
    )
    frequency_penalty: Annotated[float | None, _flag("The same, as often as they occur.")] = None
    seed: Annotated[int | None, _flag("The same seed gives the same text.")] = None

    def given(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        pairs = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in pairs.items() if value is not None and value != ()}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class SamplingFlags(ChoiceFlags):
    """How words are chosen, and where an answer ends."""

    stop: Annotated[
        tuple[str, ...], _flag("A text that ends the answer; may be given several times.", allow_leading_hyphen=True)
    ] = ()
    max_tokens: Annotated[int | None, _flag("The most tokens to make.")] = None


def text_argument(help: str) -> Parameter:
    """An argument that is text and may begin with -."""
    return Parameter(help=help, allow_leading_hyphen=True)


def given_text(text: str) -> str:
    """The text of an argument; "-" means what is on stdin, without the line end that closes it."""
    from chatsmith.text.tokenizer_engines import without_surrogates

    if text != "-":
        return without_surrogates(text)  # bytes of the command line that are no UTF-8
    if sys.stdin is None or sys.stdin.isatty():
        raise RequestError("no text was given", 'put it in quotes, as in "Once upon a time", or pipe it in')
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN:
        raise RequestError(f"the text on stdin is longer than {_MAX_STDIN:,} bytes", "give a part of it")
    return data.decode("utf-8", errors="replace").removesuffix("\n")
