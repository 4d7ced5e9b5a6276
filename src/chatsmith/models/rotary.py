"""The angles of rotary positions (Su et al. 2021), for every backend. No torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import WorkError
from chatsmith.specs import ModelSpec, RopeScaling

_AT_A_TIME = 4096  # positions: in float64, angles of a long context would take several times what is kept


def angles(spec: ModelSpec, length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine [length, D/2] of the positions from 0.

    Raises `WorkError` where there is no memory for so long a context.
    """
    frequencies = _frequencies(spec)
    try:
        cosine, sine = np.empty((2, length, len(frequencies)), np.float32)
        for start in range(0, length, _AT_A_TIME):
            part = slice(start, min(start + _AT_A_TIME, length))
            angle = np.outer(np.arange(part.start, part.stop, dtype=np.float64), frequencies)
            cosine[part], sine[part] = np.cos(angle), np.sin(angle)
    except MemoryError:
        raise WorkError(f"there is no memory for the positions of a context of {length:,} tokens") from None
    return cosine, sine


def _frequencies(spec: ModelSpec) -> NDArray[np.float64]:
    """Angular frequency of each pair [D/2], stretched as the spec's scaling says."""
    half = np.arange(0, spec.head_dim, 2, dtype=np.float64) / spec.head_dim
    # Published models compute the frequencies in float32; their rounding is part of what they learned.
    powers = np.float32(spec.rope_theta) ** half.astype(np.float32)
    frequency = (np.float32(1.0) / powers).astype(np.float64)
    scaling = spec.rope_scaling
    if scaling is None:
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    return _llama3_frequencies(frequency, scaling)


def llama3_factors(spec: ModelSpec) -> NDArray[np.float64]:
    """What Llama 3.1's stretch divides the frequency of each pair by [D/2]; all 1 for a spec without it."""
    plain = replace(spec, rope_scaling=None)
    stretched = spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3"
    return _frequencies(plain) / _frequencies(spec if stretched else plain)


def _llama3_frequencies(frequency: NDArray[np.float64], scaling: RopeScaling) -> NDArray[np.float64]:
    """Llama 3.1's stretch: slow pairs are divided by the factor, fast ones kept, and a smooth passage between."""
    turns = scaling.original_context * frequency / (2 * math.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = smooth.clip(0.0, 1.0)
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency
