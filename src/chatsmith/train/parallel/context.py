"""Context parallelism: every row divided over a group, each process with a run of its tokens.

Queries stay where they are; keys and values are gathered, and their slopes summed on the way back (Dubey et al. 2024,
section 3.3.2). With grouped heads they are a small part of a layer. PyTorch's own ring serves its GPU kernels only;
this needs nothing but attention with a mask, so it runs wherever that does, banded layers and documents included.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from chatsmith.models.attention import attention_mask, places
from chatsmith.models.decoder import Decoder
from chatsmith.train.parallel.exchange import gather, gathered


def context_parallel(model: Decoder, group: dist.ProcessGroup) -> None:
    """Let `model` work on its part [B, T/c] of rows of T tokens; it must be told their `positions`."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)

    def mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        key, value = gather(key, 2, group, partial=True), gather(value, 2, group, partial=True)
        repeat = query.shape[1] // key.shape[1]
        if repeat > 1:
            key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def masks(x: Tensor, tokens: int, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        at = places(size * tokens, x.device)
        mine = slice(rank * tokens, (rank + 1) * tokens)
        whole = None if segments is None else gathered(segments, 1, group)
        dense = attention_mask(at, None, whole, mine)
        return dense, dense if model.spec.band is None else attention_mask(at, model.spec.band, whole, mine)

    block: Any
    for block in model.blocks.children():
        block.attention.mix = mix
    model.masks = masks  # type: ignore[method-assign]
    model.fuses = False  # a fused layer has the whole row
