"""Logits to losses and slopes on a GPU, in Triton: the twin of `native.cross_entropy_`.

In plain torch the slope of a vocabulary's logits takes a pass over them for each of softmax, gather, scatter, mask and
rounding, half of them in float32. Here a row is read twice, the second time mostly out of the cache, and written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 8192  # logits that a program holds at once
_WARPS = 16


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [n, V] to the slope of their summed cross-entropy, in place; returns the losses [n] in nats, float32.

    A target outside 0 … V − 1 counts nothing. Sums are float32, whatever the logits are.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if rows:
        sizes = {"COLUMNS": columns, "BLOCK": min(_BLOCK, triton.next_power_of_2(columns)), "num_warps": _WARPS}
        _row[(rows,)](logits, targets.contiguous(), losses, logits.stride(0), **sizes)
    return losses


@triton.jit
def _row(logits, targets, losses, stride, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    counts = (target >= 0) & (target < COLUMNS)
    at = tl.arange(0, BLOCK)
    # The largest logit so far and the sum of e^(logit − largest), lane by lane: one exchange at the end. Lowest is no
    # infinity, whose difference from itself is no number.
    most = tl.full([BLOCK], -3.0e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        inside = start + at < COLUMNS
        x = tl.load(logits + start + at, mask=inside, other=float("-inf")).to(tl.float32)
        new = tl.maximum(most, x)
        total = total * tl.exp(most - new) + tl.exp(x - new)
        most = new
    top = tl.max(most, 0)
    log_sum = top + tl.log(tl.sum(total * tl.exp(most - top), 0))
    chosen = tl.load(logits + target, mask=counts, other=0.0).to(tl.float32)
    tl.store(losses + row, tl.where(counts, log_sum - chosen, 0.0))
    tl.debug_barrier()  # the target's logit has been read before it is written over
    for start in range(0, COLUMNS, BLOCK):
        inside = start + at < COLUMNS
        x = tl.load(logits + start + at, mask=inside, other=float("-inf")).to(tl.float32)
        slope = tl.exp(x - log_sum) - tl.where(start + at == target, 1.0, 0.0)
        tl.store(logits + start + at, tl.where(counts, slope, 0.0), mask=inside)
