"""Some megabytes of documents as reading leaves them: encoded and signed, so that nothing later needs their text.

A unit is a table of columns, and every column can be appended to: a file of a part is the columns of its units one
after another, and what a process sends to the one that started it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from chatsmith.text.clean import Signatures
from chatsmith.text.encode_documents import EncodedDocuments
from chatsmith.text.held_out import HeldOutSplit, cut_tail
from chatsmith.text.minhash import BANDS, BINS
from chatsmith.text.shard_manifest import HELD_OUT

if TYPE_CHECKING:
    from chatsmith.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what one entry is, how wide a row of entries, and which column counts a document's rows (none: one)."""

    dtype: str
    counts: str = ""
    width: int = 1


COLUMNS: Mapping[str, Column] = {
    "lengths": Column("<i8"),  # tokens of each document, the end-of-text token counted
    "ids": Column("<u4", "lengths"),
    "marked": Column("<i8"),  # as lengths where some tokens are only to be read, else 0
    "learn": Column("u1", "marked"),  # 1 for the tokens of such a document that are to be learned
    "source_lengths": Column("<i8"),
    "source": Column("u1", "source_lengths"),  # its name in UTF-8
    "characters": Column("<i8"),
    "bytes": Column("<i8"),  # of its text in UTF-8
    "talks": Column("u1"),  # 1 for conversations
    "fractions": Column("<f8"),  # held_out.fraction_of
    "keys": Column("<u8"),  # the rest: see clean.Signatures
    "rest": Column("<i4"),
    "sketched": Column("u1"),
    "tops": Column("u1", "sketched", BINS),
    "bands": Column("<u8", "sketched", BANDS),
    "overlaps": Column("<i8"),  # how many of the tests' n-grams are in it, and which
    "grams": Column("<u8", "overlaps"),
    "text_lengths": Column("<i8"),  # the text itself, in UTF-8, of documents with such n-grams
    "text": Column("u1", "text_lengths"),
}


class Unit:
    """A table of documents by the names in `COLUMNS`; `len` is their number."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["lengths"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(column.nbytes for column in self.columns.values())

    def taken(self, indices: np.ndarray) -> Unit:
        """The documents `indices` (int64), in this order."""
        chosen: dict[str, np.ndarray] = {}
        for name, column in COLUMNS.items():
            rows = self[name]
            if column.counts:
                rows = rows[_ragged(self[column.counts].astype(np.int64), indices)]
            else:
                rows = rows[indices]
            chosen[name] = rows
        return Unit(chosen)

    def chosen(self, which: np.ndarray) -> Unit:
        """The documents where `which` (bool) is true."""
        return self if which.all() else self.taken(np.flatnonzero(which))

    @property
    def documents(self) -> EncodedDocuments:
        """The documents' ids, and what of them is learned."""
        learn = None
        if len(self["learn"]):
            learn = np.ones(len(self["ids"]), np.uint8)
            learn[np.repeat(self["marked"] > 0, self["lengths"])] = self["learn"]
        return EncodedDocuments(self["ids"], np.cumsum(self["lengths"]), learn)

    @property
    def sources(self) -> list[str]:
        """Where each document is from."""
        return strings(self["source"], self["source_lengths"])

    @property
    def signatures(self) -> Signatures:
        """What duplicates are found by."""
        return Signatures(
            self["keys"], self["rest"], self["sketched"].astype(bool), self["tops"], self["bands"].astype(np.uint64)
        )


def _ragged(counts: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The rows of documents `indices`, where `counts` says how many rows each document has."""
    lengths = counts[indices]
    begins = (np.cumsum(counts) - counts)[indices]
    return np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))


def unit(encoded: EncodedDocuments, sources: Sequence[str], columns: Mapping[str, np.ndarray]) -> Unit:
    """A table from encoded documents, their sources, and the other columns; those that are not given are empty."""
    lengths = np.diff(encoded.ends, prepend=0)
    marked, learn = np.zeros_like(lengths), np.zeros(0, np.uint8)
    if encoded.learn is not None and not encoded.learn.all():
        begins = np.concatenate([[0], encoded.ends[:-1]])
        some = np.minimum.reduceat(encoded.learn, begins) == 0
        marked[some] = lengths[some]
        learn = encoded.learn[np.repeat(some, lengths)]
    names = [name.encode("utf-8", "surrogateescape") for name in sources]
    given = {
        "lengths": lengths,
        "ids": encoded.ids,
        "marked": marked,
        "learn": learn,
        "source_lengths": np.array([len(name) for name in names], np.int64),
        "source": np.frombuffer(b"".join(names), np.uint8),
        **columns,
    }
    table = {}
    for name, column in COLUMNS.items():
        rows = given.get(name, np.zeros(0 if column.counts else len(lengths), column.dtype))
        table[name] = rows.reshape(-1, column.width) if column.width > 1 else rows
    return Unit(table)


def joined(units: Sequence[Unit]) -> Unit:
    """Several tables below one another."""
    return Unit({name: np.concatenate([unit[name] for unit in units]) for name in COLUMNS})


def strings(data: np.ndarray, lengths: np.ndarray) -> list[str]:
    """The strings whose UTF-8 lies one after another in `data` (uint8)."""
    whole = data.tobytes()
    bounds = pairwise([0, *np.cumsum(lengths).tolist()])
    return [whole[begin:end].decode("utf-8", "surrogateescape") for begin, end in bounds]


Sided = tuple[EncodedDocuments, list[str], np.ndarray]
"""Documents, their sources, and which of them are held out (bool)."""


def sided(units: Iterable[Unit], split: HeldOutSplit[tuple[Unit, int]], tokenizer: Tokenizer) -> Iterator[Sided]:
    """The documents in the order and with the sides that `HeldOutSplit.sides` gives them as documents.

    The one difference: where a corpus of few documents is to lose the tail of one and this is a conversation, it is
    not cut.
    """
    for unit in units:
        if split.settled:
            if len(unit):
                yield unit.documents, unit.sources, unit["fractions"] < split.held_out
            continue
        pairs = zip(unit["fractions"].tolist(), unit["bytes"].tolist(), strict=True)
        left = [
            pushed
            for place, (fraction, size) in enumerate(pairs)
            for pushed in split.push((unit, place), fraction, size)
        ]
        yield from _grouped(left)
    yield from _grouped(list(split.finish(lambda item, share: _cut(item, share, tokenizer))))


def _grouped(items: list[tuple[tuple[Unit, int], str]]) -> Iterator[Sided]:
    for _, group in groupby(items, lambda item: id(item[0][0])):
        same = list(group)
        part = same[0][0][0].taken(np.array([place for (_, place), _ in same]))
        yield part.documents, part.sources, np.array([side == HELD_OUT for _, side in same])


def _cut(
    item: tuple[Unit, int], share: float, tokenizer: Tokenizer
) -> tuple[tuple[Unit, int], tuple[Unit, int]] | None:
    """`cut_tail` of a document of which only the tokens are there."""
    from chatsmith.text.documents import Document

    whole = item[0].taken(np.array([item[1]]))
    if whole["talks"].any():
        return None
    ids = whole["ids"]
    text = tokenizer.decode_bytes(ids[ids != tokenizer.end_of_text].tolist()).decode("utf-8", "replace")
    cut = cut_tail(Document(text, whole.sources[0]), share)
    if cut is None:
        return None
    encoded = [
        EncodedDocuments(*tokenizer.encode_row([part.text], 1), None).closed(tokenizer.end_of_text, np.ones(1, bool))
        for part in cut
    ]
    head, tail = (unit(part, whole.sources, {}) for part in encoded)
    return (head, 0), (tail, 0)
