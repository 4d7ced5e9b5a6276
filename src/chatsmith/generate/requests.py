"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from chatsmith.generate.distribution import Distribution
from chatsmith.generate.sampling import Sampling

Finish: TypeAlias = Literal["stop", "length", "eos"]
"""Why an answer ended: a stop text, the most tokens (or a full context), or a token that ends texts or turns."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt as ids (at least one), and how to continue it.

    `samples` answers share one pass over the prompt. `stop_ids` replaces the tokenizer's own ending tokens (an empty
    set writes on through them). With `look`, every event carries the whole `Distribution` behind its token.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    stop_ids: frozenset[int] | None = None
    look: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One token of one answer.

    `request` counts the requests in the order they were given, `index` the samples of a request. `text` is what may be
    shown now: it lags behind the tokens where a character or a possible stop text is not yet complete. `logprob` is
    the natural log of the model's own probability of `id`. `finish` is set on the last event of an answer.
    """

    request: int
    index: int
    id: int
    text: str
    logprob: float
    seed: int
    finish: Finish | None = None
    distribution: Distribution | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer.

    `ids` are all tokens that were chosen, the ending one too; `text` leaves out the ending token and the stop text.
    The same request with `seed` and one sample gives this answer again.
    """

    request: int
    index: int
    ids: tuple[int, ...]
    text: str
    finish_reason: Finish
    seed: int
    logprobs: tuple[float, ...]
    distributions: tuple[Distribution, ...] = ()
