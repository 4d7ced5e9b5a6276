"""Text like that of good sources, told from raw text by a classifier, and drawn accordingly.

As GPT-3's Common Crawl was filtered (Brown et al. 2020, appendix A): logistic regression on hashed counts of words
(lower case, between white space; 2^18 features, as Spark's HashingTF has), trained to tell good documents from raw
ones. A document is kept if a draw from a Pareto distribution with α = 9 exceeds 1 - its score: mostly those that score
high, and some of all kinds. Here the counts of a document are scaled to unit length, so that long ones are not thereby
extreme, and the draw depends on the document and a seed alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import atomic_write
from chatsmith.text.documents import Document
from chatsmith.text.held_out import fraction_of
from chatsmith.text.order import keys
from chatsmith.text.words import ODD, hashed_words, text_batches

ALPHA = 9.0
FEATURES = 2**18

_FORMAT = "chatsmith quality"
_MAX_BYTES = 8 * FEATURES
_MOST_COUNTS = 40_000_000  # word counts of one kind of documents that are learned from: 0.3 GB
_EPOCHS, _BATCH, _RATE = 8, 256, 0.5
_SPACES = bytes(0 if chr(byte).isspace() else byte for byte in range(128)) + bytes(range(128, 256))


@dataclass(frozen=True, slots=True)
class Counts:
    """The words of documents: for each entry its document, its feature and its share of a row of unit length."""

    documents: int
    rows: np.ndarray
    features: np.ndarray
    values: np.ndarray

    def chosen(self, order: np.ndarray) -> Counts:
        """The documents `order`, numbered anew."""
        place = np.full(self.documents, -1)
        place[order] = np.arange(len(order))
        kept = place[self.rows] >= 0
        return Counts(len(order), place[self.rows][kept], self.features[kept], self.values[kept])


def count_words(texts: Iterable[str]) -> Counts:
    """The words of texts, until there are very many."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    first = total = 0
    for batch in text_batches(texts):
        words, counts = hashed_words([text.lower().encode().translate(_SPACES) for text in batch])
        feature = (words * ODD[4] >> np.uint64(46)).astype(np.int64)
        row = np.repeat(np.arange(len(batch)), counts)
        entries, times = np.unique(row * FEATURES + feature, return_counts=True)
        rows, features = np.divmod(entries, FEATURES)
        length = np.sqrt(np.bincount(rows, times.astype(np.float64) ** 2, len(batch)))
        parts.append((rows + first, features.astype(np.int32), (times / length[rows]).astype(np.float32)))
        first += len(batch)
        total += len(entries)
        if total > _MOST_COUNTS:
            break
    if not parts:
        return Counts(0, np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    rows, features, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Counts(first, rows, features, values)


@dataclass(frozen=True)
class QualityFilter:
    """Weights [2^18] of the words, a bias, and α of the draw."""

    weights: np.ndarray
    bias: float
    alpha: float = ALPHA

    def scores_of(self, counts: Counts) -> np.ndarray:
        """The chance [N] that a document is a good one, in a world where half of them are."""
        sums = np.bincount(counts.rows, self.weights[counts.features] * counts.values, counts.documents)
        return 1 / (1 + np.exp(-np.clip(sums + self.bias, -500, 500)))

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """The same of texts."""
        return np.concatenate([np.zeros(0), *(self.scores_of(count_words(batch)) for batch in text_batches(texts))])

    def chances(self, scores: np.ndarray) -> np.ndarray:
        """How likely documents with these scores are kept: P(pareto(α) > 1 - score) = (2 - score)^-α."""
        return (2.0 - scores) ** -self.alpha

    def keeps(self, documents: Sequence[Document], seed: int) -> np.ndarray:
        """Which documents are kept (bool); of conversations all."""
        chances = self.chances(self.scores([document.text for document in documents]))
        draws = np.array([fraction_of(document, _own(seed)) for document in documents])
        talks = np.array([bool(document.messages) for document in documents], bool)
        return talks | (draws < chances)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides."""
        return hashlib.sha256(self.dump()).hexdigest()

    def dump(self) -> bytes:
        """Everything as JSON, which `load` takes."""
        weights = base64.b64encode(self.weights.astype("<f4").tobytes()).decode()
        return json.dumps({"format": _FORMAT, "bias": self.bias, "alpha": self.alpha, "weights": weights}).encode()

    def save(self, path: Path) -> None:
        """Write a file that `read` reads."""
        with atomic_write(path) as file:
            file.write(self.dump())

    @classmethod
    def load(cls, data: bytes, where: str = "the filter of quality") -> QualityFilter:
        """What `dump` gave; `RequestError` for anything else."""
        try:
            said = json.loads(data)
            if said["format"] != _FORMAT:
                raise ValueError
            weights = np.frombuffer(base64.b64decode(said["weights"], validate=True), "<f4")
            bias, alpha = float(said["bias"]), float(said["alpha"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RequestError(f"{where} is not a quality filter", "make one: chatsmith data quality") from None
        if len(weights) != FEATURES or not np.isfinite([bias, alpha, float(np.abs(weights).sum())]).all() or alpha <= 0:
            raise WorkError(f"{where} is damaged", "make it again: chatsmith data quality")
        return cls(weights, bias, alpha)

    @classmethod
    def read(cls, path: Path) -> QualityFilter:
        """A file that `save` wrote."""
        try:
            if Path(path).stat().st_size > _MAX_BYTES:
                raise RequestError(f"{path} is too large for a quality filter")
            return cls.load(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}", "make it: chatsmith data quality") from None


def _own(seed: int) -> int:
    """Another seed than that of the held-out split, whose draws would otherwise be these."""
    return int(keys(seed, 0x9A1E)[0] >> np.uint64(1))


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What a filter learned from, and what it does to documents that it has not seen.

    `auc`: how often a good document scores higher than a raw one. `kept_good` and `kept_raw`: shares of documents.
    """

    good: int
    raw: int
    held_out: int
    auc: float
    kept_good: float
    kept_raw: float

    def __str__(self) -> str:
        return (
            f"learned from {self.good:,} good and {self.raw:,} raw documents; of {self.held_out:,} others "
            f"a good one scores above a raw one {self.auc:.1%} of the time; "
            f"kept are {self.kept_good:.1%} of the good and {self.kept_raw:.1%} of the raw ones"
        )


def learn(good: Iterable[str], raw: Iterable[str], seed: int = 0) -> tuple[QualityFilter, QualityReport]:
    """A filter from good and raw texts, both weighing the same; a tenth of them is kept to measure it.

    Logistic regression by Adagrad over shuffled batches. Raises `RequestError` for fewer than ten texts of a kind.
    """
    kinds = [count_words(good), count_words(raw)]
    if min(kind.documents for kind in kinds) < 10:
        raise RequestError("there are too few documents to learn from", "give at least ten good and ten raw ones")
    generator = np.random.Generator(np.random.PCG64(seed))
    orders = [generator.permutation(kind.documents) for kind in kinds]
    cuts = [max(1, kind.documents // 10) for kind in kinds]
    tests = [kind.chosen(order[:cut]) for kind, order, cut in zip(kinds, orders, cuts, strict=True)]
    trained = [kind.chosen(order[cut:]) for kind, order, cut in zip(kinds, orders, cuts, strict=True)]
    found = _regression(trained[0], trained[1], generator)
    scores = [found.scores_of(test) for test in tests]
    kept = [float(found.chances(each).mean()) for each in scores]
    ranks = np.searchsorted(np.sort(scores[1]), scores[0], "left") + np.searchsorted(
        np.sort(scores[1]), scores[0], "right"
    )
    auc = float(ranks.mean() / 2 / len(scores[1]))
    return found, QualityReport(trained[0].documents, trained[1].documents, sum(cuts), auc, kept[0], kept[1])


def _regression(good: Counts, raw: Counts, generator: np.random.Generator) -> QualityFilter:
    weights = np.zeros(FEATURES)
    squares = np.full(FEATURES, 1e-8)
    bias, bias_square = 0.0, 1e-8
    total = good.documents + raw.documents
    labels = np.concatenate([np.ones(good.documents), np.zeros(raw.documents)])
    importance = np.where(labels == 1, total / good.documents, total / raw.documents) / 2
    features = np.concatenate([good.features, raw.features])
    values = np.concatenate([good.values, raw.values])
    rows = np.concatenate([good.rows, raw.rows + good.documents])
    ends = np.cumsum(np.bincount(rows, minlength=total))
    begins = ends - np.bincount(rows, minlength=total)
    for _ in range(_EPOCHS):
        order = generator.permutation(total)
        for first in range(0, total, _BATCH):
            chosen = order[first : first + _BATCH]
            lengths = (ends - begins)[chosen]
            row = np.repeat(np.arange(len(chosen)), lengths)
            entry = np.repeat(begins[chosen] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            own, place = np.unique(features[entry], return_inverse=True)
            value = values[entry]
            sums = np.bincount(row, weights[own][place] * value, len(chosen)) + bias
            error = (1 / (1 + np.exp(-np.clip(sums, -500, 500))) - labels[chosen]) * importance[chosen] / len(chosen)
            slope = np.bincount(place, error[row] * value, len(own))
            squares[own] += slope**2
            weights[own] -= _RATE * slope / np.sqrt(squares[own])
            bias_square += error.sum() ** 2
            bias -= _RATE * error.sum() / np.sqrt(bias_square)
    return QualityFilter(weights.astype(np.float32), float(bias))
