"""Documents to a folder of tokens: read, split, encode on all cores, write, and only then take the folder's name.

Documents are read and cleaned in this thread while those before are encoded: at first in a second thread, and once
the corpus has shown to be large in a process on each core. Memory holds a few batches of some MB whatever its size.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.machine import usable_cores
from chatsmith.text.encode_documents import Encode, EncodedDocuments, encode_documents
from chatsmith.text.encode_pool import EncodePool
from chatsmith.text.held_out import HeldOutSplit, Sided
from chatsmith.text.new_folder import NewFile, NewFolder, write_folder
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
    from chatsmith.text.documents import Document
    from chatsmith.text.tokenizer import Tokenizer

SHARD_TOKENS = 2**29
"""Tokens in one shard: 1 GiB of uint16."""

MOST_WORKERS = 4
"""Processes that encode: the one that reads keeps no more than two or three busy."""

_BATCH_CHARACTERS = 4 * 2**20
_BATCH_DOCUMENTS = 2**14
_REMEMBERED_SOURCES = 2**16
_ALONE_CHARACTERS = 24 * 2**20  # encoded here in about the time that processes take to start

Progress = Callable[[int, int, int], None]
"""Called after each batch with documents, UTF-8 bytes of text and tokens written so far."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Encoded documents, where each is from, and which of them are held out (bool)."""

    documents: EncodedDocuments
    sources: list[str]
    held_out: np.ndarray


def write_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    held_out: float = 0.01,
    seed: int = 0,
    overwrite: bool = False,
    shard_tokens: int = SHARD_TOKENS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Encode documents into a new folder of tokens and return its manifest.

    Each document ends with the tokenizer's end-of-text id. About the share `held_out` of the documents, chosen by a
    hash of `seed` and their words, goes to the split "held_out", all others to "train" (see `HeldOutSplit` for corpora
    of few documents). The folder appears under its name only when it is whole; whatever stops the work, nothing of it
    stays. An existing folder of tokens is replaced only with `overwrite`, any other folder with something in it never.

    Raises `RequestError` for a request that cannot be met (also when there is no text at all), `WorkError` when the
    disk is full.
    """
    folder = Path(folder)
    if not 0.0 <= held_out < 1.0:
        raise RequestError(f"held_out is {held_out}; it is a share of the documents, from 0 to below 1")
    if shard_tokens < 1:
        raise RequestError(f"shard_tokens is {shard_tokens}; a shard has at least one token")
    if not -(2**63) <= seed < 2**63:
        raise RequestError(f"seed is {seed}; it must fit 64 bits")
    split = HeldOutSplit(held_out, seed)
    try:
        with write_folder(folder, overwrite) as files:
            corpus = _CorpusWriter(files, tokenizer, shard_tokens)
            for batch in _encoded(split.sides(d for d in documents if d.text or d.messages), tokenizer, threads):
                corpus.append(batch)
                if progress is not None:
                    progress(corpus.documents, corpus.bytes, corpus.tokens)
            if not corpus.documents:
                raise RequestError("there is no text to make tokens of", "name files or folders that hold text")
            manifest = corpus.finish(held_out, split.method, seed)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WorkError(
                f"the disk is full: could not write the tokens to {folder} (nothing of them was kept)",
                "free some space, or name a folder on another disk, and run the same command again",
            ) from error
        if error.filename is not None and str(error.filename).startswith(str(folder.parent)):
            raise RequestError(f"cannot write {folder}: {error.strerror}", "name a folder you may write to") from error
        raise
    return manifest


def _encoded(documents: Iterable[Sided], tokenizer: Tokenizer, threads: int | None) -> Iterator[_Batch]:
    """Batches of encoded documents in order; more are read while those before are encoded."""
    workers = min(threads or usable_cores(), MOST_WORKERS)
    encode: Encode = partial(tokenizer.encode_row, threads=threads)
    waiting: deque[Future[_Batch]] = deque()
    seen, most_waiting = 0, 1
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="encode"))
        for batch, characters in _batches(documents):
            if workers > 1 and most_waiting == 1 and seen > _ALONE_CHARACTERS:
                encode = stack.enter_context(EncodePool(tokenizer, workers)).encode_row
                most_waiting = workers + 1
            waiting.append(pool.submit(_encode, batch, tokenizer, encode))
            seen += characters
            while len(waiting) > most_waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(documents: Iterable[Sided]) -> Iterator[tuple[list[Sided], int]]:
    """Documents in batches, each with the characters in it."""
    batch: list[Sided] = []
    characters = 0
    for sided in documents:
        batch.append(sided)
        document = sided[0]
        characters += len(document.text)
        for message in document.messages:
            characters += len(message.content)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch, characters
            batch, characters = [], 0
    if batch:
        yield batch, characters


def _encode(batch: list[Sided], tokenizer: Tokenizer, encode: Encode) -> _Batch:
    documents = [document for document, _ in batch]
    texts = np.array([not document.messages for document in documents])
    encoded = encode_documents(tokenizer, documents, encode).closed(tokenizer.end_of_text, texts)
    held_out = np.array([side == HELD_OUT for _, side in batch])
    return _Batch(encoded, [document.source for document in documents], held_out)


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


class _Sources:
    """The table of sources. Names that come back soon get the same row; memory is bounded, so late ones may not."""

    def __init__(self, files: NewFolder) -> None:
        self.count = 0
        self._files = files
        self._end = 0
        self._rows: dict[str, int] = {}
        self._text, self._ends = files.create("sources.text"), files.create("sources.ends")

    def rows(self, sources: list[str]) -> np.ndarray:
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


class _CorpusWriter:
    """The growing folder: both splits, the sources, the table of token lengths, and at the end the manifest."""

    def __init__(self, files: NewFolder, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.files, self.tokenizer, self.shard_tokens = files, tokenizer, shard_tokens
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.lengths = token_lengths(tokenizer)
        self.sources = _Sources(files)
        self.splits: dict[str, _SplitWriter] = {}
        self.documents = self.bytes = self.tokens = 0

    def append(self, batch: _Batch) -> None:
        rows = self.sources.rows(batch.sources)
        for name in SPLITS:
            here = batch.held_out if name == HELD_OUT else ~batch.held_out
            if not here.any():
                continue
            if name not in self.splits:
                self.splits[name] = _SplitWriter(self.files, name, self.dtype, self.shard_tokens)
            split = self.splits[name]
            part = batch.documents if here.all() else batch.documents.chosen(here)
            # Byte-level vocabularies lose nothing, so the bytes of the tokens are the bytes of the text.
            begins = np.concatenate([[0], part.ends[:-1]])
            sizes = np.add.reduceat(self.lengths[part.ids], begins, dtype=np.int64)
            learn = None if part.learn is None or part.learn.all() else part.learn
            split.append(part.ids, learn, [split.tokens + part.ends, rows[here], sizes])
            self.documents += len(part.ends)
            self.tokens += len(part.ids)
            self.bytes += int(sizes.sum())

    def finish(self, held_out: float, method: HeldOutBy, seed: int) -> Manifest:
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
        file = self.files.create(MANIFEST)
        file.write(manifest.dump().encode())
        self.files.close(file)
        return manifest


def token_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """int32 [V]: bytes of text behind each id; 0 for special tokens and for ids that the vocabulary leaves free."""
    special = set(tokenizer.specials.values())
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int32)
    for token in range(tokenizer.vocab_size):
        if token not in special:
            lengths[token] = len(tokenizer.decode_bytes([token]))
    return lengths
