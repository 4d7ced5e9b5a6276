"""Cutting text into words, many at a time.

Byte-level vocabularies cut text into words with a regular expression before any merging: a word never shares a token
with its neighbour. The expressions in use differ little, and each can be decided from runs of character classes, so
numpy finds all cuts of a block at once, some ten times faster than a regular expression engine walks through it.
Everything built on words (counting them for training, encoding them from a cache) then costs a few nanoseconds per
character, and numpy lets go of the interpreter's lock meanwhile, so threads help.

The character classes are asked of tiktoken itself, so they follow the Unicode tables of the engine whose cuts these
must equal. Equality with the expressions is tested on random text.
"""

from __future__ import annotations

import functools
import os
import string
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_WORD = 1 << 17
"""Characters of the longest word. A longer one is cut here: tiktoken's engine panics on whitespace of a million."""

BLOCK = 1 << 18
"""Characters looked at together: small enough that the working arrays stay in the cache."""

MAX_KEYED = 32
"""Characters of the longest word that gets a key; see `_Keys`."""

BREAK = "\U0010ffff"
"""A noncharacter that stands between documents which are cut in one go; a document that holds it is handled alone."""

LETTER, NUMBER, OTHER, SPACE, NEWLINE, EDGE = range(6)

_CLITIC = ["s", "t", "m", "d", "re", "ve", "ll"]


@dataclass(frozen=True)
class WordPattern:
    """One of the known expressions, and what sets it apart."""

    name: str
    regex: str
    """As written in `tokenizer.json`."""
    fast_regex: str
    """The same cuts, written so that tiktoken's engine is fastest; measured."""
    digits: int
    """Digits that stand together: 1, 3, or 0 for any number with the space before them."""
    newlines: bool
    """Newlines end a stretch of whitespace, and go with punctuation before them."""
    any_prefix: bool
    """Letters take one character before them that is no letter, digit or newline; otherwise only a space."""
    fold: bool
    """'S counts as 's."""
    digits_first: bool = False
    """Digits are cut off before all else: whitespace before one ends there, and gives no character away."""


GPT2 = WordPattern(
    name="gpt2",
    regex=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    fast_regex=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    digits=0,
    newlines=False,
    any_prefix=False,
    fold=False,
)

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

LLAMA3 = WordPattern("llama3", _LLAMA3, _LLAMA3, digits=3, newlines=True, any_prefix=True, fold=True)
QWEN2 = WordPattern("qwen2", _QWEN2, _QWEN2, digits=1, newlines=True, any_prefix=True, fold=True)

_SMOLLM = r"'s|'t|'re|'ve|'m|'ll|'d|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
SMOLLM = WordPattern(
    "smollm", _SMOLLM, _SMOLLM, digits=1, newlines=False, any_prefix=False, fold=False, digits_first=True
)
"""GPT-2's, on what is left when each digit was cut off; a `tokenizer.json` says it in these two steps."""

PATTERNS = {pattern.regex: pattern for pattern in (GPT2, LLAMA3, QWEN2)}


@dataclass(frozen=True)
class Words:
    """The words of a stretch of text: word i is `text[bounds[i] : bounds[i + 1]]`.

    `keys[i]` is equal for equal words and, but for odds of 2⁻⁶⁴, for them only; 0 for a word too long to have one.
    """

    text: str
    bounds: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)


def words_of(text: str, pattern: WordPattern, *, breaks: bool = False) -> Iterator[Words]:
    """Cut `text` (without lone surrogates) into its words, block by block, in order.

    A word longer than `MAX_WORD` characters is cut into several; every other cut is where the expression cuts. With
    `breaks`, each `BREAK` is a word by itself and stands between texts that know nothing of each other.
    """
    position, total = 0, len(text)
    while position < total:
        block = text[position : position + BLOCK]
        last = position + len(block) == total
        codes = _codes(block)
        starts, settled = _starts(codes, pattern, breaks)
        if last:
            bounds = np.append(starts, len(block))
        elif settled > 0:
            # What follows the block could still move the cuts near its end: those words are left to the next block.
            bounds = starts[starts <= settled]
        else:  # one endless word, or one word and the beginning of an endless one
            bounds = np.array([0, min([*starts[1:2].tolist(), MAX_WORD])])
        bounds = _limit(bounds)
        end = int(bounds[-1])
        yield Words(block, bounds, _keys().of(codes, bounds))
        position += end


def _codes(text: str) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint32]:
    """The code points of `text`."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


@functools.cache
def _classes(newlines: bool, breaks: bool) -> npt.NDArray[np.uint8]:
    """The class of every code point, by the Unicode tables of tiktoken's engine."""
    if newlines or breaks:
        table = _classes(False, False).copy()
        if newlines:
            table[[0x0A, 0x0D]] = NEWLINE
        if breaks:
            table[ord(BREAK)] = EDGE
        return table
    import tiktoken

    codes = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x110000)]).astype("<u4")
    everything = codes.tobytes().decode("utf-32-le")
    single_bytes = {bytes([value]): value for value in range(256)}
    table = np.full(0x110000, OTHER, np.uint8)
    for regex, kind in ((r"\p{L}+", LETTER), (r"\p{N}+", NUMBER), (r"\s+", SPACE)):
        # An engine with only single bytes for tokens gives back exactly the text that the expression matched.
        engine = tiktoken.Encoding(regex, pat_str=regex, mergeable_ranks=single_bytes, special_tokens={})
        matched = bytes(engine.encode_ordinary(everything)).decode("utf-8")
        table[np.frombuffer(matched.encode("utf-32-le"), np.uint32)] = kind
    return table


@functools.cache
def _ascii_classes(newlines: bool) -> npt.NDArray[np.uint8]:
    """The same for ASCII, known without the engine: it takes a tenth of a second to load and to ask."""
    table = np.full(0x80, OTHER, np.uint8)
    for characters, kind in ((string.ascii_letters, LETTER), (string.digits, NUMBER), (string.whitespace, SPACE)):
        table[[ord(character) for character in characters]] = kind
    if newlines:
        table[[0x0A, 0x0D]] = NEWLINE
    return table


def _starts(codes: npt.NDArray, pattern: WordPattern, breaks: bool) -> tuple[npt.NDArray[np.int64], int]:
    """Where words start in a block that itself starts with a word, ascending from 0; and the last certain start.

    "Certain" is what no text after the block can change: a rule looks at most at the run after its own.
    """
    count = len(codes)
    classes = (_ascii_classes(pattern.newlines) if codes.dtype == np.uint8 else _classes(pattern.newlines, breaks))[
        codes
    ]
    changes = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    begin = np.concatenate([np.zeros(1, np.int64), changes])
    end = np.append(changes, count)
    kind = classes[begin]
    before = np.concatenate([np.array([EDGE], np.uint8), kind[:-1]])
    after = np.append(kind[1:], np.uint8(EDGE))

    # A run of whitespace before something visible gives its last character away: to the word where that takes it.
    after_space = np.zeros(len(begin), bool)
    after_space[1:] = codes[begin[1:] - 1] == 0x20
    is_letter, is_other = kind == LETTER, kind == OTHER
    joins = (is_letter | is_other) & after_space
    # A lone mark that no space has claimed: it may start "'s" or go with the letters after it.
    lone = np.zeros(len(begin), bool)
    lone[1:] = is_letter[1:] & is_other[:-1] & (end[:-1] - begin[:-1] == 1) & ~after_space[:-1]
    clitic = _clitics(codes, begin, end, lone, pattern.fold)
    if pattern.any_prefix:
        joins |= is_letter & ((before == SPACE) | lone)
    joins |= clitic > 0
    if pattern.digits == 0:
        joins |= (kind == NUMBER) & after_space
    if pattern.newlines:
        is_newline = kind == NEWLINE
        joins |= is_newline & ((before == OTHER) | (before == SPACE))
        # Whitespace between newlines goes with both, unless punctuation has taken the newlines before it.
        taken = np.zeros(len(begin), bool)
        taken[2:] = is_newline[1:-1] & is_other[:-2]
        joins |= (kind == SPACE) & (before == NEWLINE) & (after == NEWLINE) & ~taken

    start = np.zeros(count + 1, bool)
    start[begin[~joins]] = True
    visible = (after <= OTHER) & ((after != NUMBER) if pattern.digits_first else True)
    start[end[(kind == SPACE) & visible] - 1] = True
    cut = clitic > 0
    inside = begin[cut] + clitic[cut]
    start[inside[inside < end[cut]]] = True
    if pattern.digits:
        _cut_every(start, begin, end, kind == NUMBER, pattern.digits)
    if breaks:
        _cut_every(start, begin, end, kind == EDGE, 1)
    starts = np.flatnonzero(start[:count])
    settled = 0
    if pattern.digits and kind[-1] == NUMBER:
        settled = int(starts[-1])
    elif len(begin) > 2:
        settled = int(starts[np.searchsorted(starts, begin[-2], side="right") - 1])
    return starts, settled


def _clitics(
    codes: npt.NDArray, begin: npt.NDArray, end: npt.NDArray, lone: npt.NDArray, fold: bool
) -> npt.NDArray[np.int64]:
    """For each run: the number of its letters that an apostrophe before it takes ('s, 're, …), or 0."""
    length = np.zeros(len(begin), np.int64)
    where = np.flatnonzero(lone)
    where = where[codes[begin[where] - 1] == 0x27]
    if not len(where):
        return length
    first = codes[begin[where]].astype(np.uint32)
    second = codes[np.minimum(begin[where] + 1, len(codes) - 1)].astype(np.uint32)
    second[end[where] - begin[where] < 2] = 0
    if fold:
        first, second = _lower(first), _lower(second)
    for clitic in _CLITIC:
        match = first == ord(clitic[0])
        if len(clitic) == 2:
            match &= second == ord(clitic[1])
        length[where[match]] = len(clitic)
    return length


def _lower(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Case folding as far as the clitics need it: A to Z, and the long s."""
    upper = (codes >= 0x41) & (codes <= 0x5A)
    return np.where(codes == 0x17F, np.uint32(0x73), codes + np.uint32(0x20) * upper)


def _cut_every(start: npt.NDArray, begin: npt.NDArray, end: npt.NDArray, which: npt.NDArray, size: int) -> None:
    """Start a word at every `size`-th character of the runs `which`."""
    first, length = begin[which], end[which] - begin[which]
    if not len(first):
        return
    pieces = -(-length // size)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start[np.repeat(first, pieces) + within * size] = True


def _limit(bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cut words longer than `MAX_WORD`."""
    lengths = np.diff(bounds)
    if lengths.max(initial=0) <= MAX_WORD:
        return bounds
    extra = [np.arange(bounds[i] + MAX_WORD, bounds[i + 1], MAX_WORD) for i in np.flatnonzero(lengths > MAX_WORD)]
    return np.sort(np.concatenate([bounds, *extra]))


class _Keys:
    """A key per word, from one pass over the characters: differences of a running polynomial sum modulo 2⁶⁴.

    The base is drawn anew in each process, so that nobody can write text whose words share keys, and is 5 modulo 8,
    so that its powers repeat as late as they can. Words beyond `MAX_KEYED` characters get no key: modulo a power of
    two, long strings exist that collide for every base (the Thue–Morse strings, from 1,024 characters on).
    """

    def __init__(self) -> None:
        base = int.from_bytes(os.urandom(8), "little") & ~7 | 5
        self._powers = self._progression(base)
        self._inverses = self._progression(pow(base, -1, 1 << 64))
        self._spread = np.uint64(int.from_bytes(os.urandom(8), "little") | 1)

    @staticmethod
    def _progression(base: int) -> npt.NDArray[np.uint64]:
        powers = np.full(BLOCK, base, np.uint64)
        powers[0] = 1
        return np.multiply.accumulate(powers)

    def of(self, codes: npt.NDArray, bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """The keys of the words between `bounds`."""
        sums = np.empty(len(codes) + 1, np.uint64)
        sums[0] = 0
        terms = codes.astype(np.uint64)
        terms += np.uint64(1)
        terms *= self._powers[: len(codes)]
        np.cumsum(terms, out=sums[1:])
        edges = sums[bounds]
        keys = edges[1:] - edges[:-1]
        keys *= self._inverses[bounds[:-1]]
        keys *= self._spread
        keys[np.diff(bounds) > MAX_KEYED] = 0
        return keys


@functools.cache
def _keys() -> _Keys:
    return _Keys()


class Lexicon:
    """Numbers distinct words in the order in which they are met: 0, 1, 2, …

    Common words are found through a table of keys; the rest, and words whose place there is taken, through a
    dictionary. One thread uses a lexicon at a time.
    """

    _BITS = 19

    def __init__(self) -> None:
        self.words: list[str] = []
        self._number: dict[str, int] = {}
        self._keys = np.zeros(1 << self._BITS, np.uint64)
        self._numbers = np.zeros(1 << self._BITS, np.int32)

    def number(self, word: str) -> int | None:
        """The number of one word, if it has one."""
        return self._number.get(word)

    def numbers(self, words: Words, novel: float = 1.0) -> npt.NDArray[np.int32] | None:
        """The number of each word; unknown words join the lexicon.

        None, and nothing joins, where more than the share `novel` of the words would have to be looked at one by one.
        """
        slots = (words.keys >> np.uint64(64 - self._BITS)).astype(np.int64)
        numbers = self._numbers[slots]
        missed = np.flatnonzero((self._keys[slots] != words.keys) | (words.keys == 0))
        if not len(missed):
            return numbers
        keyless = words.keys[missed] == 0
        keyed = missed[~keyless]
        distinct, first, group = np.unique(words.keys[keyed], return_index=True, return_inverse=True)
        if len(distinct) + int(keyless.sum()) > novel * len(words):
            return None
        found = self._learn(words, keyed[first])
        numbers[keyed] = found[group]
        numbers[missed[keyless]] = self._learn(words, missed[keyless])
        places = slots[keyed[first]]
        free = np.flatnonzero(self._keys[places] == 0)
        # Of several words that want one free place the last assigned wins, in both arrays alike.
        self._keys[places[free]] = distinct[free]
        self._numbers[places[free]] = found[free]
        return numbers

    def _learn(self, words: Words, which: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        begin, end = words.bounds[which].tolist(), words.bounds[which + 1].tolist()
        number, known = self._number, self.words
        result = np.empty(len(begin), np.int32)
        for index, word in enumerate([words.text[a:b] for a, b in zip(begin, end, strict=True)]):
            known_as = number.get(word)
            if known_as is None:
                known_as = number[word] = len(known)
                known.append(word)
            result[index] = known_as
        return result
