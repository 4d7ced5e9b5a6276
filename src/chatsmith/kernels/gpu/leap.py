"""What lets one kernel begin while another ends: programmatic dependent launch, from compute capability 9 on."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def leap(LEAP: tl.constexpr):
    """Let the next kernel be started when all programs of this one have begun, and wait for what the last one wrote."""
    if LEAP:
        gdc_launch_dependents()
        gdc_wait()
