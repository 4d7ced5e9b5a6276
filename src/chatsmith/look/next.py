"""What comes next: the ranked next tokens, before and after temperature and the other stages.

The numbers are read off the `Distribution` that the engine chose from; nothing is computed a second time for show.
With several steps the likeliest token is taken each time and the text grows, as in Wolfram's "What Is ChatGPT Doing …
and Why Does It Work?" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from chatsmith.arguments import short as shortened
from chatsmith.arguments import whole
from chatsmith.generate.distribution import Distribution, Ranked
from chatsmith.generate.engine import Engine
from chatsmith.generate.noise import fresh_seed
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.tables import Bar, Column, Report, Table, bits, percent

MAX_STEPS = 10_000
_FIRST = 3  # tokens, where a report is told in a line


@dataclass(frozen=True, slots=True)
class NextStep:
    """One place in the text: the text so far, the likeliest tokens, and how open the choice is.

    `top` is the likeliest token, which the next step follows; `drawn` is the one that sampling chose here. `entropy`
    is that of the model's own probabilities, `entropy_after` that of those drawn from, both in bits; `kept` counts the
    tokens that the stages left possible.
    """

    text: str
    tokens: tuple[Ranked, ...]
    top: Ranked
    drawn: Ranked
    entropy: float
    entropy_after: float
    kept: int
    distribution: Distribution

    def __repr__(self) -> str:
        first = ", ".join(f"{row.text!r} {percent(row.before)}" for row in self.tokens[:_FIRST])
        return f"<NextStep {shortened(self.text)}: {first}{', …' if len(self.tokens) > _FIRST else ''}>"

    def to_mapping(self) -> dict[str, Any]:
        """As JSON can say it; a token that a stage removed has null bits."""
        return {
            "text": self.text,
            "entropy_bits": self.entropy,
            "entropy_bits_after": self.entropy_after,
            "kept": self.kept,
            "top": _json(self.top),
            "drawn": _json(self.drawn),
            "tokens": [_json(row) for row in self.tokens],
        }


@dataclass(frozen=True, slots=True, repr=False)
class NextReport(Report):
    """The ranked next tokens of a text, for one step or several."""

    steps: tuple[NextStep, ...]
    sampling: Sampling

    @property
    def headline(self) -> str:
        """What comes first after the text, or the text that the steps led to."""
        if len(self.steps) > 1:
            return f"of {len(self.steps)} steps to {shortened(self.steps[-1].text + self.steps[-1].top.text)}"
        return repr(self.steps[0]).removeprefix("<NextStep ").removesuffix(">")

    @property
    def tokens(self) -> tuple[Ranked, ...]:
        """The ranked table of the first step."""
        return self.steps[0].tokens

    @property
    def entropy(self) -> float:
        """How open the choice after the given text is, in bits."""
        return self.steps[0].entropy

    @property
    def texts(self) -> list[str]:
        """The growing text: as given, then with one more of the likeliest tokens each."""
        return [step.text for step in self.steps]

    def to_mapping(self) -> dict[str, Any]:
        """The whole report as JSON can say it."""
        return {"sampling": asdict(self.sampling), "steps": [step.to_mapping() for step in self.steps]}

    def tables(self) -> list[Table]:
        """What is drawn: a ranked table; with several steps the growing text before it."""
        if len(self.steps) == 1:
            return [self._ranked(self.steps[0])]
        return [self._growing(), self._ranked(self.steps[0])]

    def _ranked(self, step: NextStep) -> Table:
        most = max(max(row.before, row.after) for row in step.tokens)
        rows = [
            (
                str(row.rank),
                spaced(row.text),
                Bar(row.before / most, percent(row.before)),
                bits(row.bits),
                Bar(row.after / most, percent(row.after)),
                bits(row.bits_after),
                percent(row.cumulative),
            )
            for row in step.tokens
        ]
        left = "1 token" if step.kept == 1 else f"{step.kept:,} tokens"
        note = (
            f"entropy {step.entropy:.2f} bits, {step.entropy_after:.2f} after {describe(self.sampling)}"
            f" ({left} possible); drawn with seed {self.sampling.seed}: {spaced(step.drawn.text)}"
        )
        columns = (
            Column("rank"),
            Column("token", "left", code=True),
            Column("probability", "left"),
            Column("bits"),
            Column(f"after {describe(self.sampling, short=True)}", "left", leaves=3),
            Column("bits", leaves=2),
            Column("cumulative", leaves=1),
        )
        marked = frozenset(index for index, row in enumerate(step.tokens) if row.id == step.drawn.id)
        return Table(step.text, columns, tuple(rows), marked, note)

    def _growing(self) -> Table:
        rows = [
            (str(number), step.text, spaced(top.text), Bar(top.before, percent(top.before)), bits(top.bits))
            for number, step in enumerate(self.steps, start=1)
            for top in (step.top,)
        ]
        columns = (
            Column("step", leaves=2),
            Column("text", "left", wrap=True),
            Column("top choice", "left", code=True),
            Column("probability", "left", leaves=3),
            Column("bits", leaves=1),
        )
        return Table("", columns, tuple(rows))


def next_tokens(
    engine: Engine,
    text: str,
    *,
    begin: Sequence[int] = (),
    sampling: Sampling | None = None,
    top: int = 10,
    steps: int = 1,
) -> NextReport:
    """The `top` likeliest tokens after `text`; with `steps` the likeliest is added each time.

    `begin` are ids put before the text (the token that begins a document, where the model wants one). The steps end
    early after a token that ends texts or turns, or when the context is full. Raises `RequestError` for a text that
    does not fit the context.
    """
    whole("top", top, 1, engine.tokenizer.vocab_size, "the vocabulary has no more tokens")
    whole("steps", steps, 1, MAX_STEPS)
    sampling = sampling or Sampling()
    if sampling.seed is None:
        sampling = replace(sampling, seed=fresh_seed())
    one = replace(sampling, max_tokens=1, stop=())
    tokenizer = engine.tokenizer
    ids = list(begin) + tokenizer.encode(text)
    made: list[int] = []
    found: list[NextStep] = []
    while len(found) < steps:
        if found and len(ids) + len(made) >= engine.backend.spec.context:
            break
        [answer] = engine.complete([Request((*ids, *made), one, look=True)])
        # By bytes: `decode` takes a SentencePiece vocabulary's first space away, and this text goes on.
        grown = text + tokenizer.decode_bytes(made).decode("utf-8", "replace")
        step = _step(answer.distributions[0], grown, top, engine)
        found.append(step)
        if step.top.id in tokenizer.stop_ids:
            break
        made.append(step.top.id)
    return NextReport(tuple(found), sampling)


def _step(distribution: Distribution, text: str, top: int, engine: Engine) -> NextStep:
    name = engine.tokenizer.token_text
    tokens = tuple(distribution.ranked(top, name))
    return NextStep(
        text=text,
        tokens=tokens,
        top=tokens[0],
        drawn=distribution.row_of(distribution.chosen, name),
        entropy=distribution.entropy("logits"),
        entropy_after=distribution.entropy("min_p"),
        kept=distribution.kept(),
        distribution=distribution,
    )


def describe(sampling: Sampling, *, short: bool = False) -> str:
    """The settings that shape the distribution, in words: "temperature 0.8, top-k 40"."""
    said = [f"temperature {sampling.temperature:g}"]
    for name in ("frequency", "presence"):
        if penalty := getattr(sampling, f"{name}_penalty"):
            said.insert(0, f"{name} penalty {penalty:g}")
    if sampling.repetition_penalty != 1:
        said.insert(0, f"repetition penalty {sampling.repetition_penalty:g}")
    if sampling.logit_bias:
        said.insert(0, f"{len(sampling.logit_bias)} biased tokens")
    if sampling.top_k:
        said.append(f"top-k {sampling.top_k}")
    if sampling.top_p < 1:
        said.append(f"top-p {sampling.top_p:g}")
    if sampling.min_p > 0:
        said.append(f"min-p {sampling.min_p:g}")
    return "all stages" if short and len(said) > 1 else ", ".join(said)


def spaced(token: str) -> str:
    """A token with its spaces visible: in a table, " the" and "the" look alike."""
    return token.replace(" ", "␣")


def _json(row: Ranked) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value for name, value in asdict(row).items()
    }
