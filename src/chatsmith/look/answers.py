"""What a model answers: continuations, replies and scores, each readable in a program, a terminal and a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chatsmith.arguments import short
from chatsmith.generate.engine import gather
from chatsmith.generate.requests import Beams, Completion, Event, Finish
from chatsmith.generate.sampling import Sampling
from chatsmith.look.next import describe
from chatsmith.look.render import Panel, html_panels, html_tokens, rich_panels

if TYPE_CHECKING:
    from rich.console import RenderableType

_ENDS: dict[Finish, str] = {
    "stop": "ended at a stop text",
    "length": "cut at the most tokens",
    "eos": "ended by itself",
    "error": "failed",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One continuation: its text and tokens, why it ended, and the seed that gives it again.

    `logprobs` are natural logs of the model's own probability of each token in `ids`. `forgotten` counts the tokens at
    the beginning of the text that the model no longer saw at the end (a rolling window). `full` says that the context
    ended it, before the most tokens that were asked for.
    """

    text: str
    ids: tuple[int, ...] = field(repr=False)
    finish_reason: Finish
    seed: int
    logprobs: tuple[float, ...] = field(repr=False)
    forgotten: int = 0
    full: bool = False

    @classmethod
    def of(cls, completion: Completion, sampling: Sampling) -> Answer:
        """The part of a completion that a reader wants."""
        done = completion
        full = done.finish_reason == "length" and len(done.ids) < sampling.max_tokens
        return cls(done.text, done.ids, done.finish_reason, done.seed, done.logprobs, done.forgotten, full)

    @property
    def end(self) -> str:
        """How it ended, and its length."""
        how = "cut at the end of the context" if self.full else _ENDS[self.finish_reason]
        return f"{how}, {len(self.ids)} tokens"

    @property
    def note(self) -> str:
        """How it ended, its length and its seed, in one line."""
        gone = f", the first {self.forgotten} tokens were forgotten on the way" if self.forgotten else ""
        return f"{self.end}, seed {self.seed}{gone}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Writing:
    """A prompt and its continuations; `text` is the first one, `print` shows prompt and continuation together.

    With `beams` they were searched for, best first; their seeds then mean nothing.
    """

    prompt: str
    answers: tuple[Answer, ...]
    sampling: Sampling
    beams: Beams | None = None

    @property
    def text(self) -> str:
        """The first continuation, without the prompt."""
        return self.answers[0].text

    @property
    def texts(self) -> list[str]:
        """Every continuation, without the prompt."""
        return [answer.text for answer in self.answers]

    def __repr__(self) -> str:
        first = f"{short(self.prompt)} and {short(self.text)}"
        if len(self.answers) > 1:
            return f"<Writing {first}, the first of {len(self.answers)} answers; print() shows them>"
        return f"<Writing {first}: {self.answers[0].note if self.beams is None else self.answers[0].end}>"

    def __str__(self) -> str:
        if len(self.answers) == 1:
            return self.prompt + self.text
        blocks = [
            f"── {self._title(number)}, {self._origin(answer)} ──\n{self.prompt}{answer.text}"
            for number, answer in enumerate(self.answers, start=1)
        ]
        return "\n\n".join(blocks)

    def _title(self, number: int) -> str:
        return f"sample {number}" if self.beams is None else f"answer {number}"

    def _origin(self, answer: Answer) -> str:
        return f"seed {answer.seed}" if self.beams is None else f"of {self.beams.width} beams"

    def panels(self) -> list[Panel]:
        """One panel per sample."""
        if len(self.answers) > 1:
            return [
                Panel(answer.text, title=self._title(number), lead=self.prompt, note=self._origin(answer))
                for number, answer in enumerate(self.answers, start=1)
            ]
        [answer] = self.answers
        drawn = f"{answer.note}, {describe(self.sampling)}"
        note = drawn if self.beams is None else f"{answer.end}, the best {self._origin(answer)}"
        return [Panel(answer.text, lead=self.prompt, note=note)]

    def __rich__(self) -> RenderableType:
        return rich_panels(self.panels())

    def _repr_html_(self) -> str:
        return html_panels(self.panels())

    def to_mapping(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {
            "prompt": self.prompt,
            "sampling": asdict(self.sampling),
            "beams": None if self.beams is None else asdict(self.beams),
            "answers": [asdict(answer) | ({} if self.beams is None else {"seed": None}) for answer in self.answers],
        }


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said in a conversation; `dropped` counts the oldest messages that no longer fitted the context."""

    answer: Answer
    sampling: Sampling
    dropped: int = 0

    @property
    def text(self) -> str:
        """The words."""
        return self.answer.text

    def __repr__(self) -> str:
        return f"<Reply {short(self.text)}: {self.answer.note}>"

    def __str__(self) -> str:
        return self.text

    def panels(self) -> list[Panel]:
        """The reply as one panel, with a note when something was forgotten."""
        forgotten = ""
        if self.dropped:
            s = "" if self.dropped == 1 else "s"
            forgotten = f"; the oldest {self.dropped} message{s} no longer fitted the context and were left out"
        return [Panel(self.text, note=f"{self.answer.note}, {describe(self.sampling)}{forgotten}")]

    def __rich__(self) -> RenderableType:
        return rich_panels(self.panels())

    def _repr_html_(self) -> str:
        return html_panels(self.panels())

    def to_mapping(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self)


class Stream:
    """An answer as it is made: iterate for pieces of text; `answer` is the whole once the pieces have ended."""

    def __init__(self, events: Iterator[Event], sampling: Sampling) -> None:
        self._events, self._sampling = events, sampling
        self._seen: list[Event] = []
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for event in self._events:
            self._seen.append(event)
            if event.finish is not None:
                # An event's distribution is large and was for the moment it came.
                seen = [replace(one, distribution=None) for one in self._seen]
                self._answer = Answer.of(gather(seen), self._sampling)
            if event.text:
                return event.text
        raise StopIteration

    @property
    def answer(self) -> Answer:
        """The whole answer; what has not been read yet is made first."""
        for _ in self:
            pass
        assert self._answer is not None
        return self._answer


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model foresees a text.

    `logprobs` [tokens] are natural logs of the probability of each token given those before it; `pieces` are the
    tokens as text. `bits_per_byte` compares models whatever their vocabulary; 8 is no knowledge at all.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]

    @property
    def nats(self) -> float:
        """The whole surprise of the text, −Σ ln p."""
        return -math.fsum(self.logprobs)

    @property
    def bytes(self) -> int:
        """The text's length in UTF-8."""
        return len(self.text.encode("utf-8", "surrogatepass"))

    @property
    def bits_per_byte(self) -> float:
        """Bits the model needs per byte of the text."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise per token: among how many equally likely tokens the model hesitates."""
        return float(np.exp(self.nats / len(self.logprobs)))

    def __repr__(self) -> str:
        return f"<Score of {short(self.text)}: {self}>"

    def __str__(self) -> str:
        return (
            f"{self.bits_per_byte:.3f} bits per byte, perplexity {self.perplexity:.2f} per token "
            f"({len(self.ids):,} tokens, {self.bytes:,} bytes)"
        )

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        return Text(str(self))

    def _repr_html_(self) -> str:
        shaded = [(piece, -logprob / math.log(2)) for piece, logprob in zip(self.pieces, self.logprobs, strict=True)]
        return html_panels([Panel("", note=str(self))]) + html_tokens(shaded)

    def to_mapping(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "nats": self.nats,
            "bytes": self.bytes,
            "tokens": [
                {"id": token, "token": piece, "logprob": logprob}
                for token, piece, logprob in zip(self.ids, self.pieces, self.logprobs, strict=True)
            ],
        }
