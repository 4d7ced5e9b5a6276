"""The parts of a decoder block: linear maps, norms, rotary positions, feed-forward.

Weights are kept in the dtype they were made in (float32 while training); each layer casts them to the dtype of what
flows through it. So precision is chosen once, by the dtype of the embedding's output, and no autocast is needed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatsmith.kernels import ops
from chatsmith.kernels.native import Angles
from chatsmith.models import rotary
from chatsmith.specs import ModelSpec

_TWO_ROOT = 2 * math.sqrt(2 / math.pi)


class Linear(nn.Module):
    """y = x Wᵀ + b with W [out, in], computed in the dtype of x."""

    def __init__(self, inputs: int, outputs: int, bias: bool, **where: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, **where))
        self.bias = nn.Parameter(torch.empty(outputs, **where)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class LayerNorm(nn.Module):
    """Layer normalisation with gain and bias over the last dimension (Ba et al. 2016)."""

    def __init__(self, width: int, epsilon: float, **where: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, **where))
        self.bias = nn.Parameter(torch.empty(width, **where))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        gain, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if ops.ready(x):
            return ops.norm(x, gain, bias, self.epsilon)
        return F.layer_norm(x, x.shape[-1:], gain, bias, self.epsilon)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a gain over the last dimension (Zhang and Sennrich 2019), float32 inside."""

    def __init__(self, width: int, epsilon: float, **where: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, **where))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        if ops.ready(x):
            return ops.norm(x, self.weight.to(x.dtype), None, self.epsilon)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * scale).to(x.dtype) * self.weight.to(x.dtype)


def make_norm(spec: ModelSpec, width: int, **where: Any) -> nn.Module:
    """The norm that a spec asks for, over `width` features."""
    kind = LayerNorm if spec.norm == "layer" else RMSNorm
    return kind(width, spec.norm_epsilon, **where)


def _gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form. Compiled, it is x · σ(2u) for ½x · (1 + tanh u): the same, and a GPU's kernel then waits
    for memory, not for what tanh costs."""
    if not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.sigmoid(_TWO_ROOT * (wide + 0.044715 * wide * wide * wide))).to(x.dtype)


class FeedForward(nn.Module):
    """Two linear maps round a GELU (GPT-2), or three with a SiLU gate (SwiGLU, Shazeer 2020)."""

    def __init__(self, spec: ModelSpec, **where: Any) -> None:
        super().__init__()
        self.activation = spec.activation
        if spec.gated:
            self.gate = Linear(spec.width, spec.ffn_width, spec.ffn_bias, **where)
        self.up = Linear(spec.width, spec.ffn_width, spec.ffn_bias, **where)
        self.down = Linear(spec.ffn_width, spec.width, spec.ffn_bias, **where)

    def forward(self, x: Tensor) -> Tensor:
        if self.activation == "swiglu":
            gate, up = self.gate(x), self.up(x)
            return self.down(ops.swiglu(gate, up) if ops.ready(x) else F.silu(gate) * up)
        up = self.up(x)
        if self.activation == "gelu_tanh":
            return self.down(ops.gelu_tanh(up) if ops.ready(x) else F.gelu(up, approximate="tanh"))
        return self.down(F.gelu(up))


class Rotary:
    """The angles of rotary positions (Su et al. 2021), as float32 tables [C, D/2] that grow with what is asked for.

    One object serves all layers. It is no module: it has nothing to learn and nothing to save.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._tables: dict[torch.device, Angles] = {}

    def tables(self, length: int, device: torch.device) -> Angles:
        """Cosine and sine [≥ length, D/2] in float32."""
        known = self._tables.get(device)
        if known is None or known[0].shape[0] < length:
            size = max(256, 1 << (length - 1).bit_length())
            cosine, sine = (torch.from_numpy(table).to(device) for table in rotary.angles(self.spec, size))
            known = self._tables[device] = (cosine, sine)
        return known


class _Rotate(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back: nothing is kept but the angles."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotate(x, cosine, sine)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors  # type: ignore[attr-defined]
        return _rotate(gradient, cosine, -sine), None, None


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Turn x [B, T, H, D] by `angles`, in the layout of Llama: number i of a head and number i + D/2 make a pair."""
    cosine, sine = (table.to(x.dtype)[..., None, :] for table in angles)
    return _Rotate.apply(x, cosine, sine)
