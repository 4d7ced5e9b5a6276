"""The loss of the next token, computed with the output head in one piece and never with all logits at once.

For a GPT-2 vocabulary, the logits of 1,024 positions are 206 MB in float32, and a plain loss holds three such tensors.
Here a few rows at a time become probabilities, a loss and their gradients, and are let go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from chatsmith.kernels import native
from chatsmith.kernels.gpu import door
from chatsmith.models.lookup import for_lookup_and_head, names_rows
from chatsmith.plan.memory_here import equal_parts, logit_rows
from chatsmith.text.batches import NO_TARGET
from chatsmith.train.precision import sum_dtype
from chatsmith.train.spare import room_like

_GPU_CHUNK_BYTES = 2**31  # logits alive at once on a GPU, which wants many rows to keep its units busy, and at most
_GPU_SHARE = 32  # one part in so many of its memory
_TILE = 128  # rows that a GPU multiplies together


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The summed cross-entropy, in nats, of `targets` [N] under logits = hidden [N, E] · weightᵀ [E, V].

    Targets of `NO_TARGET` count nothing. The gradients for `hidden` and `weight` are made in the forward pass, so the
    result may be scaled (divided by a count of tokens, say) but a second derivative is not to be had.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _HeadLoss.apply(hidden, weight.to(hidden.dtype), targets)
    weight = weight.to(hidden.dtype)
    loss_of = _loss_and_slope if door.ready(hidden) else _rows_loss
    return sum(
        (loss_of(rows, weight, wanted)[0] for rows, wanted in _chunks(hidden, weight, targets)),
        start=torch.zeros((), dtype=sum_dtype(hidden.dtype), device=hidden.device),
    )


def rows_at_once(device: torch.device, count: int, vocab_size: int, logit_bytes: int = 4) -> int:
    """How many of `count` rows of logits are made at a time: parts of about one size on a GPU, too, where a last small
    one would leave most of it idle."""
    if device.type != "cuda":
        return logit_rows(count, vocab_size, logit_bytes)
    most = min(_GPU_CHUNK_BYTES, torch.cuda.get_device_properties(device).total_memory // _GPU_SHARE)
    return equal_parts(count, max(1, most // (logit_bytes * max(1, vocab_size))), _TILE)


def _chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    size = hidden.element_size() if native.ready(hidden) else 4  # elsewhere they are widened to probabilities
    rows = rows_at_once(hidden.device, len(hidden), weight.shape[0], size)
    return list(zip(hidden.split(rows), targets.split(rows), strict=True))


def _rows_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss, probabilities [n, V] and the mask of rows that count."""
    wide = sum_dtype(hidden.dtype)
    probabilities = torch.softmax(F.linear(hidden, weight), dim=-1, dtype=wide)
    counted = targets != NO_TARGET
    chosen = probabilities.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    # A probability that underflows float32 stands for a loss above 87 nats; the clamp keeps it finite.
    losses = chosen.clamp(min=torch.finfo(wide).tiny).log().neg() * counted
    return losses.sum(), probabilities, counted


def _loss_and_slope(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss and d loss / d logits [n, V]: probabilities − one-hot, and nothing for rows that do not count."""
    if native.ready(hidden):
        logits = _native_logits(hidden, weight) if native.multiplies(hidden) else F.linear(hidden, weight)
        return native.cross_entropy_(logits, targets).sum(), logits
    if door.ready(hidden):
        from chatsmith.kernels.gpu.cross_entropy import cross_entropy_

        logits = F.linear(hidden, weight)
        return cross_entropy_(logits, targets).sum(), logits
    loss, slope, counted = _rows_loss(hidden, weight, targets)
    slope.scatter_add_(1, targets.clamp(min=0)[:, None], slope.new_full((len(targets), 1), -1.0))
    return loss, slope.mul_(counted[:, None]).to(hidden.dtype)


def _native_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    rows, columns = len(hidden), len(weight)
    size = rows * columns * hidden.element_size()
    room = native.scratch_space(size, "large")[:size].view(hidden.dtype).view(rows, columns)
    return native.linear(hidden, weight, out=room)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=sum_dtype(hidden.dtype), device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_weight, room = None, room_like(weight)
        start = 0
        for rows, wanted in _chunks(hidden, weight, targets):
            loss, slope = _loss_and_slope(rows, weight, wanted)
            total += loss
            part = d_hidden[start : start + len(rows)]
            if native.multiplies(hidden):
                part.copy_(native.linear_input(slope, weight))
                d_weight = native.linear_weight(slope, rows, d_weight, room)
            else:
                torch.mm(slope, weight, out=part)
                d_weight = torch.mm(slope.t(), rows, out=room) if d_weight is None else d_weight.addmm_(slope.t(), rows)
            start += len(rows)
            del slope  # before the next rows' logits are made
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_weight = ctx.saved_tensors
        # In place, because d_weight is as large as the embedding; a second way back is refused by autograd's own check.
        return d_hidden.mul_(gradient), d_weight.mul_(gradient), None


def next_token_loss(
    model: Any,
    inputs: Tensor,
    targets: Tensor,
    *,
    segments: Tensor | None = None,
    positions: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed loss in nats and the number of targets that count, for inputs and targets [B, T]."""
    table = head = None
    if model.spec.tied and names_rows(model.embed.weight, inputs):
        table, head = for_lookup_and_head(model.embed.weight)
    hidden = model.hidden(inputs, segments=segments, positions=positions, noise=noise, table=table)
    flat = targets.reshape(-1)
    loss = head_loss(hidden.view(-1, hidden.shape[-1]), model.head_weight if head is None else head, flat)
    return loss, (flat != NO_TARGET).sum()
