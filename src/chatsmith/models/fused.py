"""A whole layer as one differentiable function, with its way back written out, over the kernels.

A small model's step is spent on calls: recording every operation, and walking back over it, costs as much as the
arithmetic. Here a layer is one node of the graph. It keeps the inputs of its matrix multiplies but neither the
weights of attention nor the output of the activation, which the way back makes again. `Block` computes the same from
plain torch operations, for other devices, dtypes and shapes; tests hold the two together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from chatsmith.kernels import native
from chatsmith.models.dropout import Dropout
from chatsmith.specs import ModelSpec

Weights = dict[str, Tensor]
Angles = tuple[Tensor, Tensor]


class Window(NamedTuple):
    """A mask in the terms of a fused layer: the first position that each query may see (`windows`)."""

    first: Tensor | None


def suits(spec: ModelSpec, x: Tensor) -> bool:
    """Whether the layers of `spec` run fused for input x [B, T, E], where their weights are whole and of its dtype."""
    return spec.activation != "gelu" and x.shape[1] > 1 and native.attends(spec.head_dim) and native.multiplies(x)


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
) -> Tensor:
    """`block` applied to x [B, T, E]; a query at t sees the keys first[b, t] … t."""
    names, weights = zip(*block.named_parameters(), strict=True)
    if angles is not None:
        angles = (angles[0].contiguous(), angles[1].contiguous())
    return _Layer.apply(x.contiguous(), spec, dropout, angles, first, names, *weights)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        spec: ModelSpec,
        dropout: Dropout | None,
        angles: Angles | None,
        first: Tensor | None,
        names: tuple[str, ...],
        *weights: Tensor,
    ) -> Tensor:
        w = dict(zip(names, weights, strict=True))
        middle, kept_attention = _attend(x, w, spec, dropout, angles, first)
        y, kept_ffn = _feed(middle, w, spec, dropout)
        ctx.spec, ctx.angles, ctx.first, ctx.names = spec, angles, first, names
        ctx.growth = 1.0 if dropout is None else dropout.scale
        ctx.split = len(kept_attention)
        ctx.save_for_backward(*kept_attention, *kept_ffn, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inner = len(saved) - len(ctx.names)
        w = dict(zip(ctx.names, saved[inner:], strict=True))
        gradients: Weights = {}
        d_middle = _feed_back(slope.contiguous(), saved[ctx.split : inner], w, ctx.spec, ctx.growth, gradients)
        dx = _attend_back(d_middle, saved[: ctx.split], w, ctx.spec, ctx.growth, ctx.angles, ctx.first, gradients)
        return dx, None, None, None, None, None, *(gradients[name] for name in ctx.names)


def _flat(x: Tensor) -> Tensor:
    return x.view(-1, x.shape[-1])


def _linear_back(slope: Tensor, x: Tensor, name: str, w: Weights, gradients: Weights) -> None:
    """The slopes of a linear map's weight and bias."""
    gradients[f"{name}.weight"] = native.linear_weight(slope, x)
    if f"{name}.bias" in w:
        gradients[f"{name}.bias"] = native.column_sums(slope)


def _norm_back(
    slope: Tensor, x: Tensor, kept: native.Kept, name: str, add: Tensor, w: Weights, gradients: Weights
) -> Tensor:
    dx, d_gain, d_bias = native.norm_back(slope, x, w[f"{name}.weight"], kept, add)
    gradients[f"{name}.weight"] = d_gain
    if d_bias is not None:
        gradients[f"{name}.bias"] = d_bias
    return dx


def _written(
    x: Tensor, read: Tensor, name: str, w: Weights, dropout: Dropout | None, part: int
) -> tuple[Tensor, Tensor | None]:
    """read Wᵀ + b, thinned by dropout, added to the residual stream x; and what dropout kept (None without it)."""
    weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
    if dropout is None:
        return native.linear(read, weight, bias, _flat(x)).view_as(x), None
    mask = _flat(dropout.kept(part, x.shape[-1]))
    thinned = _written_back(native.linear(read, weight, bias), mask, dropout.scale)  # forward is the same product
    return thinned.add_(_flat(x)).view_as(x), mask


def _written_back(slope: Tensor, mask: Tensor | None, growth: float) -> Tensor:
    """The slope of what was written, before dropout thinned it."""
    return slope if mask is None else torch.ops.aten.native_dropout_backward(slope, mask, growth)


def _gains(w: Weights) -> tuple[Tensor | None, Tensor | None]:
    return w.get("attention.query_norm.weight"), w.get("attention.key_norm.weight")


def _attend(
    x: Tensor, w: Weights, spec: ModelSpec, dropout: Dropout | None, angles: Angles | None, first: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """x + attention(norm(x)), and what the way back needs."""
    B, T, _ = x.shape
    normed, kept = native.norm(x, w["attention_norm.weight"], w.get("attention_norm.bias"), spec.norm_epsilon)
    raw = [
        native.linear(_flat(normed), w[f"attention.{part}.weight"], w.get(f"attention.{part}.bias")).view(B, T, -1)
        for part in ("query", "key", "value")
    ]
    query, key, value = raw
    scales: list[Tensor | None] = [None, None]
    gains = _gains(w)
    if angles is not None or gains[0] is not None:
        query, scales[0] = native.heads(query, spec.head_dim, gains[0], angles, spec.norm_epsilon)
        key, scales[1] = native.heads(key, spec.head_dim, gains[1], angles, spec.norm_epsilon)
    mixed, kept_rows = native.attention(query, key, value, spec.head_dim, first)
    y, mask = _written(x, _flat(mixed), "attention.output", w, dropout, 0)
    before = raw[:2] if gains[0] is not None else [None, None]
    return y, [x, normed, *kept, *before, *scales, query, key, value, mixed, kept_rows, mask]


def _attend_back(
    slope: Tensor,
    kept: tuple[Tensor, ...],
    w: Weights,
    spec: ModelSpec,
    growth: float,
    angles: Angles | None,
    first: Tensor | None,
    gradients: Weights,
) -> Tensor:
    x, normed, scale, mean, raw_query, raw_key, query_scale, key_scale, query, key, value, mixed, kept_rows, mask = kept
    flat, dim = _written_back(_flat(slope), mask, growth), spec.head_dim
    _linear_back(flat, _flat(mixed), "attention.output", w, gradients)
    d_mixed = native.linear_input(flat, w["attention.output.weight"]).view_as(mixed)
    d_query, d_key, d_value = native.attention_back(d_mixed, query, key, value, dim, first, kept_rows)
    gains = _gains(w)
    if angles is not None or gains[0] is not None:
        d_query, d_gain = native.heads_back(d_query, raw_query, dim, gains[0], angles, query_scale)
        d_key, d_key_gain = native.heads_back(d_key, raw_key, dim, gains[1], angles, key_scale)
        if d_gain is not None and d_key_gain is not None:
            gradients["attention.query_norm.weight"], gradients["attention.key_norm.weight"] = d_gain, d_key_gain
    d_normed: Tensor | None = None
    for part, d_part in (("query", d_query), ("key", d_key), ("value", d_value)):
        _linear_back(_flat(d_part), _flat(normed), f"attention.{part}", w, gradients)
        d_normed = native.linear_input(_flat(d_part), w[f"attention.{part}.weight"], d_normed)
    assert d_normed is not None
    return _norm_back(d_normed.view_as(x), x, (scale, mean), "attention_norm", slope, w, gradients)


def _feed(x: Tensor, w: Weights, spec: ModelSpec, dropout: Dropout | None) -> tuple[Tensor, list[Tensor | None]]:
    """x + ffn(norm(x)), and what the way back needs."""
    normed, kept = native.norm(x, w["ffn_norm.weight"], w.get("ffn_norm.bias"), spec.norm_epsilon)
    up = native.linear(_flat(normed), w["ffn.up.weight"], w.get("ffn.up.bias"))
    gate = None
    if spec.gated:
        gate = native.linear(_flat(normed), w["ffn.gate.weight"], w.get("ffn.gate.bias"))
        active = native.swiglu(gate, up)
    else:
        active = native.gelu_tanh(up)
    y, mask = _written(x, active, "ffn.down", w, dropout, 1)
    return y, [x, normed, *kept, up, gate, mask]


def _feed_back(
    slope: Tensor, kept: tuple[Tensor, ...], w: Weights, spec: ModelSpec, growth: float, gradients: Weights
) -> Tensor:
    x, normed, scale, mean, up, gate, mask = kept
    flat = _written_back(_flat(slope), mask, growth)
    d_active = native.linear_input(flat, w["ffn.down.weight"])
    if spec.gated:
        d_gate, d_up, active = native.swiglu_back(d_active, gate, up)
    else:
        d_up, active = native.gelu_tanh_back(d_active, up)
    _linear_back(flat, active, "ffn.down", w, gradients)
    _linear_back(d_up, _flat(normed), "ffn.up", w, gradients)
    d_normed = native.linear_input(d_up, w["ffn.up.weight"])
    if spec.gated:
        _linear_back(d_gate, _flat(normed), "ffn.gate", w, gradients)
        d_normed = native.linear_input(d_gate, w["ffn.gate.weight"], d_normed)
    return _norm_back(d_normed.view_as(x), x, (scale, mean), "ffn_norm", slope, w, gradients)
