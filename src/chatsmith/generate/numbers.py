"""What a step gives for its wanted rows: logits, or tokens that were chosen where the logits are."""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
from numpy.typing import NDArray

from chatsmith.generate.backend import Backend, Chooser, Draws, Floats
from chatsmith.generate.choosing import Choice, Row, choose
from chatsmith.generate.noise import key
from chatsmith.generate.parts import Part, assemble
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.sequence import Sequence

_PLAIN = Sampling().shape[1:]


class Logits:
    """What a step gave for its wanted rows: their logits [R, V]."""

    def __init__(self, logits: Floats) -> None:
        self.logits = logits
        self.finite = np.isfinite(logits.max(axis=1)) if len(logits) else np.zeros(0, np.bool_)

    def choose(self, rows: Many[Row], places: list[int]) -> list[Choice]:
        """A choice for each of `rows`, from the logits at its place."""
        every = len(places) == len(self.logits) and places == list(range(len(self.logits)))
        return choose(rows, self.logits if every else self.logits[places])


class Chosen(Logits):
    """What a step gave where some choices were made with it: those, and the logits [R, V] where others want to see.

    A sequence is chosen for by the same means in any company, so that its log probabilities have the same bits, too.
    """

    def __init__(
        self, choices: dict[tuple[Sequence, int], Choice], finite: NDArray[np.bool_], logits: Floats | None
    ) -> None:
        if logits is None:
            self.logits, self.finite = np.zeros((0, 0), np.float32), finite
        else:
            super().__init__(logits)
        self._choices = choices

    def choose(self, rows: Many[Row], places: list[int]) -> list[Choice]:
        """The choices that were made, and for the other rows a choice from the logits at their place."""
        pairs = list(zip(rows, places, strict=True))
        made = [self._choices.get((row.sequence, len(row.guesses))) for row in rows]
        rest = [pair for pair, choice in zip(pairs, made, strict=True) if choice is None]
        if not rest:
            return [choice for choice in made if choice is not None]
        others = iter(super().choose([row for row, _ in rest], [place for _, place in rest]))
        return [choice or next(others) for choice in made]


def compute(backend: Backend, parts: Many[Part], vocab_size: int) -> Logits:
    """What a step over `parts` gives for its wanted rows.

    Where the backend can choose, it does so for those whose next token needs no logits, after each of their guesses,
    and for their twins, which may begin with this step.
    """
    step = assemble(parts)
    if not isinstance(backend, Chooser):
        return Logits(backend.logits(step)[:, :vocab_size])
    ends = np.cumsum([len(part.wanted) for part in parts]).tolist()
    wanting = [(part, end - 1) for part, end in zip(parts, ends, strict=True) if part.wanted]
    plain = [(part, last) for part, last in wanting if _is_plain(part.sequence)]
    if not plain:
        return Logits(backend.logits(step)[:, :vocab_size])
    # For whom, after how many guesses, and from which row.
    asked = []
    for part, last in plain:
        guesses = len(part.guesses)
        asked += [(part.sequence, after, last - guesses + after) for after in range(guesses + 1)]
        asked += [(twin, 0, last) for twin in part.sequence.twins]
    draws = Draws(
        rows=np.array([row for _, _, row in asked], np.int32),
        keys=np.array([_key(one, after) for one, after, _ in asked], np.uint64),
        temperatures=np.array([one.request.sampling.temperature for one, _, _ in asked], np.float32),
        vocabulary=vocab_size,
    )
    tokens, logprobs, logits = backend.choose(step, draws, shown=len(plain) < len(wanting))
    made = map(Choice, tokens.tolist(), logprobs.tolist())
    choices = {(one, after): choice for (one, after, _), choice in zip(asked, made, strict=True)}
    finite = np.zeros(ends[-1], np.bool_)
    finite[draws.rows] = np.isfinite(logprobs)
    return Chosen(choices, finite, None if logits is None else logits[:, :vocab_size])


def _key(sequence: Sequence, guesses: int) -> int:
    """The chance of a sequence's next token after so many guesses; there is none in taking the likeliest."""
    return 0 if sequence.request.sampling.greedy else key(sequence.seed, sequence.made + guesses)


def _is_plain(sequence: Sequence) -> bool:
    """Whether the next token of a sequence needs no logits: by temperature alone, with nothing to be shown."""
    request = sequence.request
    rest = (sequence.search, sequence.score, sequence.matcher)
    return not (request.look or request.top) and rest == (None, None, None) and request.sampling.shape[1:] == _PLAIN
