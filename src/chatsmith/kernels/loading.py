"""What both libraries of kernels share: one switch, one compiler, one try at loading, one line on what came of it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

SWITCH = "CHATSMITH_KERNELS"
Found = tuple[ctypes.CDLL | None, str]
"""A library, or None, and a line that says which it is or why there is none."""


class Kernels:
    """A library that is loaded when it is first asked for.

    `load` is told what CHATSMITH_KERNELS says, where that is not to leave the kernels off; it may raise OSError and
    SubprocessError.
    """

    def __init__(self, load: Callable[[str], Found]) -> None:
        self._load = lru_cache(maxsize=1)(lambda: _try(load))

    def library(self) -> ctypes.CDLL | None:
        """The loaded kernels, or None where they cannot be built or are switched off."""
        return self._load()[0]

    def status(self) -> str:
        """One line: which kernels are in use, or why there are none."""
        return self._load()[1]


def switched() -> str | None:
    """What CHATSMITH_KERNELS says, or None where that is to leave the kernels off."""
    switch = os.environ.get(SWITCH, "").lower()
    return None if switch in ("off", "0", "no") else switch


def _try(load: Callable[[str], Found]) -> Found:
    switch = switched()
    if switch is None:
        return None, f"switched off by {SWITCH}"
    try:
        return load(switch)
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"could not be built: {first_line(error)}"


@contextmanager
def compiling(folder: Path, mode: int = 0o700) -> Iterator[Path]:
    """A folder within `folder`, which is made where it is not there, to compile in, and later gone.

    Processes of this machine take turns: those that are started together find what the first of them made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    with (folder / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder) as scratch:
        _wait_for(lock)
        yield Path(scratch)


def _wait_for(lock: IO[str]) -> None:
    """Hold the lock until the file is closed; without one where the system or its disk has none."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return


def first_line(error: Exception) -> str:
    """What went wrong, in the first line that a compiler or the system wrote about it."""
    return (str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__])[0]


def find_compiler() -> str | None:
    """The C compiler to use: $CC, else gcc, else cc."""
    for name in (os.environ.get("CC"), "gcc", "cc"):
        if name and (path := shutil.which(name)):
            return path
    return None


def processor() -> str:
    """What this processor can do: the line of its flags in /proc/cpuinfo; its name where there is none."""
    return _line("flags", "Features") or platform.processor() or platform.machine()


FULL_RATE = "AuthenticAMD"
"""Whose processors are taken to multiply pairs of bfloat16 in vectors faster than float32; none was at hand to measure.
Intel's, measured, begin such a product every second cycle (vdpbf16ps), and two of float32 in every one: where they have
no matrix tiles, float32 is twice as fast."""


def vendor() -> str:
    """Who made this processor, in the word of /proc/cpuinfo; empty where it does not say."""
    return _line("vendor_id").rpartition(":")[2].strip()


def _line(*names: str) -> str:
    """The first line of /proc/cpuinfo that begins with one of these names; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(names)), "")
