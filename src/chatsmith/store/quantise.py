"""Weights in fewer bits: int8 and int4 in groups along the inputs, each with a scale in bfloat16.

The scale is rounded before the weights are, so that its own rounding costs nothing but a slightly longer step. int8
takes the largest number of a group for 127. int4 tries several scales for each group and keeps the one with the least
squared error, symmetric (from -8 to 7) or with a zero of its own (16 steps from the least to the largest). numpy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError
from chatsmith.kernels.infer.matrix import (
    DEPTH,
    Floats,
    Kind,
    Matrix,
    as_floats,
    filled_up,
    from_bfloat16,
    in_panels,
    plain,
    to_bfloat16,
)

GROUPS = (32, 64, 128)
_ROWS = 512  # worked on at a time
_SHRINK = np.linspace(0.7, 1.05, 15, dtype=np.float32)  # what int4 tries, as parts of the scale that reaches everything

Rounded = tuple[NDArray[np.int8] | NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8] | None]


def quantised(weight: NDArray[Any], kind: Kind, *, group: int = 64, symmetric: bool = True) -> Matrix:
    """W [outputs, inputs] in the given kind; plain kinds know no groups."""
    if kind not in ("int8", "int4"):
        return plain(weight, kind)
    if group not in GROUPS:
        raise RequestError(f"a group has {', '.join(map(str, GROUPS))} weights, not {group}")
    while group > DEPTH and weight.shape[1] % group:
        group //= 2  # rather a smaller group than zeros to multiply with
    full = filled_up(as_floats(weight), max(group, DEPTH))
    rows, depth = full.shape
    round_: Callable[[Floats], Rounded] = _int8 if kind == "int8" else _int4 if symmetric else _int4_with_zero
    parts = [round_(full[start : start + _ROWS].reshape(-1, depth // group, group)) for start in range(0, rows, _ROWS)]
    values = np.concatenate([part[0] for part in parts]).reshape(rows, depth)
    zeros = [part[2] for part in parts if part[2] is not None]
    scale = _table(np.concatenate([part[1] for part in parts]))
    zero = _table(np.concatenate(zeros)) if zeros else None
    outputs, inputs = weight.shape
    return Matrix(kind, outputs, inputs, in_panels(values, kind), scale, zero)


def _table(values: NDArray[Any]) -> NDArray[Any]:
    """[outputs, groups] as [panels, groups, 16]."""
    return np.ascontiguousarray(values.reshape(-1, 16, values.shape[1]).transpose(0, 2, 1))


def _int8(x: Floats) -> Rounded:
    """x [rows, groups, group]."""
    scale = to_bfloat16(np.abs(x).max(-1) * np.float32(1.004 / 127))  # rounding the scale must not cut the largest off
    return np.rint(x * _inverse(from_bfloat16(scale))[..., None]).clip(-127, 127).astype(np.int8), scale, None


def _inverse(scale: Floats) -> Floats:
    """One over the scale; 0 where a group is all zeros."""
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def _int4(x: Floats) -> Rounded:
    """The largest number of a group goes to -8, whichever its sign: scales may be negative."""
    largest = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0] * np.float32(-0.125)

    def attempt(scale: Floats) -> tuple[Floats, Floats]:
        steps = np.rint(x * _inverse(scale)[..., None]).clip(-8, 7)
        return steps, ((steps * scale[..., None] - x) ** 2).sum(-1)

    best = _best(largest, attempt)
    # With the roundings as they are, least squares gives a slightly better scale; kept where it is one.
    steps, error = attempt(best)
    fitted = from_bfloat16(to_bfloat16((steps * x).sum(-1) * _inverse((steps**2).sum(-1))))
    best = np.where(attempt(fitted)[1] < error, fitted, best)
    return (attempt(best)[0] + 8).astype(np.uint8), to_bfloat16(best), None


def _int4_with_zero(x: Floats) -> Rounded:
    low, high = np.minimum(x.min(-1), 0), np.maximum(x.max(-1), 0)

    def zero_of(scale: Floats) -> Floats:
        return np.rint(-(low + high) / 2 * _inverse(scale) + np.float32(7.5)).clip(0, 15)

    def attempt(scale: Floats) -> tuple[Floats, Floats]:
        zero = zero_of(scale)[..., None]
        steps = (np.rint(x * _inverse(scale)[..., None]) + zero).clip(0, 15)
        return steps, (((steps - zero) * scale[..., None] - x) ** 2).sum(-1)

    best = _best((high - low) * np.float32(1 / 15), attempt)
    return attempt(best)[0].astype(np.uint8), to_bfloat16(best), zero_of(best).astype(np.uint8)


def _best(scale: Floats, attempt: Callable[[Floats], tuple[Floats, Floats]]) -> Floats:
    """Of the scale and shorter ones, for each group the one with the least error; all can be kept in bfloat16."""
    best = from_bfloat16(to_bfloat16(scale))
    least = attempt(best)[1]
    for shrink in _SHRINK:
        tried = from_bfloat16(to_bfloat16(scale * shrink))
        error = attempt(tried)[1]
        better = error < least
        best, least = np.where(better, tried, best), np.where(better, error, least)
    return best
