"""How much of each source a run reads: by weights, by epochs, or as GPT-3 did.

Weights and epochs say the same in two ways: of N tokens in all, a source of n tokens with the share w is gone through
w N / n times. What a paper prints of both need not agree, so a mixture takes either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from chatsmith.errors import RequestError
from chatsmith.text.shards import TokenFolder
from chatsmith.train.recipe import load_recipe
from chatsmith.train.recipe_data import GPT3_PARTS, Data, GPT3Part, Source

GPT3_TOKENS = 300 * 10**9
"""What all GPT-3 models were trained for (Brown et al. 2020, table 2.1)."""


@dataclass(frozen=True, slots=True)
class MixedSource:
    """A source of a run: its training tokens, its share of what is read, and how often it is gone through."""

    name: str
    tokens: int
    share: float
    epochs: float


@dataclass(frozen=True, slots=True)
class MixtureReport:
    """What a run of `total` tokens reads of each source; beside it, for GPT-3's mixture, what the paper prints."""

    sources: tuple[MixedSource, ...]
    total: int
    printed: tuple[GPT3Part, ...] = ()

    def __rich__(self) -> RenderableType:
        table = Table(title=f"What {self.total:,} tokens of training read", title_justify="left")
        columns = ["source", "tokens", "share", "epochs"] + ["printed weight", "printed epochs"] * bool(self.printed)
        for column in columns:
            table.add_column(column, justify="left" if column == "source" else "right")
        for row, source in enumerate(self.sources):
            cells = [source.name, f"{source.tokens:,}", f"{source.share:.1%}", f"{source.epochs:.2f}"]
            if self.printed:
                cells += [f"{self.printed[row].weight:.0%}", f"{self.printed[row].epochs:g}"]
            table.add_row(*cells)
        return table


def weights(data: Data, tokens: Sequence[int]) -> tuple[float, ...]:
    """The weights of the sources, which have so many tokens to train on: 1 in all."""
    given = []
    for source, count in zip(data.sources, tokens, strict=True):
        part = GPT3_PARTS.get(source.name) if data.mixture else None
        weight, epochs = source.weight, source.epochs
        if part is not None:
            weight, epochs = part.weight, part.epochs if data.mixture == "gpt3-epochs" else 0.0
        given.append(epochs * count if epochs else weight)
    return tuple(weight / sum(given) for weight in given)


def mixed(data: Data, tokens: Sequence[int], total: int) -> MixtureReport:
    """What a run of `total` tokens reads of each source."""
    shares = weights(data, tokens)
    sources = tuple(
        MixedSource(source.name or source.path, count, share, share * total / count if count else 0.0)
        for source, count, share in zip(data.sources, tokens, shares, strict=True)
    )
    printed = tuple(GPT3_PARTS[source.name] for source in data.sources) if data.mixture else ()
    return MixtureReport(sources, total, printed)


def mixture_of(name: str, tokens: int | None = None) -> MixtureReport:
    """What a run of `tokens` (by default the recipe's) reads of each source of the recipe `name`, or for "gpt3".

    Raises `RequestError` where a source's tokens cannot be counted: it is not written yet.
    """
    if name == "gpt3":
        sources = tuple(Source(path=part, name=part) for part in GPT3_PARTS)
        counts = [part.tokens for part in GPT3_PARTS.values()]
        return mixed(Data(sources, mixture="gpt3"), counts, tokens or GPT3_TOKENS)
    recipe = load_recipe(Path(name))
    data, schedule = recipe.data, recipe.schedule
    for source in data.sources:
        if not source.holds_tokens:
            raise RequestError(
                f"{source.path} is not a folder of tokens, so its tokens cannot be counted",
                "write its tokens with chatsmith data shard and chatsmith data merge",
            )
    if tokens is None:
        tokens = schedule.tokens
        if schedule.steps is not None and recipe.starts_from is None:
            tokens = schedule.steps * recipe.batch.rows * recipe.context(recipe.spec(data.vocab_size or 512))
        if tokens is None:
            raise RequestError(f"{name} does not say how many tokens it trains on", "say so: --tokens 10M")
    counts = [len(TokenFolder.open(Path(source.path)).split("train")) for source in data.sources]
    return mixed(data, counts, tokens)
