"""Arguments that callers give, checked where they come in: a wrong kind or size is a wrong request, in one line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError


def whole(name: str, value: Any, low: int, high: int, hint: str | None = None) -> int:
    """A whole number from `low` to `high`, numpy's among them; else `RequestError`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RequestError(f"{name} must be a whole number, not {short(value)}", hint)
    if not low <= int(value) <= high:
        raise RequestError(f"{name} must be from {low} to {high}, not {short(value)}", hint)
    return int(value)


def number(name: str, value: Any, low: float, high: float, hint: str | None = None, *, above: bool = False) -> float:
    """A finite number from `low` (beyond it, with `above`) to `high`; else `RequestError`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not is_finite(value):
        raise RequestError(f"{name} must be a number, not {short(value)}", hint)
    if not low <= float(value) <= high or (above and value == low):
        span = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise RequestError(f"{name} must be {span}, not {short(value)}", hint)
    return float(value)


def is_finite(value: Real | float) -> bool:
    """Whether a number is one that a float can hold: finite, and no whole number beyond all floats."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def text(name: str, value: Any, hint: str | None = None) -> str:
    """A text; else `RequestError`."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a text, not {short(value)}", hint)
    return value


def path(name: str, value: Any) -> Path:
    """The name of a file or folder; else `RequestError`."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise RequestError(f"{name} must be a path, not {short(value)}")
    return Path(value)


def several(name: str, value: Any, of: str) -> tuple[Any, ...]:
    """The items of a list or another iterable; one text, which would be taken apart, is no list: `RequestError`."""
    if isinstance(value, (str, bytes, os.PathLike, Mapping)) or not isinstance(value, Iterable):
        raise RequestError(f"{name} must be a list of {of}, not {short(value)}")
    return tuple(value)


def short(value: Any) -> str:
    """A value as it was given, in few characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"
