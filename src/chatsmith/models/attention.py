"""The one attention of the decoders: grouped heads, optional query/key norms, dense or banded, cached or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatsmith.kernels import native
from chatsmith.kernels.native import Angles
from chatsmith.models import causal
from chatsmith.models.cache import Pass
from chatsmith.models.layers import Linear, RMSNorm, rotate
from chatsmith.specs import ModelSpec


class Attention(nn.Module):
    """Causal self-attention of one layer (Vaswani et al. 2017), H query heads sharing K key/value heads.

    `mix` is the step between the projections; another one may be put in its place.
    """

    def __init__(self, spec: ModelSpec, layer: int, **where: Any) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_dim = layer, spec.heads, spec.kv_heads, spec.head_dim
        inner, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.query = Linear(spec.width, inner, spec.attention_bias, **where)
        self.key = Linear(spec.width, keys, spec.attention_bias, **where)
        self.value = Linear(spec.width, keys, spec.attention_bias, **where)
        self.output = Linear(inner, spec.width, spec.attention_bias, **where)

        def norm() -> RMSNorm | None:
            return RMSNorm(spec.head_dim, spec.norm_epsilon, **where) if spec.qk_norm else None

        self.query_norm, self.key_norm = norm(), norm()

    def forward(self, x: Tensor, angles: Angles | None, mask: Tensor | None, cache: Pass | None) -> Tensor:
        """x [B, T, E] → [B, T, E]. `mask` [B or 1, 1, T, S] is True where a query may look; None means plain causal.

        With a `cache` the one row [1, T, E] holds new tokens of many sequences, which see what they are to see there.
        """
        if cache is not None:
            return self._cached(x, angles, cache)
        B, T, _ = x.shape
        query = self._heads(self.query(x), self.query_norm, angles).transpose(1, 2)
        key = self._heads(self.key(x), self.key_norm, angles).transpose(1, 2)
        value = self._heads(self.value(x), None, None).transpose(1, 2)
        mixed = self.mix(query, key, value, mask)
        return self.output(mixed.transpose(1, 2).reshape(B, T, -1))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(QKᵀ/√D) V for query [B, H, T, D] and key, value [B, K, T, D]."""
        if causal.suits(query):
            repeat = self.heads // self.kv_heads
            if repeat > 1:
                key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
            return causal.causal_attention(query, key, value, mask)
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None and query.shape[2] > 1,
            enable_gqa=self.heads != self.kv_heads,
        )

    def _cached(self, x: Tensor, angles: Angles | None, cache: Pass) -> Tensor:
        query = self._placed(self.query(x), self.query_norm, angles)
        key = self._placed(self.key(x), self.key_norm, angles)
        return self.output(cache.attend(self.layer, query[0], key[0], self.value(x)[0])[None])

    def _placed(self, x: Tensor, norm: RMSNorm | None, angles: Angles | None) -> Tensor:
        """x [B, T, n·D] with each head normed and turned where asked for, by the kernel where it serves."""
        if norm is None and angles is None:
            return x
        if native.ready(x) and self.head_dim <= native.MAX_DIM:
            gain, epsilon = (None, 0.0) if norm is None else (norm.weight.to(x.dtype), norm.epsilon)
            return native.heads(x, self.head_dim, gain, angles, epsilon)[0]
        return self._heads(x, norm, angles).flatten(2)

    def _heads(self, x: Tensor, norm: RMSNorm | None, angles: Angles | None) -> Tensor:
        """x [B, T, n·D] → [B, T, n, D], each head normed and turned where asked for."""
        split = x.view(*x.shape[:2], -1, self.head_dim)
        if norm is not None:
            split = norm(split)
        if angles is not None:
            split = rotate(split, angles)
        return split


def attention_mask(
    at: Tensor, band: int | None, segments: Tensor | None = None, queries: slice = slice(None)
) -> Tensor:
    """Who may look at whom, [B or 1, 1, T, S] of bool, for S tokens at the places `at` [1, S] of their rows, of which
    the `queries` look.

    A query sees keys at its own place and before; with a band of n only the last n places (itself included); with
    `segments` [B, T] only those of its own document.
    """
    distance = at[:, queries, None] - at[:, None, :]
    mask = distance >= 0
    if band is not None:
        mask = mask & (distance < band)
    if segments is not None:
        mask = mask & (segments[:, queries, None] == segments[:, None, :])
    return mask[:, None]


def places(length: int, device: torch.device) -> Tensor:
    """The places 0 … length − 1 as one row [1, length]."""
    return torch.arange(length, device=device)[None]
