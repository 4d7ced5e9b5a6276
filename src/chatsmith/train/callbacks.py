"""What is not training hangs on small hooks: progress displays, logs elsewhere, samples written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chatsmith.train.metrics import StepRecord

if TYPE_CHECKING:
    from chatsmith.models.decoder import Decoder
    from chatsmith.specs import ModelSpec
    from chatsmith.text.shards import TokenFolder
    from chatsmith.text.tokenizer import Tokenizer
    from chatsmith.train.recipe import Recipe

Sampler = Callable[["Decoder", "Tokenizer", Sequence[str], int, float], Sequence[str]]
"""Continues each prompt by up to so many tokens at a temperature. The caller brings it: training knows no generator."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Bits per byte that a model needs for held-out text, and two compressors for the same text; None where that is so
    little that their headers would count for much."""

    bits_per_byte: float
    gzip_bits_per_byte: float | None
    xz_bits_per_byte: float | None


Comparer = Callable[["TokenFolder", "Tokenizer"], Callable[["Decoder"], "Compared | None"]]
"""Makes, of the held-out text of some tokens, what compares a model with compressors. The caller brings it, too."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """What a display needs to know before the first step; `first_step` is above 0 where a run is resumed."""

    recipe: Recipe
    spec: ModelSpec
    folder: Path
    first_step: int
    total_steps: int
    total_estimated: bool
    peak_flops: float | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A step as a display wants it: the logged record, the steps planned now, and the seconds that are left."""

    record: StepRecord
    total_steps: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    `stopped` names the signal that ended it early (None: it ran to its end); `recipe` is the one that repeats it.
    Losses are in nats per token; `held_out_loss` and `bits_per_byte` are None where nothing was held out.
    """

    folder: Path
    recipe: Recipe
    steps: int
    tokens: int
    seconds: float
    loss: float
    held_out_loss: float | None
    bits_per_byte: float | None
    skipped_steps: int
    stopped: str | None
    talks: bool = False
    """Whether it learned from conversations."""

    @property
    def perplexity(self) -> float | None:
        """e to the held-out loss."""
        return None if self.held_out_loss is None else math.exp(min(self.held_out_loss, 700.0))


class Callback:
    """Hooks into a run; override what you need. They run between steps, and their time counts."""

    def on_start(self, start: RunStart) -> None:
        """Before the first step."""

    def on_note(self, text: str) -> None:
        """Something worth a line: a damaged checkpoint passed over, a choice made for this machine."""

    def on_step(self, moment: Moment) -> None:
        """After every step."""

    def on_evaluation(self, moment: Moment) -> None:
        """After a step whose record holds held-out figures, before its `on_step`."""

    def on_sample(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Prompts and what the model made of them."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint is durable."""

    def on_end(self, outcome: Outcome) -> None:
        """After the last step; the model folder is whole."""
