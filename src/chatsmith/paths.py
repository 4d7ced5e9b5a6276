"""Where files go, and how they are written so that a fault never leaves half of one.

A file appears under its name only when it is whole: it is written to a temporary name beside it, synced, renamed, and
the folder is synced. A reader therefore sees the old file or the new one, also after a power cut.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from chatsmith.errors import DiskFull


def cache_dir() -> Path:
    """The folder for what can be made again.

    `$CHATSMITH_CACHE`, else `$XDG_CACHE_HOME/chatsmith`, else `~/.cache/chatsmith`.
    """
    chosen = os.environ.get("CHATSMITH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "chatsmith"


def data_dir() -> Path:
    """The folder for what cannot be made again: keys, conversations.

    `$CHATSMITH_DATA`, else `$XDG_DATA_HOME/chatsmith`, else `~/.local/share/chatsmith`.
    """
    chosen = os.environ.get("CHATSMITH_DATA")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".local" / "share") / "chatsmith"


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(path: Path) -> DiskFull:
    """The error that says so of a file that could not be written."""
    return DiskFull(
        f"the disk is full: could not write {path} (what was there before is untouched)",
        "free some space and run the same command again",
    )


def sync_dir(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[bool | None]:
    """Hold the lock of a folder, which dies with its holder.

    Gives False where another process has it, and None where there is no telling: no such folder, or a file system
    that knows no locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError:
            yield None
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path, mode: str = "wb", *, private: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success it is synced and takes the name, on failure it vanishes.

    Text modes are UTF-8 with "\\n" line ends. A `private` file is never readable by anybody but its owner. A full disk
    raises `DiskFull` and leaves what was there before; another `OSError` names `path`, not the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        # With its permissions, which the system holds to the umask: asking for that would change it for all threads.
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_dir(path.parent)
    except OSError as error:
        with suppress(OSError):  # a folder that nothing may be written in
            temporary.unlink(missing_ok=True)
        if is_full(error):
            raise disk_full(path) from error
        if error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def appears(path: Path, seconds: float) -> bool:
    """Whether a file that another process writes, on whatever machine, is seen here within so many seconds."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        with suppress(OSError):
            os.listdir(path.parent)  # has network file systems ask again, which remember for a while what is not there
        time.sleep(pause)
        pause = min(1.5 * pause, 0.5)
    return True
