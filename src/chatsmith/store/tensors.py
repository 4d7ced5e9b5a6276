"""Safetensors files, distrusted: every header is checked before a byte behind it is used. No torch.

A file is eight bytes of header length, a JSON header (name → dtype, shape, byte range) and the tensors' bytes. The
checks come first and name the file, the tensor and what to do; the file is then mapped, so that a tensor costs memory
only when it is touched.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import disk_full, is_full

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
_MAX_INDEX_BYTES = 64 * 2**20
_MAX_DIMENSIONS = 16

# Bytes per number of every dtype we read; the library knows a few more, of less than a byte, that no model here uses.
_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_NUMPY: dict[str, Any] = {
    "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64, "I8": np.int8, "U8": np.uint8,
}  # fmt: skip
AGAIN = "copy or download it again"
_PIECE = 2**16  # bytes of a text that are decoded at once


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies: its file, dtype (as safetensors names it), shape and first byte."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * _DTYPE_BYTES[self.dtype]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors a safetensors file holds, after checking that its header tells the truth about the file.

    Raises `RequestError` when the file is missing or unreadable and `WorkError` when it is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if start.startswith(b"version "):
                raise WorkError(f"{path} is a Git LFS pointer, not the weights", "run git lfs pull in its folder")
            length = int.from_bytes(start, "little")
            if size < 8 or length > size - 8 or length > MAX_HEADER_BYTES:
                raise WorkError(
                    f"{path} is damaged: its header claims {length} bytes, the file has {size}"
                    f" and a header at most {MAX_HEADER_BYTES}",
                    AGAIN,
                )
            header = file.read(length)
    except FileNotFoundError:
        raise RequestError(f"no file {path}", "the model folder is incomplete; " + AGAIN) from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    return _check_entries(path, _parse_json(path, header), 8 + length, size - 8 - length)


def utf8(raw: bytes | memoryview) -> str:
    """A text from a file. Raises `UnicodeDecodeError` where it is none.

    Piece by piece: what claims to be a text costs no more memory than what is one, up to the first byte that is not.
    """
    if len(raw) <= _PIECE:
        return str(raw, "utf-8")
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces = (raw[at : at + _PIECE] for at in range(0, len(raw), _PIECE))
    return "".join([decoder.decode(piece) for piece in pieces]) + decoder.decode(b"", final=True)


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ValueError("a name appears twice")
        return mapping

    try:
        value = json.loads(utf8(text), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{path} is damaged: its header is not valid JSON ({error})", AGAIN) from None
    if not isinstance(value, dict):
        raise WorkError(f"{path} is damaged: its header is not a JSON object", AGAIN)
    return value


def _check_entries(path: Path, header: dict[str, Any], data: int, data_bytes: int) -> dict[str, TensorInfo]:
    """Every entry well formed, and the byte ranges lying one after the other over the whole of the data."""
    header.pop("__metadata__", None)
    tensors: dict[str, TensorInfo] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        info, begin, end = _check_entry(path, name, entry)
        if end > data_bytes:
            raise WorkError(
                f"{path} is cut short: {name} ends at byte {end} of the data and there are {data_bytes}", AGAIN
            )
        tensors[name] = replace(info, begin=data + begin)
        ranges.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(ranges):
        if begin != reached:
            what = "overlaps the tensor before it" if begin < reached else "leaves a gap before it"
            raise WorkError(f"{path} is damaged: {name} {what} (byte {begin}, not {reached})", AGAIN)
        reached = end
    if reached != data_bytes:
        raise WorkError(f"{path} is damaged: {data_bytes - reached} bytes at its end belong to no tensor", AGAIN)
    return tensors


def _check_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    def whole(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**63

    def bad(why: str) -> WorkError:
        return WorkError(f"{path} is damaged: {name} {why}", AGAIN)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise bad("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPE_BYTES:
        raise WorkError(f"{path}: {name} has the unknown dtype {dtype!r}", "known: " + ", ".join(_DTYPE_BYTES))
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(whole, shape)):
        raise bad("has a shape that is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(whole, offsets)) or offsets[0] > offsets[1]:
        raise bad("has data_offsets that are not a byte range")
    info = TensorInfo(path, dtype, tuple(shape))
    if info.nbytes != offsets[1] - offsets[0]:
        raise bad(f"of shape {shape} and {dtype} needs {info.nbytes} bytes but has {offsets[1] - offsets[0]}")
    return info, offsets[0], offsets[1]


def read_headers(files: Iterable[Path]) -> dict[str, TensorInfo]:
    """The tensors of several files; no name may be in two of them."""
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in read_header(file).items():
            if name in tensors:
                raise WorkError(f"{name} is in both {tensors[name].file} and {file}", AGAIN)
            tensors[name] = info
    return tensors


class Arrays:
    """The tensors of one or several safetensors files as numpy arrays, mapped; bfloat16 comes as uint16."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = list(files)
        self.tensors = read_headers(self.files)
        self._maps: dict[Path, NDArray[np.uint8]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)

    def read(self, name: str) -> NDArray[Any]:
        """One tensor as it lies in the file, read-only."""
        info = self.tensors[name]
        if info.dtype not in _NUMPY:
            raise WorkError(f"{info.file}: {name} is stored as {info.dtype}, which is not read here")
        if info.file not in self._maps:
            self._maps[info.file] = np.memmap(info.file, np.uint8, "r")
        part = self._maps[info.file][info.begin : info.begin + info.nbytes]
        return np.asarray(part).view(_NUMPY[info.dtype]).reshape(info.shape)


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: the single one, or the shards that the index names.

    Raises `RequestError` with what to do when there are none, or when only pickled weights are there.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return _indexed_shards(folder)
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if pickled:
        raise RequestError(
            f"{folder} holds only pickled weights ({pickled[0]}); chatsmith reads safetensors, which cannot run code",
            "convert it where you trust it: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )
    raise RequestError(f"no {SINGLE} in {folder}", "the model folder is incomplete; " + AGAIN)


def _indexed_shards(folder: Path) -> list[Path]:
    path = folder / INDEX
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise WorkError(f"{path} is larger than {_MAX_INDEX_BYTES} bytes", AGAIN)
    mapping = _parse_json(path, path.read_bytes()).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
        raise WorkError(f"{path} has no weight_map from tensor to file", AGAIN)
    names = sorted(set(mapping.values()))
    for name in names:
        # A plain file name: an index must not lead out of its folder.
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise WorkError(f"{path} names {name!r}, which is not a safetensors file of this folder")
        if not (folder / name).is_file():
            raise RequestError(f"shard {name} is missing in {folder} ({len(names)} shards)", AGAIN)
    held = {tensor: name for name in names for tensor in read_header(folder / name)}
    for tensor, name in mapping.items():
        if held.get(tensor) != name:
            raise WorkError(f"{path} says {tensor} is in {name}, which does not hold it", AGAIN)
    return [folder / name for name in names]


def disk_error(path: Path, error: OSError) -> WorkError:
    """What to tell a person when writing `path` failed."""
    if is_full(error):
        return disk_full(path)
    return WorkError(f"could not write {path}: {error.strerror or error} (what was there before is untouched)")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
