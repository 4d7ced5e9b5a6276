"""The memory that training takes on one device, term by term, for any layout.

Model states follow Rajbhandari et al. 2020 (ZeRO), activations Korthikanti et al. 2022 (Reducing Activation
Recomputation), whose bytes per layer, s·b·h·(34 + 5·a·s/h) for a GPT with dropout, are the sum of the terms below; here
the same terms are counted for any `ModelSpec`. States as `chatsmith train` keeps them are in `states_here`; what it
allocates on a processor, tensor by tensor, is in `memory_here`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic

import numpy as np

from chatsmith.plan.parallel import Attention, Column, Grid, Layout, Number, Workload
from chatsmith.specs import ModelSpec

BYTES = 2
"""Bytes of a 16-bit activation; a dropout mask takes 1."""
RESERVED = 1.0e9
"""Bytes that the driver, its libraries and the communication buffers hold on each device."""

LOGITS_HERE = 2.0**31
"""Bytes that the loss of `chatsmith train` holds of logits and slopes: it goes through a micro-batch in parts."""


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """Bytes that one layer keeps for the way back, for each token of a micro-batch, whole and not yet divided.

    `scores` is what attention keeps per token when the [T, S] matrix reaches memory: it grows with the context.
    """

    norms: float
    attention: float
    scores: float
    ffn: float
    inputs: float
    """Those of the bytes above that tensor parallelism alone does not divide: inputs of the norms and linear maps, and
    the masks of the residual stream."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.norms + self.attention + self.scores + self.ffn


def layer_activations(spec: ModelSpec, context: int, attention: Attention = "materialised") -> LayerActivations:
    """Korthikanti et al. 2022, section 4.1, per token: norms 4h, attention 11h + 5as, MLP 19h for GPT with dropout.

    Without dropout there are no masks (2h + as) and no second copy of the scores (2as). A flash kernel keeps one
    float32 per head and token instead of scores. A gate keeps one more product of ffn_width, grouped heads fewer keys.
    """
    E, F = spec.width, spec.ffn_width
    inner, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    mask = E if spec.dropout else 0
    before_norm = inner + keys if spec.qk_norm else 0
    if attention == "flash":
        scores = 4.0 * spec.heads
    else:
        scores = spec.heads * context * (BYTES + (1 + BYTES if spec.dropout else 0))
    return LayerActivations(
        norms=2 * BYTES * E,
        attention=BYTES * (E + inner + 2 * keys + inner + before_norm) + mask,
        scores=scores,
        ffn=BYTES * (E + (3 if spec.gated else 2) * F) + mask,
        inputs=2 * BYTES * E + BYTES * E + BYTES * E + 2 * mask,
    )


@dataclass(frozen=True, slots=True)
class MemoryBill(Generic[Number]):
    """Bytes on the fullest device, by term. Each field is a number, or a column with one number per layout."""

    weights: Number
    gradients: Number
    optimizer: Number
    norms: Number
    attention: Number
    scores: Number
    ffn: Number
    kept_inputs: Number
    logits: Number
    buffers: Number

    @property
    def activations(self) -> Number:
        """What the layers keep for the way back."""
        return self.norms + self.attention + self.scores + self.ffn + self.kept_inputs

    @property
    def total(self) -> Number:
        """All terms together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers


def layer_parameters(spec: ModelSpec, tensor: Column) -> Column:
    """Parameters of one layer on one rank of a tensor group: matrices are divided, norms are not.

    Where there are more ranks than key/value heads, each holds a whole head.
    """
    inner, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    shared = np.maximum(keys / tensor, spec.head_dim)
    columns = inner / tensor + 2 * shared
    ffn = spec.ffn_width / tensor
    gates = 2 if spec.gated else 1
    matrices = spec.width * (columns + inner / tensor + (gates + 1) * ffn)
    biases = (columns + spec.width if spec.attention_bias else 0) + (gates * ffn + spec.width if spec.ffn_bias else 0)
    norm = spec.width * (2 if spec.norm == "layer" else 1)
    return matrices + biases + 2 * norm + (2 * spec.head_dim if spec.qk_norm else 0)


def stage_layers(spec: ModelSpec, grid: Grid) -> Column:
    """Layers of the fullest pipeline stage: as many chunks as it holds, of equal size."""
    return grid.interleave * np.ceil(spec.layers / (grid.pipeline * grid.interleave))


def stage_parameters(spec: ModelSpec, grid: Grid) -> tuple[Column, Column]:
    """Parameters on a device of the first stage and of the last one; the same where there is only one.

    A tied embedding stands in both the first and the last stage of a pipeline.
    """
    layers = stage_layers(spec, grid) * layer_parameters(spec, grid.tensor)
    table = spec.vocab_size * spec.width / grid.tensor
    positions = spec.context * spec.width if spec.positions == "learned" else 0
    norm = spec.width * (2 if spec.norm == "layer" else 1)
    first, last = layers + table + positions, layers + table + norm
    whole = layers + table * (1 if spec.tied else 2) + positions + norm
    alone = grid.pipeline == 1
    return np.where(alone, whole, first), np.where(alone, whole, last)


def states(work: Workload, grid: Grid, parameters: Column) -> tuple[Column, Column, Column]:
    """Bytes of weights, gradients and the optimizer's state of `parameters` on a device: each divided over the
    data-parallel group from its stage of Rajbhandari et al. 2020 on."""
    shards, kept = grid.data * grid.context, work.precision
    each = ((kept.weight, 3), (kept.gradient, 2), (kept.optimizer, 1))
    weights, gradients, optimizer = (
        size * parameters / np.where(grid.zero >= stage, shards, 1.0) for size, stage in each
    )
    return weights, gradients, optimizer


def states_here(work: Workload, grid: Grid, parameters: Column) -> tuple[Column, Column, Column]:
    """The same as `chatsmith train` keeps them in bfloat16 under the settings of `emit.settings`.

    Replicas of a whole model hold 16-bit weights and gradients, float32 sums of several micro-batches' gradients, and
    the 12 bytes of their share. A model that is divided has float32 weights, gradients and averages, 16 bytes, divided
    over its data-parallel group from stage 1 on, and 16-bit weights beside them where they stay gathered (below 3).
    """
    replicas = (grid.tensor * grid.pipeline * grid.context == 1) & (grid.zero <= 1)
    shards = np.where(replicas | (grid.zero >= 1), grid.data * grid.context, grid.context)
    accumulates = work.rows > grid.data * grid.micro_batch
    weights = np.where(grid.zero < 3, 2.0, 0.0)
    gradients = np.where(replicas, 2.0 + 4.0 * accumulates, 4.0 / shards)
    return weights * parameters, gradients * parameters, 12.0 / shards * parameters


def micro_batches_held(work: Workload, grid: Grid) -> Column:
    """Micro-batches whose activations the first stage holds at once: p of them in 1F1B (Narayanan et al. 2021), and
    (p − 1)/v more with v chunks interleaved (Korthikanti et al. 2022, section 4.2.3), but never more than there are."""
    p, v = grid.pipeline, grid.interleave
    wanted = np.where(v > 1, p * (1 + (p - 1) / (p * v)), p)
    return np.minimum(wanted, work.rows / (grid.data * grid.micro_batch))


def memory_bill(work: Workload, grid: Grid) -> MemoryBill[Column]:
    """The bill of the fullest device for every layout of a grid.

    The first stage of a pipeline holds the most activations, the last one the logits: the larger of both is billed.
    """
    first, last = _stage_bill(work, grid, True), _stage_bill(work, grid, False)
    larger = first.total >= last.total
    names = [item.name for item in fields(MemoryBill)]
    return MemoryBill(*(np.where(larger, getattr(first, name), getattr(last, name)) for name in names))


def memory_of(work: Workload, layout: Layout) -> MemoryBill[float]:
    """The bill of one layout, in bytes."""
    bill = memory_bill(work, Grid.of([layout]))
    return MemoryBill(*(float(getattr(bill, item.name)[0]) for item in fields(bill)))


def _stage_bill(work: Workload, grid: Grid, is_first: bool) -> MemoryBill[Column]:
    spec, precision = work.spec, work.precision
    t = grid.tensor
    parameters = stage_parameters(spec, grid)[0 if is_first else 1]
    weights, gradients, optimizer = (states_here if work.here else states)(work, grid, parameters)
    tokens = grid.micro_batch * work.context / grid.context

    kept = layer_activations(spec, work.context, work.attention)
    # Norms, and the inputs and masks within attention and ffn, are divided only with sequence parallelism.
    apart = t if work.sequence_parallel else 1.0
    inputs_each = (kept.inputs - kept.norms) / 2
    # What goes into attention and ffn is gathered once, and `chatsmith train` keeps it whole for the way back.
    whole = BYTES * spec.width * (1 - 1 / apart) if work.here else 0.0
    held = stage_layers(spec, grid) * tokens * (micro_batches_held(work, grid) if is_first else 1.0)
    layer = {
        "norms": kept.norms / apart,
        "attention": (kept.attention - inputs_each) / t + inputs_each / apart + whole,
        "scores": np.where(grid.recompute == 1, 0.0, kept.scores / t),
        "ffn": (kept.ffn - inputs_each) / t + inputs_each / apart + whole,
    }
    full = grid.recompute == 2
    one_layer = sum(layer.values()) * tokens
    activations = {name: np.where(full, 0.0, value * held) for name, value in layer.items()}

    # One layer's gradients of activations in passing; the layer computed again; two gathered layers under stage 3.
    passing = BYTES * tokens * (2 * spec.width / apart + (3 if spec.gated else 2) * spec.ffn_width / t)
    together = 2 * layer_parameters(spec, t)
    if work.here:  # the embedding and the head stay gathered through a step
        together = together + spec.vocab_size * spec.width * (1 if spec.tied else 2) / t
    gathered = np.where(grid.zero == 3, together * (precision.weight + BYTES), 0.0)
    has_logits = np.where(grid.pipeline == 1, 1.0, 0.0 if is_first else 1.0)
    logits = 8.0 * tokens * spec.vocab_size / t
    return MemoryBill(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        **activations,
        kept_inputs=np.where(full, BYTES * spec.width * held, 0.0),
        logits=has_logits * (np.minimum(logits, LOGITS_HERE) if work.here else logits),
        buffers=RESERVED + passing + gathered + np.where(full, one_layer, 0.0),
    )
