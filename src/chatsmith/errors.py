"""Errors that say what is wrong and what to type next.

Every error a user can meet derives from `ChatsmithError`. The command line prints it as one line and a hint and
leaves with its `exit_code`: 2 when the request was wrong, 1 when the work failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ChatsmithError(Exception):
    """An error with a one-line message and, where there is one, a hint at what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class RequestError(ChatsmithError):
    """The request cannot be met as it was put: a bad option, a missing file, a contradictory recipe. Exit code 2."""

    exit_code = 2


class WorkError(ChatsmithError):
    """The request was sound but the work failed: disk full, damaged file, interrupted run. Exit code 1."""

    exit_code = 1


class DiskFull(WorkError):
    """There is no space left to write to; who knows how the work goes on says it in place of the hint."""


class Busy(WorkError):
    """There is too much to do already: the same request may be met later."""


class MissingExtra(RequestError):
    """An optional library is needed and not installed; the hint is the pip command that adds it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed", f'pip install "chatsmith[{extra}]"')


def nearest(word: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Those of the choices that begin with `word`, then those closest to it in spelling (empty when none is close)."""
    known = list(choices)
    longer = [choice for choice in known if word and choice.startswith(word)]
    return list(dict.fromkeys([*longer, *difflib.get_close_matches(word, known, n=count, cutoff=0.5)]))[:count]


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """A hint that names the nearest choices, or lists them all when none is near; None without choices."""
    known = list(choices)
    close = nearest(word, known)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + ", ".join(known) if known else None
