"""Keys that open the API: made here, shown once, and kept only as hashes.

A key has 256 random bits, so that one round of SHA-256 is hash enough. The file is read again when it changes: a key
that is removed opens nothing from then on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import atomic_write, data_dir

_PREFIX = "csk-"
_MOST = 10_000
_MAX_BYTES = 16 * 2**20  # more than the most keys take, with the longest names


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key: its name, the SHA-256 of it, its last characters, and when it was made (Unix time)."""

    name: str
    sha256: str
    end: str
    made: int


class Keys:
    """The keys of one file."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or data_dir() / "keys.json"
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        """The keys as the file has them now. Raises `WorkError` for a damaged file."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return ()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._keys, self._stamp = self._read(), stamp
        return self._keys

    def _read(self) -> tuple[Key, ...]:
        try:
            with open(self.path, encoding="utf-8") as file:
                return tuple(Key(**entry) for entry in json.loads(file.read(_MAX_BYTES))["keys"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise WorkError(f"{self.path} cannot be read: {error}", "delete it, and make new keys") from None

    def find(self, given: str) -> str | None:
        """The name of the key that was given; the time it takes does not tell how close it came."""
        digest = hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self.all():
            if hmac.compare_digest(digest, key.sha256):
                found = key.name
        return found

    def new(self, name: str) -> str:
        """Make a key; it is returned, and cannot be had again."""
        if not name.isprintable() or not 1 <= len(name) <= 64:
            raise RequestError("a key's name has 1 to 64 printable characters")
        key = _PREFIX + secrets.token_urlsafe(32)
        with self._alone():
            kept = self.all()
            if any(one.name == name for one in kept):
                raise RequestError(f"there is a key called {name!r} already", "take another name, or remove it first")
            if len(kept) >= _MOST:
                raise RequestError(f"there are {_MOST:,} keys already", "chatsmith keys remove NAME")
            made = Key(name, hashlib.sha256(key.encode()).hexdigest(), key[-4:], int(time.time()))
            self._write((*kept, made))
        return key

    def remove(self, name: str) -> None:
        """Let a key open nothing any more."""
        with self._alone():
            kept = self.all()
            if all(one.name != name for one in kept):
                raise RequestError(f"there is no key called {name!r}", "chatsmith keys list")
            self._write(tuple(one for one in kept if one.name != name))

    def _write(self, keys: tuple[Key, ...]) -> None:
        with atomic_write(self.path, "w", private=True) as file:
            json.dump({"keys": [asdict(key) for key in keys]}, file, indent=1)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One program at a time changes the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
