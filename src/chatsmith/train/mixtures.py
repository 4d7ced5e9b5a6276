"""How much of each source a run reads: by weights, by epochs, or as GPT-3 did.

Weights and epochs say the same in two ways: of N tokens in all, a source of n tokens with the share w is gone through
w N / n times. What a paper prints of both need not agree, so a mixture takes either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table

from chatsmith.train.recipe_data import GPT3_PARTS, Data, GPT3Part

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
