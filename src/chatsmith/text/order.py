"""The order in which training meets its text: a function of the seed and of how far it has come, with no memory.

Every choice is computed from numbers (`mix`), so sample 10,000,000 is found as fast as sample 0, a position is one
integer, and the order does not depend on the version of a random number library.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 8


def mix(numbers: np.ndarray) -> np.ndarray:
    """uint64 to uint64, one to one, so that near numbers come out far apart (the finaliser of SplitMix64)."""
    x = numbers.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(seed: int, *parts: int | np.ndarray) -> np.ndarray:
    """uint64 keys for a seed and any numbers that tell uses apart: one for each item of the arrays among `parts`."""
    key = mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN)
    for part in parts:
        key = mix(key ^ mix(np.atleast_1d(part).astype(np.uint64) + _GOLDEN))
    return key


def shuffled(indices: np.ndarray, count: int, key: np.ndarray) -> np.ndarray:
    """Where a seeded permutation of range(count) sends `indices` (int64, same shape as `key` or broadcast to it).

    A Feistel network over the next power of two, walked until the value falls inside (Black and Rogaway 2002), so a
    permutation of billions needs no memory.
    """
    if count < 2:
        return np.zeros_like(indices)
    bits = max((count - 1).bit_length(), 2)
    low = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64(2 ** (bits // 2) - 1), np.uint64(2 ** (bits - bits // 2) - 1)
    value = indices.astype(np.uint64)
    key = np.broadcast_to(key, value.shape)
    outside = np.ones(value.shape, dtype=bool)
    while outside.any():
        right, left, own = value[outside] & low_mask, value[outside] >> low, key[outside]
        for turn in range(_ROUNDS):
            own = own + _GOLDEN
            if turn % 2:
                left = left ^ (mix(right + own) & high_mask)
            else:
                right = right ^ (mix(left + own) & low_mask)
        value[outside] = left << low | right
        outside = value >= count
    return value.astype(np.int64)
