"""Which documents are kept from training: decided by the document itself, so that order and company do not matter."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from chatsmith.text.shard_manifest import HELD_OUT, TRAIN, HeldOutBy

if TYPE_CHECKING:
    from chatsmith.text.documents import Document

LARGEST_SHARE = 0.1
"""A corpus of so few documents that none fell to the held-out side gives up a whole one only up to this share of its
text, or to three times the share asked for."""

Sided = tuple["Document", str]


def text_bytes(document: Document) -> int:
    """UTF-8 bytes of a document's text, or of all that is said in a conversation."""
    if document.messages:
        return sum(len(message.content.encode("utf-8", "surrogatepass")) for message in document.messages)
    return len(document.text.encode("utf-8", "surrogatepass"))


def fraction_of(document: Document, seed: int) -> float:
    """A number in [0, 1) that depends on the seed and the document's words alone, evenly spread over documents."""
    if document.messages:
        # Lengths keep two conversations apart that say the same letters in different turns.
        said = "".join([f"{turn.role} {len(turn.content)}\n{turn.content}" for turn in document.messages])
    else:
        said = document.text
    key = seed.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8, key=key)
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


Item = TypeVar("Item")
Cut = Callable[[Item, float], "tuple[Item, Item] | None"]
"""Cuts an item's last share off, or says that it cannot be cut: `cut_tail`."""


@dataclass(slots=True)
class _Reserve(Generic[Item]):
    """The item that would change sides if its side turned out to be the only one, and how many copies of it."""

    item: Item
    size: int
    fraction: float
    key: float
    copies: int = 1


class HeldOutSplit(Generic[Item]):
    """Sends each document, or whatever stands for one, to "train" or "held_out" as it passes.

    A document is held out when its `fraction_of` is below `held_out`. As long as all documents have gone to one side,
    one of them is kept back, drawn with a chance in proportion to its length; if the corpus ends like that, the
    other side gets this one: whole, or only its tail where giving up all of it would cost training too much.
    """

    def __init__(self, held_out: float, seed: int = 0) -> None:
        self.held_out = held_out
        self.seed = seed
        self.method: HeldOutBy = "hash of each document" if held_out else "nothing"
        self.settled = not held_out
        """Whether both sides have something, so that a document's own fraction decides and nothing is kept back."""
        self._only: str | None = None
        self._reserve: _Reserve[Item] | None = None
        self._bytes = 0
        self._others = 0  # documents with words other than the reserve's

    def sides(self: HeldOutSplit[Document], documents: Iterable[Document]) -> Iterator[Sided]:
        """Each document with its side. Memory: at most one document more than the caller holds."""
        for document in documents:
            if not self.held_out:
                yield document, TRAIN
                continue
            fraction = fraction_of(document, self.seed)
            if self.settled:
                yield document, self.side(fraction)
            else:
                yield from self.push(document, fraction, text_bytes(document))
        yield from self.finish(cut_tail)

    def side(self, fraction: float) -> str:
        """The side of a document by itself."""
        return HELD_OUT if fraction < self.held_out else TRAIN

    def push(self, item: Item, fraction: float, size: int) -> Iterator[tuple[Item, str]]:
        """What leaves when the next item comes, with its `fraction_of` and its bytes of text."""
        side = self.side(fraction)
        if not self.settled and self._only not in (None, side):
            self.settled = True
            yield from self._release(self._only or side)
        self._only = side
        if self.settled:
            yield item, side
        else:
            yield from self._consider(item, fraction, size, side)

    def _consider(self, item: Item, fraction: float, size: int, side: str) -> Iterator[tuple[Item, str]]:
        self._bytes += size
        # The smallest of exponentials with rate `size` belongs to each with a chance in proportion to its size
        # (Efraimidis and Spirakis 2006), and does not depend on the order in which they come.
        key = -math.log1p(-fraction) / max(size, 1)
        reserve = self._reserve
        if reserve is None:
            self._reserve = _Reserve(item, size, fraction, key)
        elif fraction == reserve.fraction:
            reserve.copies += 1
        elif key < reserve.key:
            self._others += 1
            yield from self._release(side)
            self._reserve = _Reserve(item, size, fraction, key)
        else:
            self._others += 1
            yield item, side

    def _release(self, side: str) -> Iterator[tuple[Item, str]]:
        if self._reserve is not None:
            for _ in range(self._reserve.copies):
                yield self._reserve.item, side
        self._reserve = None

    def finish(self, cut: Cut[Item]) -> Iterator[tuple[Item, str]]:
        """What leaves when there is no more: something only where every document was on one side."""
        reserve, only = self._reserve, self._only
        if self.settled or reserve is None or only is None:
            return
        share = reserve.size * reserve.copies / max(self._bytes, 1)
        dear = only == TRAIN and share > max(LARGEST_SHARE, 3 * self.held_out)
        parts = cut(reserve.item, self.held_out) if dear or not self._others else None
        if parts:
            self.method = "tail of one document"
            for _ in range(reserve.copies):
                yield parts[0], TRAIN
                yield parts[1], HELD_OUT
        elif self._others:
            self.method = "one document drawn by length"
            yield from self._release(TRAIN if only == HELD_OUT else HELD_OUT)
        else:
            self.method = "nothing"
            yield from self._release(TRAIN)


def cut_tail(document: Document, share: float) -> tuple[Document, Document] | None:
    """A document's beginning and its last `share`, cut at the paragraph, line or word nearest to it.

    A conversation is cut before a user's turn, writing without spaces anywhere. None where no cut leaves words on both
    sides.
    """
    if document.messages:
        turns = [index for index, message in enumerate(document.messages) if index and message.role == "user"]
        if not turns:
            return None
        at = min(turns, key=lambda index: abs(index - len(document.messages) * (1 - share)))
        return replace(document, messages=document.messages[:at]), replace(document, messages=document.messages[at:])
    text = document.text
    aim = len(text) * (1 - share)
    near = (max(aim - len(text) * share, 0), min(aim + len(text) * share / 2, len(text)))
    for boundary, (low, high) in (("\n\n", near), ("\n", near), (" ", near), (" ", (0, aim))):
        before = text.rfind(boundary, int(low), int(aim)) + len(boundary)
        after = text.find(boundary, int(aim), int(high)) + len(boundary)
        for at in sorted((before, after), key=lambda place: abs(place - aim)):
            if at >= len(boundary) and text[:at].strip() and text[at:].strip():
                return replace(document, text=text[:at]), replace(document, text=text[at:])
    at = min(max(int(aim), 1), len(text) - 1)  # writing without spaces
    if text[:at].strip() and text[at:].strip():
        return replace(document, text=text[:at]), replace(document, text=text[at:])
    return None
