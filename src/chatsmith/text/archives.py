"""Opening files that may be compressed, within bounds: a small file must not unfold into a flood.

Streams are read in order and nothing is unpacked to disk, except what must be read out of order (`seekable`), which
goes to a temporary file without a name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

from chatsmith.errors import MissingExtra
from chatsmith.text.report import Unreadable

DAMAGED = "damaged"
TOO_LARGE = "too large"
BOMB = "unfolds too far"

CHUNK = 1 << 18  # bytes read at once
RATIO = 300  # bytes out for a byte in: text rarely passes 20, the most repetitive logs 200
FREE = 64 << 20  # bytes out before the ratio counts
_DECODER_MEMORY = 256 << 20  # what an .xz or .zst file may ask for; `xz -9` asks for 65 MiB
_SLICE = 1 << 10  # compressed bytes decoded at once: at the highest ratios they become some tens of megabytes
_IN_MEMORY = 16 << 20
_COPY = 4 << 30  # bytes of a temporary copy


def open_bounded(path: Path, compression: str | None, limit: int) -> IO[bytes]:
    """Open a file for reading, decompressed. `OSError` as from `open`; `MissingExtra` where .zst needs a library.

    Reading raises `Unreadable` when more than `limit` bytes come out, or more than 300 times those that went in, or
    when the compressed data is damaged or ends early; what came before has been given. A read may give less than asked.
    """
    raw = open(path, "rb", buffering=0 if compression else CHUNK)  # noqa: SIM115 - the caller closes what is returned
    try:
        if os.fstat(raw.fileno()).st_size > limit:
            raise Unreadable(TOO_LARGE, f"more than {limit:,} bytes")
        return raw if compression is None else unfold(raw, compression, limit)
    except BaseException:
        raw.close()
        raise


def unfold(raw: Any, compression: str, limit: int) -> IO[bytes]:
    """`open_bounded` for a stream whose `tell` says how many bytes were read; closing the result closes it too."""
    inner: Any
    if compression == ".gz":
        inner = gzip.GzipFile(fileobj=raw, mode="rb")
    elif compression == ".bz2":
        inner = bz2.BZ2File(raw)
    else:
        inner = io.BufferedReader(_Frames(raw, _zst_decoder() if compression == ".zst" else _xz_decoder))
    return _Bounded(raw, inner, limit)  # type: ignore[return-value]


def seekable(stream: IO[bytes]) -> IO[bytes]:
    """The stream itself where one can go back in it, else a temporary copy."""
    if stream.seekable():
        return stream
    size = 0
    copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - lives as long as its reader
    while chunk := stream.read(CHUNK):
        size += len(chunk)
        if size > _COPY:
            raise Unreadable(TOO_LARGE, f"more than {_COPY:,} bytes, which must be unpacked to be read")
        copy.write(chunk)
    copy.seek(0)
    return copy


def _xz_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=_DECODER_MEMORY)


def _zst_decoder() -> Callable[[], Any]:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "data", "reading .zst files") from None
    return zstandard.ZstdDecompressor(max_window_size=_DECODER_MEMORY >> 1).decompressobj


class _Frames(io.RawIOBase):
    """The bytes of one .xz or .zst frame after another. `lzma.open` would set no limit to its memory, and the stream
    reader of zstandard takes a file that ends early for a whole one."""

    def __init__(self, raw: BinaryIO, start: Callable[[], Any]) -> None:
        self._raw = raw
        self._start = start
        self._decoder = start()
        self._chunk, self._at = b"", 0
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            data = b""
            if self._decoder.eof:
                # What follows a frame is padding of zeros, another frame, or the end of the file.
                data = self._decoder.unused_data.lstrip(b"\0") or self._take().lstrip(b"\0")
                if not data:
                    if self._at < len(self._chunk):
                        continue
                    return 0
                self._decoder = self._start()
            data = data or self._take()
            if not data:
                raise EOFError("ends early")
            self._output = memoryview(self._decoder.decompress(data))
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _take(self) -> bytes:
        if self._at >= len(self._chunk):
            self._chunk, self._at = self._raw.read(CHUNK), 0
        self._at += _SLICE
        return self._chunk[self._at - _SLICE : self._at]


class _Bounded(io.RawIOBase):
    """A decompressing stream that stops at a flood, and says "damaged" in one way for every kind of damage.

    It has no buffer: a buffer loses what it holds already when the next bytes turn out to be damaged.
    """

    def __init__(self, raw: BinaryIO, inner: Any, limit: int) -> None:
        self._raw = raw
        self._inner = inner
        self._limit = limit
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read1(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise Unreadable(DAMAGED, str(error)) from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":  # its class is only there where the library is
                raise
            raise Unreadable(DAMAGED, str(error)) from error
        buffer[: len(data)] = data
        self._out += len(data)
        if self._out > self._limit:
            raise Unreadable(TOO_LARGE, f"more than {self._limit:,} bytes")
        if self._out > FREE and self._out > RATIO * self._raw.tell():
            raise Unreadable(BOMB, f"{self._out:,} bytes from {self._raw.tell():,}")
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._raw.close()
        super().close()
