"""How a split's long row of tokens is cut into rows of context + 1 tokens, each of them once per epoch."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.text.order import keys, mix
from chatsmith.text.shards import TokenSplit

Pack = Literal["stream", "documents"]
PADDING = -1
"""The position of a place in a row that holds no token."""


class Layout(Protocol):
    """A way to cut a split into `rows` rows per epoch."""

    rows: int

    def positions(self, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64 [B, T+1]: for epochs [B] and row numbers [B], the position of each token, PADDING where none is."""
        ...


class Stream:
    """Windows one behind another through the whole split, over the ends of documents (GPT-3, appendix B).

    Rows overlap by one token: the last target of one is the first input of the next. Every epoch starts at another
    place and goes round behind the last token, so no two epochs cut alike and none leaves out more than T - 1 tokens.
    """

    def __init__(self, split: TokenSplit, context: int, seed: int, source: int) -> None:
        if len(split) <= context:
            raise RequestError(
                f"split {split.name} of {split.folder.name} has {len(split):,} tokens, too few for one window of "
                f"{context:,}",
                f"give more text, a context of at most {len(split) - 1}, or pack whole documents",
            )
        self.rows = len(split) // context
        self._context, self._length, self._seed, self._source = context, len(split), seed, source

    def positions(self, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        turn = keys(self._seed, self._source, epochs, 1) % np.uint64(self._length)
        first = (turn.astype(np.int64) + rows * self._context) % self._length
        positions = first[:, None] + np.arange(self._context + 1)
        positions[positions >= self._length] -= self._length
        return positions


class WholeDocuments:
    """Rows filled with whole documents, so that none is cut that fits; longer ones come in pieces.

    Best-fit decreasing: the longest first, each into the fullest row that still holds it. What goes where depends
    on the lengths only, so the number of rows is the same in every epoch while documents of equal length change
    places. A long document's pieces overlap by one token, which is a target in the first and context in the second.
    """

    def __init__(self, split: TokenSplit, context: int, seed: int, source: int) -> None:
        self._capacity = context + 1
        self._seed, self._source = seed, source
        ends = np.asarray(split.ends)
        starts = np.concatenate([[0], ends[:-1]])
        pieces = np.maximum(-(-(ends - starts - 1) // context), 1)
        number = np.arange(int(pieces.sum())) - np.repeat(_before(pieces), pieces)
        self._starts = np.repeat(starts, pieces) + number * context
        self._lengths = np.minimum(np.repeat(ends, pieces) - self._starts, self._capacity)
        home = best_fit(-np.sort(-self._lengths), self._capacity)
        self.rows = int(home.max()) + 1
        self._slots = np.argsort(home, kind="stable")  # ranks by length, row after row
        self._bounds = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=self.rows))])
        self._orders: dict[int, np.ndarray] = {}

    def positions(self, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), self._capacity), PADDING, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            first = self._bounds[rows[here]]
            counts = self._bounds[rows[here] + 1] - first
            row = np.repeat(here, counts)
            slots = np.repeat(first - _before(counts), counts) + np.arange(len(row))
            pieces = self._order(epoch)[self._slots[slots]]
            # By chance within each row: the packing itself would put long documents first in all of them.
            pieces = pieces[np.lexsort((mix(pieces + epoch), row))]
            lengths = self._lengths[pieces]
            within = np.arange(int(lengths.sum())) - np.repeat(_before(lengths), lengths)
            total = np.add.reduceat(lengths, _before(counts))
            places = _before(lengths) - np.repeat(_before(total), counts) + row * self._capacity
            out.reshape(-1)[np.repeat(places, lengths) + within] = np.repeat(self._starts[pieces], lengths) + within
        return out

    def _order(self, epoch: int) -> np.ndarray:
        """The pieces from the longest to the shortest, those of equal length in this epoch's order."""
        if epoch not in self._orders:
            if len(self._orders) >= 2:
                del self._orders[next(iter(self._orders))]
            chance = mix(np.arange(len(self._lengths), dtype=np.uint64) ^ keys(self._seed, self._source, epoch, 2))
            self._orders[epoch] = np.lexsort((chance, -self._lengths))
        return self._orders[epoch]


def _before(counts: np.ndarray) -> np.ndarray:
    """The sum of all counts before each."""
    return np.cumsum(counts) - counts


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The row that each of `lengths` (each at most `capacity`) goes to: the fullest that has room, else a new one."""
    rows_with: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the room they have left
    rooms = 0  # bit r is set where some row has room r left
    home = np.empty(len(lengths), dtype=np.int64)
    count = 0
    for index, length in enumerate(lengths.tolist()):
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, count
            count += 1
        rest = room - length
        if rest:
            rows_with[rest].append(row)
            rooms |= 1 << rest
        home[index] = row
    return home


def layout(split: TokenSplit, context: int, pack: Pack, seed: int, source: int = 0) -> Layout:
    """The layout named by `pack`."""
    kind = Stream if pack == "stream" else WholeDocuments
    return kind(split, context, seed, source)
