"""What the benches share: probes of the machine beside each sample, turns, medians, and where results are written.

Two threads of a virtual machine run at one or at two cores' speed, as the host places them, and change over minutes.
So sides take turns within a round, a round begins with another side each time, and beside every sample stand the rates
of matrix products and of reading memory that the machine gave just before it.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chatsmith import machine
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.speed import matrix_rate


@dataclass(frozen=True, slots=True)
class Probe:
    """What the machine gave just now: GFLOP/s of square products (PyTorch's or ours, whichever is faster) in both
    precisions, and GB/s of reading memory."""

    bfloat16: float
    float32: float
    bandwidth: float

    def __str__(self) -> str:
        return f"machine: bf16 {self.bfloat16:4.0f}, f32 {self.float32:4.0f} GFLOP/s, {self.bandwidth:3.0f} GB/s"


def probe(seconds: float = 0.15) -> Probe:
    """Measure for about three times `seconds`."""
    rates = [matrix_rate(kind, seconds) / 1e9 for kind in ("bfloat16", "float32")]
    return Probe(*rates, max(machine.measure_bandwidth(seconds), _native_rate()) / 1e9)


def _native_rate() -> float:
    """Reading memory by the kernels of generation, where there are any: PyTorch's reading does not reach the limit."""
    from chatsmith.kernels.infer import build
    from chatsmith.kernels.infer.session import read_rate

    return read_rate(threads=machine.usable_cores()) if build.library() is not None else 0.0


def turns(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Each name once per round, beginning with another one each time: (round from 0, name)."""
    for number in range(rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            yield number, name


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def circumstances() -> dict[str, Any]:
    """What a figure depends on: the machine, the versions, and the commit where there is one."""
    about = machine.describe()
    try:
        asked = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    except FileNotFoundError:
        commit = ""
    return {
        "cpu": about.cpu,
        "cores": about.cores,
        "python": platform.python_version(),
        "versions": machine.versions(),
        "commit": commit or None,
    }


def require_gpu() -> None:
    """End with a line where there is no GPU to measure."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("error: this bench needs a CUDA device")


def vocabulary(folder: Path | None) -> Tokenizer:
    """The vocabulary in a folder, or a small one made now: a model with random weights writes with any."""
    if folder is not None:
        return Tokenizer.load(folder)
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 50], vocab_size=300)


def as_json(results: dict[str, Any]) -> str:
    """Results as one line of JSON, which a bench prints last."""
    return json.dumps(results, default=lambda value: asdict(value))
