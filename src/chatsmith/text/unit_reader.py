"""Files to units: read, signed and encoded in one process, which is what every process of a reading does.

As a program this answers requests: a list of files, as a message, is answered by their units and then a report.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chatsmith.settings import from_mapping
from chatsmith.text.clean import Deduplicator, sign
from chatsmith.text.documents import DOCUMENT_BYTES, Document, documents_of
from chatsmith.text.encode_documents import Encode, encode_documents
from chatsmith.text.held_out import fraction_of, text_bytes
from chatsmith.text.overlap import TestGrams
from chatsmith.text.quality import QualityFilter
from chatsmith.text.report import ReadReport
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.units import Unit, unit
from chatsmith.text.workers import receive, send

if TYPE_CHECKING:
    from typing import IO

GRAMS, QUALITY = "test-grams", "quality.json"

_UNIT_CHARACTERS = 2 * 2**20
_UNIT_DOCUMENTS = 2**13


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How documents are read: as in `read_documents`; `seed` is that of the held-out split."""

    field: str | None = None
    duplicates: Literal["keep", "exact", "near"] = "near"
    hidden: bool = False
    seed: int = 0
    document_bytes: int = DOCUMENT_BYTES


@dataclass(frozen=True, slots=True)
class Reading:
    """All that decides what becomes of a file: settings, vocabulary, tests to keep out, a filter of quality."""

    tokenizer: Tokenizer
    settings: ReadSettings = ReadSettings()
    grams: TestGrams | None = None
    quality: QualityFilter | None = None

    def documents(self, files: Iterable[Path], report: ReadReport) -> Iterator[Document]:
        """The documents of files, in order, that are good enough."""
        settings = self.settings
        found = documents_of(files, report, settings.field, settings.hidden, settings.document_bytes)
        if self.quality is None:
            yield from found
            return
        for batch, _ in batches(found):
            kept = self.quality.keeps(batch, settings.seed)
            report.low_quality += len(batch) - int(kept.sum())
            yield from (document for document, keep in zip(batch, kept.tolist(), strict=True) if keep)

    def units(self, files: Iterable[Path], report: ReadReport) -> Iterator[Unit]:
        """The documents of files, in order, without those that came exactly alike among them before.

        The report counts all but the documents that are kept, since more may be dropped later.
        """
        before = None if self.settings.duplicates == "keep" else Deduplicator(near=False)
        for batch, _ in batches(self.documents(files, report)):
            made = self.unit(batch, lambda texts: self.tokenizer.encode_row(texts, 1), before)
            if len(made):
                yield made
        report.exact_duplicates += 0 if before is None else before.exact_duplicates

    def unit(self, documents: Sequence[Document], encode: Encode, before: Deduplicator | None) -> Unit:
        """One unit of documents, without exact duplicates of what came `before`."""
        new, signatures = sign(documents, self.settings.duplicates == "near", before)
        kept = [documents[row] for row in np.flatnonzero(new).tolist()]
        texts = np.array([not document.messages for document in kept], bool)
        encoded = encode_documents(self.tokenizer, kept, encode).closed(self.tokenizer.end_of_text, texts)
        seed = self.settings.seed
        columns: dict[str, np.ndarray] = {
            "characters": np.array([_characters(document) for document in kept], np.int64),
            "bytes": np.array([text_bytes(document) for document in kept], np.int64),
            "talks": (~texts).astype(np.uint8),
            "fractions": np.array([fraction_of(document, seed) for document in kept], np.float64),
            "keys": signatures.keys,
            "rest": signatures.rest,
            "sketched": signatures.sketched.astype(np.uint8),
            "tops": signatures.tops,
            "bands": signatures.bands,
        }
        if self.grams is not None:
            columns |= self.grams.columns(kept)
        return unit(encoded, [document.source for document in kept], columns)

    def files(self) -> dict[str, bytes]:
        """What another process needs beside the settings and the vocabulary, by file name."""
        return {
            **({} if self.grams is None else {GRAMS: self.grams.save()}),
            **({} if self.quality is None else {QUALITY: self.quality.dump()}),
        }

    @classmethod
    def from_folder(cls, folder: Path, settings: ReadSettings) -> Reading:
        """What another process was given."""
        grams, quality = folder / GRAMS, folder / QUALITY
        return cls(
            Tokenizer.load(folder),
            settings,
            TestGrams.load(grams.read_bytes()) if grams.exists() else None,
            QualityFilter.load(quality.read_bytes()) if quality.exists() else None,
        )


def batches(documents: Iterable[Document]) -> Iterator[tuple[list[Document], int]]:
    """Documents in batches of some megabytes, each with the characters in it."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += _characters(document)
        if characters >= _UNIT_CHARACTERS or len(batch) >= _UNIT_DOCUMENTS:
            yield batch, characters
            batch, characters = [], 0
    if batch:
        yield batch, characters


def _characters(document: Document) -> int:
    return len(document.text) + sum([len(message.content) for message in document.messages])


def serve(folder: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more; the first one gives the settings."""
    reading: Reading | None = None
    while (request := receive(requests)) is not None:
        said: Any = request[0]
        if reading is None:
            reading = Reading.from_folder(folder, from_mapping(ReadSettings, said))
            continue
        report = ReadReport()
        for made in reading.units([Path(file) for file in said], report):
            send(answers, None, made.columns)
        send(answers, report.to_json())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
