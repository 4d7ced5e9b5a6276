"""Vocabulary files: `tokenizer.json` as everybody reads it, and the older files it can be made from.

A *document* here is the parsed content of a `tokenizer.json` (the tokenizers library's format). Everything in it comes
from outside, so sizes and ids are bounded and contradictions refused before anything is built from it.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Container
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError
from chatsmith.paths import atomic_write
from chatsmith.text import tokenizer_words
from chatsmith.text.tokenizer_words import WordPattern

MAX_FILE = 256 * 2**20
"""Bytes of the largest vocabulary file read; the largest published ones have some 40 MB."""

MAX_ID = 2**24
"""Ids are below this."""

STOPS = "stop_token_ids"
"""The key of a tokenizer's config for what its model folder says in `eos_token_id`; it is saved with the vocabulary."""

Document = dict[str, Any]

DIGITS = {"type": "Digits", "individual_digits": True}
"""The step of a `pre_tokenizer` that cuts off each digit (SmolLM, StarCoder)."""


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte value in byte-level vocabularies (GPT-2's table)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in visible]
    table = {value: chr(value) for value in visible}
    table |= {value: chr(0x100 + place) for place, value in enumerate(hidden)}
    return [table[value] for value in range(256)]


BYTE_TO_CHAR = _byte_characters()
CHAR_TO_BYTE = {character: value for value, character in enumerate(BYTE_TO_CHAR)}


def bytes_to_token(data: bytes) -> str:
    """How a byte-level vocabulary writes a token of these bytes."""
    return "".join([BYTE_TO_CHAR[value] for value in data])


# Each character of the table to the one whose Latin-1 code is its byte; other characters of Latin-1 to one beyond it.
_TO_LATIN1 = {ord(character): chr(value) for character, value in CHAR_TO_BYTE.items()}
_TO_LATIN1 |= dict.fromkeys(set(range(256)) - set(map(ord, CHAR_TO_BYTE)), "\uffff")


def token_to_bytes(token: str) -> bytes | None:
    """The bytes behind a byte-level token; None where it holds a character outside the table."""
    try:
        return token.translate(_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:
        return None


def byte_level_document(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    pattern: WordPattern,
    specials: dict[str, int],
    words: Container[str] = (),
) -> Document:
    """A `tokenizer.json` for a byte-level BPE vocabulary (which must list the special tokens too).

    Those of the special tokens that are `words` are added tokens for text, as <think> is: not "special".
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    if pattern is tokenizer_words.GPT2:
        cutter: dict[str, Any] = byte_level | {"use_regex": True}
    elif pattern is tokenizer_words.SMOLLM:
        cutter = {"type": "Sequence", "pretokenizers": [DIGITS, byte_level | {"use_regex": True}]}
    else:
        split = {"type": "Split", "pattern": {"Regex": pattern.regex}, "behavior": "Isolated", "invert": False}
        cutter = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": content not in words,
            }
            for content, number in sorted(specials.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": cutter,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def read_tokenizer(path: Path) -> tuple[Document, dict[str, Any]]:
    """The document and the `tokenizer_config.json` (empty where there is none) behind a folder or a file.

    What a model folder says of the ids that end a text is added to the config as `STOPS`.

    A folder may hold `tokenizer.json`, or the pair `vocab.json` and `merges.txt`, or OpenAI's pair `encoder.json` and
    `vocab.bpe`; a file may be any `tokenizer.json`, or tiktoken ranks (`.tiktoken`, also gzipped).
    """
    path = Path(path)
    if not path.exists():
        raise RequestError(f"no such tokenizer: {path}", "give a model folder or a tokenizer.json")
    if path.is_file():
        if path.name.endswith((".tiktoken", ".tiktoken.gz")):
            return _tiktoken_document(path), {}
        return checked(_read_object(path), path), _read_config(path.parent)
    if (path / "tokenizer.json").exists():
        return checked(_read_object(path / "tokenizer.json"), path / "tokenizer.json"), _read_config(path)
    for vocabulary, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (path / vocabulary).exists() and (path / merges).exists():
            return _pair_document(path / vocabulary, path / merges), _read_config(path)
    raise RequestError(
        f"{path} holds no tokenizer.json (nor vocab.json with merges.txt)",
        "point to the folder of a model, or train one with chatsmith new",
    )


def write_tokenizer(folder: Path, document: Document, config: dict[str, Any]) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into `folder`, each whole or not at all."""
    for name, content in (("tokenizer.json", document), ("tokenizer_config.json", config)):
        with atomic_write(folder / name, "w") as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
            file.write("\n")


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise RequestError(f"{path} is {size:,} bytes; a vocabulary file has at most {MAX_FILE:,}")
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}") from error


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text (byte {error.start:,}); it may be damaged") from error


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; an object that names a key twice is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise RequestError(f"{path} names {twice!r} twice")
        return found

    try:
        content = json.loads(_read_text(path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"{path} is not whole JSON ({error}); it may be truncated", "fetch or copy the file again"
        ) from error
    if not isinstance(content, dict):
        raise RequestError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_object(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    if (folder / "chat_template.jinja").exists():
        config["chat_template"] = _read_text(folder / "chat_template.jinja")
    if (published := _published_stops(folder)) is not None:
        config[STOPS] = published
    return config


def _published_stops(folder: Path) -> list[int] | None:
    """The ids at which the programs of others end a text: `eos_token_id`, one or several, where the folder says it."""
    files = (folder / name for name in ("generation_config.json", "config.json"))
    path = next((file for file in files if file.exists()), None)
    said = None if path is None else _read_object(path).get("eos_token_id")
    if said is None:
        return None
    ids = said if isinstance(said, list) else [said]
    if not all(type(token) is int for token in ids):
        raise RequestError(f"{path}: eos_token_id must be the id of a token, or a list of ids", "copy the folder again")
    return ids


def checked(document: Document, path: Path) -> Document:
    """Refuse a document whose parts are missing, of the wrong kind, out of bounds or at odds with each other."""
    model = document.get("model")
    if not isinstance(model, dict) or not model.get("vocab"):
        raise RequestError(f"{path} has no model with a vocabulary in it", "is this a tokenizer.json?")
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        _check_ids(vocabulary, path)
    elif not isinstance(vocabulary, list) or len(vocabulary) > MAX_ID or not all(map(_is_piece, vocabulary)):
        raise RequestError(f"the vocabulary in {path} is neither a table nor a list of at most {MAX_ID:,} pieces")
    added = document.get("added_tokens") or []
    if not isinstance(added, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"] for token in added
    ):
        raise RequestError(f"{path}: every added token needs an id and a content")
    contents = {token["content"]: token.get("id") for token in added}
    if len(contents) != len(added):
        raise RequestError(f"{path} lists an added token twice")
    _check_ids(contents, path)
    if isinstance(vocabulary, dict):
        owner = {number: token for token, number in vocabulary.items()}
        for content, number in contents.items():
            if vocabulary.get(content, number) != number or owner.get(number, content) != content:
                raise RequestError(
                    f"{path}: the added token {content!r} is at odds with the vocabulary about id {number}"
                )
    return document


def _is_piece(entry: Any) -> bool:
    """Whether this is [piece, score], as vocabularies of the unigram kind list them."""
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _check_ids(vocabulary: dict[str, Any], path: Path) -> None:
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < MAX_ID:
            raise RequestError(f"{path}: token {token!r} has id {number!r}; ids are whole numbers from 0 to {MAX_ID:,}")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise RequestError(f"{path} gives one id to several tokens")


def _pair_document(vocabulary_path: Path, merges_path: Path) -> Document:
    """GPT-2's two files: a table from token to id, and a list of merges in order under a line with the version."""
    vocabulary = _read_object(vocabulary_path)
    _check_ids(vocabulary, vocabulary_path)
    merges: list[tuple[str, str]] = []
    for line in _read_text(merges_path).split("\n"):
        if not line or line.startswith("#version"):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2 or not all(parts) or any(token not in vocabulary for token in (*parts, "".join(parts))):
            raise RequestError(
                f"{merges_path}: {line[:80]!r} does not merge two tokens of {vocabulary_path.name} into one"
            )
        merges.append((parts[0], parts[1]))
    specials = {token: number for token, number in vocabulary.items() if token == "<|endoftext|>"}
    return byte_level_document(vocabulary, merges, tokenizer_words.GPT2, specials)


# What a rank file leaves out: how text is cut into words, and the id of <|endoftext|>.
_TIKTOKEN_FILES = {"r50k_base": (tokenizer_words.GPT2, 50_256), "cl100k_base": (tokenizer_words.LLAMA3, 100_257)}


def _tiktoken_document(path: Path) -> Document:
    """tiktoken's rank files: a line per token, its bytes in base64 and its rank, which is its id."""
    known = _TIKTOKEN_FILES.get(path.name.split(".")[0])
    if known is None:
        raise RequestError(
            f"{path.name}: a rank file does not say how text is cut into words",
            "known by name: " + ", ".join(f"{name}.tiktoken" for name in _TIKTOKEN_FILES),
        )
    data = _read_bytes(path)
    ranks: dict[bytes, int] = {}
    try:
        if path.suffix == ".gz":
            unpacker = zlib.decompressobj(wbits=31)
            data = unpacker.decompress(data, MAX_FILE)
            if not unpacker.eof:
                raise RequestError(f"{path} is truncated, or unpacks to more than {MAX_FILE:,} bytes")
        for line in data.splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (gzip.BadGzipFile, zlib.error, ValueError, binascii.Error) as error:
        raise RequestError(f"{path} is not a list of base64 tokens with ranks: {error}") from error
    vocabulary = {bytes_to_token(token): rank for token, rank in ranks.items()}
    _check_ids(vocabulary | {"<|endoftext|>": known[1]}, path)
    if len(vocabulary) < 256 or any(bytes([value]) not in ranks for value in range(256)):
        raise RequestError(f"{path} lacks some of the 256 single bytes; it may be truncated")
    # The file does not say which two tokens made each token. Listing every split that has both parts is enough: only
    # one of them can come up while encoding, and `tokenizer_merges` checks that it does.
    merges = [
        (bytes_to_token(token[:cut]), bytes_to_token(token[cut:]))
        for token in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(token))
        if max(ranks.get(token[:cut], MAX_ID), ranks.get(token[cut:], MAX_ID)) < ranks[token]
    ]
    pattern, end_of_text = known
    specials = {"<|endoftext|>": end_of_text}
    return byte_level_document(vocabulary | specials, merges, pattern, specials)
