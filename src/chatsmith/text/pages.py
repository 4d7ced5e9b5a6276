"""Text from documents that are made of pages: PDF and Word."""

from __future__ import annotations

import logging
import xml.parsers.expat
import zipfile
from collections.abc import Iterator
from typing import IO

from chatsmith.errors import MissingExtra
from chatsmith.text.archives import BOMB, CHUNK, DAMAGED, seekable
from chatsmith.text.members import ENCRYPTED, ZIP_ERRORS, open_zip
from chatsmith.text.report import Unreadable

NO_TEXT = "no text in it"

_WORD_BYTES = 1 << 30  # of XML: a book of a million words takes about fifty million
_WORD_TEXT = 1 << 28
_BODY = "word/document.xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
_FALLBACK = "http://schemas.openxmlformats.org/markup-compatibility/2006 Fallback"


def pdf_text(stream: IO[bytes], size: int) -> Iterator[str]:
    """The text of a PDF, pages parted by a blank line, in pieces of some pages that pass `size` characters."""
    try:
        import pypdf
        import pypdf.errors
    except ImportError:
        raise MissingExtra("pypdf", "docs", "reading .pdf files") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every oddity; what matters is said below
    held: list[str] = []
    length = 0
    found = False
    source = seekable(stream)
    try:
        reader = pypdf.PdfReader(source, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable(ENCRYPTED, "save it without its password")
        for page in reader.pages:
            text = page.extract_text().strip()
            if text:
                found = True
                held.append(text)
                length += len(text)
            if length > size:
                yield "\n\n".join(held)
                held, length = [], 0
    except (Unreadable, MemoryError):
        raise
    except pypdf.errors.DependencyError as error:  # some ciphers need another library
        raise Unreadable(ENCRYPTED, str(error)) from error
    except Exception as error:  # a damaged PDF makes the library fail in any of many ways
        raise Unreadable(DAMAGED, f"{type(error).__name__}: {error}".partition("\n")[0]) from error
    if held:
        yield "\n\n".join(held)
    if not found:
        raise Unreadable(NO_TEXT, "its pages may be pictures")


def docx_text(stream: IO[bytes]) -> str:
    """The text of a Word document: a line for each paragraph, cells of tables parted by tabs, notes at the end.

    The XML is read as a stream of bounded length and must not declare a document type, so that neither a zip bomb
    nor an entity that expands can hurt.
    """
    try:
        with open_zip(stream) as archive:
            present = set(archive.namelist())
            texts = [_word_part(archive, name) for name in (_BODY, *(name for name in _NOTES if name in present))]
    except (*ZIP_ERRORS, OSError, xml.parsers.expat.ExpatError, KeyError) as error:
        raise Unreadable(DAMAGED, str(error)) from error
    return "\n\n".join(filter(None, texts))


def _word_part(archive: zipfile.ZipFile, name: str) -> str:
    entry = archive.getinfo(name)
    if entry.flag_bits & 1:
        raise Unreadable(ENCRYPTED, "save it without its password")
    words = _WordText()
    with archive.open(entry) as part:
        read = 0
        while chunk := part.read(CHUNK):
            read += len(chunk)
            if read > _WORD_BYTES or words.length > _WORD_TEXT:
                raise Unreadable(BOMB, f"more than {read:,} bytes in {name}")
            words.parser.Parse(chunk, False)
    words.parser.Parse(b"", True)
    return words.text()


class _WordText:
    """Collects text while expat walks through WordprocessingML (ECMA-376 part 1, section 17.3)."""

    def __init__(self) -> None:
        self.length = 0
        self.parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._parts: list[str] = []
        self._in_text = False
        self._runs = 0  # a tab outside of a run of text is the setting of a tab stop
        self._rows = 0
        self._fallback = 0

    def text(self) -> str:
        return "".join(self._parts).strip("\n")

    def _doctype(self, *_: object) -> None:
        raise Unreadable(DAMAGED, "its XML declares a document type")

    def _name(self, name: str) -> str:
        space, _, local = name.rpartition(" ")
        return local if space in (_NAMESPACE, _STRICT) else ""

    def _start(self, name: str, _: object) -> None:
        if name == _FALLBACK:  # says again, for old programs, what stands before it
            self._fallback += 1
        local = self._name(name)
        if local == "t":
            self._in_text = True
        elif local == "r":
            self._runs += 1
        elif local == "tr":
            self._rows += 1
        elif local in ("br", "cr") and self._runs:
            self._write("\n")
        elif local == "tab" and self._runs:
            self._write("\t")

    def _end(self, name: str) -> None:
        if name == _FALLBACK:
            self._fallback -= 1
        local = self._name(name)
        if local == "t":
            self._in_text = False
        elif local == "r":
            self._runs -= 1
        elif local == "p":
            self._write(" " if self._rows else "\n")
        elif local == "tc":
            self._replace_blank("\t")
        elif local == "tr":
            self._rows -= 1
            self._replace_blank("\n")

    def _characters(self, data: str) -> None:
        if self._in_text:
            self._write(data)

    def _write(self, text: str) -> None:
        if not self._fallback:
            self._parts.append(text)
            self.length += len(text)

    def _replace_blank(self, text: str) -> None:
        """End a cell or row: instead of the blank after its last paragraph, or the tab after its last cell."""
        if self._parts and self._parts[-1] in (" ", "\t"):
            self._parts.pop()
        self._write(text)
