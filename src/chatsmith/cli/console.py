"""What every command prints through: one console for results, one for what is said about them, and plain JSON.

Results go to stdout, everything said on the way (progress, errors, hints) to stderr, so that a pipe carries results
only. rich is imported when something is drawn.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import json
import math
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from chatsmith.tables import plain as safe

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "bear_any_text",
    "err",
    "jsonable",
    "memory_text",
    "out",
    "print_error",
    "print_json",
    "safe",
    "say",
    "seconds_text",
    "write_text",
]
_PIPED_WIDTH = 100
# What our own tables and curves are drawn with, for a terminal that has no such signs.
_NEAREST = dict(zip("✓✗≠○…–−─│└×→␣·", "+x!o.---|+x>_.", strict=True))
_NEAREST |= {chr(block): "#" for block in range(0x2580, 0x25A0)} | {chr(dots): "*" for dots in range(0x2801, 0x2900)}


@cache
def out() -> Console:
    """The console of results (stdout); plain where it is not a terminal."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """The console of progress and messages (stderr)."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Quiet(Console):
        """rich would end the program when the reader of a pipe has gone; what to do then is the caller's to say."""

        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    # COLUMNS is what rich asks for itself; a shell does not hand it on unless somebody wants it.
    known = (sys.stderr if stderr else sys.stdout).isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Quiet(stderr=stderr, highlight=False, markup=False, emoji=False, width=None if known else _PIPED_WIDTH)


def bear_any_text() -> None:
    """Have stdout and stderr write near signs, else "?", for what their encoding lacks.

    What a model says, or the name of a file, must not end a command.
    """
    codecs.register_error("nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """The handler of what cannot be encoded, as `codecs.register_error` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_NEAREST.get(char, "?") for char in lacking), error.end


def say(text: str) -> None:
    """One line about the work, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_error(message: str, hint: str | None = None, word: str = "error: ") -> None:
    """An error as one line, and its hint below."""
    if sys.stderr.isatty():
        from rich.text import Text

        err().print(Text.assemble((word, "bold red"), safe(message)), soft_wrap=True)
        if hint:
            err().print(Text.assemble("  ", (safe(hint), "cyan")), soft_wrap=True)
        return
    say(f"{word}{message}")
    if hint:
        say(f"  {hint}")


def print_json(value: Any) -> None:
    """A result as JSON on stdout: dataclasses as objects, paths as text, numbers that are not finite as null.

    Where stdout is not UTF-8, characters beyond ASCII are escaped, so that nothing of a result is lost.
    """
    plain = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    json.dump(jsonable(value), sys.stdout, ensure_ascii=plain, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def jsonable(value: Any) -> Any:
    """`value` as what JSON can say."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int)) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, Path):
        return str(value)
    return jsonable(value.item()) if hasattr(value, "item") else str(value)


def write_text(text: str) -> None:
    """Text as it is made, on stdout: at once, and harmless where stdout is a terminal."""
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def memory_text(count: float) -> str:
    """A size of memory, in powers of two: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def seconds_text(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
