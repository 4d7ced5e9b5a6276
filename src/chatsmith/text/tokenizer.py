"""Text to token ids and back.

A tokenizer is a `tokenizer.json`, as the rest of the field reads it, with a `tokenizer_config.json` beside. What we
train ourselves is byte-level byte-pair encoding: 256 bytes and merges of them, so that every text has ids and every id
has bytes. Encoding goes through tiktoken where that provably gives the ids of the tokenizers library, which is several
times slower and takes over for every other kind of vocabulary (`Tokenizer.engine` tells which).

Text is never special: "<|end|>" in a document or a message is encoded as the characters it is made of. Only
`encode(text, specials=True)`, for text that the program itself has written, gives special tokens. Added tokens that
are not special, as <think> in some published files, are text: they are found wherever they are said.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chatsmith import arguments
from chatsmith.errors import RequestError
from chatsmith.machine import usable_cores
from chatsmith.text import tokenizer_files
from chatsmith.text.tokenizer_added import finding, is_text, plainly_found
from chatsmith.text.tokenizer_bytes import TokenBytes
from chatsmith.text.tokenizer_engines import (
    Engine,
    LibraryEngine,
    Row,
    TiktokenEngine,
    library_tokenizer,
    without_first_space,
    without_surrogates,
)
from chatsmith.text.tokenizer_files import Document
from chatsmith.text.tokenizer_merges import ByteLevel, Unsuitable, byte_level, ranks_of
from chatsmith.text.tokenizer_short import ShortEngine

SPECIALS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""The special tokens of the vocabularies we train, with ids 0 to 4."""

_END_OF_TEXT = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]")
_END_OF_TURN = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
_UNDECODABLE = re.compile("[\udc80-\udcff]+")


class Tokenizer:
    """One vocabulary, ready to encode and decode. Made by `Tokenizer.load` or `chatsmith.text.bpe.train_tokenizer`."""

    added: dict[str, int]
    """The file's added tokens by name, those that are text too."""
    specials: dict[str, int]
    """Every token beyond ordinary text, by name: added tokens that the file calls special, or that end a text, or that
    the config names as one of its own."""
    vocab_size: int
    """The highest id, plus one. A model may have more rows; they belong to no token."""
    chat_template: str | None
    """The Jinja template that turns a conversation into text, if the model has one."""

    def __init__(self, document: Document, config: dict[str, Any] | None = None) -> None:
        self._document = document
        self._config = dict(config or {})
        self._added = [dict(token) for token in document.get("added_tokens") or []]
        self.added = {token["content"]: token["id"] for token in self._added}
        named = {*_END_OF_TEXT, *_END_OF_TURN, *_named_special(self._config)}
        for token in self._added:
            ends = token["id"] in self._published_ends
            token["special"] = not is_text(token) or token["content"] in named or ends
        self.specials = {token["content"]: token["id"] for token in self._added if not is_text(token)}
        self._for_text = document | {"added_tokens": self._added}
        vocabulary = document["model"]["vocab"]
        if isinstance(vocabulary, dict):
            self._ids = {**vocabulary, **self.added}
        else:  # a list of [piece, score]: the place is the id
            self._ids = {piece[0]: number for number, piece in enumerate(vocabulary)} | self.added
        self.vocab_size = max(self._ids.values()) + 1
        self.chat_template = _template(self._config.get("chat_template"))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a model folder or a vocabulary file; see `tokenizer_files.read_tokenizer` for the kinds.

        Raises `RequestError` where it is missing, damaged or contradictory.
        """
        return cls(*tokenizer_files.read_tokenizer(arguments.path("path", path)))

    @property
    def document(self) -> Document:
        """The content of its `tokenizer.json`."""
        return self._document

    @functools.cached_property
    def byte_level(self) -> ByteLevel | None:
        """The parts of a byte-level BPE vocabulary; None for a vocabulary of another kind."""
        return byte_level(self._for_text)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, from which transformers, vLLM and others load it."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | self._config
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        usual = next((name for name in _END_OF_TEXT if name in self._ids), None)
        if usual in self.specials and self._content("eos_token") is None:
            config["eos_token"] = usual  # known here by its name alone: others are to be told
        tokenizer_files.write_tokenizer(Path(folder), self._document, config)

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size:,} tokens, {len(self.specials)} special, encodes with {self.engine})"

    # What it is

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the vocabulary's content; formatting of the file does not matter."""
        content = {key: value for key, value in self._document.items() if key not in ("truncation", "padding")}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @functools.cached_property
    def end_of_text(self) -> int:
        """The id that ends a document: the config's `eos_token`, the usual names, or `eos_token_id`."""
        named = self._named("eos_token")
        if named is not None:
            return named
        for name in _END_OF_TEXT:
            if name in self._ids:
                return self._ids[name]
        if self._published_stops:
            return self._published_stops[0]
        raise RequestError(
            "this tokenizer has no end-of-text token",
            'name one in tokenizer_config.json, for example "eos_token": "</s>"',
        )

    @functools.cached_property
    def begin_of_text(self) -> int | None:
        """The id that the model expects before every text (Llama's <s>); None where it expects none."""
        wanted = self._config.get("add_bos_token")
        if wanted is None:
            # Newer files say so in the post-processor: a template that starts with a special token.
            wanted = '"single": [{"SpecialToken"' in json.dumps(self._document.get("post_processor"))
        return self._named("bos_token") if wanted else None

    @functools.cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a generation: end of text, end of turn where the vocabulary has one, and what the model
        folder publishes as `eos_token_id`."""
        turns = {self.specials[name] for name in _END_OF_TURN if name in self.specials}
        return frozenset(turns | {self.end_of_text, *self._published_stops})

    @functools.cached_property
    def _published_stops(self) -> list[int]:
        """Those that are in the vocabulary: no other can come."""
        return [token for token in self._published_ends if 0 <= token < self.vocab_size]

    @property
    def _published_ends(self) -> list[int]:
        said = self._config.get(tokenizer_files.STOPS)
        return [token for token in said if type(token) is int] if isinstance(said, list) else []

    @functools.cached_property
    def template_variables(self) -> dict[str, str]:
        """What chat templates may read besides the messages: `bos_token`, `eos_token` and the like, by their texts."""
        names = [key for key in self._config if key.endswith("_token") and not key.startswith("add_")]
        contents = {key: self._content(key) for key in names}
        return {key: content for key, content in contents.items() if content is not None}

    def _content(self, key: str) -> str | None:
        token = self._config.get(key)
        content = token.get("content") if isinstance(token, dict) else token
        return content if isinstance(content, str) else None

    def _named(self, key: str) -> int | None:
        content = self._content(key)
        return None if content is None else self._ids.get(content)

    # Text to ids

    @functools.cached_property
    def _engine(self) -> Engine:
        self._short = None  # its tables have done their work
        try:
            return TiktokenEngine(ranks_of(self._for_text))
        except Unsuitable:
            return LibraryEngine(self._for_text)

    @property
    def engine(self) -> str:
        """ "tiktoken" or "tokenizers": which library encodes."""
        return self._engine.name

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """The ids of `text`. With `specials`, the names of special tokens in it become these tokens."""
        if specials:
            return self._encode_with_specials(text)
        return self._encode_ordinary(text)

    def _encode_ordinary(self, text: str) -> list[int]:
        """Short texts are encoded at once, before the engine that is fast for long ones is built."""
        short = self._short  # which another thread may let go at any moment
        if short is not None:
            ids = short.encode(text)
            if ids is not None:
                return ids
        return self._engine.encode(text)

    @functools.cached_property
    def _short(self) -> ShortEngine | None:
        try:
            return ShortEngine(self._for_text)
        except Unsuitable:
            return None

    def encode_array(self, text: str, *, threads: int | None = None) -> npt.NDArray[np.uint32]:
        """`encode` to a numpy array: for long texts, several times faster, and on all cores."""
        return self.encode_batch([text], threads)[0]

    def encode_batch(self, texts: Sequence[str], threads: int | None = None) -> list[npt.NDArray[np.uint32]]:
        """`encode` of many texts, on `threads` threads (all cores unless given)."""
        ids, ends = self.encode_row(texts, threads)
        return [ids[begin:end] for begin, end in itertools.pairwise([0, *ends.tolist()])]

    def encode_row(self, texts: Sequence[str], threads: int | None = None) -> Row:
        """`encode_batch` as one array of ids, and where each text ends in it: no cost for each of many short texts."""
        return self._engine.encode_row(texts, threads or usable_cores())

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of bytes that need not be UTF-8 and go on a text; `decode_bytes` gives exactly these bytes back.

        Raises `RequestError` where the vocabulary has no token for a byte outside UTF-8 text.
        """
        text = data.decode("utf-8", "surrogateescape")
        ids: list[int] = []
        end = 0
        for stray in _UNDECODABLE.finditer(text):
            ids += self._encode_on(text[end : stray.start()]) + [
                self._byte_ids[ord(char) & 0xFF] for char in stray.group()
            ]
            end = stray.end()
        return ids + self._encode_on(text[end:])

    @functools.cached_property
    def _encode_on(self) -> Callable[[str], list[int]]:
        """`encode` without the space that some vocabularies (SentencePiece) put before a text."""
        document = without_first_space(self._for_text)
        same = all(document[key] == self._document.get(key) for key in ("normalizer", "pre_tokenizer"))
        return self._encode_ordinary if same else LibraryEngine(document).encode

    def _encode_with_specials(self, text: str) -> list[int]:
        if self._specials_regex is None:
            return self._library.encode(without_surrogates(text), add_special_tokens=False).ids
        ids: list[int] = []
        for part in self._specials_regex.split(text):
            number = self.added.get(part)
            if number is not None:
                ids.append(number)
            elif part:
                ids += self._encode_ordinary(part)
        return ids

    @functools.cached_property
    def _specials_regex(self) -> re.Pattern[str] | None:
        """Finds added tokens; None where only the tokenizers library knows their manners."""
        normalizes = bool(self._document.get("normalizer"))
        if self._engine.name != "tiktoken" or normalizes or not plainly_found(self._added, normalizes):
            return None
        return finding(self.added)

    @functools.cached_property
    def _library(self) -> Any:
        return library_tokenizer(self._document)

    # Ids to text

    @functools.cached_property
    def _bytes(self) -> TokenBytes:
        names: list[str | None] = [None] * self.vocab_size
        for token, number in self._ids.items():
            names[number] = token
        kinds = _types(self._document.get("decoder")) | _types(self._document.get("pre_tokenizer"))
        return TokenBytes(names, self.added, "ByteLevel" in kinds)

    @functools.cached_property
    def _byte_ids(self) -> dict[int, int]:
        """The id of each single byte above 127, which alone is no text."""
        each = ((number, self._bytes[number]) for number in range(self.vocab_size))
        ids = {data[0]: number for number, data in each if data and len(data) == 1 and data[0] > 0x7F}
        if len(ids) < 128:
            raise RequestError("this vocabulary has no tokens for single bytes: it encodes UTF-8 text only")
        return ids

    @functools.cached_property
    def _drops_first_space(self) -> bool:
        """Whether the file's decoder takes away the space that its encoder puts before a text (SentencePiece)."""
        kinds = _types(self._document.get("decoder"))
        return "ByteLevel" not in kinds and bool(kinds & {"Strip", "Metaspace"})

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one id stands for. Raises `RequestError` where the vocabulary has no such id."""
        data = self._bytes[token] if 0 <= token < self.vocab_size else None
        if data is None:
            raise RequestError(f"no token has id {token}; ids go from 0 to {self.vocab_size - 1:,}")
        return data

    def token_text(self, token: int) -> str:
        """One token, readable in a table: control characters and bytes that are no text are spelled out."""
        text = self.token_bytes(token).decode("utf-8", "backslashreplace")
        return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes behind ids; ids without a token (a model may have more rows than the vocabulary) give none."""
        table, size = self._bytes, self.vocab_size
        return b"".join([(table[token] or b"") if 0 <= token < size else b"" for token in map(int, ids)])

    def decode(self, ids: Iterable[int]) -> str:
        """The text behind ids; bytes that are no UTF-8 become U+FFFD. Special tokens appear by name."""
        text = self.decode_bytes(ids).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._drops_first_space else text


class TextStream:
    """Ids in, text out, as soon as it is certain: half a character waits for its other half.

    What `push` and `flush` give, joined, is `decode` of all ids (save for the space that SentencePiece vocabularies
    put before a text: a stream continues one).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Take one id; give the text that has become certain, which may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def copy(self) -> TextStream:
        """A second stream that goes on from here."""
        other = TextStream(self._tokenizer)
        other._decoder.setstate(self._decoder.getstate())
        return other

    def flush(self) -> str:
        """End the text: what still waits appears as U+FFFD."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _types(entry: Any) -> set[str]:
    """The types of the steps in a decoder or pre-tokenizer entry, nested sequences included."""
    if not isinstance(entry, dict):
        return set()
    inner = entry.get("decoders") or entry.get("pretokenizers") or []
    return {str(entry.get("type"))}.union(*map(_types, inner))


def _named_special(config: dict[str, Any]) -> set[str]:
    """The tokens that a config names, which makes them special: "eos_token" and the like, and lists of more."""
    named = [value for key, value in config.items() if key.endswith("_token") and not key.startswith("add_")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = config.get(key) or []
        named += more.values() if isinstance(more, dict) else more if isinstance(more, list) else []
    contents = [token.get("content") if isinstance(token, dict) else token for token in named]
    return {content for content in contents if isinstance(content, str)}


def _template(entry: Any) -> str | None:
    """The chat template in a config: a text, or the one named "default" in a list."""
    if isinstance(entry, list):
        named = {item.get("name"): item.get("template") for item in entry if isinstance(item, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) else None
