"""What a run reports: one line per step in `log.jsonl`.

A line is a JSON object. Lines are collected and written whole, a few times a second, in one system call at the end
of the file, so that logging costs next to nothing and a kill can at most cut the last line, which the reader drops.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import atomic_write
from chatsmith.store.tensors import disk_error

if TYPE_CHECKING:
    import torch

LOG = "log.jsonl"
_FLUSH_SECONDS = 0.5
_MAX_LINE = 2**20


@dataclass(slots=True)
class StepRecord:
    """One step as it is logged.

    `step` counts from 1, `loss` is in nats per predicted token, `gradient_norm` is taken before clipping, `tokens`
    counts all so far, `share_of_peak` is the model's FLOP/s over the measured matrix rate of this machine, `memory`
    the most bytes this process ever held (on a GPU: allocated there), `seconds` the time since the run began, resumed
    parts included. `rows` is the size of the batch. The held-out figures are there after an evaluation: nats per token,
    and bits per UTF-8 byte.
    `skipped` marks a step whose loss or gradient was not finite: its weights were left alone.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    tokens_per_second: float
    memory: int
    seconds: float
    progress: float
    rows: int
    share_of_peak: float | None = None
    held_out_loss: float | None = None
    bits_per_byte: float | None = None
    held_out: dict[str, float] = field(default_factory=dict)
    skipped: bool = False

    def to_line(self) -> str:
        """The record as a line of JSON; what does not apply is left out, what is not finite is null."""
        values: dict[str, Any] = {
            "step": self.step,
            "loss": _rounded(self.loss),
            "learning_rate": _rounded(self.learning_rate),
            "gradient_norm": _rounded(self.gradient_norm),
            "tokens": self.tokens,
            "tokens_per_second": _rounded(self.tokens_per_second),
            "share_of_peak": None if self.share_of_peak is None else _rounded(self.share_of_peak),
            "memory": self.memory,
            "seconds": round(self.seconds, 3),
            "progress": _rounded(self.progress),
            "rows": self.rows,
        }
        if self.held_out_loss is not None:
            values["held_out_loss"] = _rounded(self.held_out_loss)
        if self.bits_per_byte is not None:
            values["bits_per_byte"] = _rounded(self.bits_per_byte)
        if self.held_out:
            values["held_out"] = {name: _rounded(loss) for name, loss in self.held_out.items()}
        if self.skipped:
            values["skipped"] = True
        return json.dumps(values, allow_nan=False)


def _rounded(value: float) -> float | None:
    """Seven significant digits: what a float32 holds. JSON has no infinity and no NaN: they become null."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def finite(value: float) -> float | None:
    """The value, or None where it is infinite or no number: what JSON and people have no figure for."""
    return value if math.isfinite(value) else None


def peak_memory(device: torch.device) -> int:
    """The most bytes of memory this process ever held, where memory is short: on a GPU (allocated), else resident."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class LogWriter:
    """Appends records to `folder`/log.jsonl. A full disk raises `WorkError`."""

    def __init__(self, folder: Path, keep_steps: int = 0) -> None:
        """Open the log and keep its lines up to step `keep_steps`: a resumed run says each step once."""
        self.path = Path(folder) / LOG
        self._lines: list[str] = []
        self._flushed = time.monotonic()
        _truncate(self.path, keep_steps)
        self._handle: int | None = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, record: StepRecord) -> None:
        """Add a line; it reaches the file within half a second, or at the next `flush`."""
        self._lines.append(record.to_line() + "\n")
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self, *, sync: bool = False) -> None:
        """Write what is waiting; with `sync`, down to the disk."""
        self._flushed = time.monotonic()
        if self._handle is None:
            return
        data = "".join(self._lines).encode()
        self._lines.clear()
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            if sync:
                os.fsync(self._handle)
        except OSError as error:
            raise disk_error(self.path, error) from error

    def close(self) -> None:
        """Flush and close; further writes are an error of the caller."""
        try:
            self.flush()
        finally:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None


class NoLog:
    """A log that nobody keeps: that of the processes that do not lead."""

    def write(self, record: StepRecord) -> None:
        """Nothing."""

    def flush(self, *, sync: bool = False) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _truncate(path: Path, keep_steps: int) -> None:
    """Leave the lines of steps 1 … `keep_steps` and drop the rest, a broken last line included."""
    if not path.exists():
        return
    kept = [line for line, values in _lines(path) if values["step"] <= keep_steps]
    with atomic_write(path, "w") as file:
        file.writelines(line + "\n" for line in kept)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of `folder`/log.jsonl (or of the file itself), one per step; a cut last line is dropped.

    Raises `RequestError` where there is no log, `WorkError` naming the line where it is damaged in the middle.
    """
    path = Path(folder)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise RequestError(f"no {LOG} in {folder}", "name the folder that a training run wrote to")
    return [values for _, values in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, encoding="utf-8", errors="replace") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            if not line.endswith("\n"):
                return  # the process was killed while it wrote this one
            try:
                values = json.loads(line)
                if not isinstance(values["step"], int):
                    raise TypeError("step is not a number")
            except (ValueError, KeyError, TypeError) as error:
                if number == 1 and path.name != LOG:  # more likely somebody's own file than a log
                    name = "name the folder that a training run wrote to"
                    raise RequestError(f"{path} is not the log of a training run", name) from None
                raise WorkError(f"{path}: line {number} is damaged ({error})", "delete that line") from None
            yield line.rstrip("\n"), values
