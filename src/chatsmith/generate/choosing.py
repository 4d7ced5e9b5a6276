"""One token for each row of logits, by the settings of the row's own sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatsmith.generate.backend import Floats
from chatsmith.generate.distribution import Distribution
from chatsmith.generate.noise import key
from chatsmith.generate.requests import Top
from chatsmith.generate.sampling import Past, Sampling, Stages
from chatsmith.generate.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """A place where a token is to be chosen: after a sequence, and after guesses at what follows it."""

    sequence: Sequence
    guesses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, its log probability by the model itself, and what there was to see."""

    token: int
    logprob: float
    distribution: Distribution | None = None
    top: Top = ()


def choose(rows: Many[Row], logits: Floats) -> list[Choice]:
    """A choice for each row of logits [B, V]; rows whose settings agree go through the stages together.

    All chance is a function of the sequence's seed and the place: the same in any company, and for a guess the same as
    for the token that would have been chosen there.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.sequence.request.sampling.shape, []).append(place)
    choices: list[Choice | None] = [None] * len(rows)
    for places in groups.values():
        members = [rows[place] for place in places]
        sampling = members[0].sequence.request.sampling
        look = any(row.sequence.request.look for row in members)
        stages = Stages(logits if len(groups) == 1 else logits[places], sampling, _pasts(members), look=look)
        if sampling.greedy:
            tokens = stages.choose(np.zeros(len(members), np.uint64))
        else:
            keys = [key(row.sequence.seed, row.sequence.made + len(row.guesses)) for row in members]
            tokens = stages.choose(np.array(keys, np.uint64))
        logprobs = stages.logprobs(tokens).tolist()
        for slot, (place, row, token) in enumerate(zip(places, members, tokens.tolist(), strict=True)):
            request = row.sequence.request
            choices[place] = Choice(
                token,
                logprobs[slot],
                Distribution.of(stages, slot, token) if request.look else None,
                stages.top(slot, request.top) if request.top else (),
            )
    return [choice for choice in choices if choice is not None]


def _pasts(rows: Many[Row]) -> list[Past]:
    """What each row's text makes of its logits; none where no row's does."""
    pasts = [row.sequence.past(row.guesses) for row in rows]
    if all(past is None for past in pasts):
        return []
    return [past or Past.of(()) for past in pasts]


class Logits:
    """What a step gave for its wanted rows: their logits [R, V]."""

    def __init__(self, logits: Floats) -> None:
        self.logits = logits
        self.finite = np.isfinite(logits.max(axis=1)) if len(logits) else np.zeros(0, np.bool_)

    def choose(self, rows: Many[Row], places: list[int]) -> list[Choice]:
        """A choice for each of `rows`, from the logits at its place."""
        every = len(places) == len(self.logits) and places == list(range(len(self.logits)))
        return choose(rows, self.logits if every else self.logits[places])


class Chosen:
    """What a step gave where the choice was made with it: a token for each wanted row, and no logits."""

    logits = np.zeros((0, 0), np.float32)

    def __init__(self, tokens: NDArray[np.int64], logprobs: Floats) -> None:
        self.finite = np.isfinite(logprobs)
        self._tokens, self._logprobs = tokens.tolist(), logprobs.tolist()

    def choose(self, rows: Many[Row], places: list[int]) -> list[Choice]:
        """The choices made at the places of `rows`."""
        return [Choice(self._tokens[place], self._logprobs[place]) for place in places]


def is_plain(sequence: Sequence) -> bool:
    """Whether the next token of a sequence needs no logits: by temperature alone, with nothing to be shown."""
    request = sequence.request
    rest = (sequence.search, sequence.score, sequence.matcher)
    shown = request.look or request.top or sequence.twins
    return not shown and rest == (None, None, None) and request.sampling.shape[1:] == _PLAIN


_PLAIN = Sampling().shape[1:]
