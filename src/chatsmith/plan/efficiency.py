"""How long a training step takes: one small physical model of a device, its kernels and its links.

    micro-batch of a stage = matmuls + attention + memory traffic + tensor-parallel communication
    step = micro-batch × (micro-batches + bubble) + what data-parallel communication is not hidden + the optimizer

Its few constants (`Physics`) are the same for every model, device and layout. `bench/plan_validation.py` fits them to
the published runs of one half of the papers, and measures the error on the other half.

Two conventions of throughput are never mixed. Model FLOPs (MFU) count what the model needs, attention in full:
Chowdhery et al. 2022, appendix B. Hardware FLOPs (HFU) add what is computed again: Korthikanti et al. 2022, appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.memory import BYTES, layer_parameters, stage_layers, stage_parameters
from chatsmith.plan.parallel import Column, Grid, Links, Workload, group_bandwidth


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


PHYSICS = Physics(matmul=0.80, power=1.0, traffic=1.3, flash=0.6, link=0.75, overlap=0.6, hop=5e-6, launch=60e-6)


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one step by what they are spent on, each a number or a column; the bubble counts idle pipeline time.

    Volumes are bytes that one device sends in a step, by the link they go over.
    """

    matmuls: Column
    attention: Column
    traffic: Column
    launches: Column
    recomputation: Column
    tensor_communication: Column
    context_communication: Column
    pipeline_communication: Column
    bubble: Column
    data_communication: Column
    optimizer: Column
    bytes_inside: Column
    bytes_between: Column

    @property
    def total(self) -> Column:
        """Seconds per step."""
        return (
            self.matmuls
            + self.attention
            + self.traffic
            + self.launches
            + self.recomputation
            + self.tensor_communication
            + self.context_communication
            + self.pipeline_communication
            + self.bubble
            + self.data_communication
            + self.optimizer
        )


def sustained_flops(device: Accelerator, physics: Physics = PHYSICS, *, fp8: bool = False) -> float:
    """FLOP/s of a large matrix multiply: a share of the peak, less where the device's power does not carry it.

    A GPU that has less than `physics.power` watts for each TFLOP/s of its peak lowers its clock; a TPU's peak is that of
    a fixed clock.
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


def _matmul(rows: Column, inputs: Column, outputs: Column, rate: float, bandwidth: float) -> Column:
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
    # Each operation that is no matmul reads its tensors and writes its result: two norms, two residuals, the activation,
    # and what turns, splits and joins the heads.
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
    forward = 4.0 * pairs * D / rate + physics.traffic * 13.0 * pairs / bandwidth
    return _Pass(matmuls, forward, traffic), _Pass(2 * matmuls, 2 * forward, 2 * traffic)


def step_time(work: Workload, device: Accelerator, links: Links, grid: Grid, physics: Physics = PHYSICS) -> StepTime:
    """The seconds of one step for every layout of a grid (shapes: one number per layout)."""
    spec, t, p, d, c = work.spec, grid.tensor, grid.pipeline, grid.data, grid.context
    bandwidth = device.bandwidth_gb_s * 1e9
    tokens = grid.micro_batch * work.context / c
    micro = work.rows / (d * grid.micro_batch)
    there, back = _layer(work, device, grid, physics)
    layers = stage_layers(spec, grid)

    # The slowest stage sets the pace: the one with the head, unless the others have a layer more.
    fast = sustained_flops(device, physics, fp8=work.fp8)
    head = 3 * _matmul(tokens, spec.width, spec.vocab_size / t, fast, bandwidth)
    head = head + physics.traffic * 12.0 * tokens * spec.vocab_size / t / bandwidth
    again_matmuls = np.where(grid.recompute == 2, there.matmuls, 0.0)
    again_attention = np.where(grid.recompute >= 1, there.attention, 0.0)
    again_traffic = np.where(grid.recompute == 2, there.traffic, 0.0)
    launch = physics.launch * np.where(grid.recompute == 2, 4.0, 3.0)

    # Two all-reduces of the residual stream each way (Narayanan et al. 2021, section 3.2), and the forward ones again.
    link = physics.link
    reduced = 2.0 * (t - 1) / t * tokens * spec.width * BYTES
    reduces = np.where(grid.recompute == 2, 6.0, 4.0) * np.where(t > 1, 1.0, 0.0)
    tensor_bytes = reduces * reduced
    tensor_each = reduces * (reduced / (link * group_bandwidth(links, t, np.ones_like(t))) + 2 * (t - 1) * physics.hop)
    if work.overlap_tensor:
        tensor_each = tensor_each * (1 - physics.overlap)

    # Keys and values round the context ring, forward and back, behind the attention they feed.
    keys = np.maximum(spec.kv_heads * spec.head_dim / t, spec.head_dim)
    context_bytes = 3.0 * (c - 1) * tokens * 2 * keys * BYTES
    context_time = context_bytes / (link * group_bandwidth(links, c, t)) + 3 * (c - 1) * physics.hop
    context_each = np.maximum(0.0, context_time - (there.attention + back.attention))

    layer_time = there.total + back.total + again_matmuls + again_attention + again_traffic
    layer_time = layer_time + launch + tensor_each + context_each
    spare = layers * p > spec.layers
    pace = np.where(
        spare, np.maximum(layers * layer_time, (layers - 1) * layer_time + head), layers * layer_time + head
    )
    stretch = pace / (layers * layer_time)

    # Each micro-batch's residual stream goes to the next stage, and its gradient back.
    boundary = np.where(p > 1, 2.0 * grid.interleave * tokens * spec.width * BYTES / t, 0.0)
    across = group_bandwidth(links, p, t * c * d)
    pipeline_each = boundary / (link * across) + np.where(p > 1, 2 * grid.interleave * physics.hop, 0.0)
    bubbles = (p - 1) / grid.interleave
    bubble = bubbles * (pace + pipeline_each)

    data, data_bytes, data_inside = _data_parallel(work, links, grid, physics, pace, micro)
    parameters = stage_parameters(spec, grid)[0]
    owned = parameters / np.where(grid.zero >= 1, d * c, 1.0)
    optimizer = physics.traffic * owned * 2 * work.precision.total / bandwidth

    tensor_total, context_total = micro * layers * tensor_bytes, micro * layers * context_bytes
    near_tensor, near_context = t <= links.node, t * c <= links.node
    near_pipeline = t * c * d * p <= links.node
    pipe_total = micro * boundary
    inside = tensor_total * near_tensor + context_total * near_context + data_bytes * data_inside
    everything = tensor_total + context_total + data_bytes + pipe_total
    inside = inside + pipe_total * near_pipeline
    per = micro * layers
    return StepTime(
        matmuls=per * (there.matmuls + back.matmuls) + micro * (stretch - 1) * layers * layer_time,
        attention=per * (there.attention + back.attention),
        traffic=per * (there.traffic + back.traffic),
        launches=per * launch,
        recomputation=per * (again_matmuls + again_attention + again_traffic),
        tensor_communication=per * tensor_each,
        context_communication=per * context_each,
        pipeline_communication=micro * pipeline_each,
        bubble=bubble,
        data_communication=data,
        optimizer=optimizer,
        bytes_inside=inside,
        bytes_between=everything - inside,
    )


def _data_parallel(
    work: Workload, links: Links, grid: Grid, physics: Physics, pace: Column, micro: Column
) -> tuple[Column, Column, Column]:
    """Seconds of gradients and sharded weights that computing does not hide, bytes sent, and whether they stay inside.

    Stages 0 to 2 reduce gradients (and gather weights) once a step, behind the last way back; stage 3 gathers each
    layer's weights twice and reduces its gradients once in every micro-batch (Zhao et al. 2023, FSDP).
    """
    spec, t = work.spec, grid.tensor
    ranks = grid.data * grid.context
    parameters = np.maximum(*stage_parameters(spec, grid))
    layers = stage_layers(spec, grid)
    share = (ranks - 1) / ranks
    sharded = grid.zero == 3
    once = share * parameters * (work.precision.gradient + work.precision.weight)
    each = share * parameters * 3 * BYTES
    sent = np.where(sharded, micro * each, once)
    rings = np.where(sharded, micro * 3 * layers, 2 * np.ceil(layers * layer_parameters(spec, t) / 4e7))
    rate = physics.link * group_bandwidth(links, ranks, t)
    seconds = np.where(ranks > 1, sent / rate + rings * (ranks - 1) * physics.hop, 0.0)
    cover = np.where(sharded, micro * pace, pace * 2 / 3)
    exposed = np.maximum((1 - physics.overlap) * seconds, seconds - cover)
    return exposed, np.where(ranks > 1, sent, 0.0), t * ranks <= links.node
