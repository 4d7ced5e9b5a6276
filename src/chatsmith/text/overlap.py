"""Text of tests that lies in training text: found by n-grams of words, and cut out.

As GPT-3's training text was cleaned (Brown et al. 2020, appendix C): a gram is a lower-case word between white space,
without punctuation. Where 13 of them in a row stand in a test too, they are removed with 200 characters on either side;
pieces of fewer than 200 characters are discarded, and so is a document that falls into more than 10 pieces. An n-gram
found in more than 10 documents of the training text is ignored: most such are common phrases and legal boilerplate.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.text.documents import Document, ReadReport, every_string
from chatsmith.text.hashtable import ABSENT, HashTable
from chatsmith.text.report import OverlapReport
from chatsmith.text.words import ODD, hashed_words, text_batches

NGRAM = 13
"""Words that stand in a row in a test and in training text."""
WINDOW = 200
"""Characters that are removed on either side."""
SHORTEST_PIECE = 200
"""Characters that a piece must have to be kept."""
MOST_PIECES = 10
"""Into more of them no document may fall."""
MOST_DOCUMENTS = 10
"""An n-gram that is in more documents is ignored."""

_COUNTED_AT_ONCE = 2**20
_SPACES = bytes(0 if chr(byte).isspace() else byte for byte in range(128)) + bytes(range(128, 256))
_ASCII_PUNCTUATION = bytes(byte for byte in range(128) if not chr(byte).isalnum() and not chr(byte).isspace())
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_FOREIGN = re.compile(rb"[\x80-\xff]+")
_WORD = re.compile(r"\S+")


def folded(text: str) -> bytes:
    """The words of a text in lower case and without punctuation, zero bytes between them."""
    data = text.lower().encode("utf-8", "surrogatepass").translate(_SPACES, _ASCII_PUNCTUATION)
    return data if text.isascii() else _FOREIGN.sub(_folded_run, data)


def _folded_run(found: re.Match[bytes]) -> bytes:
    """The same for characters beyond ASCII: mostly the few signs that typesetters use, again and again."""
    return _folded_foreign(found[0]) if len(found[0]) <= 16 else _folded_foreign.__wrapped__(found[0])


@lru_cache(maxsize=4096)
def _folded_foreign(run: bytes) -> bytes:
    letters = _PUNCTUATION.sub("", run.decode("utf-8", "surrogatepass"))
    return "".join(["\0" if letter.isspace() else letter for letter in letters]).encode("utf-8", "surrogatepass")


class TestGrams:
    """The n-grams of some tests, as 64-bit hashes."""

    __test__ = False  # for pytest: no test itself

    def __init__(self, hashes: np.ndarray, n: int = NGRAM, texts: int = 0, too_short: int = 0) -> None:
        self.n = n
        self.hashes = np.unique(np.maximum(np.asarray(hashes, np.uint64), np.uint64(1)))
        self.texts = texts
        """Texts that they are from, and how many more had fewer than n words, so that nothing is found by them."""
        self.too_short = too_short
        self._table = HashTable()
        self._table.add(self.hashes, np.zeros(len(self.hashes), np.int32))

    @classmethod
    def of_texts(cls, texts: Iterable[str], n: int = NGRAM) -> TestGrams:
        """The n-grams of texts; `RequestError` where no text has n words."""
        found: list[np.ndarray] = []
        count = short = 0
        for batch in text_batches(texts):
            rows, _, hashes = _grams(batch, n)
            found.append(np.unique(hashes))
            longer = len(np.unique(rows))
            count += longer
            short += len(batch) - longer
        if not count:
            raise RequestError(f"no text of the tests has {n} words in a row", "name files with the tests' texts")
        return cls(np.concatenate(found), n, count, short)

    @classmethod
    def read(cls, paths: Iterable[str | os.PathLike[str]], n: int = NGRAM) -> TestGrams:
        """The n-grams of every string in files of tests: documents, or each field of each record."""
        report = ReadReport()
        return cls.of_texts((document.text for document in every_string(paths, report)), n)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex): equal for equal n-grams."""
        return hashlib.sha256(b"%d " % self.n + self.hashes.astype("<u8").tobytes()).hexdigest()

    def save(self) -> bytes:
        """Everything in bytes, which `load` takes."""
        return np.concatenate([np.array([self.n, self.texts, self.too_short], "<u8"), self.hashes]).tobytes()

    @classmethod
    def load(cls, data: bytes) -> TestGrams:
        """The n-grams that were saved."""
        numbers = np.frombuffer(data, "<u8")
        n, texts, short = numbers[:3].tolist()
        return cls(numbers[3:], n, texts, short)

    def found_in(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the tests' n-grams are: of each, the number of the text, that of its first word, and its hash."""
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        first = 0
        for batch in text_batches(texts):
            rows, words, hashes = _grams(batch, self.n)
            hit = self._table.find(hashes) != ABSENT
            parts.append((rows[hit] + first, words[hit], hashes[hit]))
            first += len(batch)
        empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64))
        rows, words, hashes = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
        return rows, words, hashes

    def columns(self, documents: Sequence[Document]) -> dict[str, np.ndarray]:
        """What a unit keeps of its documents: the n-grams in each, once, and its text where there are any."""
        texts = [searched(document) for document in documents]
        rows, _, hashes = self.found_in(texts)
        order = np.lexsort((hashes, rows))
        rows, hashes = rows[order], hashes[order]
        once = np.ones(len(rows), bool)
        once[1:] = (rows[1:] != rows[:-1]) | (hashes[1:] != hashes[:-1])
        rows, hashes = rows[once], hashes[once]
        kept = {row: texts[row].encode() for row in np.unique(rows).tolist()}
        return {
            "overlaps": np.bincount(rows, minlength=len(texts)).astype(np.int64),
            "grams": hashes,
            "text_lengths": np.array([len(kept.get(row, b"")) for row in range(len(texts))], np.int64),
            "text": np.frombuffer(b"".join(kept.values()), np.uint8),
        }


class GramCounts:
    """In how many documents each n-gram of tests was found."""

    def __init__(self) -> None:
        self._found = [np.zeros((2, 0), np.uint64)]
        self._new = 0

    def add(self, hashes: np.ndarray) -> None:
        """Take note of the n-grams of documents, each once a document."""
        if len(hashes):
            self._found.append(np.stack([hashes, np.ones_like(hashes)]))
            self._new += len(hashes)
        if self._new > self._found[0].shape[1] + _COUNTED_AT_ONCE:
            self._found, self._new = [self._counts()], 0

    def _counts(self) -> np.ndarray:
        """uint64 [2, N]: every n-gram that was found, and in how many documents."""
        hashes, counts = np.concatenate(self._found, axis=1)
        different, place = np.unique(hashes, return_inverse=True)
        return np.stack([different, np.bincount(place, counts, len(different)).astype(np.uint64)])

    def uncommon(self, tests: TestGrams) -> tuple[TestGrams, OverlapReport]:
        """The n-grams that were found and are not in too many documents, and the beginning of a report."""
        hashes, counts = self._counts()
        common = counts > MOST_DOCUMENTS
        sizes = (len(tests.hashes), tests.texts, tests.too_short, len(hashes), int(common.sum()))
        report = OverlapReport(tests.n, MOST_DOCUMENTS, *sizes)
        return TestGrams(hashes[~common], tests.n, tests.texts, tests.too_short), report


def cleaned(
    read: Callable[[ReadReport], Iterator[Document]], tests: TestGrams, report: ReadReport
) -> Iterator[Document]:
    """The documents that `read` gives, without the text of tests. They are read twice: first, n-grams are counted.

    A conversation with any of it is dropped: half of one teaches nothing good.
    """
    counts = GramCounts()
    for document in read(ReadReport()):
        counts.add(tests.columns([document])["grams"])
    grams, overlap = counts.uncommon(tests)
    for document in read(report):
        text = searched(document)
        pieces = pieces_without(text, grams)
        if pieces == [text]:
            yield document
            continue
        left = [] if document.messages else pieces
        overlap.count(text, left)
        yield from (Document(piece, document.source) for piece in left)
    report.overlap = overlap


def searched(document: Document) -> str:
    """The text of a document in which n-grams are looked for."""
    return document.text or "\n\n".join(message.content for message in document.messages)


def pieces_without(text: str, grams: TestGrams) -> list[str]:
    """What is left of a text without the n-grams: itself where it has none, nothing where it falls apart."""
    _, words, _ = grams.found_in([text])
    if not len(words):
        return [text]
    spans = [match.span() for match in _WORD.finditer(text) if _PUNCTUATION.sub("", match[0].lower())]
    pieces: list[str] = []
    begin = 0
    for word in words.tolist():
        start, end = spans[word][0] - WINDOW, spans[word + grams.n - 1][1] + WINDOW
        if start > begin:
            pieces.append(text[begin:start])
        begin = max(begin, end)
    pieces += [text[begin:]] if begin < len(text) else []
    return [piece for piece in pieces if len(piece) >= SHORTEST_PIECE] if len(pieces) <= MOST_PIECES else []


def _grams(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n-grams of texts: of each the number of its text, that of its first word within it, and its hash."""
    words, counts = hashed_words([folded(text) for text in texts])
    count = len(words) - n + 1
    if count < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64)
    row = np.repeat(np.arange(len(texts)), counts)
    hashes = _rolling(words, n)
    whole = row[:count] == row[n - 1 :]
    place = np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts)[:count]
    return row[:count][whole], place[whole], np.maximum(hashes[whole], np.uint64(1))


def _rolling(words: np.ndarray, n: int) -> np.ndarray:
    """The hashes of all n words in a row: a polynomial of theirs modulo 2^64."""
    count = len(words) - n + 1
    total = words[:count].copy()
    for place in range(1, n):
        total *= ODD[4]
        total += words[place : place + count]
    total ^= total >> np.uint64(32)
    total *= ODD[0]
    total ^= total >> np.uint64(29)
    return total
