"""Answers in the making: requests join, every step moves them on, and they leave when they are done or told to.

What a step reads is planned by `Schedule`; here requests become sequences, and logits become tokens and events.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np

from chatsmith.errors import Busy
from chatsmith.generate.backend import Backend, Floats
from chatsmith.generate.beams import Search
from chatsmith.generate.blocks import Table
from chatsmith.generate.checks import check
from chatsmith.generate.choosing import Choice, Row
from chatsmith.generate.constraints import Matcher
from chatsmith.generate.noise import fresh_seed, sample_seed
from chatsmith.generate.numbers import Logits, compute
from chatsmith.generate.parts import Part, assemble
from chatsmith.generate.requests import FAULTS, Event, Request
from chatsmith.generate.schedule import Schedule
from chatsmith.generate.scoring import score_rows
from chatsmith.generate.sequence import Sequence
from chatsmith.generate.speculation import Guesser
from chatsmith.text.tokenizer import Tokenizer


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
        self._vocab_size = tokenizer.vocab_size
        self._schedule = Schedule(backend, self._vocab_size, max_rows, guesser)
        self.blocks, self.counts = self._schedule.blocks, self._schedule.counts
        self._added = 0

    @property
    def busy(self) -> bool:
        """Whether any answer is still to be finished."""
        return bool(self._schedule.running or self._schedule.waiting)

    @property
    def running(self) -> int:
        """How many answers are being worked on."""
        return len(self._schedule.running)

    @property
    def waiting(self) -> int:
        """How many answers wait to begin, or to go on."""
        return len(self._schedule.waiting)

    @property
    def tickets(self) -> set[int]:
        """The requests that are not yet done."""
        return {sequence.number for sequence in (*self._schedule.running, *self._schedule.waiting)}

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
        if self.max_waiting is not None and len(self._schedule.waiting) >= self.max_waiting:
            raise Busy(f"the line is full: {len(self._schedule.waiting)} wait", "try again later")
        number, self._added = self._added, self._added + 1
        if matcher is None and request.constraint is not None:
            matcher = Matcher(request.constraint, self.tokenizer)
        seed = fresh_seed() if request.sampling.seed is None else request.sampling.seed
        room = request.sampling.max_tokens if request.rolling else self.backend.spec.context - len(request.prompt)
        limit = 0 if request.embed else min(request.sampling.max_tokens, room)
        sequences = [
            Sequence.of(
                request,
                self.tokenizer,
                number=number,
                label=number if label is None else label,
                index=index,
                seed=sample_seed(seed, index),
                limit=limit,
                table=self._table(request),
                matcher=matcher if matcher is None or index == 0 else matcher.copy(),
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
        self._schedule.waiting.append(first)
        return number

    def _table(self, request: Request) -> Table:
        return Table(self.blocks, self.backend.bands, self.blocks.root(request.isolation))

    def cancel(self, number: int) -> None:
        """Forget a request, waiting or running, and free its blocks; its answers end without a last event."""
        for sequence in [one for one in (*self._schedule.running, *self._schedule.waiting) if one.number == number]:
            self._schedule.release(sequence)
        self._schedule.waiting = [sequence for sequence in self._schedule.waiting if sequence.number != number]

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
        parts = self._schedule.plan()
        if not parts:
            return []
        self.counts["steps"] += 1
        self.backend.copy(self._schedule.copies)
        events: list[Event] = []
        pooled = [part for part in parts if part.sequence.pool is not None]
        if pooled:
            events += self._embed(pooled)
            parts = [part for part in parts if part.sequence.pool is None]
        if parts:
            events += self._take(parts, compute(self.backend, parts, self._vocab_size))
        return events

    # ---- what came of it -------------------------------------------------------------------------------------------

    def _take(self, parts: Many[Part], numbers: Logits) -> list[Event]:
        """The events of a step, from the numbers of the wanted rows."""
        events: list[Event] = []
        rows: list[Row] = []
        places: list[int] = []
        searches: dict[Search, list[tuple[Sequence, int]]] = {}
        # Where each answer that goes on stood; the others have been reading, and stand at their end already.
        fed = {part.sequence: part.table.size for part in parts if not part.sequence.reading}
        logits, at = numbers.logits, 0
        for part in parts:
            sequence, here = part.sequence, range(at, at + len(part.wanted))
            at += len(part.wanted)
            self.counts["read"] += len(part.ids) - len(part.guesses)
            if not numbers.finite[here.start : here.stop].all():
                events.append(self._fail(sequence))
                continue
            if sequence.reading:
                events += self._read(part, logits[here.start : here.stop])
                if sequence.pending or sequence not in self._schedule.running:
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
            events += self._settle(rows, numbers.choose(rows, places), parts, fed)
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
        self._schedule.release(sequence)
        return [sequence.event(finish="length", prompt=score)]

    def _twins(self, sequence: Sequence) -> list[Sequence]:
        """The other samples that begin now that the prompt has been read, as many as there is room for."""
        twins, sequence.twins = sequence.twins, []
        started = []
        for twin in twins:
            if self._schedule.rows() >= self.max_rows:
                self._schedule.wait(twin)
                continue
            twin.table.release()
            twin.table, twin.placed = sequence.table.fork(), True
            self._schedule.run(twin)
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
            if finish in FAULTS:
                wrong.update(other.sequence for other in rows if other.sequence.number == sequence.number)
                self.cancel(sequence.number)
            elif finish is not None:
                self._schedule.release(sequence)
            elif sequence.table.size >= self.backend.spec.context:
                self._roll(sequence)
        return events

    def _roll(self, sequence: Sequence) -> None:
        """A full context: the newer half of it is read again."""
        self._schedule.forget(sequence)
        sequence.roll(self.backend.spec.context)
        self._schedule.running.remove(sequence)
        self._schedule.wait(sequence)

    def _search(
        self, search: Search, places: dict[Sequence, int], logits: Floats, fed: dict[Sequence, int]
    ) -> list[Event]:
        """A search has the logits of all its beams."""
        for sequence in places:
            if sequence in fed:
                sequence.table.commit(sequence.tokens, sequence.begin, sequence.table.size + 1)
        first = search.sequences[0]
        over = search.advance(logits[[places[one] for one in search.sequences]], self._schedule.release)
        self.counts["made"] += len(search.sequences)
        if not over:
            for sequence in search.sequences:
                self._schedule.run(sequence)
            return []
        for sequence in search.sequences:
            self._schedule.release(sequence)
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
                self._schedule.release(sequence)
                events.append(sequence.event(finish="length", embedding=mean))
        return events

    def _fail(self, sequence: Sequence) -> Event:
        """The model's numbers are not finite: the answer ends, and so does its whole request."""
        self.cancel(sequence.number)
        # What is in its blocks is nothing to begin another answer with.
        self.blocks.forget()
        return sequence.event(finish="error")
