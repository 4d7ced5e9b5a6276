"""`chatsmith doctor`: what this machine has, how fast it measures, and the command that adds each missing part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chatsmith import machine
from chatsmith.kernels import build
from chatsmith.kernels.loading import find_compiler
from chatsmith.machine_rates import Rates

if TYPE_CHECKING:
    from rich.table import Table


def doctor(
    *,
    quick: Annotated[bool, Parameter(help="Measure nothing and leave torch alone: no rates, no GPUs.")] = False,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> None:
    """Show the cores, instruction sets, memory and GPUs of this machine, measure its speed, and name missing parts.

    Measuring takes about five seconds, and `chatsmith plan` uses what was measured. What is missing is optional; the
    command that adds it is beside it.
    """
    from chatsmith.cli.console import out, print_json

    found = machine.describe(gpus=not quick)
    rates = None if quick else _rates(found)
    kernels = None if quick else build.status()
    parts, versions = (*machine.optional_parts(), _c_compiler()), machine.versions()
    if json:
        print_json({"machine": found, "rates": rates, "kernels": kernels, "versions": versions, "parts": parts})
        return
    out().print(_machine_table(found, rates, kernels, versions))
    out().print(_parts_table(parts))


def _rates(found: machine.Machine) -> Rates:
    from chatsmith.measure import measure_and_keep

    return measure_and_keep(found).rates


def _c_compiler() -> machine.Part:
    purpose = "native kernels: much faster training on the CPU"
    return machine.Part("C compiler", purpose, find_compiler() is not None, "apt-get install gcc")


def _machine_table(found: machine.Machine, rates: Rates | None, kernels: str | None, versions: dict[str, str]) -> Table:
    from rich.table import Table

    from chatsmith.cli.console import memory_text

    table = Table(show_header=False, box=None, title="This machine", title_justify="left", title_style="bold")
    share = "" if found.cores == found.installed_cores else f" of {found.installed_cores} (affinity or quota)"
    table.add_row("processor", f"{found.cpu}, {found.architecture}")
    table.add_row("cores", f"{found.cores}{share}")
    table.add_row("instructions", " ".join(found.isa) or "the base set only")
    table.add_row("memory", f"{memory_text(found.memory.available)} free of {memory_text(found.memory.total)}")
    for gpu in found.gpus:
        table.add_row("GPU", f"{gpu.name}, {memory_text(gpu.memory)}, compute capability {gpu.capability}")
    if rates:
        if not found.gpus:
            table.add_row("GPU", "none that torch can use")
        for name, value in rates.flops_per_second.items():
            table.add_row(f"matmul {name}", f"{value / 1e9:,.0f} GFLOP/s")
        for name, value in rates.bytes_per_second.items():
            table.add_row(f"memory {name}", f"{value / 1e9:,.1f} GB/s read")
    if kernels is not None:
        table.add_row("native kernels", kernels)
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    return table


def _parts_table(parts: tuple[machine.Part, ...]) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, title="Optional parts", title_justify="left", title_style="bold")
    for part in parts:
        table.add_row("✓" if part.found else "–", part.name, part.purpose, "" if part.found else part.command)
    return table
