"""The number formats of GGUF files: F32, F16, BF16, Q8_0 and Q4_0 both ways; Q5_0, Q4_K, Q5_K and Q6_K are read.

The block formats are those of ggml (structs in its ggml-common.h, decoding in its ggml-quants.c): some numbers share a
scale, and the numbers themselves are a few bits each. What a block of K keeps twice, scales of groups within it and a
scale of those, is multiplied in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError
from chatsmith.kernels.infer.matrix import Floats, from_bfloat16, to_bfloat16


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A way of storing numbers: its code, numbers in a block and bytes of one, and how blocks are read and made."""

    name: str
    code: int
    block: int
    nbytes: int
    read: Callable[[NDArray[np.uint8]], Floats]
    make: Callable[[Floats], NDArray[np.uint8]] | None


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).view(np.uint8)


def _halves(raw: NDArray[np.uint8]) -> Floats:
    """Pairs of bytes along each row as float16, in float32."""
    return raw.copy().view(np.float16).astype(np.float32)


def _read_q8_0(raw: NDArray[np.uint8]) -> Floats:
    """raw [blocks, 34]: a scale in float16 and 32 signed bytes."""
    return raw[:, 2:].view(np.int8).astype(np.float32) * _halves(raw[:, :2])


def _make_q8_0(x: Floats) -> NDArray[np.uint8]:
    scale = np.abs(x).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    return np.concatenate([_bytes(scale.astype(np.float16)), _bytes(np.rint(x * inverse).astype(np.int8))], 1)


def _read_q4_0(raw: NDArray[np.uint8]) -> Floats:
    """raw [blocks, 18]: a scale in float16, then in 16 bytes the first half of 32 numbers and, above it, the second."""
    values = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], 1).astype(np.int8) - 8
    return values.astype(np.float32) * _halves(raw[:, :2])


# What the largest number of a block may be, in steps: those beyond -8 cut it off.
_REACHES = (-8.0, -8.4, -8.8, -9.2, *(step for size in range(7, 0, -1) for step in (float(size), float(-size))))
_AT_ONCE = 1 << 15  # blocks: what stays in a core's own cache


def _make_q4_0(x: Floats) -> NDArray[np.uint8]:
    """Each block takes the scale, of several, that leaves the least squared error; numbers that are whole steps of one
    scale already, as those that a calibration has rounded, come out as they are."""
    parts = [_make_some_q4_0(x[start : start + _AT_ONCE]) for start in range(0, len(x), _AT_ONCE)]
    return np.concatenate([np.zeros((0, 18), np.uint8), *parts])


def _make_some_q4_0(x: Floats) -> NDArray[np.uint8]:
    largest = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
    best, steps, least = (np.zeros((len(x), size), np.float32) for size in (1, x.shape[1], 1))
    least += np.inf
    for reach in _REACHES:
        scale = (largest / np.float32(reach)).astype(np.float16).astype(np.float32)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        found = np.rint(x * inverse).clip(-8, 7)
        error = np.square(found * scale - x).sum(1, keepdims=True)
        better = error < least
        np.copyto(best, scale, where=better)
        np.copyto(steps, found, where=better)
        np.copyto(least, error, where=better)
    values = (steps + 8).astype(np.uint8)
    return np.concatenate([_bytes(best.astype(np.float16)), values[:, :16] | values[:, 16:] << 4], 1)


def _read_q5_0(raw: NDArray[np.uint8]) -> Floats:
    """raw [blocks, 22]: a scale in float16, the fifth bits of 32 numbers, then the other four as in Q4_0."""
    fifth = np.unpackbits(raw[:, 2:6], axis=1, bitorder="little")
    values = (np.concatenate([raw[:, 6:] & 15, raw[:, 6:] >> 4], 1) | fifth << 4).astype(np.int8) - 16
    return values.astype(np.float32) * _halves(raw[:, :2])


def _scales_and_minima(raw: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """raw [blocks, 16]: two scales in float16, then eight scales and minima of 6 bits in 12 bytes; both [blocks, 8]."""
    scale, packed = _halves(raw[:, :4]), raw[:, 4:]
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    steps = np.concatenate([low & 63, (high & 15) | low >> 6 << 4], 1).astype(np.float32) * scale[:, :1]
    minima = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], 1).astype(np.float32) * scale[:, 1:]
    return steps, minima


def _four_bits(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """raw [blocks, 128]: of each 32 bytes the lower halves, then the upper; [blocks, 8, 32]."""
    halves = raw.reshape(-1, 4, 1, 32)
    return np.concatenate([halves & 15, halves >> 4], 2).reshape(-1, 8, 32)


def _read_q4_k(raw: NDArray[np.uint8]) -> Floats:
    """raw [blocks, 144]: scales and minima of eight groups of 32, and 256 numbers of four bits."""
    steps, minima = _scales_and_minima(raw[:, :16])
    values = _four_bits(raw[:, 16:]).astype(np.float32)
    return (values * steps[..., None] - minima[..., None]).reshape(len(raw), 256)


def _read_q5_k(raw: NDArray[np.uint8]) -> Floats:
    """raw [blocks, 176]: as Q4_K, with the fifth bits between: bit g of byte i is that of number i of group g."""
    steps, minima = _scales_and_minima(raw[:, :16])
    fifth = raw[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    values = (_four_bits(raw[:, 48:]) | fifth << 4).astype(np.float32)
    return (values * steps[..., None] - minima[..., None]).reshape(len(raw), 256)


def _read_q6_k(raw: NDArray[np.uint8]) -> Floats:
    """raw [blocks, 210]: the lower four bits of 256 numbers, their upper two, 16 signed scales, their scale in float16.

    Of each half of a block, 64 bytes hold four bits each of numbers i and 64 + i, 32 bytes two bits each of i, 32 + i,
    64 + i and 96 + i.
    """
    low = raw[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], 2).reshape(-1, 2, 4, 32)
    high = raw[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    values = ((low | high << 4).astype(np.int8) - 32).reshape(-1, 16, 16).astype(np.float32)
    scales = raw[:, 192:208].view(np.int8).astype(np.float32) * _halves(raw[:, 208:])
    return (values * scales[..., None]).reshape(len(raw), 256)


FORMATS = {
    "F32": NumberFormat("F32", 0, 1, 4, lambda raw: raw.copy().view(np.float32), _bytes),
    "F16": NumberFormat("F16", 1, 1, 2, _halves, lambda x: _bytes(x.astype(np.float16))),
    "BF16": NumberFormat(
        "BF16", 30, 1, 2, lambda raw: from_bfloat16(raw.copy().view(np.uint16)), lambda x: _bytes(to_bfloat16(x))
    ),
    "Q4_0": NumberFormat("Q4_0", 2, 32, 18, _read_q4_0, _make_q4_0),
    "Q5_0": NumberFormat("Q5_0", 6, 32, 22, _read_q5_0, None),
    "Q8_0": NumberFormat("Q8_0", 8, 32, 34, _read_q8_0, _make_q8_0),
    "Q4_K": NumberFormat("Q4_K", 12, 256, 144, _read_q4_k, None),
    "Q5_K": NumberFormat("Q5_K", 13, 256, 176, _read_q5_k, None),
    "Q6_K": NumberFormat("Q6_K", 14, 256, 210, _read_q6_k, None),
}
_BY_CODE = {form.code: form for form in FORMATS.values()}
# Formats of ggml that are not read, by code: so that a refusal names them.
_OTHERS = {
    3: "Q4_1", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
    28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


def format_of(code: int, what: str) -> NumberFormat:
    """The format with a code; raises `RequestError` that says what is stored in one that is not read."""
    form = _BY_CODE.get(code)
    if form is None:
        name = _OTHERS.get(code, f"an unknown format (number {code})")
        raise RequestError(f"{what} is stored as {name}, which is not read", "readable: " + ", ".join(FORMATS))
    return form


def made(numbers: Floats, kind: str) -> NDArray[np.uint8]:
    """Numbers as the bytes of a format, block after block; raises `RequestError` for one that is only read."""
    form = FORMATS[kind]
    if form.make is None:
        written = ", ".join(known.name for known in FORMATS.values() if known.make is not None)
        raise RequestError(f"{form.name} is only read, not written", f"choose one of {written}")
    return form.make(np.ascontiguousarray(numbers, np.float32).reshape(-1, form.block))


def rounded(numbers: Floats, kind: str) -> Floats:
    """Numbers as a file keeps them in a format that is written."""
    form = FORMATS[kind]
    return form.read(made(numbers, kind).reshape(-1, form.nbytes)).reshape(numbers.shape)
