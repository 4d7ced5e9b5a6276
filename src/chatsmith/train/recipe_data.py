"""The table of a recipe that says what is read: sources, how they are mixed, and stages. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chatsmith.arguments import whole
from chatsmith.text.shard_manifest import MANIFEST
from chatsmith.train.recipe_checks import require, require_count

_MAX_SOURCES = 1000


def check_vocab_size(name: str, size: object) -> None:
    """Raise `RequestError` for a size that no vocabulary can have."""
    whole(name, size, 261, 2**20, "the smallest has the 256 bytes and 5 marks")


@dataclass(frozen=True, slots=True)
class GPT3Part:
    """A row of table 2.2 in Brown et al. 2020: tokens, weight in the mixture, and epochs in 300 billion tokens."""

    tokens: int
    weight: float
    epochs: float


# As printed. The weights add up to 1.01, and for WebText2 and Wikipedia they are not those that the epochs follow from.
GPT3_PARTS = {
    "common_crawl": GPT3Part(410 * 10**9, 0.60, 0.44),
    "webtext2": GPT3Part(19 * 10**9, 0.22, 2.9),
    "books1": GPT3Part(12 * 10**9, 0.08, 1.9),
    "books2": GPT3Part(55 * 10**9, 0.08, 0.43),
    "wikipedia": GPT3Part(3 * 10**9, 0.03, 3.4),
}


@dataclass(frozen=True, slots=True)
class Source:
    """One part of the mixture: a path (documents, or a folder of tokens) or "world", and its weight among the others.

    Instead of weights, `epochs` of all sources say how often each is gone through where others are gone through once:
    the weight is then that many times its tokens. `name` says which part of a published mixture it is.

    `also` names more files and folders of documents that belong to the same part, so that duplicates among them go.
    `field` names the field of JSON, CSV or Parquet records that holds the text ("": found by itself). `duplicates`
    says which documents are kept apart: near-duplicates dropped, only exact ones, or all kept. For the world, `part`
    is "all", "text" or "chat", `mixture` gives the shares of its kinds, and `tokens` says how much of it is made
    (0: what the run needs, as far as that is known).
    """

    path: str
    also: tuple[str, ...] = ()
    weight: float = 1.0
    epochs: float = 0.0
    name: str = ""
    tokens: int = 0
    part: Literal["all", "text", "chat"] = "all"
    mixture: dict[str, float] = dataclasses.field(default_factory=dict)
    field: str = ""
    duplicates: Literal["near", "exact", "keep"] = "near"

    def __post_init__(self) -> None:
        require(bool(self.path), "a source needs a path", 'for example path = "books/" or path = "world"')
        require(0 <= self.weight <= 1e9, f"the weight of {self.path} must not be negative: {self.weight:g}")
        require(0 <= self.epochs <= 1e9, f"the epochs of {self.path} must not be negative: {self.epochs:g}")
        require(
            not self.epochs or self.weight == 1,
            f"{self.path} has both a weight and epochs",
            "keep one: a weight is a share of the run, epochs are how often the source is gone through",
        )
        require(
            not (self.epochs and self.is_world),
            "the built-in corpus is made as large as a run needs, and has no epochs",
            "give weights to all sources",
        )
        require_count(f"tokens of {self.path}", self.tokens, 0)
        given = {"part": self.part != "all", "mixture": bool(self.mixture), "tokens": bool(self.tokens)}
        for name in given:
            require(
                self.is_world or not given[name],
                f"{name} is for the built-in corpus, and {self.path} is not it",
                f'write path = "world", or leave {name} out',
            )

    @property
    def is_world(self) -> bool:
        """Whether this is the built-in corpus."""
        return self.path == "world"

    @property
    def holds_tokens(self) -> bool:
        """Whether this is a folder of tokens, which were written before the run."""
        return not self.is_world and (Path(self.path) / MANIFEST).is_file()


@dataclass(frozen=True, slots=True)
class Stage:
    """The weights of the sources, in their order, while progress is below `until`."""

    until: float
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        require(0 < self.until <= 1, f"until = {self.until:g} is not a share of the run above 0 and up to 1")
        require(
            all(0 <= weight <= 1e9 for weight in self.weights) and sum(self.weights) > 0,
            f"the weights of a stage must not be negative, nor all 0: {list(self.weights)}",
        )


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on. The vocabulary is learned from the sources (`vocab_size`) or taken from `tokenizer`.

    `held_out` is the share of documents kept from training. Rows are cut from the "stream" of documents, or `pack`
    whole "documents". With `mask_documents` attention does not cross from one document to the next within a row.
    `stages` change the mixture as the run goes on. `mixture` "gpt3" gives each source, which must have the `name` of a
    part, its weight in table 2.2 of Brown et al. 2020, and "gpt3-epochs" as many epochs as are printed there. Text of
    tests in the files `clean_of` is cut out of all documents, as GPT-3's training text was cleaned (appendix C there).
    """

    sources: tuple[Source, ...]
    mixture: Literal["", "gpt3", "gpt3-epochs"] = ""
    held_out: float = 0.01
    clean_of: tuple[str, ...] = ()
    vocab_size: int | None = None
    tokenizer: str | None = None
    mask_documents: bool = False
    pack: Literal["stream", "documents"] = "stream"
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        require(0 < len(self.sources) <= _MAX_SOURCES, f"data.sources must name 1 to {_MAX_SOURCES} sources")
        require(sum(s.weight for s in self.sources) > 0, "the weights of all sources are 0: nothing would be read")
        self._check_mixture()
        self._check_epochs()
        require(0 <= self.held_out <= 0.5, f"held_out is a share from 0 to 0.5, not {self.held_out:g}")
        require(
            self.vocab_size is None or self.tokenizer is None,
            "both data.vocab_size and data.tokenizer are given: a vocabulary is learned, or taken over",
            "leave one of them out",
        )
        if self.vocab_size is not None:
            check_vocab_size("data.vocab_size", self.vocab_size)
        for stage in self.stages:
            require(
                len(stage.weights) == len(self.sources),
                f"a stage has {len(stage.weights)} weights for {len(self.sources)} sources",
            )
        ends = [stage.until for stage in self.stages]
        require(ends == sorted(set(ends)), f"the stages must end one after another, not at {ends}")
        require(not ends or ends[-1] == 1, f"the last stage must end at until = 1, not {ends[-1] if ends else 1:g}")

    def _check_epochs(self) -> None:
        """Epochs become weights by the tokens of their source, beside which a plain weight would be nothing."""
        counted = next((source for source in self.sources if source.epochs), None)
        if counted is None:
            return
        other = next((source for source in self.sources if source.weight and not source.epochs), None)
        require(
            other is None,
            f"{counted.path} says how much of it is read by epochs, and {other.path if other else ''} by weight",
            "give epochs to all sources that are read, or weights",
        )
        require(
            not self.stages, f"data.stages and the epochs of {counted.path} both give weights", "keep one of the two"
        )

    def _check_mixture(self) -> None:
        if not self.mixture:
            return
        names = [source.name for source in self.sources]
        known = ", ".join(GPT3_PARTS)
        for source in self.sources:
            require(
                source.name in GPT3_PARTS,
                f"{source.path} is not part of the mixture {self.mixture}: its name is {source.name!r}",
                f"give it one of the names {known}",
            )
            require(
                source.weight == 1 and not source.epochs,
                f"the mixture {self.mixture} says how much is read of {source.path}, and so does the source",
                "leave out its weight and epochs, or the mixture",
            )
        require(len(set(names)) == len(names), "two sources have the same name in the mixture", "join them with also")
        require(not self.stages, f"data.stages and the mixture {self.mixture} both give weights", "keep one of the two")
