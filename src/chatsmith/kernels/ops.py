"""The kernels as differentiable torch functions; each has a plain-torch twin that serves wherever they do not.

`ready(x)` says whether they serve: float32 or bfloat16 on a CPU, with a compiler at hand. Callers then use these
functions in place of their own torch lines; the numbers agree within rounding (tests hold both to float64).
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from chatsmith.kernels import build

_SUFFIX = {torch.float32: "float", torch.bfloat16: "bf16"}
_SMALL = 16384  # numbers below which a second thread costs more than it brings
_MAX_DIM = 1024  # the largest head the kernels hold on their stack


def ready(x: Tensor) -> bool:
    """Whether the kernels serve tensors like x: float32 or bfloat16 on the CPU, where they could be built."""
    if x.device.type != "cpu" or x.dtype not in _SUFFIX or torch.compiler.is_compiling():
        return False
    return build.library() is not None


def _threads(numbers: int) -> int:
    return 1 if numbers < _SMALL else torch.get_num_threads()


def _call(name: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """Call one kernel: tensors go as pointers, ints as int64 but the last (threads) as int, floats as float."""
    *values, threads = arguments
    converted: list[Any] = []
    for value in values:
        if value is None or isinstance(value, Tensor):
            converted.append(c_void_p(None if value is None else value.data_ptr()))
        else:
            converted.append(c_float(value) if isinstance(value, float) else c_int64(value))
    getattr(build.library(), f"{name}_{_SUFFIX[dtype]}")(*converted, c_int(int(threads)))  # type: ignore[arg-type]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        x, gain = x.contiguous(), gain.contiguous()
        width = x.shape[-1]
        rows = x.numel() // width
        y, scale = torch.empty_like(x), torch.empty(rows)
        _call("rms_norm", x.dtype, x, gain, y, scale, rows, width, epsilon, _threads(x.numel()))
        ctx.save_for_backward(x, gain, scale)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, gain, scale = ctx.saved_tensors
        width, threads = x.shape[-1], _threads(x.numel())
        dx, partial = torch.empty_like(x), torch.zeros(threads, width)
        _call("rms_norm_back", x.dtype, dy.contiguous(), x, gain, scale, dx, partial, len(scale), width, threads)
        return dx, partial.sum(0).to(gain.dtype), None


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """x / √(mean x² + ε) · gain over the last dimension."""
    return _RMSNorm.apply(x, gain, epsilon)  # type: ignore[no-any-return]


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor | None,
        angles: tuple[Tensor, Tensor] | None,
        dim: int,
        epsilon: float,
        output: float,
    ) -> Tensor:
        B, T, inner = x.shape
        x, heads = x.contiguous(), inner // dim
        cosine, sine = angles if angles is not None else (None, None)
        y = x.new_empty(B, heads, T, dim)
        scale = torch.empty(B * T * heads) if gain is not None else None
        threads = _threads(x.numel())
        _call("heads", x.dtype, x, gain, cosine, sine, y, scale, B, T, heads, dim, epsilon, output, threads)
        ctx.save_for_backward(x if gain is not None else None, gain, cosine, sine, scale)
        ctx.output, ctx.shape = output, x.shape
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:  # type: ignore[override]
        x, gain, cosine, sine, scale = ctx.saved_tensors
        B, heads, T, dim = dy.shape
        threads = _threads(dy.numel())
        dx = dy.new_empty(ctx.shape)
        partial = torch.zeros(threads, dim)
        arguments = (dy.contiguous(), x, gain, cosine, sine, scale, dx, partial, B, T, heads, dim, ctx.output, threads)
        _call("heads_back", dy.dtype, *arguments)
        return dx, None if gain is None else partial.sum(0).to(gain.dtype), None, None, None, None


def heads_fit(dim: int) -> bool:
    """Whether heads of `dim` numbers fit the kernels."""
    return dim <= _MAX_DIM and dim % 2 == 0


def split_heads(
    x: Tensor,
    dim: int,
    *,
    gain: Tensor | None = None,
    angles: tuple[Tensor, Tensor] | None = None,
    epsilon: float = 0.0,
    output: float = 1.0,
) -> Tensor:
    """x [B, T, H·D] → [B, H, T, D], each head normed (when `gain` [D] is given), turned by angles [T, D/2] float32
    cosine and sine (when given) and multiplied by `output`, in one pass."""
    return _Heads.apply(x, gain, angles, dim, epsilon, output)  # type: ignore[no-any-return]


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        _call("swiglu", gate.dtype, gate, up, y, gate.numel(), _threads(gate.numel()))
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        count = gate.numel()
        _call("swiglu_back", gate.dtype, dy.contiguous(), gate, up, d_gate, d_up, count, _threads(count))
        return d_gate, d_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    return _SwiGLU.apply(gate, up)  # type: ignore[no-any-return]


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        _call("gelu", x.dtype, x, y, x.numel(), _threads(x.numel()))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        _call("gelu_back", x.dtype, dy.contiguous(), x, dx, x.numel(), _threads(x.numel()))
        return dx


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks and Gimpel 2016)."""
    return _GELU.apply(x)  # type: ignore[no-any-return]


def causal_softmax_(scores: Tensor, start: int) -> Tensor:
    """Scores [N, t, S] to probabilities in place; row i sees the first start + i + 1 columns. No gradient."""
    N, rows, columns = scores.shape
    _call("causal_softmax", scores.dtype, scores, N, rows, columns, start, _threads(scores.numel()))
    return scores


def causal_softmax_back_(slope: Tensor, weights: Tensor, start: int) -> Tensor:
    """The slope of probabilities [N, t, S] to that of scores, in place."""
    N, rows, columns = slope.shape
    _call("causal_softmax_back", slope.dtype, slope, weights, N, rows, columns, start, _threads(slope.numel()))
    return slope


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [n, V] to the slope of their summed cross-entropy, in place; returns the losses [n] in nats, float32.

    A negative target counts nothing.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows)
    _call("cross_entropy", logits.dtype, logits, targets.contiguous(), losses, rows, columns, _threads(logits.numel()))
    return losses


def adamw_(
    master: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    weight: Tensor | None,
    *,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    decay: float,
    step: int,
    scale: float,
) -> None:
    """One AdamW step of float32 `master` from a gradient times `scale`; `weight` becomes its rounded copy."""
    corrections = (1 - betas[0] ** step, 1 - betas[1] ** step)
    numbers = (rate, *betas, epsilon, decay, *corrections, scale)
    count = master.numel()
    tensors = (master, gradient.contiguous(), first, second, weight)
    _call("adamw", gradient.dtype, *tensors, count, *(float(number) for number in numbers), _threads(count))
