"""Guesses at what comes next, which the model checks many at a time.

The model reads a guess and what would follow it in one pass, and every token is then chosen as it always is, with the
chance of its own place. A guess is right when it is that very token; from the first wrong one on, guesses are dropped.
So the tokens are those that would have come without guessing, greedy or drawn, and a wrong guess costs only time.
(Leviathan et al. 2023 accept and reject at random to keep the distribution; where chance is a function of the place,
nothing has to be rejected. A draft model that draws with the same chance often draws the same token.)
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.generate.backend import Backend, Floats
from chatsmith.generate.blocks import Blocks, Short, Table
from chatsmith.generate.choosing import Row, choose
from chatsmith.generate.parts import Guesses, Part, assemble
from chatsmith.generate.sequence import Sequence


class Guesser(Protocol):
    """What guesses."""

    def guess(self, sequences: Many[Sequence], most: Many[int]) -> list[Guesses]:
        """For each sequence at most so many tokens that may follow it; there may be none."""

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended or must wait: keep nothing of it."""


class PromptLookup:
    """Guesses that what followed the last few tokens earlier in the text follows them again (Saxena 2023).

    It costs nothing but the check, and helps where answers repeat their prompts: summaries, corrections, code. The
    longest of the last `longest` … `shortest` tokens that occurred before is looked up.
    """

    def __init__(self, count: int = 6, longest: int = 3, shortest: int = 2) -> None:
        if not 1 <= shortest <= longest or count < 1:
            raise RequestError("prompt look-up needs at least one token to look up and one to guess")
        self.count, self.sizes = count, range(longest, shortest - 1, -1)
        self._known: dict[Sequence, _Index] = {}

    def guess(self, sequences: Many[Sequence], most: Many[int]) -> list[Guesses]:
        found = []
        for sequence, limit in zip(sequences, most, strict=True):
            index = self._known.setdefault(sequence, _Index())
            index.read(sequence.tokens, self.sizes)
            found.append(index.look(sequence.tokens, self.sizes, min(self.count, limit)))
        return found

    def forget(self, sequence: Sequence) -> None:
        self._known.pop(sequence, None)


@dataclass(slots=True)
class _Index:
    """Where each few tokens of a text occurred last, and what came after."""

    ends: dict[Guesses, int] = field(default_factory=dict)
    read_to: int = 0

    def read(self, tokens: Many[int], sizes: range) -> None:
        """Take in all but the last token: that one has nothing after it yet."""
        for end in range(self.read_to + 1, len(tokens)):
            for size in sizes:
                if end >= size:
                    self.ends[tuple(tokens[end - size : end])] = end
        self.read_to = max(self.read_to, len(tokens) - 1)

    def look(self, tokens: Many[int], sizes: range, count: int) -> Guesses:
        """What followed the last tokens before."""
        for size in sizes:
            end = self.ends.get(tuple(tokens[len(tokens) - size :])) if len(tokens) >= size else None
            if end is not None:
                return tuple(tokens[end : end + count])
        return ()


@dataclass(slots=True)
class _Draft:
    """What a draft model has read of a sequence: its blocks, and the tokens in them."""

    table: Table
    tokens: list[int] = field(default_factory=list)
    begin: int = 0


class DraftModel:
    """Guesses with a smaller model of the same vocabulary, drawing with the chance of each place."""

    def __init__(self, backend: Backend, vocab_size: int, count: int = 4) -> None:
        if backend.spec.vocab_size < vocab_size:
            raise RequestError(
                f"the draft model knows {backend.spec.vocab_size} ids and the model's tokenizer has {vocab_size}",
                "a draft model must have the same vocabulary",
            )
        if count < 1:
            raise RequestError(f"a draft model must guess at least one token, not {count}")
        self.backend, self.count = backend, count
        self._vocab_size = vocab_size
        self.blocks = Blocks(backend.blocks, backend.block_size, len(backend.bands))
        self._drafts: dict[Sequence, _Draft] = {}

    def forget(self, sequence: Sequence) -> None:
        draft = self._drafts.pop(sequence, None)
        if draft is not None:
            draft.table.release()

    def guess(self, sequences: Many[Sequence], most: Many[int]) -> list[Guesses]:
        guesses: dict[Sequence, Guesses] = dict.fromkeys(sequences, ())
        limits = {sequence: min(self.count, limit) for sequence, limit in zip(sequences, most, strict=True)}
        while going := [sequence for sequence in sequences if len(guesses[sequence]) < limits[sequence]]:
            ready, logits = self._read(going, guesses)
            for sequence in going:
                if sequence not in ready:
                    limits[sequence] = 0  # there is more to read first, or no room
            if not ready:
                continue
            rows = [Row(sequence, guesses[sequence]) for sequence in ready]
            for sequence, choice in zip(ready, choose(rows, logits), strict=True):
                guesses[sequence] += (choice.token,)
                if choice.token in sequence.stop_ids:
                    limits[sequence] = 0
        return [guesses[sequence] for sequence in sequences]

    def _read(self, sequences: Many[Sequence], guesses: dict[Sequence, Guesses]) -> tuple[list[Sequence], Floats]:
        """Read what is new; the sequences that were read to their end, and the logits there."""
        parts: list[Part] = []
        budget = self.backend.step_tokens
        copies: list[tuple[int, int]] = []
        for sequence in sequences:
            wanted = [*sequence.tokens[sequence.begin :], *guesses[sequence]]
            if len(wanted) > self.backend.spec.context:
                self.forget(sequence)
                continue
            draft = self._known(sequence, wanted)
            new = wanted[draft.table.size : draft.table.size + budget]
            if not new:
                continue
            try:
                copies += draft.table.grow(draft.table.size + len(new))
            except Short:
                self.forget(sequence)
                continue
            budget -= len(new)
            whole = draft.table.size + len(new) == len(wanted)
            parts.append(Part(sequence, draft.table, tuple(new), (len(new) - 1,) if whole else ()))
            draft.tokens[draft.table.size :] = new
        if not parts:
            return [], np.zeros((0, self._vocab_size), np.float32)
        self.backend.copy(copies)
        logits = self.backend.logits(assemble(parts))[:, : self._vocab_size]
        for part in parts:
            part.table.size += len(part.ids)
        return [part.sequence for part in parts if part.wanted], logits

    def _known(self, sequence: Sequence, wanted: Many[int]) -> _Draft:
        """The draft of a sequence, cut back to what it has in common with the text."""
        draft = self._drafts.get(sequence)
        if draft is None or draft.begin != sequence.begin:
            self.forget(sequence)
            draft = _Draft(Table(self.blocks, self.backend.bands, self.blocks.root("")), begin=sequence.begin)
            self._drafts[sequence] = draft
        common = max(0, draft.table.size - self.count - 1)
        while common < min(draft.table.size, len(wanted) - 1) and draft.tokens[common] == wanted[common]:
            common += 1
        draft.table.size = common
        return draft
