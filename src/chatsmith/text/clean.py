"""Cleaning text without changing what it says: line ends, stray bytes, and documents that came before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chatsmith.text.hashtable import ABSENT, HashTable
from chatsmith.text.minhash import BANDS, BINS, band_keys, sketch

if TYPE_CHECKING:
    from chatsmith.text.documents import Document

SHORTEST = 48
"""Distinct 5-grams below which texts are compared exactly only."""

WINDOW = 1 << 19
"""Kept documents among which near duplicates are looked for at least."""

_BATCH_BYTES = 1 << 20
_BATCH_DOCUMENTS = 4096
_SHORT = 4096  # bytes
_SPACES = bytes(32 if chr(byte) in "\t\n\v\f\r " else byte for byte in range(256))


def normalise(text: str) -> str:
    r"""The text with line ends as "\n" and without zero bytes and the byte order mark; all else stays byte for byte.

    Unicode is not recomposed (NFC would change what a model must be able to reproduce), spaces and boilerplate are
    kept. Half of a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD. Applying it twice changes nothing.
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = text.lstrip("\ufeff")
    return text


class Verdict(Enum):
    """What a deduplicator says of a text."""

    NEW = "new"
    EXACT = "exact duplicate"
    NEAR = "near duplicate"


@dataclass(frozen=True, slots=True)
class Signatures:
    """What is compared of D documents, of which the M in `sketched` are long enough to have near duplicates.

    The same on every machine and in every process, so that documents that were read apart can be compared later.
    """

    keys: NDArray[np.uint64]
    """[D]: with `rest`, 95 bits of BLAKE2b of what is equal in exact duplicates."""
    rest: NDArray[np.int32]
    """[D]"""
    sketched: NDArray[np.bool_]
    """[D]"""
    tops: NDArray[np.uint8]
    """[M, 128]: the low byte of every min-hash."""
    bands: NDArray[np.uint64]
    """[M, 8]: the keys by which they are found."""

    def chosen(self, which: NDArray[np.bool_]) -> Signatures:
        """Those of the documents where `which` [D] is true."""
        rows = which[self.sketched]
        return Signatures(self.keys[which], self.rest[which], self.sketched[which], self.tops[rows], self.bands[rows])


class Deduplicator:
    """Drops documents that came before, exactly or nearly, in bounded memory.

    Exact: equal hashes (95 bits of BLAKE2b) of the text without white space at its ends; in texts of less than 4 KiB
    each run of ASCII white space counts as one space (longer ones with other spacing are near duplicates).
    Near: Jaccard similarity of word 5-grams of at least `similarity`, estimated from 128 min-hashes (standard error
    0.035 at 0.8) against documents that were kept, found through 8 bands of 5: a pair at 0.8 is met with probability
    0.96, at 0.9 with 0.999. A text of which a tenth is replaced in one place keeps a similarity of about 0.8; the limit
    is below that, so that such a pair does not depend on the error of the estimate. (GPT-3's fuzzy deduplication used
    10 hashes; Brown et al. 2020, appendix A.) Texts with fewer than `shortest` distinct 5-grams are compared exactly
    only: few words too often agree by chance. Of a conversation, what the assistant says is compared: many questions
    about one passage are no duplicates.

    Memory: 16 to 32 bytes for each distinct document, and about 350 for each kept document among which near
    duplicates are looked for. Those are all while there are fewer than 2 × `window`, later at least the last
    `window`: 0.4 GB at most as it comes.
    """

    def __init__(
        self, *, near: bool = True, similarity: float = 0.7, shortest: int = SHORTEST, window: int = WINDOW
    ) -> None:
        if not 0.5 <= similarity <= 1:
            raise ValueError(f"similarity must be between 0.5 and 1, not {similarity}")
        if window < 1:
            raise ValueError(f"window must be at least one document, not {window}")
        self.near = near
        self.similarity = similarity
        self.shortest = shortest
        self.exact_duplicates = 0
        self.near_duplicates = 0
        self._window = window
        self._seen = HashTable()
        self._kept = [_Kept(window, similarity)]

    @property
    def forgetful(self) -> bool:
        """Whether so many documents came that near duplicates of the oldest ones are no longer noticed."""
        return self._kept[-1].forgotten

    def unique(self, documents: Iterable[Document]) -> Iterator[list[Document]]:
        """The documents that did not come before, in order and in batches of about a megabyte."""
        batch: list[Document] = []
        texts: list[bytes] = []
        size = 0
        for document in documents:
            texts.append(_whole(document))
            batch.append(document)
            size += len(texts[-1])
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
                yield self._new_of(batch, texts)
                batch, texts, size = [], [], 0
        yield self._new_of(batch, texts)

    def _new_of(self, batch: list[Document], texts: list[bytes]) -> list[Document]:
        taught = [_taught(document) if document.messages else text for document, text in zip(batch, texts, strict=True)]
        verdicts = self.judge(texts, taught)
        return [document for document, verdict in zip(batch, verdicts, strict=True) if verdict is Verdict.NEW]

    def judge(self, texts: Sequence[bytes], taught: Sequence[bytes] | None = None) -> list[Verdict]:
        """A verdict on each text (UTF-8), as if they came one after the other; counts them.

        Exact duplicates are looked for among the texts, near ones among what they teach, by default the same.
        """
        taught = texts if taught is None else taught
        exact = self._exact(*exact_keys(texts))
        near = np.zeros(len(texts), bool)
        if self.near:
            new = np.flatnonzero(~exact)
            sketched, tops, bands = _sketched([taught[index] for index in new.tolist()], self.shortest)
            near[new[sketched]] = self._near(tops, bands)
        return self._verdicts(exact, near)

    def judge_signed(self, signatures: Signatures) -> NDArray[np.bool_]:
        """Which documents [D] are new, by their signatures and in the same words as `judge`; counts the others."""
        exact = self._exact(signatures.keys, signatures.rest)
        near = np.zeros(len(exact), bool)
        if self.near:
            fresh = ~exact[signatures.sketched]
            near[signatures.sketched & ~exact] = self._near(signatures.tops[fresh], signatures.bands[fresh])
        self._count(exact, near)
        return ~(exact | near)

    def _verdicts(self, exact: NDArray[np.bool_], near: NDArray[np.bool_]) -> list[Verdict]:
        self._count(exact, near)
        names = (Verdict.NEW, Verdict.EXACT, Verdict.NEAR)
        return [names[code] for code in (exact + 2 * near).tolist()]

    def _count(self, exact: NDArray[np.bool_], near: NDArray[np.bool_]) -> None:
        self.exact_duplicates += int(np.count_nonzero(exact))
        self.near_duplicates += int(np.count_nonzero(near))

    def _exact(self, keys: NDArray[np.uint64], rest: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which texts have been seen before, in this batch or earlier; remembers the others."""
        order = np.argsort(keys, kind="stable")
        equal = (keys[order[1:]] == keys[order[:-1]]) & (rest[order[1:]] == rest[order[:-1]])
        again = np.zeros(len(keys), bool)
        again[order[1:][equal]] = True
        found = self._seen.find(keys)
        fresh = ~again & (found == ABSENT)
        self._seen.add(keys[fresh], rest[fresh])
        return again | (found == rest)

    def _near(self, tops: NDArray[np.uint8], bands: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which sketches of distinct texts are nearly like one kept before; remembers the others.

        What a batch says does not depend on where it was parted from the next: the table of kept sketches is changed
        for a fresh one at the same document whatever came together.
        """
        near = np.zeros(len(tops), bool)
        start = 0
        while start < len(tops):
            if not self._kept[0].room:
                fresh = _Kept(self._window, self.similarity)
                fresh.forgotten = len(self._kept) == 2
                self._kept = [fresh, self._kept[0]]
            part = slice(start, start + self._kept[0].room)
            self._near_kept(tops[part], bands[part], near[part])
            start = part.stop
        return near

    def _near_kept(self, tops: NDArray[np.uint8], bands: NDArray[np.uint64], near: NDArray[np.bool_]) -> None:
        """Mark those that are nearly like one before them, and keep the others: there is room for all of them."""
        for kept in self._kept[1:]:
            near |= kept.resembles(kept.find(bands), tops)
        found = self._kept[0].find(bands)
        near |= self._kept[0].resembles(found, tops)
        self._compare_within(tops, np.where(found == ABSENT, bands, 0), near)
        self._kept[0].add(tops[~near], bands[~near], found[~near] == ABSENT)

    def _compare_within(self, tops: NDArray[np.uint8], bands: NDArray[np.uint64], near: NDArray[np.bool_]) -> None:
        """Mark those that are nearly like one before them in the batch that stays; most batches share no key at all.

        A key is 0 where an earlier document has it: that one has been compared.
        """
        _, inverse, counts = np.unique(bands, return_inverse=True, return_counts=True)
        shared = ((counts > 1)[inverse.reshape(bands.shape)] & (bands != 0)).any(axis=1)
        first: dict[int, int] = {}
        for index in np.flatnonzero(shared & ~near).tolist():
            own = [key for key in bands[index].tolist() if key]
            others = sorted({first[key] for key in own if key in first})
            if others and (np.mean(tops[others] == tops[index], axis=1) >= self.similarity).any():
                near[index] = True
            else:
                for key in own:
                    first.setdefault(key, index)


class _Kept:
    """The sketches of up to `room` kept documents: the low byte of every min-hash, and a table of their band keys."""

    def __init__(self, room: int, similarity: float) -> None:
        self.room = room
        self.forgotten = False
        self._similarity = similarity
        self._tops = np.empty((room, BINS), np.uint8)  # costs memory only as it fills
        self._count = 0
        self._first = HashTable()

    def find(self, bands: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The first kept document with each of the keys [N, bands], or `ABSENT`."""
        return self._first.find(bands.ravel()).reshape(bands.shape)

    def resembles(self, found: NDArray[np.int32], tops: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the sketches tops [N, 128] are nearly like a kept one that was found [N, bands] for them."""
        near = np.zeros(len(tops), bool)
        for band in range(found.shape[1]):
            met = np.flatnonzero((found[:, band] != ABSENT) & ~near)
            alike = np.mean(self._tops[found[met, band]] == tops[met], axis=1)
            near[met[alike >= self._similarity]] = True
        return near

    def add(self, tops: NDArray[np.uint8], bands: NDArray[np.uint64], fresh: NDArray[np.bool_]) -> None:
        """Keep sketches; a key leads to the first document that had it, and those that are `fresh` had none."""
        count = len(tops)
        self._tops[self._count : self._count + count] = tops
        numbers = np.repeat(np.arange(self._count, self._count + count, dtype=np.int32), bands.shape[1])
        fresh = fresh.ravel()
        self._first.add(bands.ravel()[fresh], numbers[fresh])
        self._count += count
        self.room -= count


def sign(
    documents: Sequence[Document], near: bool, before: Deduplicator | None
) -> tuple[NDArray[np.bool_], Signatures]:
    """The signatures of documents, without those that are exact duplicates of what `before` has seen: which they are.

    Without `near` none is sketched; without `before` all are there.
    """
    texts = [_whole(document) for document in documents]
    keys, rest = exact_keys(texts)
    none = np.zeros(len(texts), bool)
    exact = Signatures(keys, rest, none, np.zeros((0, BINS), np.uint8), np.zeros((0, BANDS), np.uint64))
    new = ~none if before is None else before.judge_signed(exact)
    exact = exact.chosen(new)
    if not near:
        return new, exact
    taught = [
        _taught(documents[row]) if documents[row].messages else texts[row] for row in np.flatnonzero(new).tolist()
    ]
    rows, tops, bands = _sketched(taught, SHORTEST)
    exact.sketched[rows] = True
    return new, Signatures(exact.keys, exact.rest, exact.sketched, tops, bands)


def exact_keys(texts: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """95 bits [N] of each text, equal for exact duplicates."""
    digests = b"".join([hashlib.blake2b(_plain(text), digest_size=12).digest() for text in texts])
    parts = np.frombuffer(digests, np.dtype([("key", "<u8"), ("rest", "<u4")]))
    return np.maximum(parts["key"], np.uint64(1)), (parts["rest"] & np.uint32(0x7FFFFFFF)).astype(np.int32)


def _sketched(texts: Sequence[bytes], shortest: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint64]]:
    """Which texts are long enough to be compared nearly [M], and of these the `tops` and `bands`."""
    rows, sketches = sketch(texts, shortest)
    return rows, sketches.astype(np.uint8), band_keys(sketches)


def _plain(text: bytes) -> bytes:
    """What must be equal in exact duplicates."""
    text = text.strip()
    if len(text) < _SHORT:
        text = text.translate(_SPACES)
        while b"  " in text:  # halves every run
            text = text.replace(b"  ", b" ")
    return text


def _whole(document: Document) -> bytes:
    """All of a document, in UTF-8."""
    if not document.messages:
        return document.text.encode()
    return "\n".join(f"{message.role}: {message.content}" for message in document.messages).encode()


def _taught(document: Document) -> bytes:
    """What the assistant says in a conversation, in UTF-8."""
    return "\n".join(message.content for message in document.messages if message.role == "assistant").encode()
