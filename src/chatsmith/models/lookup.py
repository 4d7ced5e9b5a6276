"""A large table that is looked up in and is the output head, too, and what its gradient takes.

The gradient of a lookup is zero but for the rows of the tokens that were read: for GPT-2's table 154 MB of zeros around
a thousand rows. The head's gradient is whole, so the few rows are added to it in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chatsmith.kernels import native
from chatsmith.plan.memory_here import gradient_is_mostly_zeros


def names_rows(table: Tensor, ids: Tensor) -> bool:
    """Whether looking ids up in table [V, E] should name the rows it reads rather than fill a whole gradient."""
    wanted = gradient_is_mostly_zeros(table.nbytes, table.shape[0], ids.numel())
    return wanted and torch.is_grad_enabled() and native.ready(table)


def for_lookup_and_head(table: Tensor) -> tuple[Tensor, Tensor]:
    """Table [V, E] for `rows_of` and for the output head; the first gradient is added to the second in place.

    So the head's use must make a gradient of its own, as `losses.head_loss` does, and not hand on one that is shared.
    """
    lookup, head = _TwoUses.apply(table)
    return lookup, head


def rows_of(table: Tensor, ids: Tensor) -> Tensor:
    """The rows of table [V, E] at ids [...]; its gradient is a sparse tensor that names each row once."""
    rows: Tensor = _Rows.apply(table, ids)
    return rows


class _TwoUses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return table.view_as(table), table.view_as(table)

    @staticmethod
    def backward(ctx: Any, looked_up: Tensor | None, head: Tensor | None) -> Tensor | None:
        if looked_up is None or head is None:
            return head if looked_up is None else looked_up.to_dense()
        return head.add_(looked_up)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        return table[ids]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        named, which = ids.flatten().unique(return_inverse=True)
        # In float32: the slope of a word that is read a hundred times is a sum of a hundred.
        sums = torch.zeros(len(named), ctx.shape[1]).index_add_(0, which, slope.reshape(len(which), -1).float())
        rows = sums.to(slope.dtype)
        return torch.sparse_coo_tensor(named[None], rows, ctx.shape, is_coalesced=True, check_invariants=False), None
