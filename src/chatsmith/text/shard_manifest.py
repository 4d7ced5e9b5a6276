"""What a folder of tokens holds, as its `manifest.json` says it: counts, settings, and a checksum for every file.

tokens/
  manifest.json
  train-00000.tokens         little-endian uint16 (uint32 above 65,536 ids), documents one after another
  train-00000.loss           uint8, 1 where the token is to be learned; only where some document asks for it
  train.document_ends        int64: the position behind each document's last token
  train.document_sources     int64: each document's row in the table of sources
  train.document_bytes       int64: UTF-8 bytes of each document's text
  held_out-…, held_out.…     the same for the documents kept from training
  sources.text, sources.ends the sources' names, joined, and where each ends (int64)
  token_bytes                int32 per vocabulary id: bytes of text behind it, 0 for special tokens
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chatsmith.errors import RequestError, WorkError
from chatsmith.settings import from_mapping, to_mapping

MANIFEST = "manifest.json"
FORMAT = "chatsmith tokens"
VERSION = 1
SPLITS = (TRAIN, HELD_OUT) = ("train", "held_out")
DOCUMENT_COLUMNS = ("document_ends", "document_sources", "document_bytes")

_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_COUNT = 2**53  # what JSON readers keep exact
_MAX_VOCABULARY = 2**31
_SHA256 = re.compile(r"[0-9a-f]{64}")

HeldOutBy = Literal["nothing", "hash of each document", "one document drawn by length", "tail of one document"]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """Counts of one split: documents, tokens, UTF-8 bytes of text, tokens to be learned, and tokens in each shard."""

    documents: int
    tokens: int
    bytes: int
    learned_tokens: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything known about a folder of tokens without reading a token.

    `tokenizer` is the fingerprint of the vocabulary; `fingerprint` that of the whole corpus as tokens (equal for equal
    documents in equal order with an equal vocabulary and settings). `held_out` is the share that was asked for,
    `held_out_by` how the held-out text was really chosen (a corpus of one document can only lose its tail).
    """

    format: str
    version: int
    tokenizer: str
    fingerprint: str
    vocab_size: int
    end_of_text: int
    dtype: str
    held_out: float
    held_out_by: HeldOutBy
    seed: int
    documents: int
    tokens: int
    bytes: int
    sources: int
    splits: dict[str, SplitRecord]
    files: dict[str, FileRecord]

    def dump(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(to_mapping(self), indent=1, ensure_ascii=False) + "\n"


def token_dtype(vocab_size: int) -> str:
    """The narrowest of uint16 and uint32 that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def shard_file(split: str, shard: int, kind: Literal["tokens", "loss"]) -> str:
    """The file name of one shard, for example `train-00000.tokens`."""
    return f"{split}-{shard:05d}.{kind}"


def fingerprint_files(files: dict[str, FileRecord], *settings: object) -> str:
    """One SHA-256 (hex) over the names and checksums of files, in name order, and over some settings."""
    lines = [f"{name} {files[name].sha256}" for name in sorted(files)] + [repr(setting) for setting in settings]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read `folder/manifest.json` and believe nothing in it that cannot be true.

    Raises `RequestError` where there is no token folder, or one of a later version, and `WorkError` where it is
    damaged. Sizes of the files named are compared with those on disk; contents are not read (see
    `TokenFolder.verify`).
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= _MAX_MANIFEST_BYTES else ""
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist" if not folder.exists() else f"has no {MANIFEST}, so it is not a whole folder of tokens"
        raise RequestError(f"{folder} {what}", "write one from documents, or name the folder that holds one") from None
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8 text") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    if size > _MAX_MANIFEST_BYTES:
        raise _damaged(path, f"it has {size} bytes, and none has more than {_MAX_MANIFEST_BYTES}")
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not valid JSON") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise RequestError(f"{path} does not describe a folder of tokens")
    if raw.get("version") != VERSION:
        raise RequestError(
            f"{path} has version {raw.get('version')!r}; this chatsmith reads version {VERSION}",
            "write the tokens again from the documents, or use the chatsmith that wrote them",
        )
    try:
        manifest = from_mapping(Manifest, raw, where=str(path))
    except RequestError as error:
        raise WorkError(f"damaged: {error.message}", "write the tokens again from the documents") from None
    fault = _contradiction(manifest) or _wrong_size(folder, manifest)
    if fault:
        raise _damaged(path, fault)
    return manifest


def _damaged(path: Path, why: str) -> WorkError:
    return WorkError(f"{path} is damaged: {why}", "write the tokens again from the documents")


def _contradiction(manifest: Manifest) -> str | None:
    """What in a manifest cannot be true, or None."""
    if not 1 <= manifest.vocab_size <= _MAX_VOCABULARY:
        return f"vocab_size is {manifest.vocab_size}"
    if manifest.dtype != token_dtype(manifest.vocab_size):
        return f"dtype is {manifest.dtype!r} for a vocabulary of {manifest.vocab_size}"
    if not 0 <= manifest.end_of_text < manifest.vocab_size:
        return f"end_of_text is {manifest.end_of_text}, outside the vocabulary of {manifest.vocab_size}"
    if not manifest.splits or not set(manifest.splits) <= set(SPLITS):
        return "its splits are " + (", ".join(manifest.splits) or "none")
    for name, split in manifest.splits.items():
        counts = (split.documents, split.tokens, split.bytes, split.learned_tokens, *split.shards)
        if not all(0 <= count <= _MAX_COUNT for count in counts) or split.tokens < split.documents or not split.tokens:
            return f"impossible counts in split {name}"
        if sum(split.shards) != split.tokens or not all(split.shards) or split.learned_tokens > split.tokens:
            return f"the counts of split {name} contradict each other"
    for count in ("documents", "tokens", "bytes"):
        if getattr(manifest, count) != sum(getattr(split, count) for split in manifest.splits.values()):
            return f"the splits' {count} do not add up to {getattr(manifest, count)}"
    if not 0 <= manifest.sources <= manifest.documents:
        return f"{manifest.sources} sources for {manifest.documents} documents"
    return _wrong_files(manifest)


def _wrong_files(manifest: Manifest) -> str | None:
    """The list of files must be exactly the one that the counts imply; so no name can lead out of the folder."""
    width = 2 if manifest.dtype == "uint16" else 4
    sizes: dict[str, int] = {"token_bytes": 4 * manifest.vocab_size, "sources.ends": 8 * manifest.sources}
    optional: dict[str, int] = {}
    for name, split in manifest.splits.items():
        sizes |= {f"{name}.{column}": 8 * split.documents for column in DOCUMENT_COLUMNS}
        sizes |= {shard_file(name, shard, "tokens"): width * tokens for shard, tokens in enumerate(split.shards)}
        optional |= {shard_file(name, shard, "loss"): tokens for shard, tokens in enumerate(split.shards)}
    for name in [*sizes, "sources.text"]:
        if name not in manifest.files:
            return f"it does not list {name}"
    for name, record in manifest.files.items():
        expected = (sizes | optional).get(name, record.size if name == "sources.text" else None)
        if expected is None:
            return f"it lists a file that does not belong here: {name!r}"
        if record.size != expected or record.size < 0:
            return f"it gives {name} {record.size} bytes where its counts need {expected}"
        if not _SHA256.fullmatch(record.sha256):
            return f"the checksum of {name} is not a SHA-256"
    return None


def _wrong_size(folder: Path, manifest: Manifest) -> str | None:
    for name, record in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != record.size:
            return f"{name} has {size} bytes and should have {record.size}"
    return None
