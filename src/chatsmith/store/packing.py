"""From the parameters of a decoder to the parts that the native backend reads, and back. No torch.

Query, key and value become one matrix, and of a gated feed-forward block gate and up, whose panels take turns: so each
product is one, and what belongs together is computed by the same thread. The rest keeps its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import WorkError
from chatsmith.kernels.infer.matrix import PANEL, SPAN, Floats, Kind, Matrix, as_floats
from chatsmith.kernels.infer.session import Part
from chatsmith.specs import ModelSpec
from chatsmith.store.quantise import quantised

_LEAST_OF_LAYER = 6  # tensors in any layout: two norms, query with key and value, output, up and down
Read = Callable[[str], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Format:
    """How weights are kept: those of the layers, and the embedding and output head, which cost more when coarse."""

    kind: Kind
    group: int = 64
    symmetric: bool = True
    head: Kind | None = None
    head_group: int = 64
    blocks: bool = False
    """int4 as GGUF's Q4_0 has it: groups of 32 with a whole scale each; rows of no whole groups stay in f16."""

    @property
    def head_kind(self) -> Kind:
        """The kind of embedding and head: as chosen, else that of the layers but never less than int8."""
        return self.head or ("int8" if self.kind == "int4" else self.kind)

    @property
    def position_kind(self) -> Kind:
        """The kind of a learned position table, which is small and is added to everything: 16 bits are the least."""
        return self.kind if self.kind in ("f32", "f16") else "bf16"

    def rounded(self, values: NDArray[Any], moments: NDArray[Any] | None = None) -> Matrix:
        """A matrix of a layer as it is kept; see `quantised` for the moments of what it is multiplied with."""
        if self.blocks and values.shape[1] % SPAN:
            return quantised(values, "f16")
        return quantised(
            values, self.kind, group=self.group, symmetric=self.symmetric, factors=not self.blocks, moments=moments
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One part: the parameters it is made of along their outputs and the rows of each, its shape, and its role."""

    name: str
    sources: tuple[str, ...]
    rows: tuple[int, ...]
    shape: tuple[int, ...]
    role: Literal["vector", "positions", "head", "layer"] = "layer"
    in_turns: bool = False


def entries(spec: ModelSpec) -> list[Entry]:
    """Every part of a decoder, in the order in which a step reads them."""
    V, C, E = spec.vocab_size, spec.context, spec.width
    found = [] if spec.tied else [Entry("embed", ("embed.weight",), (V,), (V, E), "head")]
    if spec.positions == "learned":
        found.append(Entry("positions", ("positions.weight",), (C,), (C, E), "positions"))
    for layer in range(spec.layers):
        at = f"blocks.{layer}."
        for half in (_attention(spec), _feed_forward(spec)):
            for entry in half:
                sources = tuple(at + source for source in entry.sources)
                found.append(replace(entry, name=at + entry.name, sources=sources))
    found += _norm(spec, "norm", E)
    return [*found, Entry("head", ("embed.weight" if spec.tied else "head.weight",), (V,), (V, E), "head")]


def check_layers(spec: ModelSpec, tensors: int, where: Path) -> None:
    """Raises `WorkError` where a file has fewer tensors than its layers need: before a list of them all is made."""
    if spec.layers * _LEAST_OF_LAYER > tensors:
        raise WorkError(
            f"{where}: {spec.layers} layers are claimed, and there are {tensors} tensors",
            "the file contradicts its own sizes",
        )


def _norm(spec: ModelSpec, name: str, width: int) -> list[Entry]:
    leaves = ("weight", "bias") if spec.norm == "layer" else ("weight",)
    return [Entry(f"{name}.{leaf}", (f"{name}.{leaf}",), (width,), (width,), "vector") for leaf in leaves]


def _map(name: str, sources: dict[str, int], inputs: int, bias: bool, in_turns: bool = False) -> list[Entry]:
    """A linear map made of those of `sources`, each with its outputs."""
    rows = tuple(sources.values())
    outputs = sum(-(-count // PANEL) * PANEL for count in rows) if in_turns else sum(rows)
    weights, biases = (tuple(f"{source}.{leaf}" for source in sources) for leaf in ("weight", "bias"))
    found = [Entry(name, weights, rows, (outputs, inputs), in_turns=in_turns)]
    return found + ([Entry(f"{name}.bias", biases, rows, (outputs,), "vector", in_turns)] if bias else [])


def _attention(spec: ModelSpec) -> list[Entry]:
    inner, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    sources = {"attention.query": inner, "attention.key": keys, "attention.value": keys}
    found = _norm(spec, "attention_norm", spec.width)
    found += _map("attention.qkv", sources, spec.width, spec.attention_bias)
    if spec.qk_norm:
        names = ("attention.query_norm.weight", "attention.key_norm.weight")
        found += [Entry(name, (name,), (spec.head_dim,), (spec.head_dim,), "vector") for name in names]
    return found + _map("attention.output", {"attention.output": spec.width}, inner, spec.attention_bias)


def _feed_forward(spec: ModelSpec) -> list[Entry]:
    sources = {"ffn.gate": spec.ffn_width, "ffn.up": spec.ffn_width} if spec.gated else {"ffn.up": spec.ffn_width}
    found = _norm(spec, "ffn_norm", spec.width)
    found += _map("ffn.up", sources, spec.width, spec.ffn_bias, in_turns=spec.gated)
    return found + _map("ffn.down", {"ffn.down": spec.width}, spec.ffn_width, spec.ffn_bias)


def parameter_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters of `Decoder` by name."""
    return {
        source: (rows, *entry.shape[1:])
        for entry in entries(spec)
        for source, rows in zip(entry.sources, entry.rows, strict=True)
    }


def packed_parts(
    spec: ModelSpec, read: Read, form: Format, rounded: Callable[[Entry, NDArray[Any]], Matrix] | None = None
) -> Iterator[tuple[str, Part]]:
    """The parts of a decoder by name, one at a time; `read` gives a parameter of `Decoder` by name
    (bfloat16 as uint16), `rounded` the matrix of a layer from its numbers (None: as `form` rounds them)."""
    for entry in entries(spec):
        sources = [read(source) for source in entry.sources]
        values = sources[0] if len(sources) == 1 else _in_turns(sources) if entry.in_turns else np.concatenate(sources)
        if entry.role == "vector":
            yield entry.name, np.ascontiguousarray(as_floats(values))
        elif entry.role == "positions":
            yield entry.name, quantised(values, form.position_kind)
        elif entry.role == "head":
            yield entry.name, quantised(values, form.head_kind, group=form.head_group)
        else:
            yield entry.name, form.rounded(values) if rounded is None else rounded(entry, values)


def unpacked(spec: ModelSpec, parts: Mapping[str, Part]) -> Iterator[tuple[str, Floats]]:
    """The parameters of `Decoder` by name in float32, as the packed ones stand for them."""
    for entry in entries(spec):
        part = parts[entry.name]
        values = part.numbers() if isinstance(part, Matrix) else np.asarray(part, np.float32)
        for source, piece in zip(entry.sources, pieces(entry, values), strict=True):
            # vectors are copied too: what is given belongs to the caller, the file's map does not
            yield source, np.array(piece, np.float32)


def pieces(entry: Entry, values: Floats) -> list[Floats]:
    """The numbers of a part cut into those of its sources."""
    if entry.in_turns:
        return _out_of_turns(values, entry.rows[0])
    return np.split(values, np.cumsum(entry.rows[:-1]))


def _in_turns(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """16 rows of the first, 16 of the second, and so on; both filled up with zeros."""
    full = [np.pad(part, [(0, -len(part) % PANEL), *[(0, 0)] * (part.ndim - 1)]) for part in parts]
    cut = [part.reshape(-1, 1, PANEL, *part.shape[1:]) for part in full]
    return np.concatenate(cut, 1).reshape(-1, *parts[0].shape[1:])


def _out_of_turns(joined: Floats, rows: int) -> list[Floats]:
    cut = joined.reshape(-1, 2, PANEL, *joined.shape[1:])
    return [cut[:, part].reshape(-1, *joined.shape[1:])[:rows] for part in range(2)]
