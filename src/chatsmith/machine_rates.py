"""How fast this machine measures, kept, so that who only plans need not measure again, nor load torch.

`chatsmith.measure` measures, far above this floor; `rates` calls it by name, in a process of its own, where nothing is
kept for this machine yet. The file lies in the cache folder and names what it was measured on: another processor,
number of cores, torch, number of GPUs or switch of the kernels, and it is measured anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chatsmith import machine
from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import atomic_write, cache_dir
from chatsmith.settings import from_mapping, to_mapping

NATIVE = ", native kernels"
_FILE = "machine-rates.json"
_MAX_BYTES = 2**20
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured rates: matrix multiply in FLOP/s by device and precision, memory reading in bytes/s by device.

    PyTorch's are named "cpu float32" and "cpu"; those of our own kernels have `NATIVE` behind that, where they serve.
    """

    flops_per_second: dict[str, float]
    bytes_per_second: dict[str, float]

    def flops(self, device: str, kind: str = "") -> float:
        """The best rate of a device in one precision, or in any, whichever computes; 0 where none was measured."""
        return _best(self.flops_per_second, f"{device} {kind}")

    def reading(self, device: str) -> float:
        """The best rate of reading a device's memory, whichever reads."""
        return _best(self.bytes_per_second, device)

    def trains_natively(self, kind: str) -> bool:
        """Whether our own kernels multiply in this precision, and so compute the steps of training."""
        return f"cpu {kind}{NATIVE}" in self.flops_per_second


@dataclass(frozen=True, slots=True)
class Kept:
    """Rates and GPUs as they were measured, with what they were measured on."""

    measured_on: dict[str, str]
    rates: Rates
    gpus: tuple[machine.Gpu, ...] = ()


def keep(rates: Rates, gpus: tuple[machine.Gpu, ...] = ()) -> Kept:
    """Write down what was measured on this machine, for those who plan."""
    result = Kept(_here(), rates, gpus)
    with contextlib.suppress(OSError), atomic_write(_path(), "w") as file:  # a closed folder only costs time again
        file.write(to_text(result))
    return result


def kept() -> Kept | None:
    """What was measured on this very machine before; None where nothing was, or where it has changed since."""
    try:
        with open(_path(), encoding="utf-8") as file:
            result = _from_text(file.read(_MAX_BYTES))
    except OSError:
        return None
    return result if result is not None and result.measured_on == _here() else None


def rates(note: Callable[[str], None] = lambda text: None) -> Kept:
    """The rates of this machine: those kept, else measured now in a process of its own (`note` is told so first).

    Raises `WorkError` where that process fails.
    """
    found = kept()
    if found is not None:
        return found
    note("measuring this machine once, which takes about ten seconds; chatsmith doctor measures it anew")
    command = [sys.executable, "-m", "chatsmith.measure"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkError(f"could not measure this machine: {error}", "chatsmith doctor") from None
    found = _from_text(done.stdout)
    if found is None:
        said = "".join(f": {line}" for line in done.stderr.strip().splitlines()[-1:])
        raise WorkError(f"could not measure this machine{said}", "chatsmith doctor")
    return found


def _best(rates: dict[str, float], start: str) -> float:
    return max((rate for name, rate in rates.items() if name.startswith(start)), default=0.0)


def to_text(result: Kept) -> str:
    return json.dumps(to_mapping(result), indent=2)


def _from_text(text: str) -> Kept | None:
    try:
        return from_mapping(Kept, json.loads(text), _FILE)
    except (ValueError, RecursionError, RequestError):
        return None


def _path() -> Path:
    return cache_dir() / _FILE


def _here() -> dict[str, str]:
    """What the rates depend on, as far as it can be read without torch."""
    found = machine.describe()
    cards = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*")) + sum(1 for _ in Path("/dev/dri").glob("renderD*"))
    torch = machine.versions().get("torch", "")
    kernels = os.environ.get("CHATSMITH_KERNELS", "on")
    about = {"processor": found.cpu, "cores": str(found.cores), "torch": torch, "cards": str(cards)}
    return about | {"kernels": kernels}
