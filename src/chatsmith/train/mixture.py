"""The order in which a run reads its sources while their weights change from stage to stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.text.batches import Batch, Batches
from chatsmith.text.packing import Pack
from chatsmith.text.shards import TokenSplit


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
            Batches(
                [(split, 1.0)], context=context, batch=1, seed=seed + number, mask_documents=mask_documents, pack=pack
            )
            for number, split in enumerate(splits)
        ]
        self.reweight(weights)

    def reweight(self, weights: Sequence[float]) -> None:
        """Use other weights from the next row on."""
        shares = np.asarray(weights, dtype=np.float64)
        if len(shares) != len(self._sources) or shares.min() < 0 or shares.sum() <= 0:
            raise RequestError(f"{list(weights)} are no weights for {len(self._sources)} sources")
        self._shares = shares / shares.sum()
        self._drawn = np.zeros(len(shares), dtype=np.int64)

    def next(self, rows: int) -> Batch:
        """The next `rows` rows, those of one source together."""
        counts = np.zeros(len(self._sources), dtype=np.int64)
        for _ in range(rows):
            due = self._shares * (self._drawn.sum() + 1) - self._drawn
            source = int(np.argmax(due))
            counts[source] += 1
            self._drawn[source] += 1
        parts = [source.next(int(count)) for source, count in zip(self._sources, counts, strict=True) if count]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def state(self) -> dict[str, Any]:
        """Where each source stands, as JSON holds it."""
        return {
            "sources": [source.state() for source in self._sources],
            "shares": self._shares.tolist(),
            "drawn": self._drawn.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state; `RequestError` where it belongs to other text."""
        if len(state["sources"]) != len(self._sources):
            raise RequestError(f"the run so far had {len(state['sources'])} sources, not {len(self._sources)}")
        for source, saved in zip(self._sources, state["sources"], strict=True):
            source.restore(saved)
        self._shares = np.asarray(state["shares"], dtype=np.float64)
        self._drawn = np.asarray(state["drawn"], dtype=np.int64)


def _joined(parts: Sequence[Batch]) -> Batch:
    """Batches of one shape below one another."""

    def join(columns: list[np.ndarray | None]) -> np.ndarray | None:
        return np.concatenate([column for column in columns if column is not None]) if columns[0] is not None else None

    inputs, targets = join([part.inputs for part in parts]), join([part.targets for part in parts])
    assert inputs is not None
    assert targets is not None
    return Batch(inputs, targets, join([part.segments for part in parts]), join([part.positions for part in parts]))
