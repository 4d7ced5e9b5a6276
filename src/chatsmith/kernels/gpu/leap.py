"""What lets one kernel begin while another ends, on GPUs of compute capability 9 and later.

A kernel that leaps is started when the programs of the one before it have all begun, and waits at `leap` until they
have ended (programmatic dependent launch). While it waits, and while kernels run that read little, memory has nothing
to do: so weights that will be read next are fetched into the second-level cache ahead of time.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

CHUNK = tl.constexpr(512)
"""Bytes that a thread fetches with one instruction."""


@triton.jit
def leap(LEAP: tl.constexpr):
    """Let the next kernel begin, and wait for what the one before has written."""
    if LEAP:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def fetch(weight, count, part, parts, LEAP: tl.constexpr):
    """Have one of `parts` programs fetch its part of the `count` first chunks of `weight` into the cache."""
    if LEAP:
        each = tl.cdiv(count, parts)
        first = weight.to(tl.int64)
        for start in range(0, each, 128):
            lane = start + tl.arange(0, 128)
            chunk = part * each + lane
            wanted = ((lane < each) & (chunk < count)).to(tl.int32)
            tl.inline_asm_elementwise(
                "{ .reg .pred p; setp.ne.b32 p, $2, 0; @p cp.async.bulk.prefetch.L2.global [$1], 512; mov.b32 $0, 0; }",
                "=r,l,r",
                [first + chunk.to(tl.int64) * CHUNK, wanted],
                dtype=tl.int32,
                is_pure=False,
                pack=1,
            )
