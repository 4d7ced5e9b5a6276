"""Documents from files of every usual kind, one after another, in bounded memory.

    report = ReadReport()
    for document in read_documents(["notes", "talks.jsonl.gz"], report=report):
        ...
    print(report.summary())

What cannot be read is passed over and listed in the report with its reason; only a path that does not exist, and a
reading that finds nothing at all, are errors.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import chain
from pathlib import Path
from typing import IO, Literal

from chatsmith.errors import MissingExtra, RequestError
from chatsmith.text import messengers, tables
from chatsmith.text.archives import CHUNK, TOO_LARGE, open_bounded, unfold
from chatsmith.text.books import book_text
from chatsmith.text.chat import Conversation, Message
from chatsmith.text.clean import Deduplicator, normalise
from chatsmith.text.formats import ARCHIVES, UNKNOWN, Format, Kind, format_of
from chatsmith.text.members import DEEPEST, Budget, Budgeted, Member, tar_members, zip_members
from chatsmith.text.message_trees import grown
from chatsmith.text.notebooks import notebook_text
from chatsmith.text.nothing_found import nothing_found
from chatsmith.text.pages import NO_TEXT, docx_text, pdf_text
from chatsmith.text.plain import RECORD_BYTES, blocks, lines, pieces
from chatsmith.text.records import NO_TEXT_RECORD, contents, strings
from chatsmith.text.report import ReadReport, Skipped, Unreadable
from chatsmith.text.richtext import rich_text
from chatsmith.text.subtitles import subtitle_text
from chatsmith.text.talks import Content, conversation
from chatsmith.text.walk import HIDDEN, NO_PERMISSION, existing, is_hidden_name, walk
from chatsmith.text.webpage import page_text

__all__ = ["Document", "ReadReport", "Skipped", "read_documents"]

EMPTY = "empty"
TOO_SHORT = "a single byte"
TOO_DEEP = "archives within archives"
MISSING = "needs a library that is not installed"
DOCUMENT_BYTES = 1 << 20
FILE_BYTES = 64 << 30


@dataclass(frozen=True, slots=True)
class Document:
    """A text, or a conversation where `messages` are there, and where it came from.

    `source` is the path of the file, for the member of an archive that of the archive and its own
    (`notes.zip!/june/notes.txt`); behind a colon the line, item or row it was (`talks.jsonl:17`), and behind a number
    sign the piece where a long text was cut (`book.txt#2`).
    """

    text: str = ""
    source: str = ""
    messages: Conversation = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, or what is said in each turn of a conversation."""
        return tuple([message.content for message in self.messages]) if self.messages else (self.text,)


def read_documents(
    paths: Iterable[str | os.PathLike[str]],
    *,
    report: ReadReport,
    field: str | None = None,
    duplicates: Literal["keep", "exact", "near"] = "near",
    hidden: bool = False,
    document_bytes: int = DOCUMENT_BYTES,
    max_file_bytes: int = FILE_BYTES,
    leave_out: Path | None = None,
) -> Iterator[Document]:
    """Every document in the files and folders, in one order on every machine; the report runs along.

    - `field`: the field of JSON, CSV and Parquet records that holds the text (`data.body`; for a table without a
      heading the number of the column); otherwise found by the rules of `chatsmith.text.records`.
    - `duplicates`: which documents that came before are dropped: none, the exact ones, or the near ones too.
    - `hidden`: also read hidden files and folders, and those that programs fill.
    - `document_bytes`: a longer text is cut into several, after a paragraph, a line or a word.
    - `max_file_bytes`: a file that has, or decompresses to, more is read to there at most.
    - `leave_out`: a folder that is passed over where it lies in another: what is read will be written to it.

    Texts are normalised (`clean.normalise`). Raises `RequestError` at once for a path that is not there, and in the
    end if no document was found.
    """
    if document_bytes < 16:
        raise RequestError(f"documents of {document_bytes} bytes are too small", "give at least 16, better 100,000")
    reading = _Reading(report, field, document_bytes, max_file_bytes, hidden)
    found = existing(paths)
    deduplicator = None if duplicates == "keep" else Deduplicator(near=duplicates == "near")
    return _counted(reading, found, walk(found, report, hidden, leave_out), deduplicator)


def every_string(paths: Iterable[str | os.PathLike[str]], report: ReadReport) -> Iterator[Document]:
    """Every text in files and folders, and of records every string by itself, whatever it is called: as tests have."""
    reading = _Reading(report, None, DOCUMENT_BYTES, FILE_BYTES, False, strings=True)
    found = existing(paths)
    empty = True
    for document in chain.from_iterable(map(reading.file, walk(found, report, False))):
        empty = False
        yield document
    if empty:
        raise nothing_found(found, report)


def documents_of(
    files: Iterable[Path], report: ReadReport, field: str | None, hidden: bool, document_bytes: int
) -> Iterator[Document]:
    """The documents of files in order, nothing dropped: what `read_documents` makes of the files in its walk."""
    reading = _Reading(report, field, document_bytes, FILE_BYTES, hidden)
    return chain.from_iterable(map(reading.file, files))


def _counted(
    reading: _Reading, paths: list[Path], files: Iterator[Path], deduplicator: Deduplicator | None
) -> Iterator[Document]:
    report = reading.report
    before = report.documents
    documents = chain.from_iterable(map(reading.file, files))
    batches = ([document] for document in documents) if deduplicator is None else deduplicator.unique(documents)
    for batch in batches:
        if deduplicator is not None:
            _note(report, deduplicator)
        for document in batch:
            report.documents += 1
            if document.messages:
                report.conversations += 1
                for message in document.messages:
                    report.count(message.content)
            else:
                report.count(document.text)
            yield document
    if deduplicator is not None:
        _note(report, deduplicator)
    if report.documents == before:
        raise nothing_found(paths, report)


def _note(report: ReadReport, deduplicator: Deduplicator) -> None:
    report.exact_duplicates = deduplicator.exact_duplicates
    report.near_duplicates = deduplicator.near_duplicates
    report.forgetful = deduplicator.forgetful


@dataclass(slots=True)
class _Reading:
    """How files are read; the counts of files go to its report."""

    report: ReadReport
    field: str | None
    document_bytes: int
    max_file_bytes: int
    hidden: bool
    strings: bool = False
    """Whether each string of a record is a document by itself."""
    depth: int = 0
    """How many archives are open, one in the other."""
    budget: Budget = dataclass_field(default_factory=lambda: Budget(0, 0))
    """What may still come out of the archive that is open."""

    def file(self, path: Path) -> Iterator[Document]:
        """The documents of one file; the report says why there are none, or no more than came."""
        source = str(path)
        with self._skipping(source):
            form = _form(path.name)
            size = _enough(path.stat().st_size)
            self.budget = Budget(size, self.max_file_bytes)
            with open_bounded(path, form.compression, self.max_file_bytes) as stream:
                documents = iter(self._documents(stream, form.kind, source))
                for first in documents:
                    self.report.files += form.kind not in ARCHIVES  # of an archive, its members count
                    self.report.bytes_read += size
                    yield first
                    yield from documents

    def _members(self, stream: IO[bytes], kind: Kind, source: str) -> Iterator[Document]:
        """The documents of all files in an archive."""
        if self.depth >= DEEPEST:
            raise Unreadable(TOO_DEEP, f"archives are opened {DEEPEST} deep")
        self.depth += 1
        member = None
        try:
            for member in zip_members(stream) if kind is Kind.ZIP else tar_members(stream):
                yield from self._member(member, f"{source}!/{member.label}")
                if self.budget.exhausted:
                    return
        finally:
            self.depth -= 1
        if member is None:
            raise Unreadable(EMPTY, "an archive without files")

    def _member(self, member: Member, source: str) -> Iterator[Document]:
        with self._skipping(source):
            if not self.hidden and any(map(is_hidden_name, member.label.split("/"))):
                raise Unreadable(HIDDEN)
            form = _form(member.label.rpartition("/")[2])
            if member.reason:
                raise Unreadable(member.reason, member.detail)
            _enough(member.size)
            stream: IO[bytes] = Budgeted(member.stream, self.budget)  # type: ignore[assignment]
            if form.compression is not None:
                unfolded = unfold(stream, form.compression, self.max_file_bytes)
                stream = Budgeted(unfolded, self.budget)  # type: ignore[assignment]
            documents = iter(self._documents(stream, form.kind, source))
            for first in documents:
                self.report.files += form.kind not in ARCHIVES
                yield first
                yield from documents

    @contextmanager
    def _skipping(self, source: str) -> Iterator[None]:
        """What cannot be read is told to the report with its reason."""
        try:
            yield
        except Unreadable as error:
            self.report.skip(source, error.reason, error.detail)
        except MissingExtra as error:
            self.report.skip(source, MISSING, error.hint or error.message)
        except PermissionError:
            self.report.skip(source, NO_PERMISSION)
        except OSError as error:
            self.report.skip(source, "cannot be read", error.strerror or str(error))

    def _documents(self, stream: IO[bytes], kind: Kind, source: str) -> Iterator[Document]:
        size = self.document_bytes
        match kind:
            case Kind.TAR | Kind.ZIP:
                return self._members(stream, kind, source)
            case Kind.TEXT:
                return self._text(self._blocks(stream, size), source)
            case Kind.CODE:
                return self._texts(source, map(normalise, self._blocks(stream, size)))
            case Kind.HTML:
                return self._texts(source, _cut(page_text(self._page(stream)), size))
            case Kind.PDF:
                return self._texts(source, _all_cut(pdf_text(stream, size), size))
            case Kind.DOCX:
                return self._texts(source, _cut(docx_text(stream), size))
            case Kind.RTF:
                return self._texts(source, _all_cut(rich_text(self._whole(stream).decode("latin-1")), size))
            case Kind.EPUB:
                return self._texts(source, _all_cut(book_text(stream, size, self._chapter), size))
            case Kind.NOTEBOOK:
                return self._texts(source, _cut(notebook_text(self._page(stream)), size))
            case Kind.SUBTITLES:
                return self._texts(source, _all_cut(subtitle_text(lines(self._blocks(stream)), size), size))
            case _:
                return self._records(self._rows(stream, kind, source), source)

    def _text(self, parts: Iterator[str], source: str) -> Iterator[Document]:
        """The documents of a plain text, or the talk that it is where a messenger wrote it."""
        held = [next(parts, "")]
        if not self.strings and messengers.is_log(held[0]):
            try:
                while sum(map(len, held)) < RECORD_BYTES and (more := next(parts, "")):
                    held.append(more)
                held.append(next(parts, ""))  # of what is too long for a record
            except Unreadable as error:  # what came before counts
                parts = map(_raised, (error,))
            if not held[-1] and (talk := conversation(messengers.log("".join(held)))):
                return self._talk(talk, source)
        return self._texts(source, map(normalise, chain(held, parts)))

    def _talk(self, talk: list[Content], source: str) -> Iterator[Document]:
        for content in talk:
            if isinstance(content, Unreadable):
                raise content
            if isinstance(content, str):  # of more than two people
                yield from self._texts(source, pieces(normalise(content), self.document_bytes))
            else:
                yield Document("", source, tuple([Message(turn.role, normalise(turn.content)) for turn in content]))

    def _blocks(self, stream: IO[bytes], size: int = DOCUMENT_BYTES, declared: bool = False) -> Iterator[str]:
        return blocks(stream, size, self._repaired, declared=declared)

    def _repaired(self, characters: int) -> None:
        self.report.repaired += characters

    def _page(self, stream: IO[bytes]) -> str:
        """A whole file of text, such as a page, which may declare its encoding as HTML does."""
        parts: list[str] = []
        for block in self._blocks(stream, declared=True):
            parts.append(block)
            if len(parts) * DOCUMENT_BYTES > RECORD_BYTES:
                raise Unreadable(TOO_LARGE, f"a page of more than {RECORD_BYTES:,} bytes")
        return "".join(parts)

    def _chapter(self, data: bytes) -> str:
        return page_text(self._page(io.BytesIO(data)))

    def _whole(self, stream: IO[bytes]) -> bytes:
        data = bytearray()
        while chunk := stream.read(CHUNK):  # of what is compressed, a read may give less than is asked for
            data += chunk
            if len(data) > RECORD_BYTES:
                raise Unreadable(TOO_LARGE, f"more than {RECORD_BYTES:,} bytes")
        return bytes(data)

    def _texts(self, source: str, texts: Iterable[str]) -> Iterator[Document]:
        """Documents from the pieces of one normalised text; numbered where there are several, without blank ones."""
        held = ""
        number = 0
        damage: Unreadable | None = None
        try:
            for text in texts:
                if not text or text.isspace():
                    continue
                if number:
                    yield Document(held, f"{source}#{number}")
                held = text
                number += 1
        except Unreadable as error:  # what came before counts
            damage = error
        if held:
            yield Document(held, f"{source}#{number}" if number > 1 else source)
        elif damage is None:
            damage = Unreadable(NO_TEXT)
        if damage is not None:
            raise damage

    def _rows(self, stream: IO[bytes], kind: Kind, source: str) -> Iterator[tables.Record]:
        match kind:
            case Kind.JSON_LINES:
                return tables.json_lines(
                    self._blocks(stream),
                    lambda number, reason, detail: self.report.skip(f"{source}:{number}", reason, detail),
                )
            case Kind.JSON:
                return tables.json_values(self._blocks(stream))
            case Kind.PARQUET:
                return tables.parquet(stream, self.field)
            case _:
                return tables.table(self._blocks(stream), kind is Kind.TSV, self.field)

    def _records(self, rows: Iterable[tables.Record], source: str) -> Iterator[Document]:
        longest = self.document_bytes // 4  # characters that are surely no longer than a document may be
        whole = rows if self.strings or self.field is not None else grown(rows)
        for number, record in whole:
            place = f"{source}:{number}"
            empty = True
            for content in strings(record) if self.strings else contents(record, self.field):
                if isinstance(content, Unreadable):
                    empty = False
                    self.report.skip(place, content.reason, content.detail)
                    continue
                if not isinstance(content, str):
                    empty = False
                    yield Document("", place, tuple([Message(turn.role, normalise(turn.content)) for turn in content]))
                    continue
                text = normalise(content)
                if not text or text.isspace():
                    continue
                empty = False
                if len(text) <= longest:
                    yield Document(text, place)
                else:
                    yield from self._texts(place, pieces(text, self.document_bytes))
            if empty:
                self.report.skip(place, *self._without(record))

    def _without(self, record: object) -> tuple[str, str]:
        """Why a record gave nothing."""
        if self.field is None:
            return NO_TEXT_RECORD, ""
        names = f"it has: {', '.join(list(record)[:10])}" if isinstance(record, dict) else ""
        return f"no text in field {self.field!r}", names


def _raised(error: Unreadable) -> str:
    raise error


def _form(name: str) -> Format:
    """The format that a name says; `Unreadable` where it says none."""
    form = format_of(name)
    if form is None:
        raise Unreadable(UNKNOWN, Path(name).suffix)
    return form


def _enough(size: int) -> int:
    """A size in bytes that may hold text; `Unreadable` otherwise."""
    if size < 2:
        raise Unreadable(TOO_SHORT if size else EMPTY)
    return size


def _all_cut(texts: Iterable[str], size: int) -> Iterator[str]:
    return (cut for text in texts for cut in _cut(text, size))


def _cut(text: str, size: int) -> Iterator[str]:
    """Normalised before it is cut: what is cut must be sound UTF-8."""
    return pieces(normalise(text), size)
