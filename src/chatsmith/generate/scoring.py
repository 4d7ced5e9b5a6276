"""How likely a model finds given tokens: log probabilities from logits, and texts longer than a context in windows."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np

from chatsmith.generate.backend import Floats
from chatsmith.generate.requests import Top
from chatsmith.generate.sampling import Sampling, Stages

_PLAIN = Sampling(temperature=1.0)


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens [start, end) of a text, of which those from `fresh` on are scored."""

    text: int
    start: int
    fresh: int
    end: int


def windows(text: int, length: int, context: int) -> Iterator[Window]:
    """Cover a text: windows of a whole context that move on by half of one."""
    fresh = 1
    while fresh < length:
        end = min(length, context if fresh == 1 else fresh + context - context // 2)
        yield Window(text, max(0, end - context), fresh, end)
        fresh = end


def score_rows(logits: Floats, targets: Many[int], top: int = 0) -> tuple[list[float], list[Top]]:
    """Natural log of the probability of one id for each row of logits [n, V], and the `top` likeliest ids of each."""
    if not len(logits):
        return [], []
    stages = Stages(logits, _PLAIN)
    found = stages.logprobs(np.array(targets, np.int64)).tolist()
    return found, [stages.top(row, top) for row in range(len(logits))] if top else []
