"""`[parallel] layout = "auto"`: the layout for the processes and devices at hand.

Where the accelerators are in the planner's catalogue its search decides (`chatsmith plan --layout`). On processors, and
on accelerators that it does not know, the model is divided no further than memory makes it: replicas, which send
least; else weights sharded over all processes; else with activations recomputed as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from chatsmith import machine
from chatsmith.errors import RequestError
from chatsmith.kernels import native
from chatsmith.models import fused
from chatsmith.plan.accelerators import Accelerator, find_accelerator
from chatsmith.plan.emit import settings
from chatsmith.plan.layout import divisors, search
from chatsmith.plan.layout_plan import LayoutPlan
from chatsmith.plan.memory import memory_of
from chatsmith.plan.memory_here import process_memory, training_memory
from chatsmith.plan.parallel import Layout, Workload, links_of
from chatsmith.plan.quantities import bytes_text
from chatsmith.settings import apply_overrides, from_mapping, to_mapping
from chatsmith.specs import ModelSpec
from chatsmith.train.parallel.layouts import check, fill, named
from chatsmith.train.parallel.process import Process
from chatsmith.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Hardware:
    """What each of `size` processes has: bytes of memory, and an accelerator by the name that its driver gives it.

    `per_node` of the processes share a machine; `accelerator` is empty where they compute on processors.
    """

    size: int
    per_node: int
    memory: float
    accelerator: str = ""


def at_hand(process: Process) -> Hardware:
    """The hardware of all processes, which is that of the least of them. Collective."""
    if process.device.type == "cuda":
        properties = torch.cuda.get_device_properties(process.device)
        own = (float(properties.total_memory), str(properties.name))
    else:
        own = (machine.memory().available / process.local_size, "")
    every: list[tuple[float, str]] = [own] * process.size
    dist.all_gather_object(every, own)
    return Hardware(process.size, process.local_size, *min(every))


def choose(
    recipe: Recipe, spec: ModelSpec, hardware: Hardware, dtype: torch.dtype, threads: int = 1
) -> tuple[Recipe, str]:
    """The recipe with its layout settled for this hardware, and what was chosen in one line.

    Layers compute in `dtype`, and processes have `threads` each. Raises `RequestError` where the planner knows the
    accelerators and finds nothing that fits them.
    """
    known = accelerator(hardware.accelerator) if hardware.accelerator else None
    if known is not None:
        known = replace(known, memory_gb=hardware.memory / 1e9)
        changes = [f"{key}={value}" for key, value in settings(_planned(recipe, spec, known, hardware)).items()]
        reason = f"the planner's for {hardware.size} × {known.name}"
    else:
        changes, reason = _by_memory(recipe, spec, hardware, dtype, threads)
    mapping = apply_overrides(to_mapping(recipe), [*changes, "parallel.layout=given"])
    chosen = from_mapping(Recipe, mapping, "the layout that was chosen")
    chosen = replace(chosen, parallel=fill(chosen.parallel, hardware.size))
    check(chosen.parallel, spec, chosen.context(spec))
    again = ", activations recomputed" if chosen.precision.activation_checkpointing else ""
    return chosen, f"layout: {named(chosen.parallel)}{again} ({reason})"


def accelerator(name: str) -> Accelerator | None:
    """The catalogue's entry for a name such as a driver gives ("NVIDIA H100 80GB HBM3"), by its longest known part."""
    words = name.split()
    spans = [(begin, end) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)]
    for begin, end in sorted(spans, key=lambda span: span[0] - span[1]):
        try:
            return find_accelerator(" ".join(words[begin:end]))
        except RequestError:
            continue
    return None


def _planned(recipe: Recipe, spec: ModelSpec, device: Accelerator, hardware: Hardware) -> LayoutPlan:
    """The planner's fastest layout of those that training can do: key/value heads are divided, never doubled."""
    links = replace(links_of(device), node=hardware.per_node)
    found: list[LayoutPlan] = []
    problem: RequestError | None = None
    for tensor in divisors(hardware.size, spec.kv_heads):
        if spec.kv_heads % tensor:
            continue
        try:
            found.append(
                search(
                    spec,
                    device,
                    hardware.size,
                    rows=recipe.batch.rows,
                    context=recipe.context(spec),
                    links=links,
                    given={"tensor": tensor},
                )
            )
        except RequestError as error:
            problem = problem or error
    if not found:
        assert problem is not None
        raise problem
    return min(found, key=lambda plan: plan.step_total_seconds)


def _by_memory(
    recipe: Recipe, spec: ModelSpec, hardware: Hardware, dtype: torch.dtype, threads: int
) -> tuple[list[str], str]:
    """Settings of the layout that divides least of those that fit, and why; the last one where none is known to."""
    choices: list[tuple[list[str], bool, bool]] = [
        ([], False, False),
        ([f"parallel.shard={hardware.size}"], True, False),
        ([f"parallel.shard={hardware.size}", "precision.activation_checkpointing=true"], True, True),
    ]
    room = f"of {bytes_text(hardware.memory)} for each process"
    for changes, sharded, recomputed in choices:
        recomputed = recomputed or recipe.precision.activation_checkpointing
        need = _memory(recipe, spec, hardware, dtype, threads, sharded=sharded, recomputed=recomputed)
        if need <= hardware.memory:
            return changes, f"it takes about {bytes_text(need)} {room}"
    return changes, f"the least there is; it takes about {bytes_text(need)} {room}, which may not be enough"


def _memory(
    recipe: Recipe,
    spec: ModelSpec,
    hardware: Hardware,
    dtype: torch.dtype,
    threads: int,
    *,
    sharded: bool,
    recomputed: bool,
) -> float:
    """Bytes that a process takes, about."""
    context, rows, size = recipe.context(spec), min(recipe.batch.micro_batch, recipe.batch.rows), hardware.size
    if hardware.accelerator:
        layout = Layout(size, micro_batch=rows, zero=3 if sharded else 1, recompute="full" if recomputed else "none")
        turns = min(recipe.batch.accumulation, 2)  # whether there are several is what the bill asks
        return memory_of(Workload(spec, context, rows * size * turns, here=True), layout).total
    sample = torch.empty(1, 2, 1, dtype=dtype)
    bill = training_memory(
        spec,
        rows,
        context,
        path="fused" if fused.suits(spec, sample) else "plain",
        kernels=native.ready(sample),
        weight_bytes=2 if dtype == torch.bfloat16 else 4,
        optimizer=recipe.optimizer.name,
        accumulate=recipe.batch.accumulation > 1,
        threads=threads,
    )
    return process_memory(bill, spec, rows * context, dtype.itemsize, processes=size, sharded=sharded, again=recomputed)
