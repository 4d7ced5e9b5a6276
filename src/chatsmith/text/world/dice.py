"""Chance that repeats: every choice in the small world comes from here, and so does what it may never say.

`random.Random.random()` is the one method whose sequence Python promises to keep for a seed, so every draw is made
from it. What is held out does not depend on a seed at all: it is a fixed property of the words concerned.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Dice:
    """A seeded source of choices."""

    __slots__ = ("random",)

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""
        return int(self.random() * count)

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """True in `share` of the calls."""
        return self.random() < share

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each as likely as the next."""
        return items[int(self.random() * len(items))]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items (all of them, shuffled, where there are fewer)."""
        pool = list(items)
        count = min(count, len(pool))
        for i in range(count):
            j = i + int(self.random() * (len(pool) - i))
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in a new order."""
        return self.sample(items, len(items))


class Weighted(Generic[Item]):
    """Items to be drawn by weight."""

    __slots__ = ("items", "steps", "total")

    def __init__(self, weights: Mapping[Item, float]) -> None:
        self.items = tuple(weights)
        self.steps = list(accumulate(weights.values()))
        self.total = self.steps[-1]

    def draw(self, dice: Dice) -> Item:
        return self.items[min(bisect(self.steps, dice.random() * self.total), len(self.items) - 1)]


@lru_cache(maxsize=1 << 17)
def held_out(rule: str, *key: str | int, share: float = 0.2) -> bool:
    """Whether this combination is kept out of every training text, to be asked about afterwards.

    The answer depends on the words alone (a keyed hash of them), so that a model trained on any seed can be measured
    with any other. `share` of all combinations of a rule are held out.
    """
    digest = blake2b("\0".join(map(str, key)).encode(), digest_size=8, person=rule.encode()[:16]).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def held_out_pair(rule: str, one: str | int, other: str | int, share: float = 0.2) -> bool:
    """As `held_out`, for a pair whose order does not matter: 3 + 4 is held out together with 4 + 3."""
    first, second = sorted((str(one), str(other)))
    return held_out(rule, first, second, share=share)
