"""Products of few rows with a large matrix, and the norms before them: the steps of generation on a GPU, in Triton.

A step reads every weight once, so the products run as fast as memory gives the weights: programs take a few outputs
each, and cut the sum over the inputs into parts that their warps read side by side. The parts, and the order in which
they are added, depend on the matrix alone: a row has the same bits in any company.

Shapes: R rows, N outputs, K inputs. What flows between layers is float32; products read bfloat16 (or float16).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from chatsmith.kernels.gpu.leap import leap, let_begin, wait

SPLIT = 4
"""The parts of a sum over the inputs."""
_DEPTH = 128  # inputs of each part that a program reads at a time
HELD = 2
"""Rounds of weights that a program of few rows asks for before it waits."""
WARPS = 4


@triton.jit
def _statistics(row, mask, K, epsilon, LAYER: tl.constexpr):
    """The mean (0 for RMS norms) and the inverse deviation of a float32 row."""
    mean = 0.0
    if LAYER:
        mean = tl.sum(row, 0) / K
    centred = tl.where(mask, row - mean, 0.0)
    return mean, tl.rsqrt(tl.sum(centred * centred, 0) / K + epsilon)


@triton.jit
def _normed(x, mean, scale, gain, shift, at, mask, LAYER: tl.constexpr):
    """(x − mean) · scale · gain + shift for the inputs `at`."""
    y = (x - mean) * scale * tl.load(gain + at, mask, other=0.0).to(tl.float32)
    if LAYER:
        y += tl.load(shift + at, mask, other=0.0).to(tl.float32)
    return y


@triton.jit
def _norm(
    x, gain, shift, chosen, y, K, epsilon,
    LAYER: tl.constexpr, CHOSEN: tl.constexpr, WIDE: tl.constexpr, LEAP: tl.constexpr,
):  # fmt: skip
    leap(LEAP)
    out = tl.program_id(0).to(tl.int64)
    row = out
    if CHOSEN:
        row = tl.load(chosen + out).to(tl.int64)
    at = tl.arange(0, WIDE)
    mask = at < K
    values = tl.load(x + row * K + at, mask, other=0.0)
    mean, scale = _statistics(values, mask, K, epsilon, LAYER)
    normed = _normed(values, mean, scale, gain, shift, at, mask, LAYER)
    tl.store(y + out * K + at, normed.to(y.dtype.element_ty), mask)


@triton.jit
def _whole(parts):
    """The sum over the first axis, of four: always the same two pairs, whoever holds them."""
    FOUR: tl.constexpr = parts.shape[0]
    pairs = tl.sum(tl.reshape(parts, (2, FOUR // 2, parts.shape[1], parts.shape[2])), 0)
    return tl.sum(pairs, 0)


@triton.jit
def _gelu_tanh(x):
    turn = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # twice √(2/π)
    return x * (1.0 - 1.0 / (tl.exp(turn) + 1.0))


@triton.jit
def _read(matrix, places, part, rows, start, K, EVEN: tl.constexpr, WANTED: tl.constexpr):
    """The columns from `start` of each part, of the rows there are; nothing unless wanted."""
    found = 0
    if WANTED:
        mask = rows
        if not EVEN:
            mask = rows & (part + start < K)
        found = tl.load(matrix + places + start, mask, other=0.0)
    return found


@triton.jit
def _kept(read, LEAP: tl.constexpr):
    """What was read, still in registers here: or the compiler would see it into shared memory, load after load."""
    if LEAP:
        read = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [read], dtype=read.dtype, is_pure=False, pack=2)
    return read


@triton.jit
def _thin(
    x, weight, gate, bias, y, R, N, K,
    ACTIVATION: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr, SLICE: tl.constexpr,
    HELD: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr, LEAP: tl.constexpr,
):  # fmt: skip
    let_begin(LEAP)
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    part = tl.arange(0, PARTS)[:, None, None] * SLICE + tl.arange(0, DEPTH)[None, None, :]
    places = outputs[None, :, None].to(tl.int64) * K + part
    from_rows = rows[None, :, None].to(tl.int64) * K + part
    within = (outputs < N)[None, :, None]
    present = (rows < R)[None, :, None]
    total = tl.zeros((PARTS, OUTPUTS, ROWS), tl.float32)
    second = tl.zeros((PARTS, OUTPUTS, ROWS), tl.float32)
    # The first weights are on their way before the kernel before this one has ended.
    held0 = _read(weight, places, part, within, 0, K, EVEN, HELD > 0)
    held1 = _read(weight, places, part, within, DEPTH, K, EVEN, HELD > 1)
    held2 = _read(weight, places, part, within, 2 * DEPTH, K, EVEN, HELD > 2)
    held3 = _read(weight, places, part, within, 3 * DEPTH, K, EVEN, HELD > 3)
    gated: tl.constexpr = ACTIVATION == "swiglu"
    gate0 = _read(gate, places, part, within, 0, K, EVEN, gated and HELD > 0)
    gate1 = _read(gate, places, part, within, DEPTH, K, EVEN, gated and HELD > 1)
    wait(LEAP)
    x0 = _read(x, from_rows, part, present, 0, K, EVEN, HELD > 0)
    x1 = _read(x, from_rows, part, present, DEPTH, K, EVEN, HELD > 1)
    x2 = _read(x, from_rows, part, present, 2 * DEPTH, K, EVEN, HELD > 2)
    x3 = _read(x, from_rows, part, present, 3 * DEPTH, K, EVEN, HELD > 3)
    if HELD > 0:
        x0 = tl.trans(_kept(x0, LEAP), 0, 2, 1)
        total = tl.dot(_kept(held0, LEAP), x0, total, input_precision=PRECISION)
        if gated:
            second = tl.dot(_kept(gate0, LEAP), x0, second, input_precision=PRECISION)
    if HELD > 1:
        x1 = tl.trans(_kept(x1, LEAP), 0, 2, 1)
        total = tl.dot(_kept(held1, LEAP), x1, total, input_precision=PRECISION)
        if gated:
            second = tl.dot(_kept(gate1, LEAP), x1, second, input_precision=PRECISION)
    if HELD > 2:
        total = tl.dot(_kept(held2, LEAP), tl.trans(_kept(x2, LEAP), 0, 2, 1), total, input_precision=PRECISION)
    if HELD > 3:
        total = tl.dot(_kept(held3, LEAP), tl.trans(_kept(x3, LEAP), 0, 2, 1), total, input_precision=PRECISION)
    for start in range(HELD * DEPTH, SLICE, DEPTH):
        values = tl.trans(_read(x, from_rows, part, present, start, K, EVEN, True), 0, 2, 1)
        read = _read(weight, places, part, within, start, K, EVEN, True)
        total = tl.dot(read, values, total, input_precision=PRECISION)
        if gated:
            gates = _read(gate, places, part, within, start, K, EVEN, True)
            second = tl.dot(gates, values, second, input_precision=PRECISION)
    z = _whole(total)
    inside = (outputs < N)[:, None]
    if BIAS:
        z += tl.load(bias + outputs, outputs < N, other=0.0).to(tl.float32)[:, None]
    if ACTIVATION == "gelu_tanh":
        z = _gelu_tanh(z)
    if ACTIVATION == "gelu":
        z = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    if ACTIVATION == "swiglu":
        g = _whole(second)
        if BIAS:
            g += tl.load(bias + N + outputs, outputs < N, other=0.0).to(tl.float32)[:, None]
        z = g / (1.0 + tl.exp(-g)) * z
    to = y + rows[None, :].to(tl.int64) * N + outputs[:, None]
    mask = inside & (rows < R)[None, :]
    if ADD:
        z += tl.load(to, mask, other=0.0)
    tl.store(to, z.to(y.dtype.element_ty), mask)


def _wide(n: int) -> int:
    return int(triton.next_power_of_2(max(n, 16)))


def precision(x: Tensor) -> str:
    """How Triton is to multiply numbers of the dtype of x: float32 exactly, others as they are."""
    return "ieee" if x.element_size() == 4 else "tf32"


def norm(
    x: Tensor, gain: Tensor, shift: Tensor | None, epsilon: float, y: Tensor, chosen: Tensor | None, leap: bool
) -> None:
    """y [n, K] = the norm of rows of x [R, K] (float32): layer norm with a `shift`, else RMS; of the rows `chosen` [n]
    (None: of the first n)."""
    n, inputs = y.shape
    layer = shift is not None
    _norm[(n,)](
        x, gain, shift, chosen, y, inputs, epsilon, LAYER=layer, CHOSEN=chosen is not None, WIDE=_wide(inputs),
        LEAP=leap, num_warps=WARPS, launch_pdl=leap,
    )  # fmt: skip


def thin(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    *,
    gate: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
    add: bool = False,
    leap: bool = False,
) -> None:
    """y [R, N] = f(x Wᵀ + b) for x [R, K] and weight [N, K]; with `add` added to what y holds.

    The activation is gelu, gelu_tanh or, with a `gate` [N, K] whose biases follow the others in `bias`, swiglu.
    """
    R, N = y.shape
    inputs = weight.shape[1]
    rows = min(64, max(8, triton.next_power_of_2(R)))
    few = rows <= 16
    depth = min(_DEPTH if few else _DEPTH // 2, _wide(-(-inputs // SPLIT)))
    outputs = 16 if few else 32
    part = -(-inputs // (SPLIT * _DEPTH)) * _DEPTH if inputs >= SPLIT * _DEPTH else _wide(-(-inputs // SPLIT))
    grid = (triton.cdiv(N, outputs), triton.cdiv(R, rows))
    stage = SPLIT * (outputs * (1 if gate is None else 2) + rows) * depth * weight.element_size()
    held = HELD if few and leap else 0
    _thin[grid](
        x, weight, gate, bias, y, R, N, inputs,
        ACTIVATION=activation, BIAS=bias is not None, ADD=add,
        ROWS=rows, OUTPUTS=outputs, DEPTH=depth, PARTS=SPLIT, SLICE=part,
        HELD=min(held if gate is None else held // 2, part // depth),
        EVEN=part * SPLIT == inputs, PRECISION=precision(weight), LEAP=leap,
        num_warps=WARPS, num_stages=_stages(grid[0] * grid[1], stage, part // depth), launch_pdl=leap,
    )  # fmt: skip


def _stages(programs: int, stage: int, rounds: int) -> int:
    """How many rounds of reading to have under way: as many as let all programs run at once, where that can be.

    Sized for the 132 multiprocessors of 227 KiB that an H100 and an H200 have; Triton holds a stage less in memory.
    """
    together = min(-(-programs // 132), 4)
    return max(2, min(1 + 224 * 1024 // together // stage, rounds + 1, 5))
