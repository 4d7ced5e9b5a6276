"""Safetensors files, distrusted: every header is checked before a byte behind it is used.

A file is eight bytes of header length, a JSON header (name → dtype, shape, byte range) and the tensors' bytes. The
checks come first and name the file, the tensor and what to do; the safetensors library then maps the file, so that a
tensor costs memory only when it is touched.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from chatsmith.errors import RequestError, WorkError

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
_AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies: its file, dtype (as safetensors names it) and shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

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
                    _AGAIN,
                )
            header = file.read(length)
    except FileNotFoundError:
        raise RequestError(f"no file {path}", "the model folder is incomplete; " + _AGAIN) from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    return _check_entries(path, _parse_json(path, header), size - 8 - length)


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ValueError("a name appears twice")
        return mapping

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{path} is damaged: its header is not valid JSON ({error})", _AGAIN) from None
    if not isinstance(value, dict):
        raise WorkError(f"{path} is damaged: its header is not a JSON object", _AGAIN)
    return value


def _check_entries(path: Path, header: dict[str, Any], data_bytes: int) -> dict[str, TensorInfo]:
    """Every entry well formed, and the byte ranges lying one after the other over the whole of the data."""
    header.pop("__metadata__", None)
    tensors: dict[str, TensorInfo] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        info, begin, end = _check_entry(path, name, entry)
        if end > data_bytes:
            raise WorkError(
                f"{path} is cut short: {name} ends at byte {end} of the data and there are {data_bytes}", _AGAIN
            )
        tensors[name] = info
        ranges.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(ranges):
        if begin != reached:
            what = "overlaps the tensor before it" if begin < reached else "leaves a gap before it"
            raise WorkError(f"{path} is damaged: {name} {what} (byte {begin}, not {reached})", _AGAIN)
        reached = end
    if reached != data_bytes:
        raise WorkError(f"{path} is damaged: {data_bytes - reached} bytes at its end belong to no tensor", _AGAIN)
    return tensors


def _check_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    def whole(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**63

    def bad(why: str) -> WorkError:
        return WorkError(f"{path} is damaged: {name} {why}", _AGAIN)

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


class Weights:
    """The tensors of one or several safetensors files, checked; `read` maps one into memory."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = list(files)
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, info in read_header(file).items():
                if name in self.tensors:
                    raise WorkError(f"{name} is in both {self.tensors[name].file} and {file}", _AGAIN)
                self.tensors[name] = info
        self._open: dict[Path, Any] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU; its memory is the file's until it is written to."""
        file = self.tensors[name].file
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt")
            tensor: Tensor = self._open[file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WorkError(f"cannot read {name} from {file}: {error}", _AGAIN) from None
        return tensor


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
    raise RequestError(f"no {SINGLE} in {folder}", "the model folder is incomplete; " + _AGAIN)


def _indexed_shards(folder: Path) -> list[Path]:
    path = folder / INDEX
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise WorkError(f"{path} is larger than {_MAX_INDEX_BYTES} bytes", _AGAIN)
    mapping = _parse_json(path, path.read_bytes()).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
        raise WorkError(f"{path} has no weight_map from tensor to file", _AGAIN)
    names = sorted(set(mapping.values()))
    for name in names:
        # A plain file name: an index must not lead out of its folder.
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise WorkError(f"{path} names {name!r}, which is not a safetensors file of this folder")
        if not (folder / name).is_file():
            raise RequestError(f"shard {name} is missing in {folder} ({len(names)} shards)", _AGAIN)
    held = {tensor: name for name in names for tensor in read_header(folder / name)}
    for tensor, name in mapping.items():
        if held.get(tensor) != name:
            raise WorkError(f"{path} says {tensor} is in {name}, which does not hold it", _AGAIN)
    return [folder / name for name in names]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file and sync it. Tensors that share memory are written apart, bit for bit.

    Raises `WorkError` when the disk is full or cannot be written; no half file is left under the name.
    """
    seen: set[int] = set()
    ready: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        ready[name] = own.clone() if storage in seen else own
        seen.add(storage)
    try:
        path.touch()  # takes the permissions of an ordinary new file, which the library does not give
        mode = path.stat().st_mode
        save_file(ready, path, metadata={"format": "pt"})
        os.chmod(path, mode & 0o777)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise WorkError(f"could not write {path}: {error}") from error
        raise disk_error(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> WorkError:
    """What to tell a person when writing `path` failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkError(
            f"the disk is full: could not write {path} (what was there before is untouched)",
            "free some space and run the same command again",
        )
    return WorkError(f"could not write {path}: {error.strerror or error} (what was there before is untouched)")


def plan_shards(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """Tensor names per file, in order, no file above `limit` bytes unless one tensor alone is larger."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {f"model-{n:05d}-of-{len(groups):05d}.safetensors": names for n, names in enumerate(groups, 1)}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: equal exactly when the weights are, however they are filed."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
