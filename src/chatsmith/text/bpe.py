"""Learning a vocabulary: byte-pair encoding (Sennrich et al. 2016, section 3.2; on bytes as in GPT-2, section 2.2).

Two steps. Words are counted, on all cores, in memory that does not grow with the text. Then the pair of neighbouring
tokens that is most frequent within words becomes a new token, over and over; of equally frequent pairs the one with the
lower ids (left first, then right) is taken. This is the rule of the tokenizers library's trainer, and on the same
words the same vocabulary comes out; with one exception: a pair that spells a token which exists already is passed over,
because then tokens would have no definite order of making (see `tokenizer_merges`).

How text is cut into words is Qwen2's expression: digits stand alone, which lets a small model learn to reckon (a number
is spelled, not one of a thousand symbols to learn by heart), and other programs (llama.cpp's GGUF among them) know it.
"""

from __future__ import annotations

import heapq
import itertools
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from chatsmith.errors import RequestError
from chatsmith.machine import usable_cores
from chatsmith.text.chat import CHAT_TEMPLATE
from chatsmith.text.tokenizer import SPECIALS, Tokenizer
from chatsmith.text.tokenizer_engines import SECTION, sections, without_surrogates
from chatsmith.text.tokenizer_files import CHAR_TO_BYTE, MAX_ID, byte_level_document, bytes_to_token
from chatsmith.text.tokenizer_words import BREAK, QWEN2, Lexicon, WordPattern, words_of

SMALLEST = len(SPECIALS) + 256
"""Tokens that every vocabulary has: the special ones and the single bytes."""

MAX_WORD_LENGTH = 256
"""Characters of the longest word that is counted: longer ones (data, not words) teach nothing and cost much."""

_PERIOD = 1 << 25
"""Characters counted between two looks at the number of distinct words."""

_MOST_WORDS = 1 << 20
"""Distinct words kept; beyond, the rarest are forgotten at the end of a period."""

_SINGLES = [CHAR_TO_BYTE[character] for character in sorted(CHAR_TO_BYTE)]
"""Byte values in the order of their ids (the order of the characters that stand for them)."""


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    threads: int | None = None,
    min_frequency: int = 2,
    pattern: WordPattern = QWEN2,
    most_words: int = _MOST_WORDS,
) -> Tokenizer:
    """Learn a byte-level vocabulary of at most `vocab_size` tokens from `texts`, which are read once.

    Ids 0 to 4 are `SPECIALS`, then come the 256 bytes, then what was merged, in order. It stops short of `vocab_size`
    where no pair occurs `min_frequency` times. The result depends on the texts only, not on `threads`. Memory is
    bounded by about `most_words` distinct words and the longest single text.

    Raises `RequestError` for a size that cannot be, or where there is no text.
    """
    if not SMALLEST <= vocab_size <= MAX_ID:
        raise RequestError(
            f"a vocabulary of {vocab_size:,} tokens is not possible", f"choose from {SMALLEST} to {MAX_ID:,}"
        )
    words = count_words(texts, pattern, threads=threads or usable_cores(), most=most_words)
    if not words:
        raise RequestError("there is no text to learn a vocabulary from")
    merges = learn_merges(words, vocab_size - SMALLEST, max(1, min_frequency))
    tokens = [bytes([value]) for value in _SINGLES]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    names = [bytes_to_token(token) for token in tokens]
    specials = {name: number for number, name in enumerate(SPECIALS)}
    vocabulary = specials | {name: len(SPECIALS) + number for number, name in enumerate(names)}
    document = byte_level_document(
        vocabulary, [(names[left], names[right]) for left, right in merges], pattern, specials
    )
    config = {"eos_token": SPECIALS[0], "pad_token": SPECIALS[0], "chat_template": CHAT_TEMPLATE}
    return Tokenizer(document, config)


def count_words(
    texts: Iterable[str], pattern: WordPattern = QWEN2, *, threads: int = 1, most: int = _MOST_WORDS
) -> dict[str, int]:
    """How often each word occurs in `texts`.

    At the end of each period of text, where there are more than `most` distinct words, the rarest go until half of
    that is left. Where periods end depends on the texts alone, so the counts are the same for any number of threads.
    """
    totals: dict[str, int] = {}
    for period in _periods(_portions(texts)):
        for lane in _count_period(period, pattern, threads):
            for word, count in lane:
                totals[word] = totals.get(word, 0) + count
        if len(totals) > most:
            totals = _most_frequent(totals, most // 2)
    return totals


def _portions(texts: Iterable[str]) -> Iterator[str]:
    """Texts joined or cut to portions of about `SECTION` characters, with breaks between texts."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        for section in sections(without_surrogates(text), SECTION):
            waiting.append(section)
            size += len(section)
            if size >= SECTION:
                yield BREAK.join(waiting)
                waiting, size = [], 0
    if waiting:
        yield BREAK.join(waiting)


def _periods(portions: Iterator[str]) -> Iterator[Iterator[str]]:
    """The portions in groups of about `_PERIOD` characters; each group must be used up before the next."""

    def period(first: str) -> Iterator[str]:
        size = len(first)
        yield first
        while size < _PERIOD and (portion := next(portions, None)) is not None:
            size += len(portion)
            yield portion

    for first in portions:
        yield period(first)


class _Lane:
    """Counts of one thread."""

    def __init__(self) -> None:
        self.lexicon = Lexicon()
        self.counts = np.zeros(0, np.int64)

    def add(self, text: str, pattern: WordPattern) -> None:
        for words in words_of(text, pattern, breaks=True):
            numbers = self.lexicon.numbers(words)
            assert numbers is not None  # no limit was set
            counts = np.bincount(numbers, minlength=len(self.lexicon.words))
            counts[: len(self.counts)] += self.counts
            self.counts = counts

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for word, count in zip(self.lexicon.words, self.counts.tolist(), strict=True):
            if len(word) <= MAX_WORD_LENGTH and word != BREAK:
                yield word, count


def _count_period(portions: Iterator[str], pattern: WordPattern, threads: int) -> list[_Lane]:
    if threads <= 1:
        lane = _Lane()
        for portion in portions:
            lane.add(portion, pattern)
        return [lane]
    lanes = [_Lane() for _ in range(threads)]
    idle = list(lanes)
    running: list[tuple[Future[None], _Lane]] = []
    with ThreadPoolExecutor(threads) as pool:
        for portion in portions:
            if not idle:
                future, lane = running.pop(0)
                future.result()
                idle.append(lane)
            lane = idle.pop()
            running.append((pool.submit(lane.add, portion, pattern), lane))
        for future, _ in running:
            future.result()
    return lanes


def _most_frequent(counts: dict[str, int], most: int) -> dict[str, int]:
    """The words above the lowest count at which no more than `most` are left."""
    ordered = np.sort(np.fromiter(counts.values(), np.int64, len(counts)))
    threshold = int(ordered[-most - 1])
    return {word: count for word, count in counts.items() if count > threshold}


def learn_merges(words: dict[str, int], count: int, min_frequency: int) -> list[tuple[int, int]]:
    """Up to `count` merges, in order, as pairs of token numbers: 0 to 255 are `_SINGLES`, 256 the first merge's result.

    Each pair of neighbours keeps its frequency and the places where it stands. Places are not updated when a neighbour
    changes; they are checked when the pair is merged. A queue gives the most frequent pair; as frequencies only fall
    once both tokens exist, an entry that is out of date is put back with what is true now.
    """
    chain = _Chain(words)
    frequency: dict[int, int] = {}
    places: dict[int, Places] = {}
    for pair, amount, where in chain.pairs():
        frequency[pair], places[pair] = amount, where
    queue = _Queue(frequency, min_frequency)
    tokens = [bytes([value]) for value in _SINGLES]
    existing = set(tokens)
    merges: list[tuple[int, int]] = []
    while len(merges) < count and (best := queue.pop()) is not None:
        left, right = best >> 32, best & _LOW
        spelled = tokens[left] + tokens[right]
        if spelled in existing:
            continue
        made = len(tokens)
        for pair, amount, where in chain.merge(left, right, made, places.pop(best)):
            # Each new pair stands where an old one stood, with the merged token's half for the token.
            before, after = pair >> 32, pair & _LOW
            frequency[(right if before == made else before) << 32 | (left if after == made else after)] -= amount
            frequency[pair], places[pair] = amount, where
            queue.push(pair, amount)
        del frequency[best]
        existing.add(spelled)
        tokens.append(spelled)
        merges.append((left, right))
    return merges


_LOW = 0xFFFFFFFF

Places: TypeAlias = "npt.NDArray[np.int64] | list[int]"


class _Queue:
    """Gives the most frequent pair, of equals the lowest; `frequency` may fall meanwhile.

    Most pairs are rare and never come up, so only those above a floor are in the heap; when it runs empty the floor is
    lowered and the heap made anew.
    """

    def __init__(self, frequency: dict[int, int], least: int) -> None:
        self._frequency, self._least = frequency, least
        self._floor = max(frequency.values(), default=0) + 1
        self._heap: list[tuple[int, int]] = []

    def push(self, pair: int, amount: int) -> None:
        if amount >= self._floor:
            heapq.heappush(self._heap, (-amount, pair))

    def pop(self) -> int | None:
        """The next pair; None when no pair is as frequent as the least allowed."""
        frequency = self._frequency
        while True:
            while self._heap:
                amount, pair = heapq.heappop(self._heap)
                now = frequency.get(pair, 0)
                if now == -amount:
                    return pair
                self.push(pair, now)
            if self._floor <= self._least:
                return None
            self._floor = max(self._floor // 4, self._least)
            self._heap = [(-amount, pair) for pair, amount in frequency.items() if amount >= self._floor]
            heapq.heapify(self._heap)


class _Chain:
    """All distinct words as one chain of tokens, where neighbours can become one token.

    The same memory is seen in two ways: numpy merges many places at once, Python's arrays a few places faster.
    """

    _EDGE, _GONE = -1, -2

    _FEW = 64
    """Places up to which numpy's fixed cost (some 50 µs a merge) is higher than Python's cost per place."""

    def __init__(self, words: dict[str, int]) -> None:
        # 0xFF occurs in no UTF-8 text: it stands around the words.
        data = np.frombuffer(b"\xff" + b"\xff".join([word.encode() for word in words]) + b"\xff", np.uint8)
        number_of = np.empty(256, np.int64)
        number_of[_SINGLES] = np.arange(256)
        number_of[0xFF] = self._EDGE
        lengths = np.diff(np.flatnonzero(data == 0xFF), append=len(data))
        counts = np.fromiter(itertools.chain(words.values(), [0]), np.int64, len(lengths))
        # One after the other, so that only one is in memory twice.
        self._arrays = (
            _array(number_of[data]),
            _array(np.arange(1, len(data) + 1)),
            _array(np.arange(-1, len(data) - 1)),
            _array(np.repeat(counts, lengths)),
        )
        self._tokens, self._next, self._previous, self._weights = (
            np.frombuffer(part, np.int64) for part in self._arrays
        )

    def pairs(self) -> list[tuple[int, int, Places]]:
        """Each pair (left << 32 | right), its frequency, and the places of its left tokens, ascending."""
        tokens = self._tokens
        where = np.flatnonzero((tokens[:-1] >= 0) & (tokens[1:] >= 0))
        # At first all tokens are bytes, and numpy sorts 16-bit keys much faster.
        first = tokens[where].astype(np.uint16)
        where = where[np.argsort(first << 8 | tokens[where + 1].astype(np.uint16), kind="stable")]
        return _grouped(tokens[where] << 32 | tokens[where + 1], self._weights[where], where)

    def merge(self, left: int, right: int, made: int, places: Places) -> list[tuple[int, int, Places]]:
        """Make `left`, `right` into `made` at those of the places where they still stand, leftmost first.

        Returns the new pairs, how frequent they are and where.
        """
        if len(places) <= self._FEW:
            return self._merge_few(left, right, made, places)
        tokens, following, preceding = self._tokens, self._next, self._previous
        where = np.asarray(places)
        where = where[(tokens[where] == left) & (tokens[following[where]] == right)]
        if left == right and len(where) > 1:
            where = where[_alternate(following[where[:-1]] == where[1:])]
        second = following[where]
        after = following[second]
        tokens[where], tokens[second] = made, self._GONE
        following[where], preceding[after] = after, where
        before = preceding[where]
        token_before, token_after = tokens[before], tokens[after]
        weights = self._weights[where]
        has_left = token_before >= 0
        # Where two merged pairs stand side by side, the one on the right has told of both.
        has_right = (token_after >= 0) & (token_after != made)
        pairs = np.concatenate([token_before[has_left] << 32 | made, made << 32 | token_after[has_right]])
        amounts = np.concatenate([weights[has_left], weights[has_right]])
        return _grouped(pairs, amounts, np.concatenate([before[has_left], where[has_right]]))

    def _merge_few(self, left: int, right: int, made: int, places: Places) -> list[tuple[int, int, Places]]:
        tokens, following, preceding, weights = self._arrays
        amounts: dict[int, int] = {}
        where: dict[int, list[int]] = {}
        for place in places if isinstance(places, list) else places.tolist():
            second = following[place]
            if tokens[place] != left or tokens[second] != right:
                continue
            before, after = preceding[place], following[second]
            tokens[place], tokens[second] = made, self._GONE
            following[place], preceding[after] = after, place
            neighbour = tokens[before]
            if neighbour >= 0:
                pair = neighbour << 32 | made
                amounts[pair] = amounts.get(pair, 0) + weights[place]
                where.setdefault(pair, []).append(before)
            neighbour = tokens[after]
            # A pair that is about to be merged too will tell of both.
            if neighbour >= 0 and not (neighbour == left and tokens[following[after]] == right):
                pair = made << 32 | neighbour
                amounts[pair] = amounts.get(pair, 0) + weights[place]
                where.setdefault(pair, []).append(place)
        return [(pair, amount, where[pair]) for pair, amount in amounts.items()]


def _array(values: npt.NDArray[np.int64]) -> array[int]:
    result = array("q")
    result.frombytes(values.data.cast("B"))
    return result


def _alternate(touches: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of places that overlap in a row (place i + 1 touches place i where `touches[i]`): the 1st, 3rd, 5th …"""
    first = np.concatenate([[True], ~touches])
    index = np.arange(len(first))
    return (index - np.maximum.accumulate(np.where(first, index, 0))) % 2 == 0


def _grouped(
    pairs: npt.NDArray[np.int64], amounts: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
) -> list[tuple[int, int, Places]]:
    """Each distinct pair, its total, and its places in the order given."""
    if not len(pairs):
        return []
    order = np.argsort(pairs, kind="stable")
    pairs, places = pairs[order], places[order]
    begin = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
    sums = np.add.reduceat(amounts[order], begin)
    edges = [*begin.tolist(), len(places)]
    parts = [places[a:b] for a, b in itertools.pairwise(edges)]
    return list(zip(pairs[begin].tolist(), sums.tolist(), parts, strict=True))
