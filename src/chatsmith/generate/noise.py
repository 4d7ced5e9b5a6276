"""Chance that depends on nothing but a seed and a place, and the choice it makes.

Every random number is a function of (seed, position in the answer, place in the vocabulary): no state, so a request
gives the same tokens alone, in any batch, and when it is taken up again in the middle.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def fresh_seed() -> int:
    """A seed from the system's entropy, short enough to type again."""
    return secrets.randbits(32)


def sample_seed(seed: int, index: int) -> int:
    """The seed of the index-th sample of a request: the first has the request's own, so each can be had again alone."""
    return seed if index == 0 else _hash(b"sample", seed, index) >> 32


def key(seed: int, position: int) -> int:
    """The 64-bit key of one choice: the token number `position` of an answer drawn with `seed`."""
    return _hash(b"choice", seed, position)


def _hash(purpose: bytes, *numbers: int) -> int:
    data = b"".join(number.to_bytes(8, "little") for number in numbers)
    return int.from_bytes(blake2b(data, digest_size=8, person=purpose).digest(), "little")


def exponential(keys: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """`count` standard exponential numbers for each of the keys [B], as [B, count]; never 0.

    The bits are those of SplitMix64 (Steele, Lea and Flood 2014) started at the key.
    """
    x = keys[:, None] + _increments(count)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    x >>= np.uint64(11)
    uniform = x.astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-53  # 53 bits, never 0 nor 1
    np.log(uniform, out=uniform)
    return np.negative(uniform, out=uniform)


@lru_cache(maxsize=64)
def _increments(count: int) -> NDArray[np.uint64]:
    return np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN


def choose(weights: NDArray[np.float32], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """One column per row of weights [B, V], each with probability weight / sum of the row; keys [B].

    A race of exponential clocks, the largest weight / exponential wins (Gumbel's trick without its second logarithm),
    first among blocks of about √V tokens, then within the block: exact, and 453 random numbers instead of 50,257.
    Unlike a search in the running sum of all weights, an error of the last bit in the weights (another batch shape,
    another matrix kernel) changes the choice only where two clocks are that close.
    """
    B, V = weights.shape
    block = 1 << (V.bit_length() + 1) // 2
    whole, blocks = V // block, -(-V // block)
    noise = exponential(keys, blocks + block)
    mass = np.empty((B, blocks))
    weights[:, : whole * block].reshape(B, whole, block).sum(axis=2, out=mass[:, :whole])
    if whole < blocks:
        weights[:, whole * block :].sum(axis=1, out=mass[:, whole])
    mass /= noise[:, :blocks]
    first = mass.argmax(axis=1)[:, None] * block
    columns = first + np.arange(block)
    inside = np.take_along_axis(weights, np.minimum(columns, V - 1), axis=1) / noise[:, blocks:]
    if whole < blocks:
        inside[columns >= V] = 0.0
    return first[:, 0] + inside.argmax(axis=1)
