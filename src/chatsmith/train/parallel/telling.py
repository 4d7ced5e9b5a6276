"""What the processes of a launch report as wrong: to their launcher, which tells once what one of them or all say.

A process that only lost touch with another knows least of why; its word is told where nobody has a better one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_REPORTS = "CHATSMITH_REPORTS"
"""The launcher's folder for what its processes report."""


@dataclass(frozen=True, slots=True)
class Report:
    """An error of a process, and the exit code that it ended with."""

    message: str
    hint: str | None
    exit_code: int


def report(message: str, hint: str | None, exit_code: int) -> bool:
    """Leave an error to the launcher of this process; False where there is none, or it cannot be reached."""
    folder, rank = os.environ.get(_REPORTS), os.environ.get("RANK")
    if not folder or not rank:
        return False
    try:
        text = json.dumps([message, hint, exit_code])
        (Path(folder) / f"{int(rank):05d}.json").write_text(text, encoding="utf-8")
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def reports() -> Iterator[Path]:
    """A folder that processes started meanwhile report into."""
    with TemporaryDirectory(prefix="chatsmith-") as folder:
        os.environ[_REPORTS] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[_REPORTS]


def taken(folder: Path) -> list[Report]:
    """What was reported, each thing once; the folder is empty then.

    What one process said is left out where it only hands on what another did.
    """
    found: list[Report] = []
    for path in sorted(folder.iterdir()):
        try:
            told = Report(*json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            continue  # killed while it wrote
        finally:
            path.unlink()
        if not any(told.message.endswith(before.message) for before in found):
            found.append(told)
    return found
