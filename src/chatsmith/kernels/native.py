"""The kernels, called on plain tensors: no gradients are recorded, shapes are trusted, results are new tensors.

`ready(x)` and `multiplies(x)` say what serves tensors like x. `ops` wraps some of these as differentiable functions,
`layer` computes a whole layer with its own backward pass. `attention`, `attention_back` and `heads_back` are steps of
`layer` that can be called alone, so that each is compared with plain torch by itself (`tests/kernels`).
"""

from __future__ import annotations

import threading
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from chatsmith.kernels import build

SUFFIX = {torch.float32: "float", torch.bfloat16: "bf16"}
_SMALL = 16384  # numbers below which a second thread costs more than it brings
SMALL_PRODUCT = 2**20  # multiplications below which the same holds
_DEPTH_BYTES = 8192  # a row of the sum longer than this is taken in parts, as DEPTH in gemm.h says,
_SHALLOW_BYTES = 2048  # and for the slope of a weight as SHALLOW does
_FORWARD, _BACK, _WEIGHTS = 0, 1, 2
MAX_DIM = 1024
"""The largest head the kernels hold on their stack."""

_local = threading.local()


def ready(x: Tensor) -> bool:
    """Whether the kernels serve tensors like x: float32 or bfloat16 on the CPU, where they could be built.

    They read memory, so a tensor that stands for memory elsewhere (part of one that is divided over processes, or still
    on its way) is not theirs.
    """
    if x.device.type != "cpu" or x.dtype not in SUFFIX or torch.compiler.is_compiling():
        return False
    if type(x) is not Tensor and type(x) is not nn.Parameter:
        return False
    return build.library() is not None


@lru_cache(maxsize=1)
def _multiplies() -> bool:
    library = build.library()
    return library is not None and bool(library.gemm_built())


def multiplies(x: Tensor) -> bool:
    """Whether the matrix kernels serve tensors like x, too: on a processor with AVX-512."""
    return ready(x) and _multiplies()


def threads_for(numbers: int, small: int = _SMALL) -> int:
    return 1 if numbers < small else torch.get_num_threads()


_known: dict[tuple[str, torch.dtype], Any] = {}


def call(name: str, dtype: torch.dtype, tensors: tuple[Tensor | None, ...], *numbers: float) -> None:
    """Call one kernel: first its tensors, as pointers, then its numbers: floats as float, integers as int64, and the
    last, the number of threads, as int. The types of the first call hold for all, so a caller must not mix 0 and 0.0.
    """
    function = _known.get((name, dtype))
    if function is None:
        function = getattr(build.library(), f"{name}_{SUFFIX[dtype]}")
        kinds = [c_float if isinstance(number, float) else c_int64 for number in numbers[:-1]]
        function.argtypes, function.restype = [*[c_void_p] * len(tensors), *kinds, c_int], None
        _known[name, dtype] = function
    function(*[None if tensor is None else tensor.data_ptr() for tensor in tensors], *numbers)


def scratch_space(size: int, purpose: str = "kernel") -> Tensor:
    """At least `size` bytes that this thread may overwrite until its next call for this purpose.

    They stay its own. Blocks of many megabytes that came and went would leave gaps, as small things settle in between.
    """
    held: Tensor | None = getattr(_local, purpose, None)
    if held is None or held.numel() < size:
        setattr(_local, purpose, None)  # let go of the old one first
        held = torch.empty(size, dtype=torch.uint8)
        setattr(_local, purpose, held)
    return held


# ---- matrices ------------------------------------------------------------------------------------------------------


def _gemm(kind: int, a: Tensor, b: Tensor, out: Tensor, m: int, n: int, k: int, bias: Any, add: Any) -> Tensor:
    threads = threads_for(m * n * k, SMALL_PRODUCT)
    if a.dtype == torch.float32 and (add is None or add is out):
        sums: Tensor | None = out
    else:
        in_parts = k * a.element_size() > (_SHALLOW_BYTES if kind == _WEIGHTS else _DEPTH_BYTES)
        sums = torch.empty(m, n) if in_parts else None
    scratch = scratch_space(threads * _gemm_scratch())
    strides = (a.stride(0), b.stride(0), out.stride(0))
    call("gemm", a.dtype, (a, b, out, bias, add, sums, scratch), kind, m, n, k, *strides, threads)
    return out


@lru_cache(maxsize=1)
def _gemm_scratch() -> int:
    library = build.library()
    assert library is not None
    library.gemm_scratch.restype = c_int64
    return int(library.gemm_scratch())


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """x Wᵀ + bias + add, for x [N, in] and W [out, in], in `out` [N, out] if there is one."""
    (N, inputs), outputs = x.shape, weight.shape[0]
    if inputs % 2 and x.dtype == torch.bfloat16:
        y = torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)
        return y if add is None else y.add_(add)
    return _gemm(_FORWARD, x, weight, x.new_empty(N, outputs) if out is None else out, N, outputs, inputs, bias, add)


def linear_input(slope: Tensor, weight: Tensor, add: Tensor | None = None) -> Tensor:
    """The slope of a linear map's input, dY W + add, for dY [N, out] and W [out, in]; `add` may be overwritten."""
    (N, outputs), inputs = slope.shape, weight.shape[1]
    if outputs % 2 and slope.dtype == torch.bfloat16:
        return torch.mm(slope, weight) if add is None else add.addmm_(slope, weight)
    return _gemm(_BACK, slope, weight, slope.new_empty(N, inputs), N, inputs, outputs, None, add)


def linear_weight(slope: Tensor, x: Tensor, add: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """The slope of a linear map's weight, dYᵀ X, for dY [N, out], X [N, in]; it is added to `add`, or put in `out`."""
    outputs, inputs = slope.shape[1], x.shape[1]
    if add is not None:
        out = add
    elif out is None:
        out = slope.new_empty(outputs, inputs)
    return _gemm(_WEIGHTS, slope, x, out, outputs, inputs, x.shape[0], None, add)


# ---- norms and heads -----------------------------------------------------------------------------------------------

Kept = tuple[Tensor, Tensor | None]
"""What a norm keeps of a pass: one over the deviation of each row, and its mean (None: root-mean-square norm)."""


def norm(x: Tensor, gain: Tensor, bias: Tensor | None, epsilon: float) -> tuple[Tensor, Kept]:
    """Layer norm of x [..., n] or, without a bias, root-mean-square norm."""
    width = x.shape[-1]
    rows = x.numel() // width
    y, scale, mean = torch.empty_like(x), torch.empty(rows), None if bias is None else torch.empty(rows)
    call("norm", x.dtype, (x, gain, bias, y, scale, mean), rows, width, epsilon, threads_for(x.numel()))
    return y, (scale, mean)


def norm_back(
    slope: Tensor, x: Tensor, gain: Tensor, kept: Kept, add: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The slopes of x (plus `add`), gain and bias."""
    width, threads = x.shape[-1], threads_for(x.numel())
    rows = x.numel() // width
    dx, slopes = torch.empty_like(x), x.new_empty(2, width)
    partial = scratch_space(threads * width * 8)
    call("norm_back", x.dtype, (slope, x, gain, *kept, add, dx, slopes, partial), rows, width, threads)
    return dx, slopes[0], None if kept[1] is None else slopes[1]


Angles = tuple[Tensor, Tensor]
"""Cosine and sine of rotary positions, float32 [T, D/2] or [B, T, D/2]."""


def heads(
    x: Tensor, dim: int, gain: Tensor | None, angles: Angles | None, epsilon: float
) -> tuple[Tensor, Tensor | None]:
    """x [B, T, n·D] with each head normed (where `gain` [D] is given) and turned by `angles`, cosine and sine in
    float32, [T, D/2] or [B, T, D/2] and contiguous; and the norms' factors, which `heads_back` wants."""
    count = x.shape[2] // dim
    rows, period = _rows_and_period(x, angles)
    cosine, sine = angles or (None, None)
    y, scale = torch.empty_like(x), None if gain is None else torch.empty(rows * count)
    sizes = (rows, period, count, dim)
    call("heads", x.dtype, (x, gain, cosine, sine, y, scale), *sizes, epsilon, threads_for(x.numel()))
    return y, scale


def heads_back(
    slope: Tensor, x: Tensor | None, dim: int, gain: Tensor | None, angles: Angles | None, scale: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The slopes of x and gain; x itself is needed only with a gain. `slope` [B, T, n·D] is overwritten."""
    threads = threads_for(slope.numel())
    cosine, sine = angles or (None, None)
    d_gain, partial = None if gain is None else torch.empty_like(gain), scratch_space(threads * dim * 4)
    sizes = (*_rows_and_period(slope, angles), slope.shape[2] // dim, dim)
    call("heads_back", slope.dtype, (slope, x, gain, cosine, sine, scale, slope, d_gain, partial), *sizes, threads)
    return slope, d_gain


def _rows_and_period(x: Tensor, angles: Angles | None) -> tuple[int, int]:
    """How many rows x [B, T, n·D] has, and after how many the angles begin anew."""
    rows = x.shape[0] * x.shape[1]
    return rows, rows if angles is not None and angles[0].ndim == 3 else x.shape[1]


# ---- attention -----------------------------------------------------------------------------------------------------


def attends(dim: int) -> bool:
    """Whether heads of `dim` numbers fit the attention kernel."""
    return dim <= MAX_DIM and dim % 2 == 0


def _attention_scratch(query: Tensor, time: int, dim: int) -> tuple[Tensor, int]:
    library = build.library()
    assert library is not None
    threads = threads_for(query.numel() * time, SMALL_PRODUCT)
    library.attention_scratch.restype = c_int64
    size = library.attention_scratch(c_int64(time), c_int64(dim), c_int64(query.element_size()))
    return scratch_space(threads * size), threads


def attention(
    query: Tensor, key: Tensor, value: Tensor, dim: int, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Causal attention for query [B, T, H·D], key and value [B, T, K·D]; a query at t sees first[b, t] (int32) … t.

    Returns the output [B, T, H·D] and what the way back needs to know of each row [B, H, T, 2].
    """
    B, T, inner = query.shape
    count, groups = inner // dim, key.shape[2] // dim
    output, kept = torch.empty_like(query), torch.empty(B, count, T, 2)
    scratch, threads = _attention_scratch(query, T, dim)
    sizes = (B, T, count, groups, dim, inner, key.shape[2], dim**-0.5)
    call("attention", query.dtype, (query, key, value, first, output, kept, scratch), *sizes, threads)
    return output, kept


def attention_back(
    slope: Tensor, query: Tensor, key: Tensor, value: Tensor, dim: int, first: Tensor | None, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The slopes of query, key and value from that of the output."""
    B, T, inner = query.shape
    count, groups = inner // dim, key.shape[2] // dim
    out = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
    scratch, threads = _attention_scratch(query, T, dim)
    sizes = (B, T, count, groups, dim, inner, key.shape[2], dim**-0.5)
    tensors = (slope, query, key, value, first, kept, *out, scratch)
    call("attention_back", query.dtype, tensors, *sizes, threads)
    return out


# ---- attention over a paged cache ----------------------------------------------------------------------------------

PAGED_TILE = 16
"""Rows of one sequence that one thread takes together in `paged_attention`."""


def paged_store(key: Tensor, value: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """Write key and value [N, K·D] to the places `slots` [N] (int64; block · size + place in the block) of the pools,
    keys [blocks, K, D, size] and values [blocks, K, size, D]."""
    _, groups, dim, size = keys.shape
    tensors = (key, value, slots, keys, values)
    call("paged_store", key.dtype, tensors, len(slots), groups, dim, size, threads_for(key.numel()))


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    tiles: Tensor,
    places: Tensor,
    *,
    band: int | None,
    longest: int,
    work: int,
) -> Tensor:
    """Attention of query [N, H·D] over the pools; a query sees its sequence up to its own place (the last `band`).

    tables [S, W], tiles [n, 3] (sequence, first row, at most `PAGED_TILE` rows) and places [N] are int32; `longest` is
    the highest place plus one, `work` the sum of all places. Rows in no tile are left unset.
    """
    _, groups, dim, size = keys.shape
    line = -(-longest // 16) * 16 + 16
    space = 8 * dim + 4 * line
    threads = threads_for(work * query.shape[1], SMALL_PRODUCT)
    output = torch.empty_like(query)
    tensors = (query, keys, values, tables, tiles, places, output, scratch_space(threads * space * 4))
    sizes = (len(tiles), tables.shape[1], query.shape[1] // dim, groups, dim, size, band or 0, line, space)
    call("paged_attention", query.dtype, tensors, *sizes, dim**-0.5, threads)
    return output


# ---- activations and loss ------------------------------------------------------------------------------------------


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    y = torch.empty_like(gate)
    call("swiglu", gate.dtype, (gate, up, y), gate.numel(), threads_for(gate.numel()))
    return y


def swiglu_back(slope: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The slopes of gate and up, and the output once more."""
    d_gate, d_up, y = torch.empty_like(gate), torch.empty_like(up), torch.empty_like(gate)
    call("swiglu_back", gate.dtype, (slope, gate, up, d_gate, d_up, y), gate.numel(), threads_for(gate.numel()))
    return d_gate, d_up, y


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks and Gimpel 2016)."""
    y = torch.empty_like(x)
    call("gelu", x.dtype, (x, y), x.numel(), threads_for(x.numel()))
    return y


def gelu_tanh_back(slope: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of x, and the output once more."""
    dx, y = torch.empty_like(x), torch.empty_like(x)
    call("gelu_back", x.dtype, (slope, x, dx, y), x.numel(), threads_for(x.numel()))
    return dx, y


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [n, V] to the slope of their summed cross-entropy, in place; returns the losses [n] in nats, float32.

    A target outside 0 … V − 1 counts nothing.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows)
    tensors = (logits, targets.contiguous(), losses)
    call("cross_entropy", logits.dtype, tensors, rows, columns, threads_for(logits.numel()))
    return losses
