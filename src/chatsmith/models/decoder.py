"""The decoder: GPT-2, GPT-3, Llama and Qwen3 from one `ModelSpec`.

    ids → embedding (+ learned positions) → L × [norm → attention → +; norm → feed-forward → +] → norm → head → logits

Shapes: B batch, T time (query), S source (key), H heads, K key/value heads, D head_dim, E width, V vocabulary.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from chatsmith.errors import RequestError
from chatsmith.kernels.native import Angles
from chatsmith.models import fused, induction
from chatsmith.models.attention import Attention, attention_mask, places
from chatsmith.models.cache import Pass
from chatsmith.models.dropout import Dropout, fresh_noise, noise_of
from chatsmith.models.layers import FeedForward, Linear, Rotary, make_norm
from chatsmith.models.lookup import rows_of
from chatsmith.specs import ModelSpec


class Embedding(nn.Module):
    """A table of vectors [V, E], looked up by id and given in `dtype`."""

    def __init__(self, count: int, width: int, **where: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width, **where))

    def forward(self, ids: Tensor, dtype: torch.dtype, table: Tensor | None = None) -> Tensor:
        if table is not None:
            return rows_of(table, ids).to(dtype)
        return F.embedding(ids, self.weight).to(dtype)


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, spec: ModelSpec, layer: int, **where: Any) -> None:
        super().__init__()
        self.attention_norm = make_norm(spec, spec.width, **where)
        self.attention = Attention(spec, layer, **where)
        self.ffn_norm = make_norm(spec, spec.width, **where)
        self.ffn = FeedForward(spec, **where)
        self.spec = spec

    def forward(
        self,
        x: Tensor,
        angles: Angles | None,
        mask: Tensor | fused.Window | None,
        cache: Pass | None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """x [B, T, E] → [B, T, E]. A `Window` for a mask asks for the layer in one piece, over the kernels.

        With `noise`, the layer's own, what is added is thinned by dropout.
        """
        dropout = None if noise is None else Dropout(noise, self.spec.dropout)
        if isinstance(mask, fused.Window):
            return fused.layer(self, self.spec, x, angles, mask.first, dropout, mask.again)
        read = self.attention(self.attention_norm(x), angles, mask, cache)
        x = x + (read if dropout is None else dropout.thin(read, 0))
        made = self.ffn(self.ffn_norm(x))
        return x + (made if dropout is None else dropout.thin(made, 1))


class Decoder(nn.Module):
    """A decoder-only transformer of the given shape; its weights are unset until `init_weights` or a load.

    `compute_dtype` is the dtype that flows through the layers (None: that of the weights). Weights stay as they are.

    A decoder may be cut into stages that follow each other: `enter`, some layers of `blocks` under their own numbers,
    and `norm` with the head. What a stage lacks it never calls.
    """

    def __init__(
        self, spec: ModelSpec, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.spec = spec
        self.compute_dtype: torch.dtype | None = None
        self.activation_checkpointing = False
        # Whether layers may run fused; None: where their weights are of the dtype that flows, and laid out plainly.
        self.fuses: bool | None = None
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
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that flows through the layers."""
        return self.compute_dtype or self.embed.weight.dtype

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, E]: the embedding itself when tied."""
        return self.embed.weight if self.spec.tied else self.head.weight

    def init_weights(self, seed: int, induction_heads: int = 0) -> None:
        """Draw the weights as GPT-2 did (Radford et al. 2019): normal of deviation 0.02, positions 0.01.

        The two projections that write to the residual stream get 0.02/√(2L); biases are 0 and norm gains 1, but those
        of queries and keys √2: normed heads of D numbers score at most √D times both gains, with gains of 1 and D = 32
        too little to single out one place of hundreds, and a short run spends its beginning on making them grow. The
        draw depends on the seed alone: each matrix is drawn in float32 on the CPU, in the order of the parameter names.

        With `induction_heads` so many heads of the first two layers begin as ones that look back for what followed
        (`induction`). Raises `RequestError` where the shape has no room for them.
        """
        self.spec.check_induction_heads(induction_heads)
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
        if induction_heads:
            induction.lay(self.spec, self.embed.weight, self.blocks, induction_heads, generator)

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
        noise: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """The states after the last norm, [B, T, E].

        `segments` [B, T] numbers the document of each token: attention then stays inside a document. `positions`
        [B, T] replaces the running positions. With a `cache` the one row of ids [1, T] holds the new tokens of all
        sequences of the pass; they stand where it says and see their own sequence. `noise` int64 [B, T] is what dropout
        draws from in training (None: PyTorch's generator). `table` stands for the embedding's weights where these have
        two uses (`lookup.for_lookup_and_head`).
        """
        self._check_length(ids.shape[1] if cache is None else cache.longest)
        if cache is not None:
            positions = cache.positions
        if not (self.spec.dropout and self.training):
            noise = None
        elif noise is None:
            noise = fresh_noise(ids)
        x = self.enter(ids, positions, noise, table)
        return self.norm(
            self.through(x, ids.shape[1], segments=segments, positions=positions, cache=cache, noise=noise)
        )

    def enter(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        noise: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """The embeddings of ids [B, T] at `positions` (None: the running ones), [B, T, E]; with `noise` thinned."""
        x = self.embed(ids, self.dtype, table)
        if noise is not None:
            x = Dropout(noise_of(noise, -1), self.spec.dropout).thin(x, 0)
        if self.spec.positions == "learned":
            x = x + self.positions(places(ids.shape[1], ids.device) if positions is None else positions, self.dtype)
        return x

    def through(
        self,
        x: Tensor,
        tokens: int,
        *,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Pass | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """x [B, T, E] after the layers of `blocks`, for rows of `tokens` tokens; the rest is as in `hidden`."""
        angles = None
        if self.spec.positions == "rotary":
            longest = cache.longest if cache is not None else tokens if positions is None else self._furthest(positions)
            cosine, sine = self.rotary.tables(longest, x.device)
            angles = (cosine[:tokens], sine[:tokens]) if positions is None else (cosine[positions], sine[positions])
        masks = self.masks(x, tokens, segments) if cache is None else (None, None)
        for name, block in self.blocks.named_children():
            mask = masks[self.spec.layer_band(int(name)) is not None]
            own = None if noise is None else noise_of(noise, int(name))
            run = partial(block, angles=angles, mask=mask, cache=cache, noise=own)
            if self._computes_again():
                x = checkpoint(run, x, use_reentrant=False)
            else:
                x = run(x)
        return x

    def _computes_again(self) -> bool:
        """Whether layers are computed again on the way back."""
        return self.activation_checkpointing and self.training and torch.is_grad_enabled()

    def _furthest(self, positions: Tensor) -> int:
        """How many places there must be angles for; a GPU is not asked, which would wait for all that it has to do."""
        return int(positions.max()) + 1 if positions.device.type == "cpu" else self.spec.context

    def masks(
        self, x: Tensor, tokens: int, segments: Tensor | None
    ) -> tuple[Tensor | fused.Window | None, Tensor | fused.Window | None]:
        """The masks of dense and of banded layers; None where plain causal attention says the same."""
        if self._fuses(x) and fused.suits(self.spec, x) and fused.in_a_row(segments):
            again = self._computes_again()
            dense, banded = (fused.Window(fused.windows(x, band, segments), again) for band in (None, self.spec.band))
            return dense, banded
        at = places(tokens, x.device)
        mask = None if segments is None else attention_mask(at, None, segments)
        if self.spec.band is None or (segments is None and tokens <= self.spec.band):
            return mask, mask
        return mask, attention_mask(at, self.spec.band, segments)

    def _fuses(self, x: Tensor) -> bool:
        if self.fuses is not None:
            return self.fuses
        weight = self.embed.weight
        return weight.dtype == x.dtype and weight.is_contiguous()  # laid across for generation they are not

    def _check_length(self, length: int) -> None:
        if length > self.spec.context:
            raise RequestError(
                f"{length} tokens are more than the context of {self.spec.context} this model was made for",
                "shorten the text, or choose a model with a longer context",
            )
