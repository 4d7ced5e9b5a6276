"""Which sizes train and run on this very machine, by its memory and the rates that were measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chatsmith.machine import Machine
from chatsmith.machine_rates import Kept
from chatsmith.plan.budget import achieved_share
from chatsmith.plan.generation import BITS, Device, plan_generation
from chatsmith.plan.memory import memory_of
from chatsmith.plan.memory_here import training_memory
from chatsmith.plan.parallel import Layout, Workload
from chatsmith.plan.quantities import bytes_text, duration_text, rate_text, short, speed_text
from chatsmith.plan.scaling import optimal_tokens
from chatsmith.specs import PRESETS, ModelSpec
from chatsmith.tables import Column, Report, Table

_CONTEXT = 2048  # tokens to train and generate with, or the model's own context where that is shorter


@dataclass(frozen=True, slots=True)
class SizeHere:
    """One size on this machine: bytes to train it a row at a time, seconds for its compute-optimal tokens, and the
    tokens per second it could make in each precision of its weights (None where they do not fit)."""

    name: str
    parameters: int
    training_bytes: float
    trains: bool
    training_tokens: float
    training_seconds: float | None
    tokens_per_second: dict[str, float | None]


@dataclass(frozen=True, slots=True, repr=False)
class FitsReport(Report):
    """Sizes on this machine."""

    machine: str
    memory_bytes: float
    flops_per_second: float
    bandwidth_bytes_per_second: float
    sizes: tuple[SizeHere, ...]

    @property
    def headline(self) -> str:
        """How many sizes, and where."""
        return f"of {len(self.sizes)} sizes on {self.machine}"

    def tables(self) -> list[Table]:
        """One table, a row for each size."""
        rows = tuple(
            (
                size.name,
                short(size.parameters),
                bytes_text(size.training_bytes) + ("" if size.trains else " ✗"),
                "–" if size.training_seconds is None else duration_text(size.training_seconds),
                *("–" if speed is None else speed_text(speed) for speed in size.tokens_per_second.values()),
            )
            for size in self.sizes
        )
        columns = (
            Column("model", "left"),
            Column("parameters"),
            Column("to train it"),
            Column("for its optimal tokens"),
            *(Column(f"{name}{', tokens/s' if name == 'f32' else ''}") for name in BITS),
        )
        note = (
            f"{self.machine}: {bytes_text(self.memory_bytes)} of memory, read at "
            f"{bytes_text(self.bandwidth_bytes_per_second)}/s; matrices at {rate_text(self.flops_per_second / 1e12)} "
            "(measured; chatsmith doctor measures again)\n"
            f"Training: AdamW, one row of at most {_CONTEXT:,} tokens at a time; ✗ needs more memory than there is. "
            "Optimal tokens by Besiroglu et al. 2024; the share of the matrix rate as measured on two cores. Tokens/s: "
            "what reading the weights at that rate allows, for one sequence, in each precision; – does not fit."
        )
        return [Table("What this machine can do", columns, rows, note=note)]


def this_device(found: Machine, kept: Kept) -> Device:
    """The device that would be used here: the first GPU, else the processor with the memory that is free."""
    kind = "cuda" if kept.gpus else "cpu"
    flops, bandwidth = kept.rates.flops(kind), kept.rates.reading(kind)
    if kept.gpus:
        return Device(kept.gpus[0].name, kept.gpus[0].memory, bandwidth, flops)
    return Device(f"this machine ({found.cores} cores)", found.memory.available, bandwidth, flops)


def fits_here(found: Machine, kept: Kept, specs: Mapping[str, ModelSpec] = PRESETS) -> FitsReport:
    """These decoders on this machine, smallest first."""
    device = this_device(found, kept)
    sizes = sorted(specs.items(), key=lambda pair: pair[1].parameters)
    rows = tuple(_size(name, spec, device, kept, found.cores) for name, spec in sizes)
    name = device.name if kept.gpus else f"{found.cores} cores of {found.cpu}"
    return FitsReport(name, device.memory_bytes, device.flops_per_second, device.bandwidth_bytes_per_second, rows)


def _training_bytes(spec: ModelSpec, context: int, kept: Kept, cores: int) -> float:
    """Bytes to train one row at a time with AdamW: as `chatsmith train` allocates here, or a GPU's bill."""
    if kept.gpus:
        return float(memory_of(Workload(spec, context, rows=1), Layout()).total)
    halves = kept.rates.flops("cpu", "bfloat16") > kept.rates.flops("cpu", "float32")
    natively = kept.rates.trains_natively("bfloat16" if halves else "float32") and spec.activation != "gelu"
    path: Literal["fused", "plain"] = "fused" if natively else "plain"
    size: Literal[2, 4] = 2 if halves else 4
    return training_memory(spec, 1, context, path=path, weight_bytes=size, optimizer="adamw", threads=cores).total


def _size(name: str, spec: ModelSpec, device: Device, kept: Kept, cores: int) -> SizeHere:
    context = min(spec.context, _CONTEXT)
    needed = _training_bytes(spec, context, kept, cores)
    trains = needed <= device.memory_bytes
    tokens = optimal_tokens(spec.parameters)
    rate = device.flops_per_second * achieved_share(spec.width)
    running = plan_generation(spec, context, 1, device).fits
    return SizeHere(
        name,
        spec.parameters,
        needed,
        trains,
        tokens,
        tokens * spec.training_flops_per_token(context) / rate if trains else None,
        {fit.precision: fit.tokens_per_second if fit.fits else None for fit in running},
    )
