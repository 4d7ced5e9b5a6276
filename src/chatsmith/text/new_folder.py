"""A folder that appears under its name only when it is whole, with a checksum for each of its files."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.paths import locked, sync_dir
from chatsmith.text.shard_manifest import MANIFEST, FileRecord


class NewFile:
    """One file under way, with its running checksum."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = open(path, "xb")  # noqa: SIM115 (closed by `close` or `abandon`)

    def write(self, data: np.ndarray | bytes) -> None:
        """Append bytes, or an array as it lies in memory."""
        array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._digest.update(view)
        self._file.write(view)
        self.size += len(view)

    def close(self) -> FileRecord:
        """Bring the file safely to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileRecord(self.size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Close the file whatever the disk says to what is still to be written."""
        with suppress(OSError):
            self._file.close()


class NewFolder:
    """The folder under way: its open files, and the records of those that are whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, FileRecord] = {}
        self._open: set[NewFile] = set()

    def create(self, name: str) -> NewFile:
        """Begin a file."""
        file = NewFile(self.path / name)
        self._open.add(file)
        return file

    def close(self, file: NewFile) -> None:
        """End a file and keep its record."""
        self.records[file.name] = file.close()
        self._open.discard(file)

    def write(self, name: str, data: bytes) -> None:
        """A whole file."""
        file = self.create(name)
        file.write(data)
        self.close(file)

    def abandon(self) -> None:
        """Close what is open."""
        for file in self._open:
            file.abandon()
        self._open.clear()


def check_target(folder: Path, overwrite: bool, mark: str = MANIFEST) -> None:
    """Refuse to write where something is that must stay: see `write_folder`."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise RequestError(f"{folder} is a file; tokens are written to a folder", "name another place")
    if not any(folder.iterdir()):
        return
    if not (folder / mark).is_file():
        raise RequestError(f"{folder} holds something other than tokens", "name a new folder")
    if not overwrite:
        raise RequestError(f"{folder} already holds tokens", "name a new folder, or add --overwrite")


@contextmanager
def write_folder(folder: Path, overwrite: bool, mark: str = MANIFEST) -> Iterator[NewFolder]:
    """A new folder to fill; leaving the block gives it its name, an exception leaves nothing of it.

    What may be replaced is an empty folder and, with `overwrite`, one with a file `mark`; anything else is refused
    before work begins. What killed writers left beside it is removed first.
    """
    check_target(folder, overwrite, mark)
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    for left in folder.parent.glob(f"{prefix}*.tmp"):
        with locked(left) as alone:
            if alone:  # where there is no telling, nothing is ever taken for left
                shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=folder.parent))
    new = NewFolder(temporary)
    try:
        with locked(temporary):
            yield new
            _take_name(temporary, folder, overwrite, mark)
    finally:
        new.abandon()
        shutil.rmtree(temporary, ignore_errors=True)


def _take_name(temporary: Path, folder: Path, overwrite: bool, mark: str) -> None:
    """Give a whole folder its name; the one that had it stays whole under another until then."""
    os.chmod(temporary, 0o755)
    sync_dir(temporary)
    check_target(folder, overwrite, mark)
    before = temporary.with_suffix(".old")
    replaced = folder.is_dir()
    if replaced:
        os.rename(folder, before)
    try:
        os.rename(temporary, folder)
    except BaseException:
        if replaced:
            os.rename(before, folder)
        raise
    sync_dir(folder.parent)
    shutil.rmtree(before, ignore_errors=True)
