"""The fastest layout that fits: data × tensor × pipeline × context parallel, rows at a time, sharding, recomputation.

Every division that the shape and the device count allow is priced at once, as columns of arrays; those whose memory
bill is larger than the device are struck out, and the fastest of the rest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.memory import memory_bill
from chatsmith.plan.parallel import MAX_DEVICES, RECOMPUTE, Grid, Links, Workload

_MAX_TENSOR = 64
_MAX_MICRO_BATCH = 256
_MIN_CONTEXT_PIECE = 1024  # fewer tokens per device than this are not worth a ring


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
        "interleave": [1, 2, 3, 4, 6, 8, 12, 16],
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
    # Chunks of equal size, all but a few of them full; and micro-batches in whole rounds of the pipeline.
    chunks = v * -(-spec.layers // (p * v))
    sound &= (v == 1) | ((p > 1) & (chunks * p < spec.layers + p) & ((work.rows // (d * b)) % p == 0))
    sound &= (z == 0) | (d * c > 1)
    if "zero" not in given:
        sound &= (z <= 1) | (p == 1)  # sharded gradients or weights would be exchanged for every micro-batch
    columns = (d, t, p, c, b, z, r, v)
    return Grid(*(column[sound].astype(np.float64) for column in columns))


def fitting(work: Workload, device: Accelerator, grid: Grid) -> Grid:
    """Those layouts whose memory bill the device holds."""
    return grid.only(memory_bill(work, grid).total <= device.memory_gb * 1e9)


_ = (MAX_DEVICES, RECOMPUTE, RequestError)
