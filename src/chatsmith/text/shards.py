"""Tokens on disk: memory-mapped, counted, checked, and each position leads back to its document and source.

`write_shards` makes a folder of tokens, `TokenFolder.open` reads it. The layout is described in `shard_manifest`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chatsmith.errors import RequestError, WorkError, did_you_mean
from chatsmith.text.shard_manifest import Manifest, SplitRecord, fingerprint_files, read_manifest, shard_file
from chatsmith.text.shard_writer import write_shards

if TYPE_CHECKING:
    from chatsmith.text.tokenizer import Tokenizer

__all__ = ["DocumentRef", "Manifest", "TokenFolder", "TokenSplit", "write_shards"]

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class DocumentRef:
    """Where a document lies in a split: tokens [start, end), the last of them its end; `bytes` of UTF-8 text."""

    index: int
    source: str
    start: int
    end: int
    bytes: int


class TokenFolder:
    """A whole folder of tokens, open for reading."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = Path(folder)
        """Where it lies; whoever renames it says so here."""
        self.manifest = manifest
        self.name = str(folder)
        """What errors call its text."""
        self.remedy = "write the tokens again from the documents"
        """What to do where it turns out to be damaged."""
        self._maps: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, folder: Path) -> TokenFolder:
        """Open a folder that `write_shards` made.

        Checks the manifest and the size of every file, not their contents (see `verify`). Raises `RequestError` where
        there is no such folder and `WorkError` where it is damaged.
        """
        return cls(folder, read_manifest(folder))

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that are there: "train", and "held_out" unless nothing was held out."""
        return tuple(self.manifest.splits)

    def split(self, name: str) -> TokenSplit:
        """One split by name; raises `RequestError` where the folder has none of that name."""
        if name not in self.manifest.splits:
            if name == "held_out":
                raise RequestError(
                    f"{self.name} holds nothing back from training",
                    "write the tokens with held_out above 0, from text that can be divided",
                )
            raise RequestError(f"{self.name} has no split {name!r}", did_you_mean(name, self.splits))
        return TokenSplit(self, name)

    def verify(self) -> None:
        """Read every file and compare it with its checksum and with the others; `WorkError` names the first fault."""
        self.check_sums()
        for name in self.splits:
            self.split(name).verify()

    def check_sums(self, most_bytes: float = math.inf) -> int:
        """Compare files with their checksums, the smallest first and as many as `most_bytes` hold; how many bytes were.

        Raises `WorkError` naming the first that differs.
        """
        read = 0
        for name, record in sorted(self.manifest.files.items(), key=lambda file: (file[1].size, file[0])):
            if read + record.size > most_bytes:
                break
            try:
                with open(self.folder / name, "rb") as file:
                    same = hashlib.file_digest(file, "sha256").hexdigest() == record.sha256
            except OSError as error:
                raise self.damaged(name, f"it cannot be read: {error.strerror}") from None
            if not same:
                raise self.damaged(name, "its contents are not those that were written")
            read += record.size
        return read

    def source(self, row: int) -> str:
        """The name in a row of the table of sources."""
        if not 0 <= row < self.manifest.sources:
            raise self.damaged("sources.ends", f"a document names source {row} of {self.manifest.sources}")
        start, end = int(self._source_ends[row - 1]) if row else 0, int(self._source_ends[row])
        if not 0 <= start <= end <= self.manifest.files["sources.text"].size:
            raise self.damaged("sources.ends", f"row {row} cannot be right")
        with open(self.folder / "sources.text", "rb") as file:
            file.seek(start)
            return file.read(end - start).decode("utf-8", "surrogateescape")

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """int32 [V]: bytes of text behind each id, 0 for special tokens."""
        return self.map("token_bytes", "<i4")

    def map(self, name: str, dtype: str) -> np.ndarray:
        """A file of the folder as a read-only array in place."""
        if name not in self._maps:
            try:
                # A plain view: slicing np.memmap itself costs ten times as much.
                self._maps[name] = np.memmap(self.folder / name, dtype=dtype, mode="r").view(np.ndarray)
            except (OSError, ValueError) as error:
                raise self.damaged(name, str(error)) from None
        return self._maps[name]

    def damaged(self, name: str, why: str) -> WorkError:
        """The error that says so of one file."""
        return WorkError(f"{self.folder / name} is damaged: {why}", self.remedy)

    @cached_property
    def _source_ends(self) -> np.ndarray:
        return self.map("sources.ends", "<i8")


class TokenSplit:
    """The tokens of one split as one long row, documents one after another; `len` is their number.

    `fingerprint` (SHA-256) stands for the tokens, their documents and which of them are learned, and for the
    vocabulary. `bytes` counts the UTF-8 text behind the tokens.
    """

    def __init__(self, folder: TokenFolder, name: str) -> None:
        record: SplitRecord = folder.manifest.splits[name]
        self.folder = folder
        self.name = name
        self.vocab_size = folder.manifest.vocab_size
        self.end_of_text = folder.manifest.end_of_text
        self.tokenizer = folder.manifest.tokenizer
        self.documents = record.documents
        self.bytes = record.bytes
        self.learned_tokens = record.learned_tokens
        self._length = record.tokens
        self._bounds = np.concatenate([[0], np.cumsum(record.shards, dtype=np.int64)])
        self._dtype = np.dtype(folder.manifest.dtype).newbyteorder("<").str
        files = {file: entry for file, entry in folder.manifest.files.items() if file.startswith(name)}
        self.fingerprint = fingerprint_files(files, self.tokenizer, self.vocab_size)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def ends(self) -> np.ndarray:
        """int64 [documents]: the position behind each document's last token."""
        ends = self.folder.map(f"{self.name}.document_ends", "<i8")
        if int(ends[-1]) != len(self):
            raise self.folder.damaged(f"{self.name}.document_ends", f"it ends at {ends[-1]}, the tokens at {len(self)}")
        return ends

    @property
    def token_bytes(self) -> np.ndarray:
        """int32 [V]: bytes of text behind each id, 0 for special tokens."""
        return self.folder.token_bytes

    @cached_property
    def has_loss(self) -> bool:
        """Whether some tokens are there to be read only, not to be learned."""
        return self.learned_tokens < len(self)

    def shard(self, index: int) -> np.ndarray:
        """The tokens of one shard in place (uint16 or uint32)."""
        return self.folder.map(shard_file(self.name, index, "tokens"), self._dtype)

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """The tokens at `positions` (int64, any shape), int64; `WorkError` where one is outside the vocabulary."""
        tokens = self._gather(positions, np.dtype(np.int64), self.shard)
        if tokens.size and int(tokens.max()) >= self.vocab_size:
            shard = int(np.searchsorted(self._bounds, positions.flat[int(tokens.argmax())], side="right")) - 1
            raise self.folder.damaged(shard_file(self.name, shard, "tokens"), "some ids are outside the vocabulary")
        return tokens

    def gather_loss(self, positions: np.ndarray) -> np.ndarray:
        """Which of the tokens at `positions` are to be learned, bool: all of them in ordinary text."""
        if not self.has_loss:
            return np.ones(positions.shape, dtype=bool)
        return self._gather(positions, np.dtype(bool), self._loss_shard)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) as int64."""
        return self.gather(np.arange(start, stop))

    def document(self, index: int) -> DocumentRef:
        """A document by number."""
        if not 0 <= index < self.documents:
            raise RequestError(f"there is no document {index}; {self.name} has {self.documents}, from 0")
        start = int(self.ends[index - 1]) if index else 0
        sources, sizes = self._columns
        return DocumentRef(
            index, self.folder.source(int(sources[index])), start, int(self.ends[index]), int(sizes[index])
        )

    def document_at(self, position: int) -> DocumentRef:
        """The document that the token at `position` belongs to."""
        if not 0 <= position < len(self):
            raise RequestError(f"there is no position {position}; {self.name} has {len(self)} tokens, from 0")
        return self.document(int(np.searchsorted(self.ends, position, side="right")))

    def text(self, tokenizer: Tokenizer, start: int = 0, stop: int | None = None) -> str:
        """The text behind tokens [start, stop), without special tokens; characters cut in two show as U+FFFD."""
        self._check(tokenizer)
        ids = self.read(start, len(self) if stop is None else stop)
        special = np.fromiter(tokenizer.specials.values(), np.int64, len(tokenizer.specials))
        return tokenizer.decode_bytes(ids[~np.isin(ids, special)].tolist()).decode("utf-8", "replace")

    def iter_text(self, tokenizer: Tokenizer) -> Iterator[str]:
        """The text of each document in order, without special tokens: `bytes` of UTF-8 in all."""
        self._check(tokenizer)
        start = 0
        for end in self.ends:
            yield self.text(tokenizer, start, int(end))
            start = int(end)

    def verify(self) -> None:
        """Check what checksums cannot: that ids, documents, sources and counts fit each other."""
        ends = self.ends
        sources, sizes = self._columns
        damaged = self.folder.damaged
        if int(ends[0]) < 1 or (len(ends) > 1 and int(np.diff(ends).min()) < 1):
            raise damaged(f"{self.name}.document_ends", "a document has no tokens")
        if int(sources.min()) < 0 or int(sources.max()) >= self.folder.manifest.sources:
            raise damaged(f"{self.name}.document_sources", "a document names a source that is not in the table")
        if int(sizes.sum()) != self.bytes:
            raise damaged(f"{self.name}.document_bytes", f"it adds up to {sizes.sum()} bytes, not {self.bytes}")
        counted = learned = 0
        for start in range(0, len(self), _CHUNK):
            positions = np.arange(start, min(start + _CHUNK, len(self)))
            counted += int(self.token_bytes[self.gather(positions)].sum(dtype=np.int64))
            learned += int(np.count_nonzero(self.gather_loss(positions)))
        if counted != self.bytes or learned != self.learned_tokens:
            raise damaged("manifest.json", f"{self.name} has {counted} bytes of text and {learned} tokens to learn")

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        names = (f"{self.name}.document_sources", f"{self.name}.document_bytes")
        return self.folder.map(names[0], "<i8"), self.folder.map(names[1], "<i8")

    def _loss_shard(self, index: int) -> np.ndarray:
        """The marks of one shard; one without a file is learned whole."""
        name = shard_file(self.name, index, "loss")
        if name in self.folder.manifest.files:
            return self.folder.map(name, "u1")
        return np.broadcast_to(np.uint8(1), (int(self._bounds[index + 1] - self._bounds[index]),))

    def _gather(self, positions: np.ndarray, dtype: np.dtype, shard: Callable[[int], np.ndarray]) -> np.ndarray:
        if len(self._bounds) == 2:
            return shard(0)[positions].astype(dtype)
        out = np.empty(positions.shape, dtype=dtype)
        homes = np.searchsorted(self._bounds, positions, side="right") - 1
        for index in np.unique(homes):
            here = homes == index
            out[here] = shard(int(index))[positions[here] - self._bounds[index]]
        return out

    def _check(self, tokenizer: Tokenizer) -> None:
        if tokenizer.fingerprint != self.tokenizer:
            raise RequestError(
                f"{self.folder.folder} was written with another vocabulary",
                "use the tokenizer that the tokens were made with",
            )
