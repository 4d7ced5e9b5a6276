"""How fast this machine measures, kept, so that who only plans need not measure again, nor load torch.

`python -m chatsmith.machine_rates` measures and keeps; `rates` calls it in a process of its own where nothing is kept
for this machine yet. The file lies in the cache folder and names what it was measured on: another processor, number of
cores, torch or number of GPUs, and it is measured anew.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chatsmith import machine
from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import atomic_write, cache_dir
from chatsmith.settings import from_mapping, to_mapping

_FILE = "machine-rates.json"
_MAX_BYTES = 2**20
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured rates by device and precision ("cpu float32"): matrix multiply in FLOP/s, memory reading in bytes/s."""

    flops_per_second: dict[str, float]
    bytes_per_second: dict[str, float]


@dataclass(frozen=True, slots=True)
class Kept:
    """Rates and GPUs as they were measured, with what they were measured on."""

    measured_on: dict[str, str]
    rates: Rates
    gpus: tuple[machine.Gpu, ...] = ()


def measure(found: machine.Machine) -> Rates:
    """Measure the processor and the first GPU: about five seconds, and it loads torch."""
    devices: dict[str, tuple[str, ...]] = {"cpu": ("float32", "bfloat16")}
    if found.gpus:
        devices["cuda"] = ("float32", "bfloat16", "float16")
    return Rates(
        {
            f"{device} {kind}": machine.measure_gemm(kind, device=device)
            for device in devices
            for kind in devices[device]
        },
        {device: machine.measure_bandwidth(device=device) for device in devices},
    )


def measure_and_keep(found: machine.Machine | None = None) -> Kept:
    """Measure this machine now, and write it down for those who plan."""
    found = found or machine.describe(gpus=True)
    result = Kept(_here(), measure(found), found.gpus)
    with contextlib.suppress(OSError), atomic_write(_path(), "w") as file:  # a closed folder only costs time again
        file.write(_to_text(result))
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
    command = [sys.executable, "-m", "chatsmith.machine_rates"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkError(f"could not measure this machine: {error}", "chatsmith doctor") from None
    found = _from_text(done.stdout)
    if found is None:
        said = "".join(f": {line}" for line in done.stderr.strip().splitlines()[-1:])
        raise WorkError(f"could not measure this machine{said}", "chatsmith doctor")
    return found


def _to_text(result: Kept) -> str:
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
    return {"processor": found.cpu, "cores": str(found.cores), "torch": torch, "cards": str(cards)}


if __name__ == "__main__":
    print(_to_text(measure_and_keep()))
