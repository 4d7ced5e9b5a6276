"""The growing files of a folder of tokens: both splits, the sources, and at the end the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from chatsmith.text.encode_documents import EncodedDocuments
from chatsmith.text.new_folder import NewFile, NewFolder
from chatsmith.text.shard_manifest import (
    DOCUMENT_COLUMNS,
    FORMAT,
    HELD_OUT,
    MANIFEST,
    SPLITS,
    VERSION,
    HeldOutBy,
    Manifest,
    SplitRecord,
    fingerprint_files,
    shard_file,
    token_dtype,
)

if TYPE_CHECKING:
    from chatsmith.text.tokenizer import Tokenizer

_REMEMBERED_SOURCES = 2**16


class _SplitWriter:
    """The growing files of one split."""

    def __init__(self, files: NewFolder, name: str, dtype: str, shard_tokens: int) -> None:
        self.files, self.name, self.shard_tokens = files, name, shard_tokens
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.documents = self.tokens = self.bytes = self.unlearned = 0
        self.shards: list[int] = []
        self._columns = [files.create(f"{name}.{column}") for column in DOCUMENT_COLUMNS]
        self._tokens: NewFile | None = None
        self._loss: NewFile | None = None

    def append(self, ids: np.ndarray, learn: np.ndarray | None, columns: list[np.ndarray]) -> None:
        """Write tokens, which of them to learn (None: all), and the three columns of the documents they are."""
        for file, column in zip(self._columns, columns, strict=True):
            file.write(column.astype("<i8"))
        self.documents += len(columns[0])
        self.bytes += int(columns[2].sum())
        ids = ids.astype(self.dtype)
        done = 0
        while done < len(ids):
            if self._tokens is None:
                self._tokens = self.files.create(shard_file(self.name, len(self.shards), "tokens"))
                self.shards.append(0)
            part = slice(done, done + self.shard_tokens - self.shards[-1])
            count = len(ids[part])
            self._append_loss(None if learn is None else learn[part], count)
            self._tokens.write(ids[part])
            self.shards[-1] += count
            self.tokens += count
            done += count
            if self.shards[-1] == self.shard_tokens:
                self._close_shard()

    def _append_loss(self, learn: np.ndarray | None, count: int) -> None:
        if self._loss is None:
            if learn is None:
                return
            # The first document with a mask in this shard: all that came before it is learned.
            self._loss = self.files.create(shard_file(self.name, len(self.shards) - 1, "loss"))
            for start in range(0, self.shards[-1], 2**22):
                self._loss.write(np.ones(min(2**22, self.shards[-1] - start), dtype=np.uint8))
        mask = np.ones(count, dtype=np.uint8) if learn is None else learn
        self._loss.write(mask)
        self.unlearned += count - int(np.count_nonzero(mask))

    def _close_shard(self) -> None:
        for file in (self._tokens, self._loss):
            if file is not None:
                self.files.close(file)
        self._tokens = self._loss = None

    def finish(self) -> SplitRecord:
        self._close_shard()
        for file in self._columns:
            self.files.close(file)
        return SplitRecord(self.documents, self.tokens, self.bytes, self.tokens - self.unlearned, tuple(self.shards))


class Sources:
    """The table of sources. Names that come back soon get the same row; memory is bounded, so late ones may not."""

    def __init__(self, files: NewFolder) -> None:
        self.count = 0
        self._files = files
        self._end = 0
        self._rows: dict[str, int] = {}
        self._text, self._ends = files.create("sources.text"), files.create("sources.ends")

    def rows(self, sources: Sequence[str]) -> np.ndarray:
        """The row of each source (int64), new or known."""
        known = self._rows
        first_new = self.count
        names: list[bytes] = []
        rows = []
        for source in sources:
            row = known.get(source)
            if row is None:
                row = known[source] = first_new + len(names)
                names.append(source.encode("utf-8", "surrogateescape"))
            rows.append(row)
        if names:
            ends = self._end + np.cumsum([len(name) for name in names])
            self._text.write(b"".join(names))
            self._ends.write(ends.astype("<i8"))
            self._end = int(ends[-1])
            self.count += len(names)
            if len(known) > 2 * _REMEMBERED_SOURCES:
                self._rows = dict(islice(known.items(), len(known) - _REMEMBERED_SOURCES, None))
        return np.array(rows, np.int64)

    def finish(self) -> None:
        for file in (self._text, self._ends):
            self._files.close(file)


class CorpusWriter:
    """The growing folder: both splits, the sources, the table of token lengths, and at the end the manifest."""

    def __init__(self, files: NewFolder, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.files, self.tokenizer, self.shard_tokens = files, tokenizer, shard_tokens
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.lengths = token_lengths(tokenizer)
        self.sources = Sources(files)
        self.splits: dict[str, _SplitWriter] = {}
        self.documents = self.bytes = self.tokens = 0

    def append(self, documents: EncodedDocuments, sources: Sequence[str], held_out: np.ndarray) -> None:
        """Write documents, each closed by its end-of-text token, from `sources` to the side that `held_out` says."""
        rows = self.sources.rows(sources)
        for name in SPLITS:
            here = held_out if name == HELD_OUT else ~held_out
            if not here.any():
                continue
            if name not in self.splits:
                self.splits[name] = _SplitWriter(self.files, name, self.dtype, self.shard_tokens)
            split = self.splits[name]
            part = documents if here.all() else documents.chosen(here)
            # Byte-level vocabularies lose nothing, so the bytes of the tokens are the bytes of the text.
            begins = np.concatenate([[0], part.ends[:-1]])
            sizes = np.add.reduceat(self.lengths[part.ids], begins, dtype=np.int64)
            learn = None if part.learn is None or part.learn.all() else part.learn
            split.append(part.ids, learn, [split.tokens + part.ends, rows[here], sizes])
            self.documents += len(part.ends)
            self.tokens += len(part.ids)
            self.bytes += int(sizes.sum())

    def finish(self, held_out: float, method: HeldOutBy, seed: int) -> Manifest:
        """End all files, and describe them."""
        self.sources.finish()
        splits = {name: self.splits[name].finish() for name in SPLITS if name in self.splits}
        table = self.files.create("token_bytes")
        table.write(self.lengths.astype("<i4"))
        self.files.close(table)
        vocabulary = (self.tokenizer.fingerprint, self.tokenizer.vocab_size, self.tokenizer.end_of_text)
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            tokenizer=self.tokenizer.fingerprint,
            fingerprint=fingerprint_files(self.files.records, *vocabulary),
            vocab_size=self.tokenizer.vocab_size,
            end_of_text=self.tokenizer.end_of_text,
            dtype=self.dtype,
            held_out=float(held_out),
            held_out_by=method,
            seed=seed,
            documents=self.documents,
            tokens=self.tokens,
            bytes=self.bytes,
            sources=self.sources.count,
            splits=splits,
            files=dict(sorted(self.files.records.items())),
        )
        self.files.write(MANIFEST, manifest.dump().encode())
        return manifest


def token_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """int32 [V]: bytes of text behind each id; 0 for special tokens and for ids that the vocabulary leaves free."""
    special = set(tokenizer.specials.values())
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int32)
    for token in range(tokenizer.vocab_size):
        if token not in special:
            lengths[token] = len(tokenizer.decode_bytes([token]))
    return lengths
