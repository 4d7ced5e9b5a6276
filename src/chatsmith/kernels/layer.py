"""A whole decoder layer on plain tensors, forwards and backwards, in one call each (`layer.c`)."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import Structure, byref, c_double, c_int64, c_void_p
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from chatsmith.kernels import build
from chatsmith.kernels.native import SMALL_PRODUCT, SUFFIX, Angles, attends, multiplies, scratch_space, threads_for
from chatsmith.specs import ModelSpec

_WITH_BIAS = ("query", "key", "value", "output")
PARAMETERS = (
    *("attention_norm.weight", "attention_norm.bias"),
    *(f"attention.{part}.{kind}" for part in _WITH_BIAS for kind in ("weight", "bias")),
    *("attention.query_norm.weight", "attention.key_norm.weight", "ffn_norm.weight", "ffn_norm.bias"),
    *(f"ffn.{part}.{kind}" for part in ("gate", "up", "down") for kind in ("weight", "bias")),
)
"""The weights of a layer in the order of the C enumeration; a layer may lack some."""

Weights = Mapping[str, Tensor]
Place = tuple[torch.Size, tuple[int, ...], int]
"""Shape, strides and offset."""
_ALIGNED = 64  # bytes; where the widest registers load best
_STEP = 2**18  # bytes by which large rooms grow, so that those of about one size are of one size


class Setting(NamedTuple):
    """What a layer computes with beside its weights: B rows of T tokens, E wide."""

    spec: ModelSpec
    angles: Angles | None
    """Cosine and sine of the rotation in float32, [T, D/2] or [B, T, D/2], contiguous."""
    first: Tensor | None
    """The first position that each query sees, [B, T] int32 (None: all before it)."""
    growth: float
    """What dropout multiplies by what it keeps."""
    masks: tuple[Tensor | None, Tensor | None]
    """What dropout keeps, bool [B, T, E], of what attention and the feed-forward add."""


class _Call(Structure):
    """`Layer` in layer.c."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "time", "width", "heads", "groups", "dim", "ffn", "period", "threads")),
        *((name, c_double) for name in ("epsilon", "growth")),
        ("weights", c_void_p * len(PARAMETERS)),
        ("slopes", c_void_p * len(PARAMETERS)),
        *((name, c_void_p) for name in ("x", "cosine", "sine", "first", "attention_mask", "ffn_mask", "slope")),
        *((name, c_void_p) for name in ("y", "dx", "kept", "shared", "own")),
    ]


def suits(spec: ModelSpec, x: Tensor) -> bool:
    """Whether layers of `spec` may be computed here for x [B, T, E] with weights of its dtype."""
    if spec.activation == "gelu" or not attends(spec.head_dim) or not multiplies(x):
        return False
    # bfloat16 numbers are multiplied in pairs
    return x.dtype == torch.float32 or (spec.width % 2 == 0 and spec.ffn_width % 2 == 0)


def forward(x: Tensor, weights: Weights, setting: Setting, back: bool) -> tuple[Tensor, Tensor]:
    """The layer of x [B, T, E], and what the way back needs, in bytes; in one room if that is kept for a way `back`."""
    call = _call(x, weights, setting)
    size = _size("layer_kept", x, call)
    y, kept = _in_one_room(x, size) if back else (torch.empty_like(x), torch.empty(size, dtype=torch.uint8))
    call.y, call.kept = y.data_ptr(), kept.data_ptr()
    _run("layer", x, call, 0)
    return y, kept


def backward(slope: Tensor, x: Tensor, kept: Tensor, weights: Weights, setting: Setting) -> tuple[Tensor, Weights]:
    """The slopes of x and of the weights from that of the layer's output; they share one room."""
    call = _call(x, weights, setting)
    size, places = _places(tuple([weight.shape for weight in weights.values()]), x.dtype)
    dx, room = _in_one_room(x, size)
    numbers = room.view(x.dtype)
    begin = numbers.storage_offset()  # from where the offsets of `as_strided` are not counted
    slopes = {
        name: numbers.as_strided(shape, strides, begin + at)
        for name, (shape, strides, at) in zip(weights, places, strict=True)
    }
    _point(call.slopes, slopes)
    call.kept, call.slope, call.dx = kept.data_ptr(), slope.data_ptr(), dx.data_ptr()
    _run("layer_back", x, call, 1)
    return dx, slopes


@cache
def _places(shapes: tuple[torch.Size, ...], dtype: torch.dtype) -> tuple[int, tuple[Place, ...]]:
    """The bytes that tensors of these shapes take together, and each one's place among their numbers."""
    places, end = [], 0
    for shape in shapes:
        like = torch.empty(shape, dtype=dtype, device="meta")
        places.append((shape, like.stride(), end // like.element_size()))
        end += _aligned(like.nbytes)
    return end, tuple(places)


def _in_one_room(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """An empty tensor like x, and `size` bytes more, in one piece of memory.

    What a layer leaves on its way comes in one piece, and so does what it leaves on its way back, which is often about
    as large: then the slopes of a layer go where the layer behind it was, step after step. Smaller pieces settle in the
    gaps of larger ones, which no longer fit there.
    """
    begin = _aligned(x.nbytes)
    whole = begin + size + _ALIGNED
    step = _STEP if whole > 16 * _STEP else 1
    room = room_of(-(-whole // step) * step)
    skip = -room.data_ptr() % _ALIGNED
    # Not a view, for autograd would not let anyone change one in place.
    like = torch.empty(0, dtype=x.dtype).set_(room.untyped_storage(), skip // x.element_size(), x.shape, x.stride())
    return like, room[skip + begin : skip + begin + size]


def room_of(size: int) -> Tensor:
    """So many bytes. PyTorch would ask for a place that is aligned, which a gap of just this size does not have."""
    return torch.from_numpy(np.empty(size, dtype=np.uint8))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _call(x: Tensor, weights: Weights, setting: Setting) -> _Call:
    spec, angles = setting.spec, setting.angles
    B, T, E = x.shape
    call = _Call(
        B, T, E, spec.heads, spec.kv_heads, spec.head_dim, spec.ffn_width, T,
        threads_for(x.numel() * E, SMALL_PRODUCT), spec.norm_epsilon, setting.growth,
    )  # fmt: skip
    call.x = x.data_ptr()
    if angles is not None:
        call.cosine, call.sine = (table.data_ptr() for table in angles)
        call.period = B * T if angles[0].ndim == 3 else T
    for name, tensor in zip(("first", "attention_mask", "ffn_mask"), (setting.first, *setting.masks), strict=True):
        if tensor is not None:
            setattr(call, name, tensor.data_ptr())
    _point(call.weights, weights)
    return call


def _point(table: Any, tensors: Weights) -> None:
    for index, name in enumerate(PARAMETERS):
        if name in tensors:
            table[index] = tensors[name].data_ptr()


def _run(name: str, x: Tensor, call: _Call, back: int) -> None:
    shared = scratch_space(_size("layer_shared", x, call, back), "large")
    own = scratch_space(call.threads * _size("layer_own", x, call))
    call.shared, call.own = shared.data_ptr(), own.data_ptr()
    _function(name, x.dtype)(byref(call))


def _size(name: str, x: Tensor, call: _Call, *more: int) -> int:
    return int(_function(name, x.dtype)(byref(call), *more))


@cache
def _function(name: str, dtype: torch.dtype) -> Any:
    function = getattr(build.library(), f"{name}_{SUFFIX[dtype]}")
    function.restype = c_int64 if name in ("layer_kept", "layer_shared", "layer_own") else None
    return function
