"""Exchanges within a group that gradients flow back through."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# PyTorch's names for them from 2.13 on; by the old ones it warns every user.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, dim: int, group: dist.ProcessGroup, partial: bool) -> Tensor:
        ctx.dim, ctx.group, ctx.partial = dim, group, partial
        return gathered(part, dim, group)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        size, rank = dist.get_world_size(ctx.group), dist.get_rank(ctx.group)
        parts = slope.chunk(size, ctx.dim)
        if not ctx.partial:
            return parts[rank].contiguous(), None, None, None
        mine = slope.new_empty(parts[rank].numel())
        _reduce_scatter(mine, torch.cat([part.flatten() for part in parts]), group=ctx.group)
        return mine.view(parts[rank].shape), None, None, None


def gather(part: Tensor, dim: int, group: dist.ProcessGroup, *, partial: bool) -> Tensor:
    """The parts of all processes of a group one after the other along `dim`.

    With `partial` each process computes its own share of what follows, and the slopes are summed on the way back;
    otherwise all compute the same, and each takes its part of the slope.
    """
    gathered_part: Tensor = _Gather.apply(part, dim, group, partial)
    return gathered_part


def gathered(part: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    """As `gather`, without a gradient."""
    size = dist.get_world_size(group)
    flat = part.new_empty(size * part.numel())
    _all_gather(flat, part.contiguous().flatten(), group=group)
    return torch.cat(list(flat.view(size, *part.shape)), dim)
