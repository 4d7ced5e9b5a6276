"""What lets one kernel begin while another ends: programmatic dependent launch, from compute capability 9 on.

A kernel that leaps is started when the programs of the one before it have all begun. Until it is told that they have
ended it may read what they do not write: the weights.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def let_begin(LEAP: tl.constexpr):
    """Let the next kernel begin."""
    if LEAP:
        gdc_launch_dependents()


@triton.jit
def wait(LEAP: tl.constexpr):
    """Wait for what the kernel before has written."""
    if LEAP:
        gdc_wait()


@triton.jit
def leap(LEAP: tl.constexpr):
    """Both, for kernels that read no weights worth mentioning."""
    let_begin(LEAP)
    wait(LEAP)
