"""Documents to a folder of tokens: read, split, encode on all cores, write, and only then take the folder's name.

Documents are read and cleaned in this thread while those before are encoded: at first in a second thread, and once
the corpus has shown to be large in a process on each core. Memory holds a few batches of some MB whatever its size.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.text.corpus_writer import CorpusWriter
from chatsmith.text.encode_documents import Encode, EncodedDocuments, encode_documents
from chatsmith.text.encode_pool import pipelined
from chatsmith.text.held_out import HeldOutSplit, Sided
from chatsmith.text.new_folder import write_folder
from chatsmith.text.shard_manifest import HELD_OUT, Manifest, read_manifest

if TYPE_CHECKING:
    from chatsmith.text.documents import Document
    from chatsmith.text.tokenizer import Tokenizer

SHARD_TOKENS = 2**29
"""Tokens in one shard: 1 GiB of uint16."""

_BATCH_CHARACTERS = 4 * 2**20
_BATCH_DOCUMENTS = 2**14


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
) -> Manifest:
    """Encode documents into a new folder of tokens and return its manifest.

    Each document ends with the tokenizer's end-of-text id. About the share `held_out` of the documents, chosen by a
    hash of `seed` and their words, goes to the split "held_out", all others to "train" (see `HeldOutSplit` for corpora
    of few documents). The folder appears under its name only when it is whole; whatever stops the work, nothing of it
    stays. An existing folder of tokens is replaced only with `overwrite`, any other folder with something in it never.

    Raises `RequestError` for a request that cannot be met (also when there is no text at all), `WorkError` when the
    disk is full.
    """
    split: HeldOutSplit[Document] = HeldOutSplit(held_out, seed)
    with new_corpus(folder, tokenizer, split, overwrite=overwrite, shard_tokens=shard_tokens) as corpus:
        batches = _batches(split.sides(d for d in documents if d.text or d.messages))
        for batch in pipelined(batches, partial(_encode, tokenizer), tokenizer, threads):
            corpus.append(batch.documents, batch.sources, batch.held_out)
    return read_manifest(folder)


@contextmanager
def new_corpus(
    folder: Path,
    tokenizer: Tokenizer,
    split: HeldOutSplit[Any],
    *,
    overwrite: bool = False,
    shard_tokens: int = SHARD_TOKENS,
) -> Iterator[CorpusWriter]:
    """A folder of tokens to append to, which takes its name when the block is left; errors as of `write_shards`."""
    if not 0.0 <= split.held_out < 1.0:
        raise RequestError(f"held_out is {split.held_out}; it is a share of the documents, from 0 to below 1")
    if shard_tokens < 1:
        raise RequestError(f"shard_tokens is {shard_tokens}; a shard has at least one token")
    if not -(2**63) <= split.seed < 2**63:
        raise RequestError(f"seed is {split.seed}; it must fit 64 bits")
    with telling_of_the_disk(folder), write_folder(folder, overwrite) as files:
        corpus = CorpusWriter(files, tokenizer, shard_tokens)
        yield corpus
        if not corpus.documents:
            raise RequestError("there is no text to make tokens of", "name files or folders that hold text")
        corpus.finish(split.held_out, split.method, split.seed)


@contextmanager
def telling_of_the_disk(folder: Path) -> Iterator[None]:
    """What the disk refuses of `folder`, as an error of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WorkError(
                f"the disk is full: could not write the tokens to {folder} (nothing of them was kept)",
                "free some space, or name a folder on another disk, and run the same command again",
            ) from error
        if error.filename is not None and str(error.filename).startswith(str(folder.parent)):
            raise RequestError(f"cannot write {folder}: {error.strerror}", "name a folder you may write to") from error
        raise


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


def _encode(tokenizer: Tokenizer, batch: list[Sided], encode: Encode) -> _Batch:
    documents = [document for document, _ in batch]
    texts = np.array([not document.messages for document in documents])
    encoded = encode_documents(tokenizer, documents, encode).closed(tokenizer.end_of_text, texts)
    held_out = np.array([side == HELD_OUT for _, side in batch])
    return _Batch(encoded, [document.source for document in documents], held_out)
