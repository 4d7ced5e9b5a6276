"""The order in which a run reads its sources while their weights change from stage to stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.text.batches import Batch, Batches
from chatsmith.text.packing import Pack
from chatsmith.text.shards import TokenSplit

# Rows are made for several steps at once, up to so many tokens: a small model's step is shorter than making its rows
# one step at a time would be.
_AHEAD_TOKENS = 2**15


class StagedBatches:
    """Batches from several sources whose weights may change on the way; each source goes on where it stood.

    Every row comes from the source that is furthest behind its share since the weights last changed, so the shares
    hold within one row at any moment, and nothing is left to chance. A weight may be 0.
    """

    def __init__(
        self,
        splits: Sequence[TokenSplit],
        weights: Sequence[float],
        *,
        context: int,
        seed: int,
        mask_documents: bool = False,
        pack: Pack = "stream",
    ) -> None:
        self._sources = [
            _Source(Batches(split, context=context, seed=seed + number, mask_documents=mask_documents, pack=pack))
            for number, split in enumerate(splits)
        ]
        self.reweight(weights)

    def reweight(self, weights: Sequence[float]) -> None:
        """Use other weights from the next row on."""
        if len(weights) != len(self._sources) or min(weights) < 0 or sum(weights) <= 0:
            raise RequestError(f"{list(weights)} are not weights for {len(self._sources)} sources")
        self._shares = [weight / sum(weights) for weight in weights]
        self._drawn = [0] * len(weights)

    def next(self, rows: int, part: tuple[int, int] | None = None) -> Batch:
        """The next `rows` rows, those of one source together; of them, where given, only rows part[0] … part[1] - 1.

        The place in the text moves on by all of them. So processes that share out the rows of a step, each asking for
        its own, stand at the same place after it, and their number may change from one step to the next.
        """
        first, last = part or (0, rows)
        if not 0 <= first < last <= rows:
            raise RequestError(f"there are no rows {first} to {last - 1} among {rows}")
        parts, begin = [], 0
        for source, count in zip(self._sources, self._counts(rows), strict=True):
            if count:
                parts.append(source.next(count, max(first - begin, 0), min(last - begin, count)))
            begin += count
        made = [batch for batch in parts if batch is not None]
        return made[0] if len(made) == 1 else _joined(made)

    def _counts(self, rows: int) -> list[int]:
        """How many of the next rows each source gives."""
        if len(self._sources) == 1:
            return [rows]
        before, total = list(self._drawn), sum(self._drawn)
        for _ in range(rows):
            total += 1
            behind = [share * total - drawn for share, drawn in zip(self._shares, self._drawn, strict=True)]
            self._drawn[behind.index(max(behind))] += 1
        return [now - then for now, then in zip(self._drawn, before, strict=True)]

    def state(self) -> dict[str, Any]:
        """Where each source stands, as JSON holds it."""
        return {
            "sources": [source.batches.state() for source in self._sources],
            "shares": list(self._shares),
            "drawn": list(self._drawn),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state; `RequestError` where it belongs to other text."""
        if len(state["sources"]) != len(self._sources):
            raise RequestError(f"the run so far had {len(state['sources'])} sources, not {len(self._sources)}")
        for source, saved in zip(self._sources, state["sources"], strict=True):
            source.batches.restore(saved)
        self._shares, self._drawn = list(state["shares"]), list(state["drawn"])


class _Source:
    """The rows of one source in order, made some steps ahead of their use."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches  # its `samples` counts what was given out, so that its state is that of the run
        self._first = 0
        self._ahead: Batch | None = None

    def next(self, rows: int, first: int, last: int) -> Batch | None:
        """Rows first … last - 1 of the next `rows` rows, if there are any."""
        if (first, last) != (0, rows):
            self.batches.samples += rows
            return self.batches.at(self.batches.samples - rows + first, last - first) if first < last else None
        start = self.batches.samples - self._first
        if self._ahead is None or start < 0 or start + rows > len(self._ahead.inputs):
            self._first, start = self.batches.samples, 0
            self._ahead = self.batches.at(self._first, max(rows, _AHEAD_TOKENS // self.batches.context))
        self.batches.samples += rows
        return rows_of(self._ahead, slice(start, start + rows))


def rows_of(batch: Batch, part: slice) -> Batch:
    """Some rows of a batch, as views."""
    segments, positions, noise = (
        None if column is None else column[part] for column in (batch.segments, batch.positions, batch.noise)
    )
    return Batch(batch.inputs[part], batch.targets[part], segments, positions, noise=noise)


def _joined(parts: Sequence[Batch]) -> Batch:
    """Batches of one shape below one another."""

    def join(columns: list[np.ndarray | None]) -> np.ndarray | None:
        return np.concatenate([column for column in columns if column is not None]) if columns[0] is not None else None

    inputs, targets = join([part.inputs for part in parts]), join([part.targets for part in parts])
    assert inputs is not None
    assert targets is not None
    return Batch(inputs, targets, join([part.segments for part in parts]), join([part.positions for part in parts]))
