"""A hash table of whole arrays: unsigned 64-bit keys to 32-bit numbers, at 16 to 32 bytes an entry.

A Python dict takes about 130 bytes an entry and a call for each; here a thousand keys are looked up at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Values = NDArray[np.int32]

ABSENT = -1
_FREE = np.uint64(0)  # a key of zero is stored as one: keys are hashes, so that costs nothing
_FULLEST = 0.75  # beyond this share of used slots, probing grows long


class HashTable:
    """Open addressing with linear probing. Keys should be hashes already: their low bits choose the slot."""

    def __init__(self, slots: int = 1 << 10) -> None:
        if slots & (slots - 1):
            raise ValueError("the number of slots must be a power of two")
        self._keys = np.zeros(slots, np.uint64)
        self._values = np.zeros(slots, np.int32)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def nbytes(self) -> int:
        """Bytes that the table holds."""
        return self._keys.nbytes + self._values.nbytes

    def find(self, keys: Keys) -> Values:
        """The value of each key [N], `ABSENT` where there is none."""
        keys = np.maximum(keys, np.uint64(1))
        mask = np.uint64(len(self._keys) - 1)
        result = np.full(len(keys), ABSENT, np.int32)
        pending = np.arange(len(keys))
        slots = keys & mask
        while len(pending):
            there = self._keys[slots]
            hit = there == keys[pending]
            result[pending[hit]] = self._values[slots[hit]]
            further = ~hit & (there != _FREE)
            pending = pending[further]
            slots = (slots[further] + np.uint64(1)) & mask
        return result

    def add(self, keys: Keys, values: Values) -> None:
        """Store keys [N] that are not in the table; of equal ones among them, the first counts."""
        keys, first = np.unique(np.maximum(keys, np.uint64(1)), return_index=True)
        self._reserve(len(keys))
        self._place(keys, values[first])

    def _reserve(self, more: int) -> None:
        slots = len(self._keys)
        while self._used + more > slots * _FULLEST:
            slots *= 2
        if slots > len(self._keys):
            old_keys, old_values = self._keys, self._values
            self._keys, self._values = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
            self._used = 0
            used = old_keys != _FREE
            self._place(old_keys[used], old_values[used])

    def _place(self, keys: Keys, values: Values) -> None:
        mask = np.uint64(len(self._keys) - 1)
        self._used += len(keys)
        slots = keys & mask
        while len(keys):
            free = self._keys[slots] == _FREE
            # Of several keys that want one free slot the last write stays; reading back tells which.
            self._keys[slots[free]] = keys[free]
            won = self._keys[slots] == keys
            self._values[slots[won]] = values[won]
            keys, values = keys[~won], values[~won]
            slots = (slots[~won] + np.uint64(1)) & mask
