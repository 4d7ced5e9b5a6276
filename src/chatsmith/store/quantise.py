"""Weights in fewer bits: int8 and int4 in groups along the inputs, each with a scale in bfloat16.

The scale is rounded before the weights are, so that its own rounding costs nothing but a slightly longer step. int8
takes the largest number of a group for 127. int4 tries several scales for each group and keeps the one with the least
squared error, symmetric (from -8 to 7) or with a zero of its own (16 steps from the least to the largest). In groups of
32, symmetric, the scale is a small whole factor times one that 128 weights share: fewer bits, and sums of 128 products
that are whole. numpy only.

Each weight then goes to the nearest step; or, where it is known what the matrix will be multiplied with, one column
after the other, the columns that are still to come taking over what rounding did to the products (GPTQ: Frantar et al.
2022, section 3).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, WorkError
from chatsmith.kernels.infer.matrix import (
    DEPTH,
    LARGEST_FACTOR,
    SPAN,
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
_ROWS = 64  # worked on at a time: what stays in a core's own cache
_ROWS_IN_ORDER = 1024  # column after column, where each takes a handful of calls
_COLUMNS = 128  # rounded before those behind them hear of it
# Of the mean of the moments, added to each one's own: the paper's choice, and more where sums in float32 lost too much.
_DAMPING = (0.01, 0.1, 1.0)
_SHARE = 128  # weights of which the factors belong to one scale, at most
_TRIES = 4  # factors of a group
_REACHES = (1.0, 0.95, 0.9, 0.85)  # what the largest factor may stand for, as parts of what reaches everything
_SHRINK = np.linspace(0.7, 1.05, 15, dtype=np.float32)  # what int4 tries, as parts of the scale that reaches everything


@dataclass(frozen=True, slots=True)
class _Grid:
    """The steps that the weights of each group may take: scale · (n - zero) for whole n from `low` to `high`.

    `scale` is [rows, groups, 1], and so is `zero`, or one number for all. A scale is exact in bfloat16, or a whole
    `factor`, in as many places, times one that is and that neighbouring groups share.
    """

    scale: Floats
    zero: Floats | int
    low: int
    high: int
    factor: Floats | None = None

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
    factors: bool = True,
    moments: NDArray[np.floating[Any]] | None = None,
) -> Matrix:
    """W [outputs, inputs] in the given kind; plain kinds know no groups. Without `factors` int4 in groups of 32,
    symmetric, has a whole scale for each group.

    `moments` [inputs, inputs] are the sums of x xᵀ over vectors x that the matrix is made for: int8 and int4 then keep
    W x rather than W. Raises `RequestError` for a group that the kernels do not know, `WorkError` for moments that are
    none.
    """
    if kind not in ("int8", "int4"):
        return plain(weight, kind)
    if group not in GROUPS:
        raise RequestError(f"a group has {', '.join(map(str, GROUPS))} weights, not {group}")
    by_factors = kind == "int4" and symmetric and group == SPAN and factors
    shared = _SHARE if by_factors else group  # weights that share a scale
    while shared > DEPTH and weight.shape[1] % shared:
        shared //= 2  # rather a smaller group than zeros to multiply with
    group = SPAN if by_factors else shared
    full = filled_up(as_floats(weight), max(shared, DEPTH))
    rows, depth = full.shape
    find = _int8 if kind == "int8" else _int4 if symmetric else _int4_with_zero
    order = None if moments is None else _order(moments, depth)
    values = np.empty((rows, depth), np.int8 if kind == "int8" else np.uint8)
    scale, zero, factor = (
        np.empty((rows, depth // size), dtype)
        for size, dtype in ((shared, np.uint16), (group, np.uint8), (group, np.int8))
    )
    at_a_time = _ROWS if order is None else _ROWS_IN_ORDER
    for start in range(0, rows, at_a_time):
        part = slice(start, start + at_a_time)
        x = full[part].reshape(-1, depth // group, group)
        grid = _int4_by_factors(x, shared // SPAN) if by_factors else find(x)
        steps = grid.nearest(x) if order is None else _in_order(x, grid, *order)
        values[part] = steps.reshape(-1, depth)
        own = grid.scale if grid.factor is None else grid.scale / grid.factor
        scale[part] = to_bfloat16(own[:, :: shared // group, 0])
        zero[part] = grid.zero if isinstance(grid.zero, int) else grid.zero[..., 0]
        factor[part] = 1 if grid.factor is None else grid.factor[..., 0]
    outputs, inputs = weight.shape
    return Matrix(
        kind,
        outputs,
        inputs,
        in_panels(values, kind),
        _table(scale),
        zero=None if kind == "int8" or symmetric else _table(zero),
        factor=_table(factor) if by_factors else None,
    )


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


def _int4_by_factors(x: Floats, groups: int) -> _Grid:
    """Each scale is a factor times one that `groups` groups share, which is chosen for them together."""
    rows = len(x)
    largest = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1) * np.float32(-0.125)
    most = np.abs(largest).reshape(rows, -1, groups).max(-1)
    found: list[tuple[_Grid, Floats]] = []
    for reach in _REACHES:
        shared = np.repeat(_exact(most * np.float32(reach / LARGEST_FACTOR)), groups, axis=1)[..., None]
        # From the factor that surely reaches everything down, with the sign that takes the largest number to -8.
        first = np.floor(np.abs(largest) * _inverse(shared)) + 1
        tried = [(first - less).clip(1, LARGEST_FACTOR) * np.where(largest < 0, -1, 1) for less in range(_TRIES)]
        best = _best(x, [_Grid(shared * factor, 8, 0, 15, factor.astype(np.float32)) for factor in tried])
        found.append((best, best.error(x).reshape(rows, -1, groups).sum(-1)))
    grid, least = found[0]
    for other, error in found[1:]:
        better = np.repeat(error < least, groups, axis=1)[..., None]
        grid, least = _either(better, other, grid), np.minimum(error, least)
    return grid


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
        best, least = _either(error < least, grid, best), np.minimum(error, least)
    return best


def _either(where: NDArray[np.bool_], one: _Grid, other: _Grid) -> _Grid:
    """One grid for the groups `where`, the other for the rest."""
    zero = one.zero if isinstance(one.zero, int) else np.where(where, one.zero, other.zero)
    factor = None if one.factor is None or other.factor is None else np.where(where, one.factor, other.factor)
    return _Grid(np.where(where, one.scale, other.scale), zero, one.low, one.high, factor)


Order = tuple[NDArray[np.intp], Floats]


def _order(moments: NDArray[np.floating[Any]], depth: int) -> Order:
    """The order to round columns in, those that matter most first, and U [depth, depth], upper, with UᵀU the inverse
    of the damped moments in that order.

    Inputs that were always 0, as those that only fill up, get moments of their own: they are rounded to nearest.
    """
    full = np.zeros((depth, depth))
    full[: len(moments), : len(moments)] = moments
    own = full.diagonal().copy()
    mean = own.mean() or 1.0
    order = np.argsort(-own, kind="stable")
    for damping in _DAMPING if np.isfinite(own).all() else ():
        full[np.diag_indices(depth)] = own + damping * mean
        # With both axes turned, the lower Cholesky factor of the moments is the inverse of U, turned as well.
        with suppress(np.linalg.LinAlgError):
            turned = np.linalg.cholesky(full[np.ix_(order[::-1], order[::-1])])
            return order, np.ascontiguousarray(np.linalg.inv(turned)[::-1, ::-1], np.float32)
    raise WorkError(
        "the inputs of a matrix are not finite, or far too large, and cannot guide its rounding",
        "leave out --calibrate",
    )


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
