"""How alike two texts are, from 128 numbers each: min-wise hashing of their word 5-grams.

One permutation with optimal densification (Shrivastava, 2017, "Optimal densification for fast and accurate minwise
hashing"): each 5-gram is hashed once, the hash chooses one of 128 bins, and a bin keeps its least value; an empty bin
borrows from another one. The share of equal bins estimates the Jaccard similarity of the two sets of 5-grams. Every
step works on arrays over many texts at once, so that small documents cost no more per byte than large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chatsmith.text.order import keys

SHINGLE = 5  # words
BINS = 128
BANDS, ROWS = 8, 5
_EMPTY = np.uint32(0xFFFFFFFF)
_SEGMENT = 4 << 20  # bytes hashed at once: the arrays below take about ten times that
_WORD = 16  # bytes: longer words are taken in pieces of this size

# Letters, digits, "_" and every byte of a non-ASCII character make words, in lower case; the rest separates them.
_FOLD = bytes(
    byte if byte >= 128 else ord(chr(byte).lower()) if chr(byte).isalnum() or chr(byte) == "_" else 0
    for byte in range(256)
)
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # masks for 0..8 bytes

# Computed, not drawn: signatures must be the same whichever version of a random number library is there.
_ODD = keys(0x5EED, 0, np.arange(3 + SHINGLE)) | np.uint64(1)
_PROBES = (keys(0x5EED, 1, np.arange(64 * BINS)) % np.uint64(BINS)).astype(np.int64).reshape(64, BINS)
"""Where an empty bin looks for a value, one row per attempt."""


def sketch(texts: Sequence[bytes], shortest: int = 1) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Which of N texts (UTF-8) have about `shortest` distinct 5-grams or more: their numbers [M], min-hashes [M, 128].

    How many 5-grams there are is estimated from the bins that get one (linear counting, Whang et al. 1990):
    `shortest` should be well under 500.
    """
    bins = np.full(len(texts) * BINS, _EMPTY, np.uint32)
    batch: list[bytes] = []
    rows: list[int] = []
    size = 0
    for row, text in enumerate(texts):
        if len(text) < 2 * shortest:  # a 5-gram more takes a letter and a space at least
            continue
        for start in range(0, len(text), _SEGMENT):
            segment = text[start : start + _SEGMENT]
            if size + len(segment) > _SEGMENT:
                _hash_into(bins, batch, rows)
                batch, rows, size = [], [], 0
            batch.append(segment)
            rows.append(row)
            size += len(segment)
    _hash_into(bins, batch, rows)
    grid = bins.reshape(len(texts), BINS)
    own = np.count_nonzero(grid != _EMPTY, axis=1)
    enough = np.flatnonzero((own > 0) & (own >= BINS * (1 - np.exp(-shortest / BINS))))
    return enough, _densify(grid[enough])


def _hash_into(bins: NDArray[np.uint32], texts: list[bytes], rows: list[int]) -> None:
    """Hash the 5-grams of the texts into the bins of their rows."""
    if not texts:
        return
    joined = b"\0".join([b"", *texts, b"\0" * _WORD]).translate(_FOLD)
    starts, lengths = _words(joined)
    words = _hash_words(joined, starts, lengths)
    if len(words) < SHINGLE:
        return
    ends = np.cumsum([len(text) + 1 for text in texts])
    row = np.repeat(np.asarray(rows, np.int64), np.diff(np.searchsorted(starts, ends), prepend=0))
    count = len(words) - SHINGLE + 1
    grams = words[:count] * _ODD[3]
    for place in range(1, SHINGLE):
        grams += words[place : place + count] * _ODD[3 + place]
    whole = row[:count] == row[SHINGLE - 1 :]  # a 5-gram that runs over into the next text is none
    grams, row = grams[whole], row[:count][whole]
    _mix(grams)
    place_in = (row << 7) + (grams >> np.uint64(57)).astype(np.int64)
    np.minimum.at(bins, place_in, (grams >> np.uint64(25)).astype(np.uint32))


def _words(joined: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the words of a folded text begin, and their lengths in bytes (at most 16)."""
    letters = np.frombuffer(joined, np.uint8)
    inside = letters != 0
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    # Chinese and Japanese have no spaces: each of their characters (lead bytes E3 to E9) begins a word.
    alone = np.zeros(0, np.int64) if joined.isascii() else np.flatnonzero(letters - np.uint8(0xE3) <= 6)
    if len(alone):
        word = np.searchsorted(starts, alone, "right")  # the one after that which the character is in
        inner = starts[word - 1] != alone
        cuts, word = alone[inner], word[inner]
        starts, ends = np.insert(starts, word, cuts), np.insert(ends, word - 1, cuts)
    lengths = ends - starts
    if len(lengths) and lengths.max() > _WORD:
        pieces = -(-lengths // _WORD)
        nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts, ends = np.repeat(starts, pieces) + nth * _WORD, np.repeat(ends, pieces)
        lengths = np.minimum(ends - starts, _WORD)
    return starts, lengths


def _hash_words(joined: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A 64-bit hash of every word, from its (at most sixteen) bytes read as two integers."""
    eights = np.ndarray((len(joined) - 7,), "<u8", joined, strides=(1,))
    words = eights[starts] & _FIRST_BYTES[np.minimum(lengths, 8)]
    words *= _ODD[0]
    long = np.flatnonzero(lengths > 8)
    words[long] += (eights[starts[long] + 8] & _FIRST_BYTES[lengths[long] - 8]) * _ODD[1]
    words ^= words >> np.uint64(29)
    words *= _ODD[2]
    words ^= words >> np.uint64(32)
    return words


def _mix(values: NDArray[np.uint64]) -> None:
    """Make every output bit depend on every input bit, in place (the finaliser of MurmurHash3)."""
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)


def _densify(grid: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Let every empty bin borrow the value of the first non-empty bin on its list of places to look."""
    sparse = np.flatnonzero((grid == _EMPTY).any(axis=1))
    given = grid[sparse]
    filled = given.copy()
    empty = given == _EMPTY
    for probe in _PROBES:
        if not empty.any():
            break
        borrowed = given[:, probe]
        take = empty & (borrowed != _EMPTY)
        filled[take] = borrowed[take]
        empty &= ~take
    grid[sparse] = filled
    return grid


def band_keys(sketches: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Keys [N, 8] of sketches [N, 128]: in each of 8 bands, two texts share a key when five bins agree (J**5)."""
    bands = np.zeros((len(sketches), BANDS), np.uint64)
    for row in range(ROWS):
        bands *= _ODD[3]
        bands += sketches[:, row : BANDS * ROWS : ROWS]
        _mix(bands)
    bands += np.arange(BANDS, dtype=np.uint64) * _ODD[4]
    _mix(bands)
    return bands
