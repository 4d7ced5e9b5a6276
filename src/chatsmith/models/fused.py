"""A whole layer as one differentiable function, whose two ways are one call each.

A small model's step is spent on calls: recording every operation, and walking back over it, costs more than the
arithmetic. Here a layer is one node of the graph. `Block` computes the same from plain torch operations, for other
devices, dtypes and shapes; tests hold the two together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from chatsmith.kernels import layer as kernel
from chatsmith.kernels.native import Angles
from chatsmith.models.dropout import Dropout
from chatsmith.specs import ModelSpec

_ALL: tuple[Tensor | None, Tensor | None] = (None, None)  # masks that keep everything


class Window(NamedTuple):
    """A mask in the terms of a fused layer: the first position that each query may see (`windows`).

    `again` says that the layer is computed again on the way back.
    """

    first: Tensor | None
    again: bool = False


def suits(spec: ModelSpec, x: Tensor) -> bool:
    """Whether the layers of `spec` run fused for input x [B, T, E], where their weights are whole and of its dtype."""
    return x.shape[1] > 1 and kernel.suits(spec, x)


def in_a_row(segments: Tensor | None) -> bool:
    """Whether the documents that `segments` [B, T] number follow each other, none coming back after another."""
    return segments is None or not bool((segments[:, 1:] < segments[:, :-1]).any())


def windows(x: Tensor, band: int | None, segments: Tensor | None) -> Tensor | None:
    """The first position that each query of x [B, T, E] may see, [B, T] int32; None where all may see all before."""
    B, T, _ = x.shape
    if segments is None and (band is None or band >= T):
        return None
    at = torch.arange(T)
    first = torch.zeros(B, T, dtype=torch.long)
    if segments is not None:
        begins = segments[:, 1:] != segments[:, :-1]
        first[:, 1:] = torch.where(begins, at[1:], 0)
        first = first.cummax(1).values
    if band is not None:
        first = torch.maximum(first, at - band + 1)
    return first.to(torch.int32).contiguous()


def layer(
    block: nn.Module,
    spec: ModelSpec,
    x: Tensor,
    angles: Angles | None,
    first: Tensor | None,
    dropout: Dropout | None = None,
    again: bool = False,
) -> Tensor:
    """`block` applied to x [B, T, E]; a query at t sees the keys first[b, t] … t.

    What is computed `again` on the way back keeps nothing for it beside its output.
    """
    names, weights = zip(*block.named_parameters(), strict=True)
    if angles is not None:
        angles = (angles[0].contiguous(), angles[1].contiguous())
    growth, masks = 1.0, _ALL
    if dropout is not None:
        growth = dropout.scale
        masks = (dropout.kept(0, spec.width).contiguous(), dropout.kept(1, spec.width).contiguous())
    setting = kernel.Setting(spec, angles, first, growth, masks)
    back = torch.is_grad_enabled() and (x.requires_grad or any(weight.requires_grad for weight in weights))
    return _Layer.apply(x.contiguous(), setting, back and not again, names, *weights)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, setting: kernel.Setting, back: bool, names: tuple[str, ...], *weights: Tensor
    ) -> Tensor:
        y, kept = kernel.forward(x, dict(zip(names, weights, strict=True)), setting, back)
        ctx.setting, ctx.names = setting, names
        ctx.save_for_backward(x, kept, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *weights = ctx.saved_tensors
        named = dict(zip(ctx.names, weights, strict=True))
        dx, slopes = kernel.backward(slope.contiguous(), x, kept, named, ctx.setting)
        return dx, None, None, None, *(slopes[name] for name in ctx.names)
