"""A decoder as a row of kernels on a GPU: one pass over new tokens, launched one by one or replayed as one CUDA graph.

Weights stay where the model has them, but those that are read together are laid together. What flows between layers is
kept in float32; keys, values and what is multiplied are in the dtype of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from chatsmith.kernels.gpu import attention, choose
from chatsmith.kernels.gpu.thin import norm, precision, thin
from chatsmith.specs import ModelSpec

BLOCK = attention.BLOCK


def _wide(n: int) -> int:
    return int(triton.next_power_of_2(n))


@dataclass(frozen=True, slots=True)
class Norm:
    """Gain and, of a layer norm, shift."""

    gain: Tensor
    shift: Tensor | None


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer, [outputs, inputs] each; biases and head norms where there are any.

    `qkv` are query, key and value one after another; `up_bias` has the gate's biases after its own.
    """

    attention_norm: Norm
    qkv: Tensor
    qkv_bias: Tensor | None
    query_gain: Tensor | None
    key_gain: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    ffn_norm: Norm
    gate: Tensor | None
    up: Tensor
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a decoder; `cosine` and `sine` are the angles of rotary positions, [C, D / 2] in float32."""

    embed: Tensor
    places: Tensor | None
    cosine: Tensor | None
    sine: Tensor | None
    layers: tuple[Layer, ...]
    norm: Norm
    head: Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Where the new tokens of a pass stand, int32 on the device.

    `ids`, `positions` and `owners` [R] are each token's id, its place in its sequence and the number of that sequence;
    `tables` [G, S, W] are the blocks that hold the sequences, for each group of layers.
    """

    ids: Tensor
    positions: Tensor
    owners: Tensor
    tables: Tensor


class GPUDecoder:
    """The passes of one decoder over its own cache of `blocks` blocks, and one block that belongs to nobody.

    `leap` lets a kernel begin while the one before it ends (programmatic dependent launch: from compute capability 9).
    """

    def __init__(self, spec: ModelSpec, weights: Weights, blocks: int, most_rows: int, *, leap: bool) -> None:
        self.spec, self.weights, self.leap = spec, weights, leap
        where = {"device": weights.embed.device, "dtype": weights.embed.dtype}
        slots = -(-spec.layers // len(spec.bands))
        shape = (slots, 2, blocks + 1, spec.kv_heads, BLOCK, spec.head_dim)
        self.cache = torch.zeros(shape, **where)
        inner = (spec.heads + 2 * spec.kv_heads) * spec.head_dim
        self._x = torch.empty(most_rows, spec.width, device=where["device"], dtype=torch.float32)
        self._normed = torch.empty(most_rows, spec.width, **where)
        self._qkv = torch.empty(most_rows, inner, **where)
        self._mixed = torch.empty(most_rows, spec.heads * spec.head_dim, **where)
        self._active = torch.empty(most_rows, spec.ffn_width, **where)

    def run(self, at: Places, alone: bool) -> None:
        """The layers, over R new tokens; `alone` says that no two of them belong to one sequence."""
        R, spec, w = len(at.ids), self.spec, self.weights
        x = self._x[:R]
        attention.embed_kernel[(R,)](
            at.ids, at.positions, w.embed, w.places, x, spec.width,
            WIDE=_wide(spec.width), LEARNED=w.places is not None, LEAP=self.leap, num_warps=4, launch_pdl=self.leap,
        )  # fmt: skip
        for number, layer in enumerate(w.layers):
            qkv = self._qkv[:R]
            self._read(x, layer.attention_norm, layer.qkv, qkv, bias=layer.qkv_bias)
            mixed = self._attend(number, layer, qkv, at, alone)
            thin(mixed, layer.output, x, bias=layer.output_bias, add=True, leap=self.leap)
            active = self._active[:R]
            self._read(
                x, layer.ffn_norm, layer.up, active, bias=layer.up_bias, gate=layer.gate, activation=spec.activation
            )
            thin(active, layer.down, x, bias=layer.down_bias, add=True, leap=self.leap)

    def _read(
        self,
        x: Tensor,
        by: Norm,
        weight: Tensor,
        y: Tensor,
        *,
        bias: Tensor | None,
        gate: Tensor | None = None,
        activation: str | None = None,
    ) -> None:
        """y = f(norm(x) Wᵀ + b)."""
        normed = self._normed[: len(x)]
        norm(x, by.gain, by.shift, self.spec.norm_epsilon, normed, None, self.leap)
        thin(normed, weight, y, gate=gate, bias=bias, activation=activation, leap=self.leap)

    def _attend(self, number: int, layer: Layer, qkv: Tensor, at: Places, alone: bool) -> Tensor:
        spec, w = self.spec, self.weights
        bands = len(spec.bands)
        keys, values = self.cache[number // bands]
        tables = at.tables[number % bands]
        R, share = len(qkv), spec.heads // spec.kv_heads
        mixed = self._mixed[:R]
        given = (
            qkv, keys, values, at.positions, at.owners, tables, w.cosine, w.sine, layer.query_gain, layer.key_gain
        )  # fmt: skip
        sizes = (spec.heads, spec.kv_heads, spec.head_dim, tables.shape[-1])
        shape = {
            "SHARE": share,
            "HEADS": max(16, _wide(share)),
            "HALF": max(8, _wide(spec.head_dim // 2)),
            "BLOCK": BLOCK,
            "ROTARY": w.cosine is not None,
            "NORMED": spec.qk_norm,
            "LEAP": self.leap,
        }
        launch = {"num_warps": attention.WARPS, "launch_pdl": self.leap}
        grid = (R, spec.kv_heads)
        if not alone:
            attention.place_kernel[grid](*given, spec.norm_epsilon, *sizes, **shape, **launch)
        attention.attend_kernel[grid](
            *given, mixed, spec.head_dim**-0.5, spec.norm_epsilon, spec.layer_band(number) or 2**30, *sizes, **shape,
            TILE=attention.TILE, PLACE=alone, PRECISION=precision(qkv), num_stages=2, **launch,
        )  # fmt: skip
        return mixed

    @property
    def nothing(self) -> Tensor:
        """The states of no rows, [0, E]."""
        return self._normed[:0]

    def states(self, chosen: Tensor | None, count: int) -> Tensor:
        """The states after the last norm of the rows `chosen` [n] (None: of the first `count`) of the last pass."""
        by = self.weights.norm
        normed = self._normed[:count]
        norm(self._x, by.gain, by.shift, self.spec.norm_epsilon, normed, chosen, self.leap)
        return normed

    def logits(self, states: Tensor, into: Tensor) -> None:
        """The logits of states [n, E], float32 in `into` [n, V]."""
        thin(states, self.weights.head, into, leap=self.leap)

    def choose(
        self, logits: Tensor, keys: Tensor, temperatures: Tensor, tokens: Tensor, logprobs: Tensor, vocabulary: int
    ) -> None:
        """A token of the first `vocabulary` for each row of logits [n, V], and its log probability."""
        n = len(logits)
        race = 1 << (vocabulary.bit_length() + 1) // 2  # as in `generate.noise.choose`
        blocks = max(1, choose.AT_ONCE // race)
        parts = triton.cdiv(triton.cdiv(vocabulary, race), blocks)
        peaks, totals = logits.new_empty(2, n, parts)
        first, fastest = logits.new_empty(2, n, parts, dtype=torch.int32)
        offers = (peaks, first, totals, logits.new_empty(n, parts, dtype=torch.float64), fastest)
        given = (logits, keys, temperatures, *offers)
        launch = {"RACE": race, "LEAP": self.leap, "num_warps": 4, "launch_pdl": self.leap}
        choose.look_kernel[(n, parts)](*given, vocabulary, logits.stride(0), BLOCKS=blocks, **launch)
        choose.choose_kernel[(n,)](
            *given, tokens, logprobs, vocabulary, logits.stride(0), parts, PARTS=_wide(parts), **launch
        )

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole blocks, in all layers; no target is a source of the same call."""
        self.cache[:, :, targets] = self.cache[:, :, sources]
