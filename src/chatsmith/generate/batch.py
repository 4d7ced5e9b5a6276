"""Answers in the making: requests join, every step moves them on, and they leave when they are done or told to.

A step reads one token of every answer that goes on (and guesses after it), and beside them parts of prompts, within a
budget, so that no answer waits for a long prompt. Blocks are given out as answers grow; when there are none left, the
answers that came last go back into the line, and read their text again later: it has the same bits then.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Many

import numpy as np

from chatsmith.errors import Busy
from chatsmith.generate.backend import Backend, Floats
from chatsmith.generate.beams import Search
from chatsmith.generate.blocks import Blocks, Short, Table
from chatsmith.generate.checks import check
from chatsmith.generate.choosing import Choice, Row, choose
from chatsmith.generate.constraints import Matcher
from chatsmith.generate.noise import fresh_seed, sample_seed
from chatsmith.generate.requests import Event, Request
from chatsmith.generate.scoring import score_rows
from chatsmith.generate.sequence import Pooled, PromptSums, Sequence
from chatsmith.generate.speculation import Guesser, Guesses, Part, assemble
from chatsmith.text.tokenizer import Tokenizer

_LOGITS_AT_ONCE = 2**24  # numbers, 64 MiB in float32
_CHUNK = 128  # tokens of prompts that are read beside answers


class Batch:
    """Requests that wait and sequences that run; `step` moves them on.

    At most `max_rows` answers run at a time; more than `max_waiting` requests are refused (None: all are taken). With
    `guesser` the next tokens are guessed at. `counts` says what has been done since the beginning.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 32,
        max_waiting: int | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        self.backend, self.tokenizer = backend, tokenizer
        self.max_rows, self.max_waiting, self.guesser = max_rows, max_waiting, guesser
        self.blocks = Blocks(backend.blocks, backend.block_size, len(backend.bands))
        self.counts = dict.fromkeys(("steps", "read", "reused", "made", "guessed", "right", "preempted"), 0)
        self._vocab_size = tokenizer.vocab_size
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._added = 0

    @property
    def busy(self) -> bool:
        """Whether any answer is still to be finished."""
        return bool(self._running or self._waiting)

    @property
    def running(self) -> int:
        """How many answers are being worked on."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many answers wait to begin, or to go on."""
        return len(self._waiting)

    @property
    def tickets(self) -> set[int]:
        """The requests that are not yet done."""
        return {sequence.number for sequence in (*self._running, *self._waiting)}

    # ---- what is asked ---------------------------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raises `RequestError` for a request that could never be met."""
        check(request, self.backend, self._vocab_size, self.max_rows)

    def add(self, request: Request, label: int | None = None, matcher: Matcher | None = None) -> int:
        """Queue a request; returns its ticket. Its events carry that, and `label` (by default the ticket) as `request`.

        `matcher` is that of its constraint, where it has been made already. Raises `RequestError` for one that cannot
        be met, and `Busy` while too many wait.
        """
        self.check(request)
        if self.max_waiting is not None and len(self._waiting) >= self.max_waiting:
            raise Busy(f"{len(self._waiting)} requests wait already", "try again later")
        number, self._added = self._added, self._added + 1
        if matcher is None and request.constraint is not None:
            matcher = Matcher(request.constraint, self.tokenizer)
        seed = fresh_seed() if request.sampling.seed is None else request.sampling.seed
        room = request.sampling.max_tokens if request.rolling else self.backend.spec.context - len(request.prompt)
        limit = 0 if request.embed else min(request.sampling.max_tokens, room)
        sequences = [
            Sequence.of(
                number,
                number if label is None else label,
                index,
                request,
                sample_seed(seed, index),
                limit,
                self._table(request),
                self.tokenizer,
                matcher if matcher is None or index == 0 else matcher.copy(),
            )
            for index in range(1 if request.beams else request.samples)
        ]
        first, *first.twins = sequences
        if request.beams:
            Search.of(first, request.beams)
        if len(request.prompt) > self.backend.spec.context - (limit > 0):
            first.roll(self.backend.spec.context)
            for twin in first.twins:
                twin.begin = first.begin
        self._waiting.append(first)
        return number

    def _table(self, request: Request) -> Table:
        return Table(self.blocks, self.backend.bands, self.blocks.root(request.isolation))

    def cancel(self, number: int) -> None:
        """Forget a request, waiting or running, and free its blocks; its answers end without a last event."""
        for sequence in [one for one in (*self._running, *self._waiting) if one.number == number]:
            self._release(sequence)
        self._waiting = [sequence for sequence in self._waiting if sequence.number != number]

    def clear(self) -> None:
        """Forget all requests."""
        for number in self.tickets:
            self.cancel(number)

    # ---- a step ----------------------------------------------------------------------------------------------------

    def step(self) -> list[Event]:
        """One pass of the model, and what it adds to the answers. If it fails, all requests are forgotten."""
        try:
            return self._step()
        except BaseException:
            self.clear()
            raise

    def _step(self) -> list[Event]:
        self._copies: list[tuple[int, int]] = []
        parts = self._plan()
        if not parts:
            return []
        self.counts["steps"] += 1
        self.backend.copy(self._copies)
        events: list[Event] = []
        pooled = [part for part in parts if part.sequence.pool is not None]
        if pooled:
            events += self._embed(pooled)
            parts = [part for part in parts if part.sequence.pool is None]
        if parts:
            logits = self.backend.logits(assemble(parts))[:, : self._vocab_size]
            events += self._take(parts, logits)
        return events

    # ---- planning --------------------------------------------------------------------------------------------------

    def _plan(self) -> list[Part]:
        """What to read in this step; room for it is made."""
        answering = [one for one in self._running if not one.reading and self._together(one)]
        guesses = self._guess(answering)
        held = len(answering) + sum(map(len, guesses.values()))
        budget = self.backend.step_tokens
        if answering:
            budget = max(1, min(budget - held, _CHUNK))
        parts: list[Part] = []
        for sequence in list(self._running):
            if sequence not in self._running:
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
        parts = [part for part in parts if part.sequence in self._running]
        while self._waiting and budget > 0 and (admitted := self._admit()):
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
            count = min(count, max(1, _LOGITS_AT_ONCE // self._vocab_size))
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
                self._copies += sequence.table.grow(sequence.table.size + count)
                return True
            except Short:
                last = self._running[-1]
                self._preempt(last)
                if last is sequence or (sequence.search is not None and last.search is sequence.search):
                    return False

    def _preempt(self, sequence: Sequence) -> None:
        """Take a sequence's blocks (and those of its search) and let it wait to read its text again."""
        self.counts["preempted"] += 1
        for one in [sequence] if sequence.search is None else sequence.search.sequences:
            if one in self._running:
                self._running.remove(one)
                held = {block for row in one.table.rows for block in row}
                self._copies = [copy for copy in self._copies if copy[1] not in held]
                self._forget(one)
                if one.made == 0:
                    self._begin(one)
                self._wait(one)

    def _admit(self) -> Sequence | None:
        """Let the first in the line run, where rows and blocks allow."""
        sequence = self._waiting[0]
        begun = sequence.search is not None and any(one in self._running for one in sequence.search.sequences)
        rows = 0 if begun else self._weight(sequence)
        if rows and self._rows() + rows > self.max_rows:
            return None
        if not sequence.placed:
            self._begin(sequence)
            if sequence.score is None and sequence.pool is None:
                sequence.table.adopt(sequence.tokens[sequence.begin :])
                self.counts["reused"] += sequence.table.hits
        length = sequence.table.size + sequence.pending
        if self._running and sequence.table.needs(length) > self.blocks.free:
            self._forget(sequence)
            return None
        sequence.placed = True
        self._waiting.pop(0)
        self._run(sequence)
        return sequence

    def _run(self, sequence: Sequence) -> None:
        insort(self._running, sequence, key=_order)

    def _wait(self, sequence: Sequence) -> None:
        insort(self._waiting, sequence, key=_order)

    def _weight(self, sequence: Sequence) -> int:
        """The rows that a sequence counts for: a search has all its own from the beginning."""
        return 1 if sequence.search is None else sequence.search.beams.width

    def _rows(self) -> int:
        searches = {one.search for one in self._running if one.search is not None}
        alone = sum(one.search is None for one in self._running)
        return alone + sum(search.beams.width for search in searches)

    def _begin(self, sequence: Sequence) -> None:
        """Empty sums for what is added up over a prompt."""
        request = sequence.request
        if sequence.made == 0 and sequence.index == 0:
            sequence.score = PromptSums() if request.score_prompt else None
            sequence.pool = Pooled() if request.embed else None

    # ---- what came of it -------------------------------------------------------------------------------------------

    def _take(self, parts: Many[Part], logits: Floats) -> list[Event]:
        """The events of a step, from logits of the wanted rows."""
        events: list[Event] = []
        rows: list[Row] = []
        places: list[int] = []
        searches: dict[Search, list[tuple[Sequence, int]]] = {}
        # Where each answer that goes on stood; the others have been reading, and stand at their end already.
        fed = {part.sequence: part.table.size for part in parts if not part.sequence.reading}
        finite = np.isfinite(logits.max(axis=1)) if len(logits) else np.zeros(0, np.bool_)
        at = 0
        for part in parts:
            sequence, here = part.sequence, range(at, at + len(part.wanted))
            at += len(part.wanted)
            self.counts["read"] += len(part.ids) - len(part.guesses)
            if not finite[here.start : here.stop].all():
                events.append(self._fail(sequence))
                continue
            if sequence.reading:
                events += self._read(part, logits[here.start : here.stop])
                if sequence.pending or sequence not in self._running:
                    continue
            if sequence.search is not None:
                searches.setdefault(sequence.search, []).append((sequence, here[-1]))
                continue
            guesses = part.guesses
            for row, place in enumerate(here[len(here) - 1 - len(guesses) :]):
                rows.append(Row(sequence, guesses[:row]))
                places.append(place)
            for twin in self._twins(sequence):
                rows.append(Row(twin))
                places.append(here[-1])
        if rows:
            every = len(places) == len(logits) and places == list(range(len(logits)))
            events += self._settle(rows, choose(rows, logits if every else logits[places]), parts, fed)
        for search, members in searches.items():
            events += self._search(search, dict(members), logits, fed)
        return events

    def _read(self, part: Part, logits: Floats) -> list[Event]:
        """A part of a prompt has been read."""
        sequence = part.sequence
        start = sequence.begin + sequence.table.size
        if sequence.score is not None:
            targets = sequence.request.prompt[start + 1 : start + 1 + len(part.ids)]
            logprobs, top = score_rows(logits[: len(targets)], targets, sequence.request.top)
            sequence.score.logprobs += logprobs
            sequence.score.top += top
        sequence.table.commit(sequence.tokens, sequence.begin, sequence.table.size + len(part.ids))
        if sequence.pending or sequence.limit:
            return []
        score = None if sequence.score is None else sequence.score.done()
        self._release(sequence)
        return [sequence.event(finish="length", prompt=score)]

    def _twins(self, sequence: Sequence) -> list[Sequence]:
        """The other samples that begin now that the prompt has been read, as many as there is room for."""
        twins, sequence.twins = sequence.twins, []
        started = []
        for twin in twins:
            if self._rows() >= self.max_rows:
                self._wait(twin)
                continue
            twin.table.release()
            twin.table, twin.placed = sequence.table.fork(), True
            self._run(twin)
            started.append(twin)
        return started

    def _settle(
        self, rows: Many[Row], choices: Many[Choice], parts: Many[Part], fed: dict[Sequence, int]
    ) -> list[Event]:
        """Choices become tokens, up to the first guess that was wrong."""
        events = []
        guessed = {part.sequence: part.guesses for part in parts if part.guesses}
        wrong: set[Sequence] = set()
        for row, choice in zip(rows, choices, strict=True):
            sequence = row.sequence
            if sequence in wrong:
                continue
            text, finish = sequence.take(choice.token)
            self.counts["made"] += 1
            score = None
            if sequence.score is not None:
                score, sequence.score = sequence.score.done(), None
            events.append(
                sequence.event(
                    id=choice.token,
                    text=text,
                    logprob=choice.logprob,
                    finish=finish,
                    distribution=choice.distribution,
                    top=choice.top,
                    prompt=score,
                    forgotten=sequence.begin,
                )
            )
            guesses = guessed.get(sequence, ())
            place = len(row.guesses)
            right = place < len(guesses) and guesses[place] == choice.token
            self.counts["right"] += right
            if right and finish is None:
                continue
            wrong.add(sequence)
            self.counts["guessed"] += len(guesses)
            if sequence in fed:
                sequence.table.commit(sequence.tokens, sequence.begin, fed[sequence] + 1 + place)
            if finish is not None:
                self._release(sequence)
            elif sequence.table.size >= self.backend.spec.context:
                self._roll(sequence)
        return events

    def _roll(self, sequence: Sequence) -> None:
        """A full context: the newer half of it is read again."""
        self._forget(sequence)
        sequence.roll(self.backend.spec.context)
        self._running.remove(sequence)
        self._wait(sequence)

    def _search(
        self, search: Search, places: dict[Sequence, int], logits: Floats, fed: dict[Sequence, int]
    ) -> list[Event]:
        """A search has the logits of all its beams."""
        for sequence in places:
            if sequence in fed:
                sequence.table.commit(sequence.tokens, sequence.begin, sequence.table.size + 1)
        first = search.sequences[0]
        over = search.advance(logits[[places[one] for one in search.sequences]], self._release)
        self.counts["made"] += len(search.sequences)
        if not over:
            for sequence in search.sequences:
                self._run(sequence)
            return []
        for sequence in search.sequences:
            self._release(sequence)
        return search.events(first)

    def _embed(self, parts: Many[Part]) -> list[Event]:
        states = self.backend.hidden(assemble(parts))
        events = []
        at = 0
        for part in parts:
            sequence, pool = part.sequence, part.sequence.pool
            assert pool is not None
            here = states[at : at + len(part.ids)]
            at += len(part.ids)
            self.counts["read"] += len(part.ids)
            if not np.isfinite(here).all():
                events.append(self._fail(sequence))
                continue
            pool.add(here)
            sequence.table.commit(sequence.tokens, sequence.begin, sequence.table.size + len(part.ids))
            if not sequence.pending and pool.total is not None:
                mean = (pool.total / len(sequence.request.prompt)).astype(np.float32)
                self._release(sequence)
                events.append(sequence.event(finish="length", embedding=mean))
        return events

    def _fail(self, sequence: Sequence) -> Event:
        """The model's numbers are not finite: the answer ends, and so does its whole request."""
        self.cancel(sequence.number)
        # What is in its blocks is nothing to begin another answer with.
        self.blocks.forget()
        return sequence.event(finish="error")

    def _forget(self, sequence: Sequence) -> None:
        """Nothing of a sequence is in any cache any more."""
        sequence.table.release()
        sequence.placed = False
        if self.guesser is not None:
            self.guesser.forget(sequence)

    def _release(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self._forget(sequence)
        if sequence in self._running:
            self._running.remove(sequence)


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order
