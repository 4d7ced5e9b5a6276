"""Words of many texts at once, as 64-bit hashes: the texts lie in one row of bytes, and zero bytes part the words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chatsmith.text.order import keys

_SEGMENT = 4 << 20  # bytes that are hashed at once
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)

ODD = keys(0x0D0C5, np.arange(5)) | np.uint64(1)
"""Multipliers for hashes: computed, not drawn, so that no version of a random number library changes them."""


def text_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in batches that are hashed at once."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size > _SEGMENT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def hashed_words(parts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The words of N texts, parted by zero bytes: a hash of each word (uint64), and how many each text has [N]."""
    data = b"\0".join([b"", *parts, bytes(8)])
    letters = np.frombuffer(data, np.uint8)
    inside = letters != 0
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    bounds = np.cumsum([len(part) + 1 for part in parts])
    return _hash(data, starts, ends), np.diff(np.searchsorted(starts, bounds), prepend=0)


def _hash(data: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """From the first sixteen bytes of a word, its last eight, and its length."""
    eights = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    lengths = ends - starts
    words = (eights[starts] & _FIRST_BYTES[np.minimum(lengths, 8)]) * ODD[0]
    longer = np.flatnonzero(lengths > 8)
    rest = np.minimum(lengths[longer] - 8, 8)
    words[longer] += (eights[starts[longer] + 8] & _FIRST_BYTES[rest]) * ODD[1]
    words[longer] ^= eights[ends[longer] - 8] * ODD[2]
    words += lengths.astype(np.uint64) * ODD[3]
    words ^= words >> np.uint64(29)
    words *= ODD[2]
    words ^= words >> np.uint64(32)
    return words
