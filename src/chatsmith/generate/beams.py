"""Beam search: the likeliest answers instead of drawn ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from chatsmith.generate.backend import Floats
from chatsmith.generate.requests import FAULTS, Beams, Event, Finish
from chatsmith.generate.sampling import Stages
from chatsmith.generate.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Found:
    """A finished answer of a search: its rank is by `score`, the length-penalised log probability."""

    score: float
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Finish


@dataclass(eq=False, slots=True)
class _Beam:
    sequence: Sequence
    total: float = 0.0
    logprobs: tuple[float, ...] = ()
    text: str = ""


@dataclass(eq=False, slots=True)
class Search:
    """The beams of one request. They move together: `advance` when every one of them has its logits.

    It ends when no beam can come to beat the worst of the `width` answers found, or at the most tokens.
    """

    beams: Beams
    alive: list[_Beam]
    found: list[Found] = field(default_factory=list)
    fault: Finish = "stuck"  # why nothing was found

    @classmethod
    def of(cls, sequence: Sequence, beams: Beams) -> Search:
        """The search that begins with a sequence whose prompt is to be read."""
        search = cls(beams, [_Beam(sequence)])
        sequence.search = search
        return search

    @property
    def sequences(self) -> list[Sequence]:
        """The sequences of the beams that are still going on."""
        return [beam.sequence for beam in self.alive]

    def penalty(self, length: int) -> float:
        """What a log probability is divided by."""
        return float(((5 + length) / 6) ** self.beams.length_penalty)

    def advance(self, logits: Floats, release: Callable[[Sequence], None]) -> bool:
        """One token further, from logits [beams, V] in the order of `alive`; returns whether the search is over.

        Beams that lead nowhere are handed to `release`.
        """
        width, V = self.beams.width, logits.shape[1]
        totals = np.empty((len(self.alive), V))
        for row, beam in enumerate(self.alive):
            past = beam.sequence.past()
            stages = Stages(logits[row : row + 1], beam.sequence.request.sampling, () if past is None else (past,))
            z = stages.penalised[0].astype(np.float64)
            peak = z.max()
            totals[row] = beam.total + (z - peak - np.log(np.exp(z - peak).sum()))
        # Twice as many candidates as beams: even if every beam's likeliest token ends it, enough go on.
        count = min(2 * width + len(self.alive[0].sequence.stop_ids) * len(self.alive), totals.size)
        flat = totals.ravel()
        best = np.flatnonzero(flat >= np.partition(flat, -count)[-count])
        best = best[np.argsort(-flat[best], kind="stable")]
        alive: list[_Beam] = []
        old = self.sequences
        for rank, place in enumerate(best.tolist()):
            if len(alive) == width or flat[place] == -np.inf:
                break
            parent, token = self.alive[place // V], place % V
            child = parent.sequence.fork(len(alive))
            text, finish = child.take(token)
            logprobs = (*parent.logprobs, float(flat[place]) - parent.total)
            if finish is None:
                alive.append(_Beam(child, float(flat[place]), logprobs, parent.text + text))
            else:
                release(child)
                if finish in FAULTS:
                    self.fault = finish
                elif rank < width:
                    score = float(flat[place]) / self.penalty(child.made)
                    made = tuple(child.tokens[len(child.tokens) - child.made :])
                    self.found.append(Found(score, made, logprobs, parent.text + text, finish))
        for sequence in old:
            release(sequence)
        self.found = sorted(self.found, key=lambda found: -found.score)[:width]
        self.alive = alive
        return self._over()

    def _over(self) -> bool:
        if not self.alive:
            return True
        if len(self.found) < self.beams.width:
            return False
        # A log probability only falls, and the divisor only grows: no beam can do better than this.
        best = max(beam.total for beam in self.alive) / self.penalty(self.alive[0].sequence.limit)
        return best <= self.found[-1].score

    def events(self, first: Sequence) -> list[Event]:
        """The best answers, all their tokens at once; `first` is any of the search's sequences."""
        if not self.found:
            return [first.event(finish=self.fault)]
        events = []
        for index, found in enumerate(self.found[: first.request.samples]):
            for place, (token, logprob) in enumerate(zip(found.tokens, found.logprobs, strict=True)):
                last = place == len(found.tokens) - 1
                said = first.event(
                    id=token, text=found.text if last else "", logprob=logprob, finish=found.finish if last else None
                )
                events.append(replace(said, index=index))
        return events
