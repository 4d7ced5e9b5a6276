"""Logits to losses and slopes on a GPU, in Triton: the twin of `native.cross_entropy_`.

In plain torch the slope of a vocabulary's logits takes a pass over them for each of softmax, gather, scatter, mask and
rounding, half of them in float32. Here a row is read twice, the second time mostly out of the cache, and written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096  # logits that a program holds at once: of those tried on an H200 the quickest, before 2048 by 4 warps
_WARPS = 8
_LOG2_E = tl.constexpr(1.4426950408889634)
_FAR = tl.constexpr(64.0)  # e to this, times any vocabulary, is still far from float32's largest number


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
    # The largest of the first logits is near enough to the largest of all for the sum to neither overflow nor vanish,
    # so no lane has to follow its own largest one, which would take a second e^x for each logit.
    at = tl.arange(0, BLOCK)
    x = tl.load(logits + at, mask=at < COLUMNS, other=float("-inf"), eviction_policy="evict_last").to(tl.float32)
    near = tl.maximum(tl.max(x, 0), -3.0e38)
    total, top = _sum(logits, near, COLUMNS, BLOCK)
    if top - near > _FAR:
        near = top
        total, top = _sum(logits, near, COLUMNS, BLOCK)
    log_sum = near + tl.log(total)
    chosen = tl.load(logits + target, mask=counts, other=0.0).to(tl.float32)
    tl.store(losses + row, tl.where(counts, log_sum - chosen, 0.0))
    tl.debug_barrier()  # the target's logit has been read before it is written over
    for start in range(0, COLUMNS, BLOCK):
        here = start + at
        y = tl.load(logits + here, mask=here < COLUMNS, other=float("-inf"), eviction_policy="evict_first")
        slope = tl.exp2((y.to(tl.float32) - log_sum) * _LOG2_E) - tl.where(here == target, 1.0, 0.0)
        tl.store(logits + here, tl.where(counts, slope, 0.0), mask=here < COLUMNS)


@triton.jit
def _sum(logits, near, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum of e^(logit − near) over a row, and its largest logit."""
    at = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        here = start + at
        y = tl.load(logits + here, mask=here < COLUMNS, other=float("-inf"), eviction_policy="evict_last")
        x = y.to(tl.float32)
        total += tl.exp2((x - near) * _LOG2_E)
        most = tl.maximum(most, x)
    return tl.sum(total, 0), tl.max(most, 0)
