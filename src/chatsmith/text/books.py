"""The text of electronic books (EPUB 2 and 3): the chapters that its package lists, in reading order."""

from __future__ import annotations

import posixpath
import xml.parsers.expat
import zipfile
from collections.abc import Callable, Iterator
from typing import IO
from urllib.parse import unquote

from chatsmith.text.archives import BOMB, CHUNK, DAMAGED
from chatsmith.text.members import ENCRYPTED, ZIP_ERRORS, open_zip
from chatsmith.text.report import Unreadable

_CONTAINER, _LOCKS = "META-INF/container.xml", "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")
_LISTING = 8 << 20  # bytes of a package's list of files
_CHAPTER = 64 << 20
_ALL = 1 << 30

Element = tuple[str, dict[str, str]]


def book_text(stream: IO[bytes], size: int, page: Callable[[bytes], str]) -> Iterator[str]:
    """The text of a book, chapters parted by a blank line, in pieces of some chapters that pass `size` characters.

    `page` gives the text of a chapter, which is a web page. `Unreadable` where the book is damaged or locked.
    """
    held: list[str] = []
    length = total = 0
    try:
        with open_zip(stream) as archive:
            package = _package(archive)
            for name in _chapters(package, _elements(_read(archive, package, _LISTING)), _locked(archive)):
                data = _read(archive, name, _CHAPTER)
                total += len(data)
                if total > _ALL:
                    raise Unreadable(BOMB, f"more than {_ALL:,} bytes")
                if text := page(data):
                    held.append(text)
                    length += len(text)
                if length > size:
                    yield "\n\n".join(held)
                    held, length = [], 0
    except (*ZIP_ERRORS, OSError, xml.parsers.expat.ExpatError, KeyError) as error:
        if held:
            yield "\n\n".join(held)
        raise Unreadable(DAMAGED, str(error)) from error
    yield "\n\n".join(held)


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    entry = archive.getinfo(name)
    if entry.flag_bits & 1:
        raise Unreadable(ENCRYPTED, "save it without its password")
    parts: list[bytes] = []
    size = 0
    with archive.open(entry) as member:
        while chunk := member.read(CHUNK):
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise Unreadable(BOMB, f"more than {limit:,} bytes in {name}")
    return b"".join(parts)


def _package(archive: zipfile.ZipFile) -> str:
    """The name of the file that lists what is in the book."""
    for name, attributes in _elements(_read(archive, _CONTAINER, _LISTING)):
        if name == "rootfile" and attributes.get("full-path"):
            return attributes["full-path"]
    raise Unreadable(DAMAGED, f"{_CONTAINER} names no package")


def _chapters(package: str, elements: list[Element], locked: set[str]) -> Iterator[str]:
    """The names of the pages in reading order."""
    folder = posixpath.dirname(package)
    files = {
        attributes["id"]: posixpath.normpath(posixpath.join(folder, unquote(attributes["href"].partition("#")[0])))
        for name, attributes in elements
        if name == "item"
        and {"id", "href", "media-type"} <= attributes.keys()
        and attributes["media-type"] in _PAGES
        and "nav" not in attributes.get("properties", "").split()  # the table of contents
    }
    order = [attributes.get("idref", "") for name, attributes in elements if name == "itemref"]
    for identity in dict.fromkeys(order):
        if identity in files:
            if files[identity] in locked:
                raise Unreadable(ENCRYPTED, "it is locked by its seller")
            yield files[identity]


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """The names of files that are encrypted: all chapters where a book is locked, else at most its fonts."""
    try:
        listing = _read(archive, _LOCKS, _LISTING)
    except KeyError:
        return set()
    return {unquote(found["URI"]) for name, found in _elements(listing) if name == "CipherReference" and "URI" in found}


def _elements(data: bytes) -> list[Element]:
    """The elements of an XML file in order, with their attributes, without name spaces."""
    found: list[Element] = []
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda name, attributes: found.append((name.rpartition(" ")[2], attributes))
    parser.EntityDeclHandler = _entity
    parser.Parse(data, True)
    return found


def _entity(*_: object) -> None:
    raise Unreadable(DAMAGED, "its XML declares entities")
