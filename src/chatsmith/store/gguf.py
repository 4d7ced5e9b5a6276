"""GGUF files, read and written: the container.

A file is a magic word, a version, counts, a table of typed values, a table of tensors and their bytes (specified in
docs/gguf.md of ggml). It comes from outside: every count is held against the bytes that are left before anything is
made of it, so that no lie can cost more memory than the file has bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, WorkError
from chatsmith.kernels.infer.matrix import Floats
from chatsmith.paths import atomic_write
from chatsmith.store.gguf_numbers import FORMATS, NumberFormat, format_of, made
from chatsmith.store.tensors import AGAIN, utf8

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGN = 32
_MOST_DIMENSIONS = 4
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64, _F64 = 4, 5, 6, 7, 8, 9, 10, 12
# Type of a value → struct letter.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", _U32: "I", _I32: "i", _F32: "f", _BOOL: "?", _U64: "Q", 11: "q", _F64: "d"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies: its shape (outermost first, as numpy counts), format and first byte."""

    shape: tuple[int, ...]
    format: NumberFormat
    begin: int


class Gguf:
    """A GGUF file, mapped and checked: `values` by key, `tensors` by name, and `read` for one of them in float32."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._raw = np.memmap(self.path, np.uint8, "r")
        except FileNotFoundError:
            raise RequestError(f"no file {path}") from None
        except (OSError, ValueError) as error:
            raise WorkError(f"cannot read {path}: {error}", AGAIN) from None
        cursor = _Cursor(self.path, self._raw.data)
        if cursor.take(4).tobytes() != MAGIC:
            raise WorkError(f"{path} is not a GGUF file", "choose another one")
        version = cursor.number("I")
        if version not in _VERSIONS:
            raise WorkError(
                f"{path} is GGUF version {version}; only 2 and 3 are read", "write it again with a newer program"
            )
        # A tensor's entry has at least 24 bytes, a value's at least 13.
        tensors, values = cursor.count(24), cursor.count(13)
        self.values: dict[str, Any] = {}
        for _ in range(values):
            key = cursor.text()
            if key in self.values:
                raise cursor.damaged(f"the key {key!r} comes twice")
            self.values[key] = cursor.value(cursor.number("I"))
        self.tensors = self._read_tensors(cursor, tensors)

    def _read_tensors(self, cursor: _Cursor, count: int) -> dict[str, GgufTensor]:
        listed: list[tuple[str, tuple[int, ...], int, int]] = []
        for _ in range(count):
            name = cursor.text()
            dimensions = cursor.number("I")
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise cursor.damaged(f"{name} has {dimensions} dimensions")
            shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
            listed.append((name, shape, cursor.number("I"), cursor.number("Q")))
        align = self.values.get("general.alignment", _ALIGN)
        if not isinstance(align, int) or align < 8 or align > 2**20 or align & (align - 1):
            raise cursor.damaged(f"an alignment of {repr(align)[:40]}")
        data = -(-cursor.at // align) * align
        found: dict[str, GgufTensor] = {}
        spans: list[tuple[int, int, str]] = []
        for name, shape, code, offset in listed:
            form = format_of(code, f"{self.path}: {name}")
            if prod(shape) % form.block or shape[-1] % form.block or not all(shape):
                raise cursor.damaged(f"{name} of shape {list(shape)} is not a whole number of blocks of {form.block}")
            size = prod(shape) // form.block * form.nbytes
            if offset % align or data + offset + size > len(self._raw):
                raise cursor.damaged(f"{name} does not lie within the file")
            if name in found:
                raise cursor.damaged(f"the tensor {name} comes twice")
            found[name] = GgufTensor(shape, form, data + offset)
            spans.append((offset, offset + size, name))
        spans.sort()
        for (_, end, first), (begin, _, second) in pairwise(spans):
            if begin < end:
                raise cursor.damaged(f"{first} and {second} overlap")
        return found

    def read(self, name: str) -> Floats:
        """One tensor in float32."""
        tensor = self.tensors[name]
        form = tensor.format
        size = prod(tensor.shape) // form.block * form.nbytes
        raw = np.asarray(self._raw[tensor.begin : tensor.begin + size])
        return form.read(raw.reshape(-1, form.nbytes)).reshape(tensor.shape)

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """A value of the given kind; one that is missing and has no default, or is of another kind, is named."""
        value = self.values.get(key, default)
        if kind is float and isinstance(value, float):
            value = float(str(np.float32(value)))  # 1e-05, not what float32 makes of it
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WorkError(f"{self.path}: {key} is {'missing' if value is None else repr(value)[:40]}", AGAIN)
        return value


class _Cursor:
    """Walks through the head of a file; never beyond its end."""

    def __init__(self, path: Path, raw: memoryview) -> None:
        self.path, self.raw, self.at = path, raw, 0

    def damaged(self, why: str) -> WorkError:
        return WorkError(f"{self.path} is damaged: {why}", AGAIN)

    def take(self, count: int) -> memoryview:
        if count > len(self.raw) - self.at:
            raise self.damaged(f"it ends at byte {len(self.raw)}, within its head")
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self, letter: str) -> int:
        (value,) = struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))
        return int(value)

    def count(self, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        count = self.number("Q")
        if count * least > len(self.raw) - self.at:
            raise self.damaged(f"it claims {count} entries in {len(self.raw) - self.at} bytes")
        return count

    def text(self) -> str:
        raw = self.take(self.count(1))
        try:
            return utf8(raw)
        except UnicodeDecodeError:
            raise self.damaged("a text is not UTF-8") from None

    def value(self, code: int, depth: int = 0) -> Any:
        if code == _STRING:
            return self.text()
        if code in _SCALARS:
            letter = _SCALARS[code]
            return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]
        if code != _ARRAY or depth > 1:
            raise self.damaged(f"a value has the unknown type {code}")
        of = self.number("I")
        if of in _SCALARS:
            letter = _SCALARS[of]
            size = struct.calcsize("<" + letter)
            count = self.count(size)
            # As they lie in the file: in a list, each would take many times its bytes.
            return np.frombuffer(self.take(count * size), np.dtype("<" + letter))
        return [self.value(of, depth + 1) for _ in range(self.count(8))]


def write_gguf(path: Path, values: Mapping[str, Any], tensors: Iterable[tuple[str, Floats, str]]) -> None:
    """Write values and tensors (name, numbers, name of the format) as version 3; whole or not at all.

    A value is a str, int, float, bool or a list of one of these; whole numbers become uint32, in lists int32.
    """
    listed: list[tuple[str, tuple[int, ...], NumberFormat, NDArray[np.uint8]]] = []
    for name, numbers, kind in tensors:
        listed.append((name, numbers.shape, FORMATS[kind], made(numbers, kind)))
    head = [MAGIC, struct.pack("<IQQ", 3, len(listed), len(values))]
    head += [_text(key) + _typed(value) for key, value in values.items()]
    offset = 0
    for name, shape, form, data in listed:
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head.append(_text(name) + sizes + struct.pack("<IQ", form.code, offset))
        offset += -(-data.nbytes // _ALIGN) * _ALIGN
    start = b"".join(head)
    with atomic_write(path) as file:
        file.write(start + bytes(-len(start) % _ALIGN))
        for *_, data in listed:
            file.write(np.ascontiguousarray(data).data)
            file.write(bytes(-data.nbytes % _ALIGN))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    code, letter = (_F32, "f") if value and isinstance(value[0], float) else (_I32, "i")
    return struct.pack(f"<IIQ{len(value)}{letter}", _ARRAY, code, len(value), *value)
