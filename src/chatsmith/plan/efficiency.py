"""How long a training step takes: one small physical model of a device, its kernels and its links.

    micro-batch of a stage = matmuls + attention + memory traffic + tensor-parallel communication
    step = micro-batch × (micro-batches + bubble) + what data-parallel communication is not hidden + the optimizer

Its few constants (`Physics`) are the same for every model, device and layout. `bench/plan_validation.py` fits them to
the published runs of one half of the papers, and measures the error on the other half.

Two conventions of throughput are never mixed. Model FLOPs (MFU) count what the model needs, attention in full:
Chowdhery et al. 2022, appendix B. Hardware FLOPs (HFU) add what is computed again: Korthikanti et al. 2022, appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, NamedTuple

import numpy as np
import numpy.typing as npt

from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.memory import BYTES, layer_parameters, stage_layers, stage_parameters
from chatsmith.plan.parallel import Column, Grid, Layout, Links, Number, Recompute, Workload, group_bandwidth, links_of
from chatsmith.specs import ModelSpec


@dataclass(frozen=True, slots=True)
class Physics:
    """The constants of the model, alike for every device, model and layout."""

    matmul: float
    """Share of the peak that a large matrix multiply sustains, where power is no limit."""
    power: float
    """Watts per peak TFLOP/s below which a device cannot hold its peak."""
    traffic: float
    """Bytes moved by what is not a matmul, as a multiple of each operation reading and writing its tensors once."""
    flash: float
    """Rate of a flash attention kernel, as a share of a large matmul's."""
    link: float
    """Share of a link's rate that collectives reach."""
    overlap: float
    """Share of data-parallel communication that hides behind computing."""
    hop: float
    """Seconds per hop round a ring of devices."""
    launch: float
    """Seconds per layer, forward, that a micro-batch costs however small it is."""


# Fitted by `bench/plan_validation.py --fit` to the fitted half of the papers.
PHYSICS = Physics(
    matmul=0.793, power=1.11, traffic=2.16, flash=0.634, link=0.792, overlap=0.516, hop=6.8e-6, launch=6.2e-5
)


@dataclass(frozen=True, slots=True)
class StepTime(Generic[Number]):
    """Seconds of one step by what they are spent on, each a number or a column.

    Communication counts what computing does not hide. The bubble is the time that pipeline stages stand idle.
    """

    matmuls: Number
    attention: Number
    memory_traffic: Number
    launches: Number
    recomputation: Number
    output_head: Number
    tensor_communication: Number
    context_communication: Number
    pipeline_communication: Number
    data_communication: Number
    bubble: Number
    optimizer: Number

    @property
    def total(self) -> Number:
        """Seconds per step."""
        total: Number = sum(getattr(self, item.name) for item in fields(self))
        return total


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes that one device sends in a step, by the group it sends them to, and whether a group lies within a node."""

    tensor: Column
    context: Column
    pipeline: Column
    data: Column
    tensor_inside: npt.NDArray[np.bool_]
    context_inside: npt.NDArray[np.bool_]
    pipeline_inside: npt.NDArray[np.bool_]
    data_inside: npt.NDArray[np.bool_]


class _Rates(NamedTuple):
    """Bytes/s that the ring of each kind of group reaches."""

    tensor: Column
    context: Column
    pipeline: Column
    data: Column


def sustained_flops(device: Accelerator, physics: Physics = PHYSICS, *, fp8: bool = False) -> float:
    """FLOP/s of a large matrix multiply: a share of the peak, less where the device's power does not carry it.

    A GPU that has less than `physics.power` watts for each TFLOP/s of its peak lowers its clock, which power bounds by
    its cube; a TPU's peak is that of a fixed clock.
    """
    peak = device.training_tflops
    share = physics.matmul
    if device.power_w and device.vendor != "Google":
        share *= min(1.0, device.power_w / peak / physics.power) ** (1 / 3)
    if fp8 and device.fp8_tflops:
        return share * device.fp8_tflops * 1e12
    return share * peak * 1e12


@dataclass(frozen=True, slots=True)
class _Pass:
    """Seconds of one micro-batch through one layer, forward, or through the head."""

    matmuls: Column
    attention: Column
    traffic: Column

    @property
    def total(self) -> Column:
        return self.matmuls + self.attention + self.traffic


def _matmul(rows: Column, inputs: float | Column, outputs: float | Column, rate: float, bandwidth: float) -> Column:
    """Seconds of [rows, inputs] × [inputs, outputs]: the arithmetic, and each operand and the result moved once.

    So a multiply with one short side runs at less than the full rate: 1/m + 1/n + 1/k bytes go with each FLOP.
    """
    moved = BYTES * (rows * inputs + inputs * outputs + rows * outputs)
    return 2.0 * rows * inputs * outputs / rate + moved / bandwidth


def _layer(work: Workload, device: Accelerator, grid: Grid, physics: Physics) -> tuple[_Pass, _Pass]:
    """One layer forward; and the way back, without what is recomputed."""
    spec, t = work.spec, grid.tensor
    rate, bandwidth = sustained_flops(device, physics), device.bandwidth_gb_s * 1e9
    fast = sustained_flops(device, physics, fp8=work.fp8)
    tokens = grid.micro_batch * work.context / grid.context
    E, D = spec.width, spec.head_dim
    inner, keys, ffn = spec.heads * D / t, np.maximum(spec.kv_heads * D / t, D), spec.ffn_width / t
    gates = 2 if spec.gated else 1
    matmuls = (
        _matmul(tokens, E, inner + 2 * keys, fast, bandwidth)
        + _matmul(tokens, inner, E, fast, bandwidth)
        + _matmul(tokens, E, gates * ffn, fast, bandwidth)
        + _matmul(tokens, ffn, E, fast, bandwidth)
    )
    # Each operation that is no matmul reads its tensors and writes its result: two norms, two residuals, the
    # activation, and what turns, splits and joins the heads.
    apart = t if work.sequence_parallel else 1.0
    moved = BYTES * tokens * (10 * E / apart + (gates + 1) * ffn + 2 * (inner + 2 * keys))
    if work.fp8:
        # Each operand is read, and written in 8 bits as it lies and transposed.
        moved = moved + 4 * (tokens * (2 * E + inner + ffn) + layer_parameters(spec, t))
    traffic = physics.traffic * moved / bandwidth

    seen = [min(work.context, spec.layer_band(layer) or work.context) for layer in range(min(2, spec.layers))]
    pairs = tokens * float(np.mean(seen)) * spec.heads / t
    if work.attention == "flash":
        # Causal tiles above the diagonal are skipped; the way back makes the scores again: 2.5 times the way there.
        forward = 0.5 * 4.0 * pairs * D / (rate * physics.flash)
        return _Pass(matmuls, forward, traffic), _Pass(2 * matmuls, 2.5 * forward, 2 * traffic)
    # Scores are written and read by the multiply, the softmax, the dropout and the second multiply: 13 bytes.
    forward = 4.0 * pairs * D / rate + 13.0 * pairs / bandwidth
    return _Pass(matmuls, forward, traffic), _Pass(2 * matmuls, 2 * forward, 2 * traffic)


def step_time(
    work: Workload, device: Accelerator, links: Links, grid: Grid, physics: Physics = PHYSICS
) -> StepTime[Column]:
    """The seconds of one step for every layout of a grid."""
    spec, t, p, v = work.spec, grid.tensor, grid.pipeline, grid.interleave
    tokens = grid.micro_batch * work.context / grid.context
    micro = work.rows / (grid.data * grid.micro_batch)
    layers = stage_layers(spec, grid)
    there, back = _layer(work, device, grid, physics)
    full = grid.recompute == 2
    again = np.where(full, there.total, np.where(grid.recompute == 1, there.attention, 0.0))
    launch = physics.launch * np.where(full, 4.0, 3.0)
    sent, rate = sent_bytes(work, links, grid), _rates(links, grid, physics)

    # Two all-reduces of the residual stream each way, and the forward ones again with recomputation.
    passes = micro * layers
    tensor = sent.tensor / passes / rate.tensor + np.where(full, 6.0, 4.0) * 2 * (t - 1) * physics.hop
    if work.overlap_tensor:
        tensor = tensor * (1 - physics.overlap)
    # Keys and values go round the context ring behind the attention they feed.
    ring = sent.context / passes / rate.context + 3 * (grid.context - 1) * physics.hop
    context = np.maximum(0.0, ring - there.attention - back.attention)

    # The slowest stage sets the pace: the one with the head, unless the others hold a layer more.
    layer = there.total + back.total + again + launch + tensor + context
    head = _head(work, device, grid, physics, tokens)
    spare = layers * p > spec.layers
    pace = np.where(spare, np.maximum(layers * layer, (layers - 1) * layer + head), layers * layer + head)
    pipeline = np.where(p > 1, sent.pipeline / micro / rate.pipeline + 2 * v * physics.hop, 0.0)

    owned = stage_parameters(spec, grid)[0] / np.where(grid.zero >= 1, grid.data * grid.context, 1.0)
    bandwidth = device.bandwidth_gb_s * 1e9
    return StepTime(
        matmuls=passes * (there.matmuls + back.matmuls),
        attention=passes * (there.attention + back.attention),
        memory_traffic=passes * (there.traffic + back.traffic),
        launches=passes * launch,
        recomputation=passes * again,
        output_head=micro * (pace - layers * layer),
        tensor_communication=passes * tensor,
        context_communication=passes * context,
        pipeline_communication=micro * pipeline,
        data_communication=_data_parallel(work, grid, physics, sent, rate, pace),
        bubble=(p - 1) / v * (pace + pipeline),
        optimizer=2.0 * owned * work.precision.total / bandwidth,
    )


def sent_bytes(work: Workload, links: Links, grid: Grid) -> Sent:
    """What one device sends in a step.

    A ring of g ranks sends (g − 1)/g of what it gathers or scatters, twice that of what it all-reduces. Tensor groups
    reduce the residual stream four times a layer (Narayanan et al. 2021, section 3.2). Data-parallel groups reduce
    gradients and, sharded, gather weights once a step; under stage 2 gradients in every micro-batch, for nobody has
    room to sum them whole; under stage 3 each layer's weights, twice, as well (Zhao et al. 2023, FSDP).
    """
    spec, t, p, d, c = work.spec, grid.tensor, grid.pipeline, grid.data, grid.context
    micro = work.rows / (d * grid.micro_batch)
    tokens = grid.micro_batch * work.context / c
    layers, ranks = stage_layers(spec, grid), d * c
    stream = BYTES * tokens * spec.width
    keys = np.maximum(spec.kv_heads * spec.head_dim / t, spec.head_dim)
    parameters = np.maximum(*stage_parameters(spec, grid))
    gradients, weights = parameters * work.precision.gradient, parameters * work.precision.weight
    return Sent(
        tensor=micro * layers * np.where(grid.recompute == 2, 6.0, 4.0) * 2 * (t - 1) / t * stream,
        context=micro * layers * 3 * (c - 1) * tokens * 2 * keys * BYTES,
        pipeline=np.where(p > 1, micro * 2 * grid.interleave * stream / t, 0.0),
        data=(ranks - 1)
        / ranks
        * (np.where(grid.zero >= 2, micro, 1.0) * gradients + np.where(grid.zero == 3, 2 * micro, 1.0) * weights),
        tensor_inside=t <= links.node,
        context_inside=t * c <= links.node,
        pipeline_inside=t * c * d * p <= links.node,
        data_inside=t * ranks <= links.node,
    )


def _rates(links: Links, grid: Grid, physics: Physics) -> _Rates:
    t, c, d = grid.tensor, grid.context, grid.data
    strides = ((t, np.ones_like(t)), (c, t), (grid.pipeline, t * c * d), (d * c, t))
    return _Rates(*(physics.link * group_bandwidth(links, size, stride) for size, stride in strides))


def _head(work: Workload, device: Accelerator, grid: Grid, physics: Physics, tokens: Column) -> Column:
    """Seconds of the output head and the loss for one micro-batch, both ways."""
    rate, bandwidth = sustained_flops(device, physics, fp8=work.fp8), device.bandwidth_gb_s * 1e9
    share = work.spec.vocab_size / grid.tensor
    # A plain loss: logits written and widened (8 bytes), their softmax (8), its slope (8), narrowed and read twice (8).
    logits = 32 * tokens * share
    return 3 * _matmul(tokens, work.spec.width, share, rate, bandwidth) + logits / bandwidth


def _data_parallel(work: Workload, grid: Grid, physics: Physics, sent: Sent, rate: _Rates, pace: Column) -> Column:
    """Seconds of gradients and sharded weights that computing does not hide: all of a step's computing from stage 2 on,
    else the last way back alone. A ring starts for each layer, or for each bucket of 40 million parameters."""
    ranks = grid.data * grid.context
    layers = stage_layers(work.spec, grid)
    micro = work.rows / (grid.data * grid.micro_batch)
    buckets = np.ceil(layers * layer_parameters(work.spec, grid.tensor) / 4e7)
    rings = np.where(grid.zero == 3, micro * 3 * layers, np.where(grid.zero == 2, micro, 1.0) * buckets + buckets)
    seconds = np.where(ranks > 1, sent.data / rate.data + rings * (ranks - 1) * physics.hop, 0.0)
    cover = np.where(grid.zero >= 2, micro * pace, pace * 2 / 3)
    exposed: Column = np.maximum((1 - physics.overlap) * seconds, seconds - cover)
    return exposed


def device_tflops(spec: ModelSpec, device: Accelerator, context: int | None = None) -> float:
    """Model TFLOP/s of one device with work enough (16,384 tokens at a time) and nobody to talk to.

    An upper bound of what a device of many reaches; memory is not looked at.
    """
    length = spec.context if context is None else context
    rows = max(1, 2**14 // length)
    work = Workload(spec, length, rows)
    grid = Grid.of([Layout(micro_batch=rows)])
    seconds = float(step_time(work, device, links_of(device), grid).total[0])
    return work.tokens * spec.training_flops_per_token(length) / seconds / 1e12


def recomputed_flops_per_token(spec: ModelSpec, context: int, recompute: Recompute) -> float:
    """Forward FLOPs that are computed again for each token: of all layers, or of the attention over scores alone.

    The HFU of Korthikanti et al. 2022 counts three times this for selective recomputation.
    """
    again = {"none": (), "selective": ("attention scores", "attention values")}
    return sum(
        matmul.flops_per_token
        for matmul in spec.matmuls(context)
        if (matmul.name != "output head" if recompute == "full" else matmul.name in again[recompute])
    )
