"""Weight matrices in panels, as the kernels read them (infer.h draws the layouts), made and read with numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["f32", "f16", "bf16", "int8", "int4"]
KINDS: tuple[Kind, ...] = ("f32", "f16", "bf16", "int8", "int4")
PANEL = 16
DEPTH = 64
"""Depths are filled up to a multiple of this: a row of a matrix tile, in bytes."""
SPAN = 32
"""Weights of int4 that share a factor, where a group has several."""
LARGEST_FACTOR = 15
"""So that a factor times a weight of int4, from -8 to 7, is an int8."""
# Numbers of the sum that lie side by side for each output, and the dtype that holds them.
_SIDE: dict[Kind, int] = {"f32": 1, "f16": 1, "bf16": 2, "int8": 4, "int4": 4}
DTYPES: dict[Kind, Any] = {
    "f32": np.float32, "f16": np.float16, "bf16": np.uint16, "int8": np.int8, "int4": np.uint8,
}  # fmt: skip

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Matrix:
    """W [outputs, inputs] in panels; `scale` (bfloat16 as uint16) and `zero` are [panels, groups, 16].

    int4 may have whole factors, [panels, depth / 32, 16], from -15 to 15: a weight n from 0 to 15 then stands for
    (n - 8) · factor · scale. Multiplied out, the weights are an int8 matrix of the same scales.
    """

    kind: Kind
    outputs: int
    inputs: int
    weight: NDArray[Any]
    scale: NDArray[np.uint16] | None = None
    zero: NDArray[np.uint8] | None = None
    factor: NDArray[np.int8] | None = None

    @property
    def depth(self) -> int:
        """The inputs, filled up."""
        return self.weight.shape[1] * _SIDE[self.kind] * (2 if self.kind == "int4" else 1)

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return DEPTH if self.scale is None else self.depth // self.scale.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        parts = (self.weight, self.scale, self.zero, self.factor)
        return sum(part.nbytes for part in parts if part is not None)

    def numbers(self) -> Floats:
        """W [outputs, inputs] in float32, as the kernels understand it."""
        values = _from_panels(self.weight, self.kind)
        if self.kind == "bf16":
            wide = from_bfloat16(values)
        elif self.scale is None:
            wide = values.astype(np.float32)
        else:
            steps = _spread(self.scale, self.group)
            zero = 0 if self.kind == "int8" else 8 if self.zero is None else _spread(self.zero, self.group)
            whole = values.astype(np.int16) - zero
            if self.factor is not None:
                whole *= _spread(self.factor, SPAN)
            wide = whole.astype(np.float32) * from_bfloat16(steps)
        return np.ascontiguousarray(wide[: self.outputs, : self.inputs])


def in_panels(values: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """Values [outputs, depth] (int4: from 0 to 15 in a byte each), both filled up, in the order of `kind`."""
    rows, depth = values.shape
    side = _SIDE[kind]
    cut = values.reshape(rows // PANEL, PANEL, depth // side, side).transpose(0, 2, 1, 3)
    if kind == "int4":
        cut = cut[:, 0::2] | cut[:, 1::2] << 4
    return np.ascontiguousarray(cut[..., 0] if side == 1 else cut)


def _from_panels(weight: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """The inverse of `in_panels`: values [outputs, depth]."""
    if kind == "int4":
        both = np.empty((weight.shape[0], weight.shape[1] * 2, *weight.shape[2:]), np.uint8)
        both[:, 0::2], both[:, 1::2] = weight & 15, weight >> 4
        weight = both
    if _SIDE[kind] == 1:
        weight = weight[..., None]
    panels, steps, lanes, side = weight.shape
    return weight.transpose(0, 2, 1, 3).reshape(panels * lanes, steps * side)


def _spread(table: NDArray[Any], group: int) -> NDArray[Any]:
    """A table [panels, groups, 16] for every weight, [outputs, depth]."""
    return np.repeat(table.transpose(0, 2, 1).reshape(-1, table.shape[1]), group, axis=1)


def filled_up(weight: NDArray[Any], depth: int = DEPTH) -> NDArray[Any]:
    """W with zeros up to whole panels and a depth that is a multiple of `depth`."""
    rows, inputs = weight.shape
    more = -rows % PANEL, -inputs % depth
    return np.pad(weight, ((0, more[0]), (0, more[1]))) if any(more) else weight


def plain(weight: NDArray[Any], kind: Kind) -> Matrix:
    """W [outputs, inputs], which may be bfloat16 kept as uint16, as float32, float16 or bfloat16."""
    full = filled_up(weight)
    if kind == "bf16":
        values = full if full.dtype == np.uint16 else to_bfloat16(full)
    else:
        values = full if full.dtype == DTYPES[kind] else as_floats(full).astype(DTYPES[kind])
    outputs, inputs = weight.shape
    return Matrix(kind, outputs, inputs, in_panels(values, kind))


def to_bfloat16(x: Floats) -> NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


def as_floats(x: NDArray[Any]) -> Floats:
    """Numbers of any kind, bfloat16 kept as uint16 among them, in float32."""
    return from_bfloat16(x) if x.dtype == np.uint16 else x.astype(np.float32, copy=False)


def from_bfloat16(x: NDArray[np.uint16]) -> Floats:
    """bfloat16 numbers, kept as uint16, in float32."""
    return (x.astype(np.uint32) << 16).view(np.float32)
