"""How a training step is divided over devices, and the links between them.

A `Layout` is one division. Its numbers may also be columns (`Grid`): then every formula in `memory` and `efficiency`
gives a column of answers, and a search over thousands of layouts is a few array operations.

Ranks are placed in Megatron's order (Narayanan et al. 2021, section 3): tensor groups closest together, then context,
then data, and pipeline stages furthest apart, so that what talks most is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import Accelerator
from chatsmith.specs import ModelSpec

Column = npt.NDArray[np.float64]
Number = TypeVar("Number", float, Column)
Recompute = Literal["none", "selective", "full"]
Attention = Literal["flash", "materialised"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
MAX_DEVICES = 2**20
MAX_ROWS = 2**24


@dataclass(frozen=True, slots=True)
class Links:
    """What joins the devices: `node` of them share the fast links. Rates are bytes/s of one device in one direction."""

    node: int
    inside: float
    between: float

    def __post_init__(self) -> None:
        if not 1 <= self.node <= MAX_DEVICES or not (0 < self.between < 1e15 and 0 < self.inside < 1e15):
            raise RequestError(
                f"no network has links of {self.inside:g} and {self.between:g} bytes/s between nodes of {self.node}"
            )


# What is usually sold around one accelerator of each generation, in bytes/s: V100 servers with four or eight 100 Gbit/s
# ports for eight or sixteen devices, A100 with one 200 Gbit/s port each, and 400 Gbit/s from H100 on.
_NETWORK = {"Volta": 6.25e9, "Ampere": 25e9, "Hopper": 50e9, "Blackwell": 50e9, "CDNA2": 25e9, "CDNA3": 50e9}
_SLOW_NETWORK = 3.125e9  # 25 Gbit/s each: cards without links of their own
_PCIE = 16e9
_TORUS = 70e9  # where the torus' rate was not published


def links_of(device: Accelerator) -> Links:
    """The links such devices usually come with: eight to a node, and a network of its generation.

    A TPU's torus joins all chips of a pod at one rate. Cards without links of their own talk over PCIe.
    """
    inside = device.link_gb_s * 1e9 / 2 if device.link_gb_s else _PCIE
    if device.vendor == "Google":
        torus = inside if device.link_gb_s else _TORUS
        return Links(MAX_DEVICES, torus, torus)
    linked = device.form.upper().startswith(("SXM", "OAM"))
    between = _NETWORK.get(device.architecture, _SLOW_NETWORK) if linked else _SLOW_NETWORK
    return Links(8, inside, min(between, inside))


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes per parameter that training holds: weights to compute with, their gradients, and the optimizer's state."""

    weight: int
    gradient: int
    optimizer: int

    @property
    def total(self) -> int:
        """Bytes per parameter on a single device."""
        return self.weight + self.gradient + self.optimizer


# Rajbhandari et al. 2020 (ZeRO), section 3.1, and Megatron-LM's guide to its distributed optimizer. Mixed is float32
# master, momentum and variance over 16-bit weights and gradients.
MIXED = Precision(2, 2, 12)
FLOAT16_MEGATRON = Precision(2, 2, 16)
FLOAT32 = Precision(4, 4, 8)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained in a step: `rows` sequences of `context` tokens through a model of `spec`.

    `attention` is "flash" where the [T, S] scores never reach memory (Dao et al. 2022). `sequence_parallel` splits
    norms and residuals over the tensor group (Korthikanti et al. 2022, section 4.2.2), and `overlap_tensor` hides part
    of that group's communication behind the matmuls (Wang et al. 2023). `fp8` runs the linear maps in 8 bits. `here`
    bills what `chatsmith train` keeps (`memory.states_here`, and gathered inputs whole), not what papers do.
    """

    spec: ModelSpec
    context: int
    rows: int
    attention: Attention = "flash"
    sequence_parallel: bool = True
    overlap_tensor: bool = True
    precision: Precision = MIXED
    fp8: bool = False
    here: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MAX_ROWS:
            raise RequestError(f"a step cannot have {self.rows} rows", f"choose from 1 to {MAX_ROWS}")
        if not 1 <= self.context <= 2**24:
            raise RequestError(f"a row cannot have {self.context} tokens", "choose a context from 1 to 2^24")

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.rows * self.context


def default_rows(spec: ModelSpec, context: int) -> int:
    """Sequences per step where none were asked for: GPT-3's batches (Brown et al. 2020, Table 2.1) in tokens, half a
    million up to about 0.5B parameters and growing with their cube root to 3.5 million at 175B, as a power of two."""
    tokens = 2.0**19 * max(1.0, spec.parameters / 5e8) ** (1 / 3)
    return max(1, 2 ** round(np.log2(tokens / context)))


@dataclass(frozen=True, slots=True)
class Layout:
    """One division of a step: groups of devices, rows at a time, what is sharded, and what is computed twice.

    `zero` is the stage of Rajbhandari et al. 2020: 1 shards the optimizer's state over the data-parallel group, 2 the
    gradients too, 3 the weights too. `interleave` is the number of chunks of layers each pipeline stage holds.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    micro_batch: int = 1
    zero: Literal[0, 1, 2, 3] = 0
    recompute: Recompute = "none"
    interleave: int = 1

    def __post_init__(self) -> None:
        for name in ("data", "tensor", "pipeline", "context", "micro_batch", "interleave"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_ROWS:
                raise RequestError(f"{name} must be a whole number from 1, not {value!r}")
        if self.zero not in (0, 1, 2, 3):
            raise RequestError(f"zero must be a stage from 0 to 3, not {self.zero!r}")
        if self.recompute not in RECOMPUTE:
            raise RequestError(f"recompute must be one of {', '.join(RECOMPUTE)}, not {self.recompute!r}")

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.data * self.tensor * self.pipeline * self.context

    def accumulation(self, rows: int) -> int:
        """Micro-batches that each replica sees in a step of `rows`."""
        return rows // (self.data * self.micro_batch)

    def check(self, work: Workload) -> None:
        """Raise `RequestError` where this workload cannot be divided so."""
        spec, t = work.spec, self.tensor
        rules = (
            (work.rows % (self.data * self.micro_batch) == 0, f"{work.rows} rows do not divide by data × micro_batch"),
            (spec.heads % t == 0, f"{spec.heads} heads do not divide by tensor {t}"),
            (spec.kv_heads % t == 0 or t % spec.kv_heads == 0, f"{spec.kv_heads} key/value heads do not divide by {t}"),
            (spec.ffn_width % t == 0, f"ffn_width {spec.ffn_width} does not divide by tensor {t}"),
            (
                evenly_chunked(spec.layers, self.pipeline, self.interleave),
                f"{spec.layers} layers do not fill {self.pipeline} stages of {self.interleave} chunks evenly",
            ),
            (self.pipeline > 1 or self.interleave == 1, "one pipeline stage has nothing to interleave"),
            (work.context % self.context == 0, f"context {work.context} does not divide by {self.context}"),
        )
        for holds, problem in rules:
            if not holds:
                raise RequestError(f"the layout does not suit the model: {problem}")


class Grid(NamedTuple):
    """Layouts as columns of equal length; `recompute` counts its place in `RECOMPUTE`."""

    data: Column
    tensor: Column
    pipeline: Column
    context: Column
    micro_batch: Column
    zero: Column
    recompute: Column
    interleave: Column

    @classmethod
    def of(cls, layouts: Sequence[Layout]) -> Grid:
        """Layouts one below the other."""
        rows = [
            (x.data, x.tensor, x.pipeline, x.context, x.micro_batch, x.zero, RECOMPUTE.index(x.recompute), x.interleave)
            for x in layouts
        ]
        return cls(*np.array(rows, dtype=np.float64).reshape(len(rows), 8).T)

    def row(self, index: int) -> Layout:
        """One of them again as a `Layout`."""
        d, t, p, c, b, z, r, v = (int(column[index]) for column in self)
        return Layout(d, t, p, c, b, z, RECOMPUTE[r], v)  # type: ignore[arg-type]

    def only(self, chosen: npt.NDArray[np.bool_]) -> Grid:
        """The rows that a mask chooses."""
        return Grid(*(column[chosen] for column in self))


def evenly_chunked(layers: int, pipeline: npt.ArrayLike, interleave: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether every stage of a pipeline has layers, and none a layer more than plain stages would give it."""
    p, v = np.asarray(pipeline), np.asarray(interleave)
    held = v * -(-layers // (p * v))
    even: npt.NDArray[np.bool_] = (p <= layers) & (held == -(-layers // p))
    return even


def group_bandwidth(links: Links, size: Column, stride: Column) -> Column:
    """Bytes/s at which each member of a ring of `size` ranks, `stride` apart, passes data on.

    Inside a node that is the fast link's rate. Beyond it, the ring enters and leaves a node once, through the network
    ports of as many devices as the group has there; the fast link bounds what they can bring together.
    """
    near = np.clip(links.node // stride, 1, None)
    within = np.minimum(size, near)
    return np.where(size <= near, links.inside, np.minimum(links.inside, within * links.between))
