"""What to read in the next step: who runs, who waits, who gives way, and the room for it in the cache.

A step reads one token of every answer that goes on (and guesses after it), and beside them parts of prompts, within a
budget, so that no answer waits for a long prompt. Blocks are given out as answers grow; when there are none left, the
answers that came last go back into the line, and read their text again later: it has the same bits then.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Many

from chatsmith.generate.backend import Backend
from chatsmith.generate.blocks import Blocks, Short
from chatsmith.generate.parts import Guesses, Part
from chatsmith.generate.sequence import Pooled, PromptSums, Sequence
from chatsmith.generate.speculation import Guesser

_LOGITS_AT_ONCE = 2**24  # numbers, 64 MiB in float32
_CHUNK = 128  # tokens of prompts that are read beside answers


class Schedule:
    """Sequences that run and sequences that wait, both in the order of their requests, and the blocks they hold.

    At most `max_rows` sequences run at a time. `counts` says what has been done since the beginning.
    """

    def __init__(self, backend: Backend, vocab_size: int, max_rows: int, guesser: Guesser | None) -> None:
        self.backend, self.vocab_size, self.max_rows, self.guesser = backend, vocab_size, max_rows, guesser
        self.blocks = Blocks(backend.blocks, backend.block_size, len(backend.bands))
        self.counts = dict.fromkeys(("steps", "read", "reused", "made", "guessed", "right", "preempted"), 0)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.copies: list[tuple[int, int]] = []

    def plan(self) -> list[Part]:
        """What to read in this step; room for it is made, and `copies` says which blocks are to be copied first."""
        self.copies = []
        answering = [one for one in self.running if not one.reading and self._together(one)]
        guesses = self._guess(answering)
        held = len(answering) + sum(map(len, guesses.values()))
        budget = self.backend.step_tokens
        if answering:
            budget = max(1, min(budget - held, _CHUNK))
        parts: list[Part] = []
        before = self.counts["preempted"]
        for sequence in list(self.running):
            if self.counts["preempted"] != before and sequence not in self.running:
                continue  # it had to make room for one before
            if sequence.reading:
                part = self._read_on(sequence, budget)
                budget -= len(part.ids) if part else 0
            elif self._together(sequence):
                part = self._go_on(sequence, guesses.get(sequence, ()))
            else:
                part = None
            if part:
                parts.append(part)
        # Whoever had to make room since it was planned is planned no more (a search gives way as a whole).
        if self.counts["preempted"] != before:
            parts = [part for part in parts if part.sequence in self.running]
        while self.waiting and budget > 0 and (admitted := self._admit()):
            part = self._read_on(admitted, budget)
            assert part is not None
            parts.append(part)
            budget -= len(part.ids)
        return parts

    def _together(self, sequence: Sequence) -> bool:
        """Whether a sequence may go on: the beams of a search only when all of them can."""
        search = sequence.search
        return search is None or not any(one.reading for one in search.sequences)

    def _guess(self, sequences: Many[Sequence]) -> dict[Sequence, Guesses]:
        if self.guesser is None or not sequences:
            return {}
        context = self.backend.spec.context
        most = [
            0
            if one.search is not None or one.matcher is not None
            else max(0, min(one.limit - one.made - 1, context - one.table.size - 1))
            for one in sequences
        ]
        some = [(one, limit) for one, limit in zip(sequences, most, strict=True) if limit > 0]
        if not some:
            return {}
        found = self.guesser.guess([one for one, _ in some], [limit for _, limit in some])
        return {one: guesses for (one, _), guesses in zip(some, found, strict=True)}

    def _go_on(self, sequence: Sequence, guesses: Guesses) -> Part | None:
        """An answer's last token, and guesses at what follows it."""
        if guesses and sequence.table.needs(sequence.table.size + 1 + len(guesses)) > self.blocks.free:
            guesses = ()  # nobody has to make room for a guess
        if not self._make_room(sequence, 1 + len(guesses)):
            return None
        ids = (sequence.tokens[-1], *guesses)
        return Part(sequence, sequence.table, ids, tuple(range(len(ids))), guesses)

    def _read_on(self, sequence: Sequence, budget: int) -> Part | None:
        """The next part of what a sequence has to read."""
        if budget <= 0:
            return None
        # The last token of a beam waits until all beams of its search can go on together.
        count = min(sequence.pending - (sequence.search is not None and sequence.made > 0), budget)
        if sequence.score is not None:
            count = min(count, max(1, _LOGITS_AT_ONCE // self.vocab_size))
        if not self._make_room(sequence, count):
            return None
        start = sequence.begin + sequence.table.size
        whole = count == sequence.pending
        every = sequence.score is not None or sequence.pool is not None
        wanted = tuple(range(count)) if every else (count - 1,) if whole else ()
        return Part(sequence, sequence.table, tuple(sequence.tokens[start : start + count]), wanted)

    def _make_room(self, sequence: Sequence, count: int) -> bool:
        """Blocks for `count` more tokens; who came later gives way. False where the sequence itself had to."""
        while True:
            try:
                self.copies += sequence.table.grow(sequence.table.size + count)
                return True
            except Short:
                last = self.running[-1]
                self._preempt(last)
                if last is sequence or (sequence.search is not None and last.search is sequence.search):
                    return False

    def _preempt(self, sequence: Sequence) -> None:
        """Take a sequence's blocks (and those of its search) and let it wait to read its text again."""
        self.counts["preempted"] += 1
        for one in [sequence] if sequence.search is None else sequence.search.sequences:
            if one in self.running:
                self.running.remove(one)
                held = {block for row in one.table.rows for block in row}
                self.copies = [copy for copy in self.copies if copy[1] not in held]
                self.forget(one)
                if one.made == 0:
                    self._begin(one)
                self.wait(one)

    def _admit(self) -> Sequence | None:
        """Let the first in the line run, where rows and blocks allow."""
        sequence = self.waiting[0]
        begun = sequence.search is not None and any(one in self.running for one in sequence.search.sequences)
        rows = 0 if begun else self._weight(sequence)
        if rows and self.rows() + rows > self.max_rows:
            return None
        if not sequence.placed:
            self._begin(sequence)
            if sequence.score is None and sequence.pool is None:
                sequence.table.adopt(sequence.tokens[sequence.begin :])
                self.counts["reused"] += sequence.table.hits
        length = sequence.table.size + sequence.pending
        if self.running and sequence.table.needs(length) > self.blocks.free:
            self.forget(sequence)
            return None
        sequence.placed = True
        self.waiting.pop(0)
        self.run(sequence)
        return sequence

    def run(self, sequence: Sequence) -> None:
        """A sequence runs from now on, in its place among those that came before and after it."""
        insort(self.running, sequence, key=_order)

    def wait(self, sequence: Sequence) -> None:
        """A sequence waits from now on, in its place in the line."""
        insort(self.waiting, sequence, key=_order)

    def _weight(self, sequence: Sequence) -> int:
        """The rows that a sequence counts for: a search has all its own from the beginning."""
        return 1 if sequence.search is None else sequence.search.beams.width

    def rows(self) -> int:
        """The rows that are taken."""
        searches = {one.search for one in self.running if one.search is not None}
        alone = sum(one.search is None for one in self.running)
        return alone + sum(search.beams.width for search in searches)

    def _begin(self, sequence: Sequence) -> None:
        """Empty sums for what is added up over a prompt."""
        request = sequence.request
        if sequence.made == 0 and sequence.index == 0:
            sequence.score = PromptSums() if request.score_prompt else None
            sequence.pool = Pooled() if request.embed else None

    def forget(self, sequence: Sequence) -> None:
        """Nothing of a sequence is in any cache any more."""
        sequence.table.release()
        sequence.placed = False
        if self.guesser is not None:
            self.guesser.forget(sequence)

    def release(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self.forget(sequence)
        if sequence in self.running:
            self.running.remove(sequence)


def _order(sequence: Sequence) -> tuple[int, int]:
    """The place of a sequence in the line."""
    return sequence.number, sequence.index
