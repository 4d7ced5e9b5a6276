"""Training as it is watched: a live picture in a terminal, a plain line every few seconds anywhere else.

Everything goes to stderr. The picture is drawn between steps, at most four times a second and without a thread of its
own, because on two cores a drawing thread would take its time from training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from chatsmith.cli.console import err, safe, say, seconds_text
from chatsmith.train.callbacks import Callback, Moment, Outcome, RunStart

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from chatsmith.train.metrics import StepRecord

_REDRAW_SECONDS = 0.25
_LINE_SECONDS = 5.0
_BARS = "▁▂▃▄▅▆▇█"
_SAMPLE_CHARACTERS = 300


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """Values as a line of bars, averaged down to `width` of them; empty for fewer than two values.

    The loss of a step that was skipped is not finite, and has no bar.
    """
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2:
        return ""
    width = min(width, len(values))
    edges = [index * len(values) // width for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)


def sample_text(prompt: str, continuation: str) -> str:
    """A prompt and what the model made of it, as one line of bounded length."""
    text = " ".join((prompt + continuation).split())
    return safe(text if len(text) <= _SAMPLE_CHARACTERS else text[: _SAMPLE_CHARACTERS - 1] + "…")


class Course:
    """The course of a run so far: its losses, its speed over the last steps, and the latest held-out figure."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._bits: float | None = None
        self._rate = self._share = self._weight = 0.0

    def take(self, record: StepRecord) -> None:
        """Take in a step; speeds are means over about the last twenty."""
        self.losses.append(record.loss)
        if record.bits_per_byte is not None:
            self._bits = record.bits_per_byte
        self._weight = 0.95 * self._weight + 1.0
        self._rate += (record.tokens_per_second - self._rate) / self._weight
        self._share += ((record.share_of_peak or 0.0) - self._share) / self._weight

    def figures(self) -> list[str]:
        """Where it stands, in words."""
        found = [f"loss {self.losses[-1]:.3f}"]
        if self._bits is not None:
            found.append(f"{self._bits:.3f} bits per byte held out")
        found.append(f"{self._rate:,.0f} tokens/s")
        if self._share:
            found.append(f"{self._share:.0%} of this machine's peak")
        return found


def place(moment: Moment) -> str:
    """Where a run stands: step, share, time left."""
    record = moment.record
    left = "" if moment.seconds_left is None else f", {seconds_text(moment.seconds_left)} left"
    return f"step {record.step:,} of {moment.total_steps:,} ({min(record.progress, 1.0):.0%}){left}"


class PlainView(Callback):
    """A line every few seconds: for pipes, log files and CI."""

    def __init__(self, every: float = _LINE_SECONDS) -> None:
        self._every = every
        self._next = 0.0
        self._course = Course()

    def on_start(self, start: RunStart) -> None:
        """Say what is trained."""
        say(opening(start))

    def close(self) -> None:
        """Nothing is open."""

    def on_note(self, text: str) -> None:
        """Pass it on."""
        say(text)

    def on_step(self, moment: Moment) -> None:
        """Say where the run stands, when it is time."""
        self._course.take(moment.record)
        now = time.monotonic()
        if now >= self._next or moment.record.step >= moment.total_steps:
            self._next = now + self._every
            say(f"{place(moment)}: " + ", ".join(self._course.figures()))

    def on_sample(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Show what the model writes by now."""
        for prompt, continuation in samples:
            say(f"  sample at step {step:,}: {sample_text(prompt, continuation)}")

    def on_end(self, outcome: Outcome) -> None:
        """Say how it ended."""
        say(closing(outcome))


class LiveView(Callback):
    """A bar, the figures, the course of the loss and the latest samples, redrawn in place."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._drawn = 0.0
        self._moment: Moment | None = None
        self._course = Course()
        self._samples: list[str] = []
        self._sampled_at = 0

    def on_start(self, start: RunStart) -> None:
        """Open the picture."""
        from rich.live import Live

        say(opening(start))
        self._live = Live(console=err(), auto_refresh=False, transient=False)
        self._live.start()

    def on_note(self, text: str) -> None:
        """A line above the picture."""
        err().print(safe(text))

    def on_step(self, moment: Moment) -> None:
        """Take in the figures, and redraw when it is time."""
        self._moment = moment
        self._course.take(moment.record)
        if moment.record.step >= moment.total_steps or time.monotonic() - self._drawn >= _REDRAW_SECONDS:
            self._draw()

    def on_sample(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Keep the first of the last samples above the picture, to be compared, and show the new ones in it."""
        if self._samples:
            err().print(f"step {self._sampled_at:,}: {self._samples[0]}", style="dim")
        self._samples = [sample_text(*pair) for pair in samples]
        self._sampled_at = step
        self._draw()

    def on_end(self, outcome: Outcome) -> None:
        """Close the picture and say how it ended."""
        self.close()
        say(closing(outcome))

    def close(self) -> None:
        """Leave the terminal as it was; safe to call at any time."""
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        if self._live is not None and self._moment is not None:
            self._live.update(self._picture(self._moment), refresh=True)
            self._drawn = time.monotonic()

    def _picture(self, moment: Moment) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        share = min(moment.record.progress, 1.0)
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=1.0, completed=share, width=max(10, min(40, err().width - 50))), place(moment))
        parts: list[RenderableType] = [
            bar,
            Text("   ".join([*self._course.figures(), sparkline(self._course.losses)])),
        ]
        parts += [Text(sample, style="cyan", overflow="ellipsis") for sample in self._samples]
        return Group(*parts)


def opening(start: RunStart) -> str:
    """What is trained, for how long, and where it goes."""
    spec = start.spec
    steps = f"{'about ' if start.total_estimated else ''}{start.total_steps:,} steps"
    goes_on = f"going on from step {start.first_step:,} of " if start.first_step else ""
    shape = f"{spec.parameters:,} parameters ({spec.layers} layers of {spec.width}, vocabulary {spec.vocab_size:,})"
    return f"training {shape}: {goes_on}{steps}, into {start.folder}"


def closing(outcome: Outcome) -> str:
    """How a run ended."""
    held_out = "" if outcome.held_out_loss is None else f", held-out loss {outcome.held_out_loss:.3f}"
    bits = "" if outcome.bits_per_byte is None else f" ({outcome.bits_per_byte:.3f} bits per byte)"
    first = "trained" if outcome.stopped is None else f"stopped ({outcome.stopped}) after"
    return (
        f"{first} {outcome.steps:,} steps, {outcome.tokens:,} tokens in {seconds_text(outcome.seconds)}: "
        f"loss {outcome.loss:.3f}{held_out}{bits}"
    )


def training_view() -> LiveView | PlainView:
    """The picture in a terminal, plain lines elsewhere."""
    return LiveView() if err().is_terminal and not err().is_dumb_terminal else PlainView()
