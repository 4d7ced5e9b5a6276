"""One next-token distribution, shown whole: the logits, and the probabilities after every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.generate.sampling import STAGES, Floats, Ids, Sampling, Stage, Stages

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A token in the ranked table, `text` as the caller writes tokens.

    `before` is the model's own probability, `after` the one it was drawn with; `bits` are −log₂ of them (infinite for
    a token that a stage removed); `cumulative` sums `before` down to this rank.
    """

    rank: int
    id: int
    text: str
    logit: float
    before: float
    bits: float
    after: float
    bits_after: float
    cumulative: float


@dataclass(frozen=True)
class Distribution:
    """What the model thought at one place, what each stage made of it, and what was chosen.

    `logits` [V] are the model's own; `penalised` [V] are those after the repetition penalty; `weights` [V] per later
    stage are probabilities up to a factor. All are the numbers of the choice itself, copied when it was made.
    """

    sampling: Sampling
    logits: Floats = field(repr=False)
    penalised: Floats = field(repr=False)
    weights: dict[Stage, Floats] = field(repr=False)
    chosen: int

    @classmethod
    def of(cls, stages: Stages, row: int, chosen: int) -> Distribution:
        """The distribution of one row of a batch that went through the stages, with `look`."""
        copies: dict[int, Floats] = {}

        def copy(array: Floats) -> Floats:
            return copies.setdefault(id(array), array[row].copy())

        weights = {stage: copy(array) for stage, array in stages.weights.items()}
        return cls(stages.sampling, copy(stages.logits), copy(stages.penalised), weights, chosen)

    def probabilities(self, stage: Stage = "min_p") -> Probabilities:
        """Probabilities [V] after a stage, summing to 1; `min_p` is the last: what the choice was drawn from."""
        if stage not in STAGES:
            raise RequestError(f"no stage called {stage!r}", did_you_mean(stage, STAGES))
        return self._normalised[stage]

    @cached_property
    def _normalised(self) -> dict[Stage, Probabilities]:
        done: dict[int, Probabilities] = {}

        def once(array: Floats, *, logits: bool) -> Probabilities:
            if id(array) not in done:
                weights = array.astype(np.float64)
                if logits:
                    weights = np.exp(weights - weights.max())
                done[id(array)] = weights / weights.sum()
            return done[id(array)]

        first: dict[Stage, Probabilities] = {
            "logits": once(self.logits, logits=True),
            "penalties": once(self.penalised, logits=True),
        }
        return first | {stage: once(array, logits=False) for stage, array in self.weights.items()}

    @property
    def before(self) -> Probabilities:
        """The model's own probabilities [V]."""
        return self.probabilities("logits")

    @property
    def after(self) -> Probabilities:
        """The probabilities [V] the choice was drawn from."""
        return self.probabilities("min_p")

    def entropy(self, stage: Stage = "logits") -> float:
        """How open the choice is after a stage, in bits: 0 for a certain token, log₂ n for n equal ones."""
        p = self.probabilities(stage)
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum()) + 0.0

    def kept(self, stage: Stage = "min_p") -> int:
        """How many tokens a stage has left with a probability above zero."""
        return int(np.count_nonzero(self.probabilities(stage)))

    def rank(self, token: int) -> int:
        """The place of a token in the model's own order, 1 for the likeliest; among equals the lowest id leads."""
        z = self.logits[token]
        return 1 + int((self.logits > z).sum()) + int((self.logits[:token] == z).sum())

    def ranked(self, count: int, text: Callable[[int], str] = str) -> list[Ranked]:
        """The likeliest `count` tokens by the model's own probability, best first (all, if there are fewer).

        `text` writes a token: `tokenizer.token_text`, say.
        """
        order = self._order(count)
        before = self.before[order]
        return [
            self._row(rank, int(token), float(total), text)
            for rank, (token, total) in enumerate(zip(order, np.cumsum(before), strict=True), start=1)
        ]

    def row_of(self, token: int, text: Callable[[int], str] = str) -> Ranked:
        """The row of one token, wherever it ranks."""
        rank = self.rank(token)
        return self._row(rank, token, float(self.before[self._order(rank)].sum()), text)

    def _order(self, count: int) -> Ids:
        count = max(1, min(count, len(self.logits)))
        edge = np.partition(self.logits, -count)[-count]
        candidates = np.flatnonzero(self.logits >= edge)
        return candidates[np.argsort(-self.logits[candidates], kind="stable")][:count]

    def _row(self, rank: int, token: int, cumulative: float, text: Callable[[int], str]) -> Ranked:
        before, after = float(self.before[token]), float(self.after[token])
        return Ranked(
            rank=rank,
            id=token,
            text=text(token),
            logit=float(self.logits[token]),
            before=before,
            bits=_bits(before),
            after=after,
            bits_after=_bits(after),
            cumulative=min(cumulative, 1.0),
        )


def _bits(probability: float) -> float:
    return float(-np.log2(probability)) + 0.0 if probability > 0 else float("inf")
