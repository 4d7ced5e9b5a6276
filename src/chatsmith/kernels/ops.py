"""Some kernels as differentiable torch functions; each has a plain-torch twin that serves wherever they do not.

`ready(x)` says whether they serve. Callers then use these functions in place of their own torch lines; the numbers
agree within rounding (tests hold both to float64). Whole layers go further, in `models.fused`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chatsmith.kernels import native
from chatsmith.kernels.native import ready

__all__ = ["gelu_tanh", "norm", "ready", "swiglu"]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        x, gain = x.contiguous(), gain.contiguous()
        y, kept = native.norm(x, gain, bias, epsilon)
        ctx.save_for_backward(x, gain, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, gain, scale, mean = ctx.saved_tensors
        return *native.norm_back(slope.contiguous(), x, gain, (scale, mean)), None


def norm(x: Tensor, gain: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Layer norm of the last dimension or, without a bias, x / √(mean x² + ε) · gain."""
    if not torch.is_grad_enabled():
        return native.norm(x.contiguous(), gain.contiguous(), bias, epsilon)[0]
    return _Norm.apply(x, gain, bias, epsilon)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return native.swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        return native.swiglu_back(slope.contiguous(), *ctx.saved_tensors)[:2]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    if not torch.is_grad_enabled():
        return native.swiglu(gate.contiguous(), up.contiguous())
    return _SwiGLU.apply(gate, up)


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        return native.gelu_tanh(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return native.gelu_tanh_back(slope.contiguous(), *ctx.saved_tensors)[0]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks and Gimpel 2016)."""
    if not torch.is_grad_enabled():
        return native.gelu_tanh(x.contiguous())
    return _GELU.apply(x)
