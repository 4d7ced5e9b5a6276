"""One token for each row of logits, by the settings of the row's own sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np

from chatsmith.generate.backend import Floats
from chatsmith.generate.distribution import Distribution
from chatsmith.generate.noise import key
from chatsmith.generate.requests import Top
from chatsmith.generate.sampling import Past, Stages
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
