"""The members of .tar and .zip archives, one after another and within bounds.

A member's name is a label and says what kind of file it is; it is never used as a path. Nothing is written anywhere.
Tar is read here rather than by the standard library, which takes headers of any size into memory.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from chatsmith.text.archives import BOMB, CHUNK, DAMAGED, FREE, RATIO, TOO_LARGE, seekable
from chatsmith.text.report import Unreadable

ENCRYPTED = "encrypted"
METHOD = "packed in a way that is not read"
LINK = "a link in an archive"
SPARSE = "a file with holes in an archive"

DEEPEST = 3
"""Archives within archives that are opened, the outermost counted."""

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
"""What a damaged .zip makes the standard library raise, beside `OSError`."""

_BLOCK = 512
_LONG = 1 << 16  # bytes of a header that gives a long name
_LISTING = 32 << 20  # bytes of the list of a .zip: about 400,000 members
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # LZMA would set no limit to its memory
_LABEL = 1000  # characters


class Budget:
    """What may come out of one archive, whatever is packed in it how often: `limit` bytes, and 300 times its size."""

    def __init__(self, size: int, limit: int) -> None:
        self._size = size
        self._limit = limit
        self._out = 0

    @property
    def exhausted(self) -> bool:
        """Whether more came out than may."""
        return self._out > min(self._limit, max(FREE, RATIO * self._size))

    def spend(self, count: int) -> None:
        """Take note of bytes that came out; `Unreadable` where they are too many."""
        self._out += count
        if self.exhausted:
            detail = f"{self._out:,} bytes from {self._size:,}"
            raise Unreadable(TOO_LARGE if self._out > self._limit else BOMB, detail)


class Budgeted(io.RawIOBase):
    """A stream whose bytes are paid for; `tell` says how many that were."""

    def __init__(self, stream: Any, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._at = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(min(len(buffer), CHUNK))
        except (*ZIP_ERRORS, OSError) as error:
            raise Unreadable(DAMAGED, str(error)) from error
        buffer[: len(data)] = data
        self._at += len(data)
        self._budget.spend(len(data))
        return len(data)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name as it stands there, made fit to be shown, its size, and what is in it.

    `stream` can be read until the next member is asked for; it is None where `reason` and `detail` say why not.
    """

    label: str
    size: int
    stream: Any = None
    reason: str = ""
    detail: str = ""


def zip_members(stream: IO[bytes]) -> Iterator[Member]:
    """The files of a .zip in the order of its list; `Unreadable` where that cannot be read."""
    try:
        archive = open_zip(stream)
    except (*ZIP_ERRORS, OSError) as error:
        raise Unreadable(DAMAGED, str(error)) from error
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        label = _label(entry.filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            yield Member(label, entry.file_size, reason=LINK)
        elif entry.flag_bits & 1:
            yield Member(label, entry.file_size, reason=ENCRYPTED, detail="unpack it with its password first")
        elif entry.compress_type not in _METHODS:
            yield Member(label, entry.file_size, reason=METHOD, detail=f"method {entry.compress_type}")
        else:
            try:
                content = archive.open(entry)
            except (*ZIP_ERRORS, OSError) as error:
                yield Member(label, entry.file_size, reason=DAMAGED, detail=str(error))
                continue
            with content:
                yield Member(label, entry.file_size, content)


def open_zip(stream: IO[bytes]) -> zipfile.ZipFile:
    """The standard library's object for a .zip; `Unreadable` where its list of members is too long to hold."""
    return zipfile.ZipFile(_ListingBounded(seekable(stream)))


class _ListingBounded:
    """A file of which no large part is read at once, as the list of a .zip is, to become objects ten times its size."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable, self.close = stream.seek, stream.tell, stream.seekable, stream.close

    def read(self, size: int = -1) -> bytes:
        if size > _LISTING:
            raise Unreadable(TOO_LARGE, f"its list of members has {size:,} bytes")
        data = self._stream.read(size if size >= 0 else _LISTING + 1)
        if len(data) > _LISTING:
            raise Unreadable(TOO_LARGE, f"its list of members has more than {_LISTING:,} bytes")
        return data


def tar_members(stream: IO[bytes]) -> Iterator[Member]:
    """The files of a .tar in order (POSIX.1-2001 "pax", ustar, and GNU's long names); `Unreadable` where it is damaged.

    The stream is read once from its beginning to its end.
    """
    source = _Exactly(stream)
    name: str | None = None  # by a header before the file's own
    size: int | None = None
    while any(block := source.take(_BLOCK, may_end=True)):
        kind, own_size = block[156:157], _number(block[124:136])
        _check(block)
        if kind in (b"x", b"L", b"K", b"g"):
            if own_size > _LONG:
                raise Unreadable(TOO_LARGE, f"a header of {own_size:,} bytes")
            data = source.take(own_size)
            source.skip(-own_size % _BLOCK)
            if kind == b"L":
                name = _text(data)
            elif kind == b"x":
                said = _extended(data)
                name = said.get("path", name)
                size = _decimal(said["size"]) if "size" in said else size
            continue
        length = own_size if size is None else size
        name = name if name is not None else _ustar_name(block)
        if kind in (b"0", b"\0", b"7") and not name.endswith("/"):
            content = _Part(source, length)
            yield Member(_label(name), length, content)
            source.skip(content.left + -length % _BLOCK)
        else:
            if kind in (b"1", b"2", b"S"):
                yield Member(_label(name), length, reason=SPARSE if kind == b"S" else LINK)
            if kind == b"S" and block[482]:
                while source.take(_BLOCK)[504]:  # more of the map of holes
                    pass
            if kind not in (b"1", b"2", b"3", b"4", b"5", b"6"):  # these have no content, whatever their size says
                source.skip(length + -length % _BLOCK)
        name = size = None


class _Exactly:
    """A stream that gives just as many bytes as are asked for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def take(self, count: int, may_end: bool = False) -> bytes:
        """`count` bytes, or none at all where the stream has ended and may."""
        parts: list[bytes] = []
        while count and (data := self._stream.read(min(count, CHUNK))):
            parts.append(data)
            count -= len(data)
        if count and (parts or not may_end):
            raise Unreadable(DAMAGED, "ends early")
        return b"".join(parts)

    def some(self, count: int) -> bytes:
        """Up to `count` bytes, and at least one."""
        data = self._stream.read(count)
        if not data:
            raise Unreadable(DAMAGED, "ends early")
        return data

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.some(min(count, CHUNK)))


class _Part:
    """The next `left` bytes of a stream."""

    def __init__(self, source: _Exactly, left: int) -> None:
        self._source = source
        self.left = left

    def read(self, count: int) -> bytes:
        data = self._source.some(min(count, self.left)) if count and self.left else b""
        self.left -= len(data)
        return data


def _check(block: bytes) -> None:
    """The sum of a header's bytes, its own field taken as blanks; some old programs summed signed bytes."""
    told = _number(block[148:156])
    others = block[:148] + b" " * 8 + block[156:]
    if told not in (sum(others), sum(others) - 256 * sum(byte > 127 for byte in others)):
        raise Unreadable(DAMAGED, "a broken header")


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or behind a byte of 0x80 binary."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        if value >= 1 << 62:
            raise Unreadable(DAMAGED, "a size that cannot be")
        return value
    digits = field.partition(b"\0")[0].strip()
    if digits and not all(0x30 <= byte <= 0x37 for byte in digits):
        raise Unreadable(DAMAGED, "a broken header")
    return int(digits or b"0", 8)


def _decimal(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise Unreadable(DAMAGED, "a size that cannot be")
    return int(digits)


def _ustar_name(block: bytes) -> str:
    name, prefix = _text(block[:100]), _text(block[345:500])
    return f"{prefix}/{name}" if block[257:263] == b"ustar\0" and prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _extended(data: bytes) -> dict[str, str]:
    """The records "length name=value" of a pax header."""
    found: dict[str, str] = {}
    while data:
        digits, blank, _ = data[:20].partition(b" ")
        length = int(digits) if digits.isdigit() and blank else 0
        if not len(digits) + 3 <= length <= len(data):
            raise Unreadable(DAMAGED, "a broken header")
        name, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        found[name.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return found


def _label(name: str) -> str:
    """A name as one may show it: control characters spelled out, and of bounded length."""
    shown = name[:_LABEL] + ("…" if len(name) > _LABEL else "")
    return "".join([char if char.isprintable() else ascii(char)[1:-1] for char in shown])
