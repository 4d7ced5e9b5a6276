"""What each sequence reads in a step, and the step that all of them make."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np

from chatsmith.generate.backend import Step
from chatsmith.generate.blocks import Table
from chatsmith.generate.sequence import Sequence

Guesses = tuple[int, ...]
"""Tokens that may come next (`generate.speculation`)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A sequence's part of a step: the tokens to read after what is in its table, and which of them want numbers."""

    sequence: Sequence
    table: Table
    ids: tuple[int, ...]
    wanted: tuple[int, ...] = ()
    guesses: Guesses = ()


def assemble(parts: Many[Part]) -> Step:
    """The parts as one step."""
    counts = [len(part.ids) for part in parts]
    starts = np.zeros(len(parts) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    ids = np.fromiter((token for part in parts for token in part.ids), np.int32, int(starts[-1]))
    positions = np.arange(starts[-1], dtype=np.int32)
    positions += np.repeat(np.array([part.table.size for part in parts], np.int32) - starts[:-1], counts)
    groups = len(parts[0].table.rows)
    widest = max(len(part.table.rows[0]) for part in parts)
    tables = np.zeros((groups, len(parts), widest), np.int32)
    for slot, part in enumerate(parts):
        for group, row in enumerate(part.table.rows):
            tables[group, slot, : len(row)] = row
    np.maximum(tables, 0, out=tables)
    wanted = [start + row for start, part in zip(starts.tolist(), parts, strict=False) for row in part.wanted]
    return Step(ids, positions, starts, tables, np.array(wanted, np.int32))
