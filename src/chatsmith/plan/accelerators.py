"""The catalogue of accelerators: peaks, memory, links and power, each row with its source and date.

The rows are data (`data/accelerators.csv`); a TOML file of one's own adds devices or replaces them by name. Peaks are
dense ones: the figures that count on sparsity, which some data sheets print, are halved.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from chatsmith.errors import RequestError, did_you_mean, nearest
from chatsmith.settings import from_mapping, load_toml

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# Bounds on what a file may say of a device: far above anything built, far below an overflow.
_LARGEST = 1e9
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device as its maker sells it.

    Peaks are dense TFLOP/s (TOP/s for int8), None where the device lacks the precision. `memory_gb` is as sold and read
    as 10⁹ bytes: what chips have beyond that is left to the driver and to fragmentation. `link_gb_s` is the total of
    both directions, as data sheets print it. `checked` names the fields that were read in the `source`; the others
    are from general knowledge.
    """

    name: str
    memory_gb: float
    bandwidth_gb_s: float
    vendor: str = ""
    architecture: str = ""
    form: str = ""
    fp32_tflops: float | None = None
    tf32_tflops: float | None = None
    fp16_tflops: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    link: str = ""
    link_gb_s: float | None = None
    power_w: float | None = None
    aliases: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    source: str = ""
    as_of: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise RequestError("an accelerator needs a name")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not _SMALLEST <= value <= _LARGEST:
                raise RequestError(f"{self.name}: {item.name} must be between 1e-6 and 1e9, not {value:g}")
        if all(self.peak_tflops(precision) is None for precision in PRECISIONS):
            raise RequestError(f"{self.name} has no peak rate", "add bf16_tflops = …")

    def peak_tflops(self, precision: Precision) -> float | None:
        """The dense peak of one precision in TFLOP/s (10¹² operations a second), None where there is none."""
        value: float | None = getattr(self, "int8_tops" if precision == "int8" else f"{precision}_tflops")
        return value

    @property
    def training_precision(self) -> Precision:
        """What one would train in: bf16 where there is any, else fp16, else the best that is left."""
        return next(p for p in ("bf16", "fp16", "tf32", "fp32", "fp8", "int8") if self.peak_tflops(p) is not None)

    @property
    def training_tflops(self) -> float:
        """The dense peak of `training_precision`, TFLOP/s."""
        peak = self.peak_tflops(self.training_precision)
        assert peak is not None
        return peak


@cache
def catalogue() -> dict[str, Accelerator]:
    """Every accelerator of the data file by its name."""
    return {device.name: device for device in map(_from_row, read_data("accelerators.csv"))}


def find_accelerator(name: str, extra: Iterable[Accelerator] = ()) -> Accelerator:
    """An accelerator by name or alias, in any spelling of case and dashes; `extra` ones come first.

    Raises `RequestError` with the nearest names.
    """
    known = {device.name: device for device in (*catalogue().values(), *extra)}
    spelled: dict[str, Accelerator] = {}
    for device in reversed(known.values()):  # so that a device of one's own wins over an alias of the catalogue's
        for word in (*device.aliases, device.name):
            spelled.setdefault(_plain(word), device)
    found = spelled.get(_plain(name))
    if found is None:
        words = sorted({word.lower() for device in known.values() for word in (*device.aliases, device.name)})
        close = nearest(name.lower(), words)
        raise RequestError(f"no accelerator called {name!r}", did_you_mean(name.lower(), close or known))
    return found


def load_accelerators(path: Path) -> tuple[Accelerator, ...]:
    """The devices of one's own TOML file: a table [[accelerator]] each, with the fields of `Accelerator`."""
    mapping = load_toml(path)
    tables = mapping.get("accelerator")
    if not isinstance(tables, list) or not tables or set(mapping) != {"accelerator"}:
        raise RequestError(f"{path} holds no accelerators", 'write [[accelerator]] with name = "…", bf16_tflops = …')
    return tuple(from_mapping(Accelerator, table, f"{path}: accelerator {n}") for n, table in enumerate(tables, 1))


def read_data(name: str) -> list[dict[str, str]]:
    """The rows of a data file of this room."""
    text = resources.files("chatsmith.plan").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _from_row(row: Mapping[str, str]) -> Accelerator:
    values: dict[str, Any] = {}
    for item in fields(Accelerator):
        text = row[item.name]
        if item.name in ("aliases", "checked"):
            values[item.name] = tuple(text.split())
        elif "float" in str(item.type):
            values[item.name] = float(text) if text else None
        else:
            values[item.name] = text
    return Accelerator(**values)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
