"""Bytes to text, in pieces of bounded size that are cut where a reader would pause."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import IO

from chatsmith.text import charset
from chatsmith.text.archives import CHUNK
from chatsmith.text.report import Unreadable

BINARY = "binary, not text"
NOT_UTF8 = "not UTF-8 text"
TOO_LONG = "a record is too long"

RECORD_BYTES = 64 << 20  # the longest line of JSON lines, row of a table, or HTML page
_HEAD = 1 << 16  # bytes that are looked at to tell text from binary
_CONTROLS = bytes(byte for byte in [*range(32), 127] if byte not in b"\t\n\v\f\r\x1b\b")

Repaired = Callable[[int], None]


def blocks(stream: IO[bytes], size: int, repaired: Repaired, *, declared: bool = False) -> Iterator[str]:
    """The text of a stream in blocks of at most `size` bytes (UTF-8), whose concatenation is the whole of it.

    UTF-8, or UTF-16 and UTF-32 with a byte order mark, or UTF-16 that is surely it; with `declared`, also the encoding
    that the head of an HTML page names. Bad bytes become U+FFFD and are told to `repaired` while they are fewer than
    one in a thousand; otherwise, and where zero or control bytes show that this is no text, `Unreadable`.
    """
    head = stream.read(_HEAD)
    encoding = _encoding(head, declared)
    buffer = b""
    damage: Unreadable | None = None
    try:
        for chunk in _utf8_chunks(head, stream, encoding):
            buffer = buffer + chunk if buffer else chunk
            while len(buffer) > size:
                end = _pause(buffer, size)
                yield _decode(buffer[:end], repaired)
                buffer = buffer[end:]
    except Unreadable as error:  # of the stream: what came before counts
        damage = error
    if buffer:
        yield _decode(buffer, repaired)
    if damage is not None:
        raise damage


def pieces(text: str, size: int) -> Iterator[str]:
    """A text in pieces of at most `size` bytes (UTF-8), cut like `blocks`; the text itself where it is no longer."""
    if len(text) * 4 <= size or len(data := text.encode()) <= size:
        yield text
        return
    start = 0
    while len(data) - start > size:
        end = start + _pause(data[start : start + size + 2], size)
        yield data[start:end].decode()
        start = end
    yield data[start:].decode()


def lines(blocks: Iterator[str], longest: int = RECORD_BYTES) -> Iterator[str]:
    r"""Lines with their "\n", from blocks of text; `Unreadable` at one of more than about `longest` characters."""
    parts: list[str] = []
    held = 0
    for block in blocks:
        first, *rest = block.split("\n")
        parts.append(first)
        held += len(first)
        if held > longest:
            raise Unreadable(TOO_LONG, f"more than {longest:,} characters in one line")
        if rest:
            yield "".join(parts) + "\n"
            for line in rest[:-1]:
                yield line + "\n"
            parts, held = [rest[-1]], len(rest[-1])
    if held:
        yield "".join(parts)


def _encoding(head: bytes, by_page: bool) -> str:
    if encoding := charset.marked(head) or charset.unmarked_utf16(head):
        return encoding
    if b"\0" in head:
        raise Unreadable(BINARY, "it holds zero bytes")
    if len(head) - len(head.translate(None, _CONTROLS)) > len(head) // 50:
        raise Unreadable(BINARY, "it holds control bytes")
    return (charset.declared(head) if by_page else None) or "utf-8"


def _utf8_chunks(head: bytes, stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    if encoding == "utf-8":
        yield head.removeprefix(codecs.BOM_UTF8)
        while chunk := stream.read(CHUNK):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for mark, marked in charset.MARKS:
        if marked == encoding:
            head = head.removeprefix(mark)
    yield decoder.decode(head).encode("utf-8", "replace")
    while chunk := stream.read(CHUNK):
        yield decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _decode(data: bytes, repaired: Repaired) -> str:
    if b"\0" in data and data.count(0) * 1000 > len(data):
        raise Unreadable(BINARY, "it holds zero bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        bad = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
        if bad * 1000 > len(data):
            raise _not_utf8(charset.likely(data)) from None
        repaired(bad)
        return text


def _not_utf8(encoding: str | None) -> Unreadable:
    """The encoding is part of the reason, so that no file is converted by the advice for another."""
    advice = f"convert it first: iconv -f {encoding or 'ENCODING'} -t UTF-8"
    if encoding is None:
        return Unreadable(NOT_UTF8, f"{advice}, with the encoding that it was written in")
    return Unreadable(f"{NOT_UTF8} but probably {encoding}", advice)


def _pause(data: bytes, size: int) -> int:
    """Where to cut the first `size` bytes or fewer: after a paragraph, a line, a word, or else a character."""
    for pause in (b"\n\n", b"\r\n\r\n", b"\n", b"\r", b" "):
        found = data.rfind(pause, size // 2, size)
        end = found + len(pause)
        if found >= 0 and data[end - 1 : end + 1] != b"\r\n":
            return end
    end = size
    while end > max(1, size - 3) and data[end] & 0xC0 == 0x80:
        end -= 1
    return end - 1 if end > 1 and data[end - 1 : end + 1] == b"\r\n" else end
