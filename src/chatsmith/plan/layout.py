"""The fastest layout that fits: data × tensor × pipeline × context parallel, rows at a time, sharding, recomputation.

Every division that the shape and the device count allow is priced at once, as columns of arrays; those whose memory
bill is larger than the device are struck out, and the fastest of the rest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.efficiency import step_time
from chatsmith.plan.layout_plan import LayoutPlan, make_plan
from chatsmith.plan.memory import memory_bill
from chatsmith.plan.parallel import MAX_DEVICES, Grid, Links, Workload, default_rows, evenly_chunked, links_of
from chatsmith.specs import ModelSpec

_MAX_TENSOR = 64
_MAX_MICRO_BATCH = 256
# What published runs kept to; beyond it the model of speed has nothing to be held to, and is too kind.
_MIN_CONTEXT_PIECE = 4096  # tokens a device keeps of a sequence that is divided
_CHUNKS = [1, 2, 3, 4]


def divisors(number: int, most: int) -> list[int]:
    """The divisors of a number up to a bound, ascending."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted(n for n in {*small, *(number // n for n in small)} if n <= most)


def candidates(work: Workload, count: int, links: Links, given: Mapping[str, int] | None = None) -> Grid:
    """Every layout of `count` devices that this workload can be divided by; `given` fixes some of its numbers.

    `recompute` is given by its place in `RECOMPUTE`.
    """
    spec, given = work.spec, given or {}
    tensors = [
        t
        for t in divisors(spec.heads, min(_MAX_TENSOR, links.node))
        if spec.ffn_width % t == 0 and (spec.kv_heads % t == 0 or t % spec.kv_heads == 0) and count % t == 0
    ]
    contexts = [c for c in (1, 2, 4, 8, 16, 32, 64) if c == 1 or work.context // c >= _MIN_CONTEXT_PIECE]
    axes: dict[str, list[int]] = {
        "tensor": tensors,
        "pipeline": divisors(count, spec.layers),
        "context": [c for c in contexts if work.context % c == 0],
        "micro_batch": divisors(work.rows, _MAX_MICRO_BATCH),
        "zero": [0, 1, 2, 3],
        "recompute": [0, 2] if work.attention == "flash" else [0, 1, 2],
        "interleave": _CHUNKS,
    }
    axes |= {name: [value] for name, value in given.items() if name in axes}
    # The groups first, which are few; then what each of them may do.
    groups = np.array(np.meshgrid(axes["tensor"], axes["pipeline"], axes["context"], indexing="ij")).reshape(3, -1)
    groups = groups[:, count % groups.prod(axis=0) == 0]
    data = count // groups.prod(axis=0)
    keep = work.rows % data == 0
    if "data" in given:
        keep &= data == given["data"]
    groups, data = groups[:, keep], data[keep]
    choices = [axes[name] for name in ("micro_batch", "zero", "recompute", "interleave")]
    rest = np.array(np.meshgrid(*choices, indexing="ij")).reshape(4, -1)
    t, p, c = (np.repeat(column, rest.shape[1]) for column in groups)
    d = np.repeat(data, rest.shape[1])
    b, z, r, v = (np.tile(column, groups.shape[1]) for column in rest)
    sound = work.rows % (d * b) == 0
    # Interleaved chunks want micro-batches in whole rounds of the pipeline.
    sound &= (v == 1) | ((p > 1) & evenly_chunked(spec.layers, p, v) & ((work.rows // (d * b)) % p == 0))
    sound &= (z == 0) | (d * c > 1)
    if "zero" not in given:
        sound &= (z <= 1) | (p == 1)  # sharded gradients or weights would be exchanged for every micro-batch
    columns = (d, t, p, c, b, z, r, v)
    return Grid(*(column[sound].astype(np.float64) for column in columns))


def search(
    spec: ModelSpec,
    device: Accelerator,
    count: int,
    *,
    rows: int | None = None,
    context: int | None = None,
    links: Links | None = None,
    given: Mapping[str, int] | None = None,
) -> LayoutPlan:
    """The layout of `count` devices that is predicted to be the fastest of those that fit.

    `rows` is the number of sequences per step (None: about GPT-3's batches, in multiples that the devices divide) and
    `context` their length (None: the spec's). `given` fixes some of the layout's numbers, as in `candidates`.

    Raises `RequestError` where nothing fits, saying how many devices would do, or where the rows cannot be divided.
    """
    if not 1 <= count <= MAX_DEVICES:
        raise RequestError(f"{count} devices cannot be laid out", f"choose from 1 to {MAX_DEVICES}")
    length = spec.context if context is None else context
    links = links or links_of(device)
    work = Workload(spec, length, _rows(spec, length, count) if rows is None else rows, here=True)
    grid = candidates(work, count, links, given)
    if not len(grid.data):
        raise RequestError(
            f"{work.rows} rows of {spec.layers} layers and {spec.heads} heads cannot be divided over {count} devices",
            f"use fewer devices, or a batch of a multiple of {count} rows",
        )
    fits = grid.only(memory_bill(work, grid).total <= device.memory_gb * 1e9)
    if not len(fits.data):
        raise _too_large(work, device, links, grid, count, given)
    best = int(np.argmin(step_time(work, device, links, fits).total))
    return make_plan(work, device, links, fits.row(best))


def _rows(spec: ModelSpec, context: int, count: int) -> int:
    """The default batch, as a multiple of as many replicas as there are rows for."""
    rows = default_rows(spec, context)
    replicas = divisors(count, rows)[-1]
    return replicas * max(1, round(rows / replicas))


def _too_large(
    work: Workload, device: Accelerator, links: Links, grid: Grid, count: int, given: Mapping[str, int] | None
) -> RequestError:
    least = float(memory_bill(work, grid).total.min())
    message = (
        f"{work.spec.parameters / 1e9:.3g}B parameters do not fit {count} × {device.name}: "
        f"the smallest layout takes {least / 1e9:.0f} GB of {device.memory_gb:g} on a device"
    )
    more = count
    while given is None and (more := 2 * more) <= min(MAX_DEVICES, 4096 * count):
        rows = work.rows if work.rows >= more else _rows(work.spec, work.context, more)
        larger = replace(work, rows=rows)
        wider = candidates(larger, more, links)
        if len(wider.data) and float(memory_bill(larger, wider).total.min()) <= device.memory_gb * 1e9:
            return RequestError(message, f"{more} of them would do: --count {more}")
    return RequestError(message, "choose a device with more memory, a shorter context or a smaller model")
