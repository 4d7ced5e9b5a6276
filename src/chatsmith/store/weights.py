"""Safetensors files and torch: reading through the library's map, writing whole or not at all.

What a file may say is checked in `tensors`, before the library opens it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from chatsmith.errors import WorkError
from chatsmith.store.tensors import AGAIN, SINGLE, disk_error, read_headers


class Weights:
    """The tensors of one or several safetensors files, checked; `read` maps one into memory."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = list(files)
        self.tensors = read_headers(self.files)
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
            raise WorkError(f"cannot read {name} from {file}: {error}", AGAIN) from None
        return tensor


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


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: equal exactly when the weights are, however they are filed."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
