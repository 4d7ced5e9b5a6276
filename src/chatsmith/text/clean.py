"""Cleaning text without changing what it says: line ends, stray bytes, and documents that came before."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chatsmith.text.hashtable import ABSENT, HashTable
from chatsmith.text.minhash import BINS, band_keys, sketch

if TYPE_CHECKING:
    from chatsmith.text.documents import Document

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


class Deduplicator:
    """Drops documents that came before, exactly or nearly, in bounded memory.

    Exact: equal hashes (95 bits: Python's own of bytes, SipHash with a key drawn anew in each process, and CRC-32) of
    the text without white space at its ends; in texts of less than 4 KiB each run of ASCII white space counts as one
    space (longer ones with other spacing are near duplicates).
    Near: Jaccard similarity of word 5-grams of at least `similarity`, estimated from 128 min-hashes (standard error
    0.035 at 0.8) against documents that were kept, found through 8 bands of 5: a pair at 0.8 is met with probability
    0.96, at 0.9 with 0.999. (GPT-3's fuzzy deduplication used 10 hashes; Brown et al. 2020, appendix A.) Texts with
    fewer than `shortest` distinct 5-grams are compared exactly only: few words too often agree by chance. Of a
    conversation, what the assistant says is compared: many questions about one passage are no duplicates.

    Memory: 16 to 32 bytes for each distinct document, and about 350 for each kept document among which near
    duplicates are looked for. Those are all while there are fewer than 2 × `window`, later at least the last
    `window`: 0.4 GB at most as it comes.
    """

    def __init__(
        self, *, near: bool = True, similarity: float = 0.8, shortest: int = 48, window: int = 1 << 19
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
        verdicts = [Verdict.NEW] * len(texts)
        for index in self._exact(texts):
            verdicts[index] = Verdict.EXACT
        if self.near:
            new = [index for index, verdict in enumerate(verdicts) if verdict is Verdict.NEW]
            for index in self._near([taught[index] for index in new]):
                verdicts[new[index]] = Verdict.NEAR
        self.exact_duplicates += verdicts.count(Verdict.EXACT)
        self.near_duplicates += verdicts.count(Verdict.NEAR)
        return verdicts

    def _exact(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """Which texts have been seen before, in this batch or earlier; remembers the others."""
        plain = [_plain(text) for text in texts]
        keys = np.maximum(np.fromiter(map(hash, plain), np.int64, len(plain)).view(np.uint64), 1)
        rest = (np.fromiter(map(zlib.crc32, plain), np.uint32, len(plain)) & 0x7FFFFFFF).astype(np.int32)
        order = np.argsort(keys, kind="stable")
        equal = (keys[order[1:]] == keys[order[:-1]]) & (rest[order[1:]] == rest[order[:-1]])
        again = np.zeros(len(plain), bool)
        again[order[1:][equal]] = True
        found = self._seen.find(keys)
        fresh = ~again & (found == ABSENT)
        self._seen.add(keys[fresh], rest[fresh])
        return np.flatnonzero(again | (found == rest))

    def _near(self, texts: Sequence[bytes]) -> list[int]:
        """Which of these distinct texts are nearly like a text kept before; remembers the others."""
        enough, sketches = sketch(texts, self.shortest)
        tops, keys = sketches.astype(np.uint8), band_keys(sketches)
        near = np.zeros(len(enough), bool)
        for kept in self._kept:
            near |= kept.resembles(tops, keys)
        self._compare_within(tops, keys, near)
        if self._kept[0].room < len(enough):
            fresh = _Kept(max(self._window, len(enough)), self.similarity)
            fresh.forgotten = len(self._kept) == 2
            self._kept = [fresh, self._kept[0]]
        self._kept[0].add(tops[~near], keys[~near])
        return enough[near].tolist()

    def _compare_within(self, tops: NDArray[np.uint8], keys: NDArray[np.uint64], near: NDArray[np.bool_]) -> None:
        """Mark those that are nearly like one before them in the batch that stays; most batches share no key at all."""
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = (counts > 1)[inverse.reshape(keys.shape)].any(axis=1)
        first: dict[int, int] = {}
        for index in np.flatnonzero(shared & ~near).tolist():
            own = keys[index].tolist()
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

    def resembles(self, tops: NDArray[np.uint8], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of the sketches tops [N, 128] with keys [N, bands] are nearly like a kept one."""
        found = self._first.find(keys.ravel()).reshape(keys.shape)
        near = np.zeros(len(keys), bool)
        for band in range(keys.shape[1]):
            met = np.flatnonzero((found[:, band] != ABSENT) & ~near)
            alike = np.mean(self._tops[found[met, band]] == tops[met], axis=1)
            near[met[alike >= self._similarity]] = True
        return near

    def add(self, tops: NDArray[np.uint8], keys: NDArray[np.uint64]) -> None:
        """Keep sketches; a key leads to the first document that had it."""
        count = len(tops)
        self._tops[self._count : self._count + count] = tops
        numbers = np.repeat(np.arange(self._count, self._count + count, dtype=np.int32), keys.shape[1])
        flat = keys.ravel()
        fresh = self._first.find(flat) == ABSENT
        self._first.add(flat[fresh], numbers[fresh])
        self._count += count
        self.room -= count


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
