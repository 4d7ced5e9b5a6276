"""A stage: some layers of a model, with the embedding before the first or the loss behind the last; and that loss.

The loss belongs to the last stage, because where weights are sharded they are whole only while a module runs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from chatsmith.models.decoder import Decoder
from chatsmith.text.batches import NO_TARGET
from chatsmith.train.losses import rows_at_once
from chatsmith.train.parallel.exchange import gather


def cut(model: Decoder, stages: int) -> list[Decoder]:
    """`model` as decoders of some layers each, as evenly as can be, that follow one another and share its weights.

    A tied embedding is in the first stage and, as a copy of it, in the last.
    """
    if stages == 1:
        return [model]
    fewest, more = divmod(len(model.blocks), stages)
    cuts, begin = [], 0
    for number in range(stages):
        # The last stage has the head, and the first the embedding, so those between take what is over.
        extra = 1 <= number <= more if more < stages - 1 else number < more
        layers = range(begin, begin + fewest + extra)
        begin = layers.stop
        cuts.append(_part(model, layers, first=number == 0, last=number == stages - 1))
    return cuts


def _part(model: Decoder, layers: range, *, first: bool, last: bool) -> Decoder:
    part = Decoder(model.spec, device="meta")
    part.compute_dtype, part.activation_checkpointing = model.compute_dtype, model.activation_checkpointing
    part.train(model.training)
    part.blocks = nn.ModuleDict({str(layer): model.blocks[layer] for layer in layers})  # type: ignore[assignment]
    part.rotary = model.rotary
    if first:
        part.embed = model.embed
    elif last and model.spec.tied:
        part.embed = copy.deepcopy(model.embed)
    else:
        del part.embed
    kept = {"positions": first, "norm": last, "head": last}
    for name, keep in kept.items():
        if keep and hasattr(model, name):
            setattr(part, name, getattr(model, name))
        elif hasattr(part, name):
            delattr(part, name)
    return part


class Stage(nn.Module):
    """What a process computes of a micro-batch: x → states [B, T, E] for the next stage, or summed loss [1] / count.

    `tokens` is the length of the rows as this process sees them. `tensor` is the group that layers are divided over:
    with `sequence` the states are divided over it by tokens, with `divided_loss` the logits by the vocabulary.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        tokens: int,
        first: bool,
        last: bool,
        tensor: dist.ProcessGroup | None = None,
        sequence: bool = False,
        divided_loss: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.tokens, self.first, self.last = model, tokens, first, last
        self.tensor, self.sequence, self.divided_loss = tensor, sequence, divided_loss
        self.count = 1.0

    def forward(
        self,
        x: Tensor,
        *,
        targets: Tensor,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One micro-batch: x are ids [B, T] for the first stage; the rest is as in `Decoder.hidden`."""
        if noise is not None and self.sequence:
            noise = noise.chunk(dist.get_world_size(self.tensor), 1)[dist.get_rank(self.tensor)]
        if self.first:
            x = self.model.enter(x, positions, noise)
        x = self.model.through(x, self.tokens, segments=segments, positions=positions, noise=noise)
        if not self.last:
            return x.clone()  # no view of anything: the schedules without a bubble cut it from its graph
        hidden = self.model.norm(x)
        if self.tensor is not None and self.sequence:
            hidden = gather(hidden, 1, self.tensor, partial=False)
        weight, group = self.model.head_weight, None
        start = 0
        if isinstance(weight, DTensor):
            assert self.tensor is not None
            if self.divided_loss:
                # Parts are as `torch.chunk` makes them: all but the last ones of one size.
                start = -(-weight.shape[0] // dist.get_world_size(self.tensor)) * dist.get_rank(self.tensor)
                weight, group = weight.to_local(), self.tensor
            else:
                weight = weight.full_tensor()
        flat = hidden.reshape(-1, hidden.shape[-1])
        return vocabulary_loss(flat, weight.to(flat.dtype), targets.reshape(-1), start, group, self.count)


def vocabulary_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    start: int = 0,
    group: dist.ProcessGroup | None = None,
    count: float = 1.0,
) -> Tensor:
    """As `losses.head_loss`, where this process holds the rows `start` … of the weight and `group` all of them.

    The sum [1] is divided by `count`. Both slopes are made in the forward pass, as there, and divided while they are
    wide: a factor that is itself rounded to bfloat16 would stretch the whole gradient. Going back twice is allowed,
    which the schedules without a bubble do (once for the inputs, once for the weights).
    """
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor = _VocabularyLoss.apply(hidden, weight, targets, start, group, count, wanted)
    return loss


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        start: int,
        group: dist.ProcessGroup | None,
        count: float,
        slopes: bool,
    ) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        total = torch.zeros(1, dtype=wide, device=hidden.device)
        d_hidden, d_weight = torch.zeros_like(hidden), torch.zeros_like(weight, dtype=wide)
        rows = rows_at_once(hidden.device, len(hidden), weight.shape[0])
        for at in range(0, len(hidden), rows):
            some, aims = hidden[at : at + rows], targets[at : at + rows]
            logits = (some @ weight.t()).to(wide)
            most = logits.amax(1) if weight.shape[0] else logits.new_full((len(some),), -torch.inf)
            if group is not None:
                dist.all_reduce(most, dist.ReduceOp.MAX, group)
            logits.sub_(most[:, None])
            column = aims - start
            mine = (column >= 0) & (column < weight.shape[0])
            column = column.clamp(0, max(0, weight.shape[0] - 1))[:, None]
            chosen = logits.gather(1, column)[:, 0] * mine if weight.shape[0] else torch.zeros_like(most)
            sums = torch.stack((logits.exp_().sum(1), chosen))
            if group is not None:
                dist.all_reduce(sums, group=group)
            counted = aims != NO_TARGET
            total += ((sums[0].log() - sums[1]) * counted).sum()
            if slopes:
                slope = logits.div_(sums[0][:, None])
                if weight.shape[0]:
                    slope.scatter_add_(1, column, -mine.to(wide)[:, None])
                slope = slope.mul_((counted / count)[:, None]).to(hidden.dtype)
                d_hidden[at : at + rows] = slope @ weight
                d_weight += slope.t() @ some
        if slopes:
            if group is not None:
                dist.all_reduce(d_hidden, group=group)
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * slope.to(d_hidden.dtype), d_weight * slope.to(d_weight.dtype), None, None, None, None, None
