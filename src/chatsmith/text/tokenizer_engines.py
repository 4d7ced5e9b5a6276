"""Two ways to encode with one vocabulary: tiktoken with a cache of words, and the tokenizers library.

tiktoken encodes byte-level vocabularies several times faster than the tokenizers library, and faster still when each
distinct word is encoded once: a `Lane` numbers the words of a text with numpy and puts their ids in place. Anything
that tiktoken cannot be trusted to encode alike (see `tokenizer_merges`) goes through the tokenizers library.
"""

from __future__ import annotations

import json
import queue
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from chatsmith.errors import RequestError
from chatsmith.machine import usable_cores
from chatsmith.text.tokenizer_added import is_text
from chatsmith.text.tokenizer_files import Document
from chatsmith.text.tokenizer_merges import Ranks
from chatsmith.text.tokenizer_words import BREAK, Lexicon, Words, words_of

if TYPE_CHECKING:
    import tokenizers

Ids = npt.NDArray[np.uint32]

Row: TypeAlias = tuple[Ids, npt.NDArray[np.int64]]
"""The ids of many texts, one text after another, and where among them each text ends."""

SHORT = 1 << 14
"""Characters up to which tiktoken is asked directly: the cache pays only beyond."""

SECTION = 1 << 20
"""Characters that one thread takes at a time."""

# Where a word starts whatever stands further left: at a visible character after a line feed, and at a single space
# between two letters.
_SURE_CUT = re.compile(r"(?<=\n)(?=\S)|(?<=[A-Za-z])(?= [A-Za-z])")


class Engine(Protocol):
    """Encodes ordinary text: nothing in it is ever special. Added tokens that are text are found in it."""

    name: str

    def encode(self, text: str) -> list[int]: ...

    def encode_row(self, texts: Sequence[str], threads: int) -> Row: ...


def without_surrogates(text: str) -> str:
    """`text` with halves of UTF-16 pairs joined, and lone ones replaced by U+FFFD, as tiktoken does."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def sections(text: str, size: int) -> Iterator[str]:
    """Cut a long text where a word surely starts, so that the parts encode to the parts of its encoding."""
    begin = 0
    while len(text) - begin > size:
        cut = _SURE_CUT.search(text, begin + size)
        if cut is None:
            break
        yield text[begin : cut.start()]
        begin = cut.start()
    yield text[begin:]


class Lane:
    """What one thread needs to encode: a lexicon and the ids of each of its words.

    Threads share the encoder below, which keeps no state, but no lane.
    """

    _MOST_WORDS = 1 << 18
    """Beyond these the cache starts anew; a word costs some 200 bytes."""

    def __init__(self, encode_word: Callable[[str], list[int]]) -> None:
        self._encode_word = encode_word
        self._clear()

    def _clear(self) -> None:
        self._lexicon = Lexicon()
        self._counts = np.zeros(0, np.int64)
        self._ends = np.zeros(0, np.int64)
        self._pool: Ids = np.zeros(0, np.uint32)

    def encode(self, words: Words, joined: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The ids of the words in order; and, of `joined` texts, where among them the `BREAK`s stood."""
        # Text of ever new words gains nothing here; asking tiktoken for the whole block is cheaper.
        numbers = self._lexicon.numbers(words, novel=1.0 if joined else 0.4)
        if numbers is None:
            text = words.text[: int(words.bounds[-1])]
            return np.array(self._encode_word(text), np.uint32), np.zeros(0, np.int64)
        if len(self._lexicon.words) > len(self._counts):
            self._learn()
        counts = self._counts[numbers]
        is_break = numbers == self._lexicon.number(BREAK) if joined else np.zeros(0, bool)
        if joined:
            counts[is_break] = 0
        ends = np.cumsum(counts)
        # Token j of a word whose tokens end at e in the pool and at f in the result is pool[e - f + its place].
        shift = np.repeat(self._ends[numbers] - ends, counts)
        ids = self._pool[shift + np.arange(len(shift))]
        breaks = ends[is_break] if joined else np.zeros(0, np.int64)
        if len(self._lexicon.words) > self._MOST_WORDS:
            self._clear()
        return ids, breaks

    def _learn(self) -> None:
        encode, known = self._encode_word, len(self._counts)
        fresh = [encode(word) for word in self._lexicon.words[known:]]
        counts = np.fromiter(map(len, fresh), np.int64, len(fresh))
        ids = np.fromiter((number for word in fresh for number in word), np.uint32, int(counts.sum()))
        self._ends = np.concatenate([self._ends, len(self._pool) + np.cumsum(counts)])
        self._counts = np.concatenate([self._counts, counts])
        self._pool = np.concatenate([self._pool, ids])


class TiktokenEngine:
    """Byte-level BPE through tiktoken; the ids are those of the tokenizers library for the same file."""

    name = "tiktoken"

    def __init__(self, ranks: Ranks) -> None:
        import tiktoken

        self._pattern = ranks.pattern
        self._ids = ranks.ids
        self._words = ranks.words
        self._core = tiktoken.Encoding(
            "chatsmith", pat_str=ranks.pattern.fast_regex, mergeable_ranks=ranks.of, special_tokens={}
        )
        self._compose: Callable[[str], str] | None = None
        if ranks.compose:
            from tokenizers import normalizers

            # Python's own tables may be of another Unicode version.
            self._compose = normalizers.NFC().normalize_str
        self._lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()

    def _prepare(self, text: str) -> str:
        text = without_surrogates(text)
        return text if self._compose is None or text.isascii() else self._compose(text)

    def _direct(self, text: str) -> list[int]:
        ranks = self._core.encode_ordinary(text)
        return ranks if self._ids is None else self._ids[np.array(ranks, np.int64)].tolist()

    def encode(self, text: str) -> list[int]:
        if len(text) <= SHORT:
            return self._words.encode(text, lambda part: self._direct(self._prepare(part)))
        return self.encode_row([text], usable_cores())[0].tolist()

    def encode_row(self, texts: Sequence[str], threads: int) -> Row:
        return self._words.encode_row(texts, lambda parts: self._encode_parts(parts, threads))

    def _encode_parts(self, texts: Sequence[str], threads: int) -> Row:
        jobs = list(_jobs([self._prepare(text) for text in texts]))
        if threads > 1 and len(jobs) > 1:
            with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
                done = list(pool.map(self._run, jobs))
        else:
            done = [self._run(job) for job in jobs]
        ids: list[Ids] = [np.zeros(0, np.uint32)]
        ends = [np.zeros(0, np.int64)]
        length = 0
        for job, (part, stops) in zip(jobs, done, strict=True):
            if job.continues:  # the text of the job before has not ended there
                ends[-1] = ends[-1][:-1]
            ids.append(part)
            ends.append(stops + length)
            length += len(part)
        return np.concatenate(ids), np.concatenate(ends)

    def _run(self, job: _Job) -> Row:
        try:
            lane = self._lanes.get_nowait()
        except queue.Empty:
            lane = Lane(self._core.encode_ordinary)
        ids: list[Ids] = [np.zeros(0, np.uint32)]
        ends: list[npt.NDArray[np.int64]] = []
        length = 0
        for words in words_of(job.text, self._pattern, breaks=job.joined):
            block, at = lane.encode(words, job.joined)
            ids.append(block)
            ends.append(at + length)
            length += len(block)
        self._lanes.put(lane)
        whole = np.concatenate(ids)
        return whole if self._ids is None else self._ids[whole], np.concatenate([*ends, [length]])


@dataclass(frozen=True)
class _Job:
    """A portion of work: one or more short texts with breaks between them, or a section of a long one."""

    text: str
    joined: bool
    continues: bool = False
    """The text began in the job before."""


def _jobs(texts: Sequence[str]) -> Iterator[_Job]:
    waiting: list[str] = []
    size = 0
    for text in texts:
        short = len(text) <= SECTION and BREAK not in text
        if waiting and (not short or size + len(text) > SECTION):
            yield _Job(BREAK.join(waiting), joined=True)
            waiting, size = [], 0
        if short:
            waiting.append(text)
            size += len(text)
        else:
            for place, section in enumerate(sections(text, SECTION)):
                yield _Job(section, joined=False, continues=place > 0)
    if waiting:
        yield _Job(BREAK.join(waiting), joined=True)


class LibraryEngine:
    """Any vocabulary the tokenizers library reads, without its special tokens: their text is ordinary text here."""

    name = "tokenizers"

    _BATCH = 1_000

    def __init__(self, document: Document) -> None:
        words = [token for token in document.get("added_tokens") or [] if is_text(token)]
        self._library = library_tokenizer(document | {"added_tokens": words})
        # The library numbers added tokens that the vocabulary lacks one after the other: without the special ones
        # among them, otherwise than the file.
        numbers = [(self._library.token_to_id(token["content"]), token["id"]) for token in words]
        self._moved = {number: wanted for number, wanted in numbers if number is not None and number != wanted}

    def encode(self, text: str) -> list[int]:
        ids = self._library.encode(without_surrogates(text), add_special_tokens=False).ids
        return [self._moved.get(number, number) for number in ids] if self._moved else ids

    def encode_row(self, texts: Sequence[str], threads: int) -> Row:
        """`threads` is the library's own affair: it takes all cores."""
        found: list[Ids] = [np.zeros(0, np.uint32)]
        for begin in range(0, len(texts), self._BATCH):
            batch = [without_surrogates(text) for text in texts[begin : begin + self._BATCH]]
            encodings = self._library.encode_batch_fast(batch, add_special_tokens=False)
            found.extend(np.array(encoding.ids, np.uint32) for encoding in encodings)
        ids = np.concatenate(found)
        if self._moved:
            table = np.arange(max(int(ids.max(initial=0)), *self._moved) + 1, dtype=np.uint32)
            table[list(self._moved)] = list(self._moved.values())
            ids = table[ids]
        return ids, np.cumsum([len(part) for part in found[1:]], dtype=np.int64)


def without_first_space(document: Document) -> Document:
    """The same vocabulary, putting no space before a text: for what goes on another text."""

    def going_on(part: Any) -> Any:
        if isinstance(part, list):
            return [going_on(each) for each in part if not _prepends(each)]
        if not isinstance(part, dict) or _prepends(part):
            return None
        kept = {key: going_on(value) if isinstance(value, list | dict) else value for key, value in part.items()}
        if kept.get("add_prefix_space"):
            kept["add_prefix_space"] = False
        if kept.get("prepend_scheme"):
            kept["prepend_scheme"] = "never"
        return kept

    return document | {key: going_on(document.get(key)) for key in ("normalizer", "pre_tokenizer")}


def _prepends(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"


def library_tokenizer(document: Document) -> tokenizers.Tokenizer:
    """The tokenizers library's object for a document; it neither cuts texts off nor pads them."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(json.dumps(document | {"truncation": None, "padding": None}))
    except BaseException as error:  # the library raises nothing narrower, and a panic in it is no Exception at all
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise RequestError(f"the tokenizers library cannot read this tokenizer.json: {error}") from error
