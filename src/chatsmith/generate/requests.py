"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from chatsmith.generate.backend import Floats
from chatsmith.generate.constraints import Constraint
from chatsmith.generate.distribution import Distribution
from chatsmith.generate.sampling import Sampling

Finish: TypeAlias = Literal["stop", "length", "eos", "error", "stuck", "large"]
"""Why an answer ended: a stop text, the most tokens (or a full context), a token that ends texts or turns; or why it
failed (`FAULTS`)."""

FAULTS: dict[Finish, tuple[str, str]] = {
    "error": (
        "the model's logits are not finite: its weights are damaged or its training diverged",
        "take an earlier checkpoint, or train with a lower learning rate",
    ),
    "stuck": (
        "no token of the vocabulary goes on as the answer's form demands",
        "the form asks for characters that this vocabulary cannot write",
    ),
    "large": (
        "the answer's form allows more at once than can be kept track of",
        "ask for fewer properties, alternatives or repetitions",
    ),
}
"""What went wrong where an answer failed, and what to do; its whole request ends with it."""

Top: TypeAlias = tuple[tuple[int, float], ...]
"""The likeliest tokens at a place, best first: (id, natural log of the model's own probability)."""


@dataclass(frozen=True, slots=True)
class Beams:
    """Search for the likeliest answer instead of drawing one: `width` beginnings are kept at each token.

    Answers are ranked by log probability / ((5 + length) / 6)^length_penalty (Wu et al. 2016, equation 14); GPT-3 was
    evaluated with width 4 and penalty 0.6 (Brown et al. 2020, section 2.4).
    """

    width: int = 4
    length_penalty: float = 0.6


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt as ids (at least one), and how to continue it.

    Attributes:
        prompt: The ids to go on from.
        sampling: How to choose, and when to stop.
        samples: So many answers, which share one pass over the prompt; with `beams`, the best so many.
        stop_ids: Replaces the tokenizer's own ending tokens; an empty set writes on through them.
        look: Every event carries the whole `Distribution` behind its token.
        top: Every event carries the so many likeliest tokens.
        score_prompt: The first event carries the log probabilities of the prompt's tokens.
        embed: The one event carries the mean of the states after the last norm; nothing is written.
        beams: Beam search; of `sampling`, temperature and the stages after it then do nothing.
        constraint: What the answer must look like.
        rolling: When the context is full, read its newer half again and go on, instead of ending the answer.
        isolation: Requests share the cached beginnings of their prompts only with those of the same isolation.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    stop_ids: frozenset[int] | None = None
    look: bool = False
    top: int = 0
    score_prompt: bool = False
    embed: bool = False
    beams: Beams | None = None
    constraint: Constraint | None = None
    rolling: bool = False
    isolation: str = ""


@dataclass(frozen=True, slots=True)
class PromptScore:
    """How likely the model found a prompt: natural logs of the probability of each token after the first [n − 1], and
    the likeliest tokens at their places, where they were asked for."""

    logprobs: tuple[float, ...]
    top: tuple[Top, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One token of one answer.

    `request` counts the requests in the order they were given, `index` the samples of a request; `ticket` is what the
    engine knows the request by. `id` is None where an answer ends without a token (none was asked for, or it failed).
    `text` is what may be shown now: it lags behind the tokens where a character or a possible stop text is not yet
    complete. `logprob` is the natural log of the model's own probability of `id`. `forgotten` counts the tokens at the
    beginning that the model no longer sees (`rolling`), `reused` those that were in the cache when the answer began, or
    went on after it had to give way. `finish` is set on the last event of an answer.
    """

    request: int
    index: int
    id: int | None
    text: str
    logprob: float
    seed: int
    finish: Finish | None = None
    distribution: Distribution | None = None
    top: Top = ()
    prompt: PromptScore | None = None
    forgotten: int = 0
    embedding: Floats | None = None
    ticket: int = -1
    reused: int = 0


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
    top: tuple[Top, ...] = ()
    prompt: PromptScore | None = None
    forgotten: int = 0
