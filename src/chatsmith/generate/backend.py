"""The one small interface between the engine and what computes a model's numbers.

The engine knows requests, blocks, chance and text; a backend knows weights, and storage for keys and values that is cut
into numbered blocks. It keeps nothing about sequences: every step says anew which blocks hold them. Arrays are numpy,
so that a backend needs no torch and one call can be one crossing into native code.

Shapes: N new tokens in a step, S sequences, R rows whose numbers are wanted, W blocks in the longest table, G groups of
layers, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from chatsmith.specs import ModelSpec

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

CACHE_BYTES = 2 * 2**30
"""The most that keys and values take unless told otherwise; memory is used only as they come."""

CacheKind = Literal["bf16", "int8"]
"""What keys and values may be kept in, where the backend leaves a choice."""


@dataclass(frozen=True, slots=True)
class Step:
    """One pass over the new tokens of some sequences, prompts and answers mixed. All arrays are int32 and contiguous.

    Attributes:
        ids: The new tokens [N], sequence after sequence.
        positions: The place of each in its sequence [N], from 0; within a sequence they rise by one. Places that were
            written before may be written again (a guess that was wrong).
        starts: Where each sequence's tokens begin in `ids`, and N at the end [S + 1].
        tables: For each group of layers, the blocks of each sequence in order [G, S, W]: place p is in
            tables[g, s, p // block_size]. What lies beyond a sequence's last block, or before what the band of the
            group can still see, is 0 and must not be read.
        wanted: The rows of `ids` [R], rising, whose numbers are asked for; there may be none.
    """

    ids: Ints
    positions: Ints
    starts: Ints
    tables: Ints
    wanted: Ints

    def cut(self, start: int, end: int) -> Step:
        """The tokens from start to end of this step, as a step."""
        edges = np.clip(self.starts, start, end)
        held = np.flatnonzero(np.diff(edges))
        return Step(
            self.ids[start:end],
            self.positions[start:end],
            np.append(edges[held], end).astype(np.int32) - np.int32(start),
            np.ascontiguousarray(self.tables[:, held]),
            self.wanted[(self.wanted >= start) & (self.wanted < end)] - np.int32(start),
        )


@dataclass(frozen=True, slots=True)
class Draws:
    """M tokens to be chosen from the logits of a step, as `generate.noise.choose` does.

    Attributes:
        rows: Which of the step's wanted rows each is chosen from [M], int32.
        keys: All the chance of each [M] (`generate.noise.key`).
        temperatures: What each row's logits are divided by [M]; at 0 the likeliest is taken, among equals the lowest.
        vocabulary: The tokens to choose from: the first so many columns of the logits.
    """

    rows: Ints
    keys: NDArray[np.uint64]
    temperatures: Floats
    vocabulary: int


class Backend(Protocol):
    """What computes steps. The engine calls it from one thread at a time.

    In a step, the keys and values of all new tokens are written to their blocks; every token then sees its own sequence
    up to and including itself (in a banded layer, the last `band` places of that). No sequence reads a block that
    another one writes in the same step. A row's numbers must depend on nothing but the tokens of its sequence up to it:
    the same bits whatever else is in the step, whichever blocks are used, and however the tokens were cut into steps.
    """

    @property
    def spec(self) -> ModelSpec:
        """The shape of the model."""

    @property
    def name(self) -> str:
        """What computes, and in which numbers, in a few words: "torch on cpu in float32"."""

    @property
    def version(self) -> int:
        """Another number when the weights may have changed: what was read before is then of no use."""

    @property
    def block_size(self) -> int:
        """Positions in a block."""

    @property
    def blocks(self) -> int:
        """How many blocks there are, numbered from 0; one block serves one group of layers."""

    @property
    def bands(self) -> tuple[int | None, ...]:
        """The groups of layers, each with tables of its own: how many places back its layers see, None for all.

        A backend that keeps whole tables for banded layers too has the one group (None,).
        """

    @property
    def step_tokens(self) -> int:
        """The most new tokens that a step should have: more only costs memory, and makes others wait."""

    def logits(self, step: Step) -> Floats:
        """Compute a step; logits [R, ≥ V] of the wanted rows. Columns beyond the vocabulary are padding."""

    def hidden(self, step: Step) -> Floats:
        """Compute a step; the states after the last norm [R, E] of the wanted rows."""

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, each (from, to), in this order, before the next step: a shared block is to be written."""


@runtime_checkable
class Chooser(Protocol):
    """A backend that can choose tokens where it computes: logits of 64 answers take longer to fetch than to make."""

    def choose(self, step: Step, draws: Draws, shown: bool) -> tuple[NDArray[np.int64], Floats, Floats | None]:
        """Compute a step; the tokens [M] that `draws` asks for, and their natural log probabilities [M].

        Of a row that is not finite the log probability is NaN. Where the logits [R, ≥ V] are to be `shown`, they come
        third.
        """
