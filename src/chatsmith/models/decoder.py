"""The decoder: GPT-2, GPT-3, Llama and Qwen3 from one `ModelSpec`.

    ids → embedding (+ learned positions) → L × [norm → attention → +; norm → feed-forward → +] → norm → head → logits

Shapes: B batch, T time (query), S source (key), H heads, K key/value heads, D head_dim, E width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from chatsmith.errors import RequestError
from chatsmith.models import fused
from chatsmith.models.attention import Attention, attention_mask, places
from chatsmith.models.cache import Pass
from chatsmith.models.layers import FeedForward, Linear, Rotary, make_norm
from chatsmith.specs import ModelSpec


class Embedding(nn.Module):
    """A table of vectors [V, E], looked up by id and given in `dtype`."""

    def __init__(self, count: int, width: int, **where: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width, **where))

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(ids, self.weight).to(dtype)


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, spec: ModelSpec, layer: int, **where: Any) -> None:
        super().__init__()
        self.attention_norm = make_norm(spec, spec.width, **where)
        self.attention = Attention(spec, layer, **where)
        self.ffn_norm = make_norm(spec, spec.width, **where)
        self.ffn = FeedForward(spec, **where)
        self.dropout = spec.dropout

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor] | None, mask: Tensor | None, cache: Pass | None
    ) -> Tensor:
        x = x + self._drop(self.attention(self.attention_norm(x), angles, mask, cache))
        return x + self._drop(self.ffn(self.ffn_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Decoder(nn.Module):
    """A decoder-only transformer of the given shape; its weights are unset until `init_weights` or a load.

    `compute_dtype` is the dtype that flows through the layers (None: that of the weights). Weights stay as they are.
    """

    def __init__(
        self, spec: ModelSpec, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.spec = spec
        self.compute_dtype: torch.dtype | None = None
        self.activation_checkpointing = False
        self.embed = Embedding(spec.vocab_size, spec.width, **where)
        if spec.positions == "learned":
            self.positions = Embedding(spec.context, spec.width, **where)
        self.blocks = nn.ModuleList(Block(spec, layer, **where) for layer in range(spec.layers))
        self.rotary = Rotary(spec)
        self.norm = make_norm(spec, spec.width, **where)
        if not spec.tied:
            self.head = Linear(spec.width, spec.vocab_size, bias=False, **where)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that flows through the layers."""
        return self.compute_dtype or self.embed.weight.dtype

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, E]: the embedding itself when tied."""
        return self.embed.weight if self.spec.tied else self.head.weight

    def init_weights(self, seed: int) -> None:
        """Draw the weights as GPT-2 did (Radford et al. 2019): normal of deviation 0.02, positions 0.01.

        The two projections that write to the residual stream get 0.02/√(2L); biases are 0 and norm gains 1, but those
        of queries and keys √2: normed heads of D numbers score at most √D times both gains, with gains of 1 and D = 32
        too little to single out one place of hundreds, and a short run spends its beginning on making them grow. The
        draw depends on the seed alone: each matrix is drawn in float32 on the CPU, in the order of the parameter names.
        """
        generator = torch.Generator().manual_seed(seed)
        residual = 0.02 / math.sqrt(2 * self.spec.layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                sharp = name.endswith(("query_norm.weight", "key_norm.weight"))
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else math.sqrt(2.0) if sharp else 1.0)
                continue
            written = name.endswith(("attention.output.weight", "ffn.down.weight"))
            deviation = 0.01 if name == "positions.weight" else residual if written else 0.02
            drawn = torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator)
            with torch.no_grad():
                parameter.copy_(drawn)

    def forward(
        self,
        ids: Tensor,
        *,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Pass | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of ids [B, T]; see `hidden` for the rest."""
        return self.logits(self.hidden(ids, segments=segments, positions=positions, cache=cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head: hidden [..., E] → logits [..., V], in the dtype of `hidden`."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype))

    def hidden(
        self,
        ids: Tensor,
        *,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Pass | None = None,
    ) -> Tensor:
        """The states after the last norm, [B, T, E].

        `segments` [B, T] numbers the document of each token: attention then stays inside a document. `positions`
        [B, T] replaces the running positions. With a `cache` the one row of ids [1, T] holds the new tokens of all
        sequences of the pass; they stand where it says and see their own sequence.
        """
        T = ids.shape[1]
        running = cache is None and positions is None
        if cache is not None:
            positions = cache.positions
        elif positions is None:
            positions = places(T, ids.device)
        self._check_length(T if cache is None else cache.longest)
        x = self.embed(ids, self.dtype)
        if self.spec.dropout:
            x = F.dropout(x, self.spec.dropout, self.training)
        angles = None
        if self.spec.positions == "learned":
            x = x + self.positions(positions, self.dtype)
        else:
            longest = cache.longest if cache is not None else T if running else int(positions.max()) + 1
            cosine, sine = self.rotary.tables(longest, x.device)
            angles = (cosine[:T], sine[:T]) if running else (cosine[positions], sine[positions])
        for run in self._layers(x, angles, segments, cache):
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(run, x, use_reentrant=False)
            else:
                x = run(x)
        return self.norm(x)

    def _layers(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        segments: Tensor | None,
        cache: Pass | None,
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """The layers one after the other, each as a function of its input alone."""
        plain = cache is None and fused.in_a_row(segments)
        if plain and fused.suits(self.spec, x, self.embed.weight):
            first = [fused.windows(x, band, segments) for band in (None, self.spec.band)]
            for layer, block in enumerate(self.blocks):
                window = first[self.spec.layer_band(layer) is not None]
                yield partial(fused.layer, block, self.spec, angles=angles, first=window)
            return
        masks = self._masks(x.shape[1], x.device, segments) if cache is None else (None, None)
        for layer, block in enumerate(self.blocks):
            mask = masks[self.spec.layer_band(layer) is not None]
            yield partial(block, angles=angles, mask=mask, cache=cache)

    def _check_length(self, length: int) -> None:
        if length > self.spec.context:
            raise RequestError(
                f"{length} tokens are more than the context of {self.spec.context} this model was made for",
                "shorten the text, or choose a model with a longer context",
            )

    def _masks(self, tokens: int, device: torch.device, segments: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The masks of dense and of banded layers; None where plain causal attention says the same."""
        at = places(tokens, device)
        dense = None if segments is None else attention_mask(at, None, segments)
        if self.spec.band is None or (segments is None and tokens <= self.spec.band):
            return dense, dense
        return dense, attention_mask(at, self.spec.band, segments)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in a model, shared ones counted once."""
    return sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
