"""Weights in fewer bits: int8 and int4 in groups along the inputs, each with a scale in bfloat16.

The scale is rounded before the weights are, so that its own rounding costs nothing but a slightly longer step. int8
takes the largest number of a group for 127. int4 tries several scales for each group and keeps the one with the least
squared error, symmetric (from -8 to 7) or with a zero of its own (16 steps from the least to the largest). numpy only.

Each weight then goes to the nearest step; or, where it is known what the matrix will be multiplied with, one column
after the other, the columns that are still to come taking over what rounding did to the products (GPTQ: Frantar et al.
2022, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
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
_COLUMNS = 128  # rounded before those behind them hear of it
_DAMPING = 0.01  # of the mean of the moments, added to each one's own: the paper's choice
_SHRINK = np.linspace(0.7, 1.05, 15, dtype=np.float32)  # what int4 tries, as parts of the scale that reaches everything


@dataclass(frozen=True, slots=True)
class _Grid:
    """The steps that the weights of each group may take: scale · (n - zero) for whole n from `low` to `high`.

    `scale` is [rows, groups, 1] and exact in bfloat16; so is `zero`, or one number for all.
    """

    scale: Floats
    zero: Floats | int
    low: int
    high: int

    def nearest(self, x: Floats) -> Floats:
        """The n of the step nearest to each of x [rows, groups, group]."""
        return (np.rint(x * _inverse(self.scale)) + self.zero).clip(self.low, self.high)

    def values(self, steps: Floats) -> Floats:
        """What the steps stand for."""
        return (steps - self.zero) * self.scale

    def error(self, x: Floats) -> Floats:
        """The squared error of each group, [rows, groups, 1]."""
        error: Floats = ((self.values(self.nearest(x)) - x) ** 2).sum(-1, keepdims=True)
        return error


def quantised(
    weight: NDArray[Any],
    kind: Kind,
    *,
    group: int = 64,
    symmetric: bool = True,
    moments: NDArray[np.floating[Any]] | None = None,
) -> Matrix:
    """W [outputs, inputs] in the given kind; plain kinds know no groups.

    `moments` [inputs, inputs] are the sums of x xᵀ over vectors x that the matrix is made for: int8 and int4 then keep
    W x rather than W. Raises `RequestError` for a group that the kernels do not know.
    """
    if kind not in ("int8", "int4"):
        return plain(weight, kind)
    if group not in GROUPS:
        raise RequestError(f"a group has {', '.join(map(str, GROUPS))} weights, not {group}")
    while group > DEPTH and weight.shape[1] % group:
        group //= 2  # rather a smaller group than zeros to multiply with
    full = filled_up(as_floats(weight), max(group, DEPTH))
    rows, depth = full.shape
    find = _int8 if kind == "int8" else _int4 if symmetric else _int4_with_zero
    factor = None if moments is None else _factor(moments, depth)
    values = np.empty((rows, depth), np.int8 if kind == "int8" else np.uint8)
    scale, zero = np.empty((rows, depth // group), np.uint16), np.empty((rows, depth // group), np.uint8)
    for start in range(0, rows, _ROWS):
        part = slice(start, start + _ROWS)
        x = full[part].reshape(-1, depth // group, group)
        grid = find(x)
        steps = grid.nearest(x) if factor is None else _in_order(x, grid, *factor)
        values[part] = steps.reshape(-1, depth)
        scale[part] = to_bfloat16(grid.scale[..., 0])
        zero[part] = grid.zero if isinstance(grid.zero, int) else grid.zero[..., 0]
    outputs, inputs = weight.shape
    zeros = None if kind == "int8" or symmetric else _table(zero)
    return Matrix(kind, outputs, inputs, in_panels(values, kind), _table(scale), zeros)


def _table(values: NDArray[Any]) -> NDArray[Any]:
    """[outputs, groups] as [panels, groups, 16]."""
    return np.ascontiguousarray(values.reshape(-1, 16, values.shape[1]).transpose(0, 2, 1))


def _inverse(scale: Floats) -> Floats:
    """One over the scale; 0 where a group is all zeros."""
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def _exact(scale: Floats) -> Floats:
    """The scale as bfloat16 keeps it."""
    return from_bfloat16(to_bfloat16(scale))


def _int8(x: Floats) -> _Grid:
    """x [rows, groups, group]."""
    largest = np.abs(x).max(-1, keepdims=True)
    return _Grid(_exact(largest * np.float32(1.004 / 127)), 0, -127, 127)  # rounding must not cut the largest off


def _int4(x: Floats) -> _Grid:
    """The largest number of a group goes to -8, whichever its sign: scales may be negative."""
    largest = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1) * np.float32(-0.125)

    def grid(scale: Floats) -> _Grid:
        return _Grid(_exact(scale), 8, 0, 15)

    best = _best(x, [grid(largest), *(grid(largest * shrink) for shrink in _SHRINK)])
    # With the roundings as they are, least squares gives a slightly better scale; kept where it is one.
    steps = best.nearest(x) - 8
    fitted = (steps * x).sum(-1, keepdims=True) * _inverse((steps**2).sum(-1, keepdims=True))
    return _best(x, [best, grid(fitted)])


def _int4_with_zero(x: Floats) -> _Grid:
    low, high = (np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0))

    def grid(scale: Floats) -> _Grid:
        kept = _exact(scale)
        return _Grid(kept, np.rint(-(low + high) / 2 * _inverse(kept) + np.float32(7.5)).clip(0, 15), 0, 15)

    widest = (high - low) * np.float32(1 / 15)
    return _best(x, [grid(widest), *(grid(widest * shrink) for shrink in _SHRINK)])


def _best(x: Floats, grids: list[_Grid]) -> _Grid:
    """For each group the grid with the least squared error; of equals the first."""
    best, least = grids[0], grids[0].error(x)
    for grid in grids[1:]:
        error = grid.error(x)
        better = error < least
        zero = best.zero if isinstance(grid.zero, int) else np.where(better, grid.zero, best.zero)
        best = _Grid(np.where(better, grid.scale, best.scale), zero, best.low, best.high)
        least = np.where(better, error, least)
    return best


Factor = tuple[NDArray[np.intp], Floats]


def _factor(moments: NDArray[np.floating[Any]], depth: int) -> Factor:
    """The order to round columns in, those that matter most first, and U [depth, depth], upper, with UᵀU the inverse
    of the damped moments in that order.

    Inputs that were always 0, as those that only fill up, get moments of their own: they are rounded to nearest.
    """
    full = np.zeros((depth, depth))
    full[: len(moments), : len(moments)] = moments
    own = full.diagonal().copy()
    mean = own.mean() or 1.0
    full[np.diag_indices(depth)] += _DAMPING * mean
    order = np.argsort(-own, kind="stable")
    # With both axes turned round, the lower Cholesky factor of the moments is the inverse of U, turned round as well.
    turned = np.linalg.cholesky(full[np.ix_(order[::-1], order[::-1])])
    return order, np.ascontiguousarray(np.linalg.inv(turned)[::-1, ::-1], np.float32)


def _in_order(x: Floats, grid: _Grid, order: NDArray[np.intp], upper: Floats) -> Floats:
    """The steps of x [rows, groups, group], column after column in this order; the error that a column leaves in the
    products is taken over, as far as it can be, by those that come after it."""
    rows, depth = len(x), x.shape[1] * x.shape[2]

    def by_column(numbers: Floats) -> Floats:
        return np.ascontiguousarray(np.broadcast_to(numbers, x.shape).reshape(rows, depth).T[order])

    left, scale = by_column(x), by_column(grid.scale)
    inverse = _inverse(scale)
    zero = grid.zero if isinstance(grid.zero, int) else by_column(grid.zero)
    steps = np.empty_like(left)
    for first in range(0, depth, _COLUMNS):
        last = min(first + _COLUMNS, depth)
        errors = np.empty((last - first, rows), np.float32)
        for column in range(first, last):
            own = zero if isinstance(zero, int) else zero[column]
            steps[column] = (np.rint(left[column] * inverse[column]) + own).clip(grid.low, grid.high)
            missed = left[column] - (steps[column] - own) * scale[column]
            errors[column - first] = missed / upper[column, column]
            left[column + 1 : last] -= np.outer(upper[column, column + 1 : last], errors[column - first])
        left[last:] -= upper[first:last, last:].T @ errors
    back = np.empty_like(steps)
    back[order] = steps
    return back.T.reshape(x.shape)
