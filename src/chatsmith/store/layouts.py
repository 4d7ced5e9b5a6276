"""Which tensor of a file holds which parameters of the decoder, for each family, both ways.

GPT-2's files keep queries, keys and values in one matrix and store matrices as [in, out]; Llama's and Qwen3's, and
our own, hold one parameter per tensor as [out, in]. What is read may be a torch tensor or a numpy array.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chatsmith.errors import WorkError
from chatsmith.store.hf import OWN_FAMILY
from chatsmith.store.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

_LLAMA = {
    "embed": "model.embed_tokens",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
_GPT2 = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "attention_norm": "ln_1",
    "attention.query": "attn.c_attn",
    "attention.key": "attn.c_attn",
    "attention.value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
# Family → names, what stands before a layer's number, and the prefix that a file without an output head leaves out.
_FAMILIES = {
    "gpt2": (_GPT2, "transformer.h.", "transformer."),
    "llama": (_LLAMA, "model.layers.", "model."),
    "qwen3": (_LLAMA, "model.layers.", "model."),
}
_TRANSPOSED = re.compile(r"\.(attn|mlp)\.c_\w+\.weight$")
# Constants that older versions of Transformers stored beside the weights.
_BUFFERS = re.compile(r"(^|\.)(h\.\d+\.attn\.(bias|masked_bias)|layers\.\d+\.self_attn\.rotary_emb\.inv_freq)$")
_READABLE = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file: the parameters stacked in it along their outputs, and whether it is kept as [in, out]."""

    name: str
    parameters: tuple[str, ...]
    transposed: bool

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Its shape in the file, from the shapes of the parameters."""
        first = shapes[self.parameters[0]]
        stacked = (sum(shapes[name][0] for name in self.parameters), *first[1:])
        return stacked[::-1] if self.transposed else stacked

    def pack(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The file's tensor, made of parameters."""
        import torch

        parts = [parameters[name] for name in self.parameters]
        stacked = parts[0] if len(parts) == 1 else torch.cat(parts)
        return stacked.t() if self.transposed else stacked

    def unpack(self, tensor: Any, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Any]]:
        """The parameters held in the file's tensor, as views of it."""
        stacked = tensor.T if self.transposed else tensor
        start = 0
        for name in self.parameters:
            end = start + (shapes[name][0] if shapes[name] else 1)
            yield name, stacked[start:end]
            start = end


class Files(Protocol):
    """Open weights: what is there, and one of them as a tensor or an array."""

    tensors: dict[str, TensorInfo]

    def read(self, name: str) -> Any: ...


def layout(kind: str, shapes: Mapping[str, Shape]) -> list[Stored]:
    """How a family's file holds parameters of these names; our own layout is one tensor each."""
    if kind == OWN_FAMILY:
        return [Stored(name, (name,), False) for name in shapes]
    names, layers, _ = _FAMILIES[kind]
    held: dict[str, list[str]] = {}
    for parameter in shapes:
        module, _, leaf = parameter.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
        stem = f"{layers}{block[1]}.{names[block[2]]}" if block else names[module]
        held.setdefault(f"{stem}.{leaf}", []).append(parameter)
    return [
        Stored(name, tuple(parameters), kind == "gpt2" and _TRANSPOSED.search(name) is not None)
        for name, parameters in held.items()
    ]


def find_parameters(weights: Files, kind: str, shapes: Mapping[str, Shape], folder: Path) -> dict[str, Stored]:
    """The tensors of the files by their names there, after checking that they are exactly what the shapes ask for.

    Raises `WorkError` naming the first tensor that is missing, has another shape or dtype, or is not expected.
    """
    found = _full_names(weights.tensors, kind)
    expected = {stored.name: stored for stored in layout(kind, shapes)}
    spare = set(found) - set(expected)
    if "lm_head.weight" in spare and "head.weight" not in shapes:
        _check_tied(weights, found["lm_head.weight"], found, kind, folder)
        spare.discard("lm_head.weight")
    for name, stored in expected.items():
        if name not in found:
            raise WorkError(f"{folder}: the tensor {name} is missing", "the files do not belong to this config.json")
        _check_info(name, weights.tensors[found[name]], stored.shape(shapes))
    if spare:
        name = min(spare)
        raise WorkError(
            f"{weights.tensors[found[name]].file}: unexpected tensor {name} ({len(spare)} in all)",
            "the files do not belong to this config.json",
        )
    return {found[name]: stored for name, stored in expected.items()}


def _full_names(tensors: Mapping[str, TensorInfo], kind: str) -> dict[str, str]:
    """Full name → name in the file, without stored constants; a model saved without its head lacks the prefix."""
    names = [name for name in tensors if kind == OWN_FAMILY or not _BUFFERS.search(name)]
    if kind == OWN_FAMILY:
        return {name: name for name in names}
    prefix = _FAMILIES[kind][2]
    bare = not any(name.startswith(prefix) for name in names)
    return {prefix + name if bare and not name.startswith("lm_head.") else name: name for name in names}


def _check_info(name: str, info: TensorInfo, shape: Shape) -> None:
    if info.shape != shape:
        raise WorkError(
            f"{info.file}: {name} has shape {list(info.shape)}, and config.json asks for {list(shape)}",
            "the files do not belong to this config.json",
        )
    if info.dtype not in _READABLE:
        raise WorkError(
            f"{info.file}: {name} is stored as {info.dtype}; weights are read as {', '.join(_READABLE)}",
            "use the unquantised model",
        )


def _check_tied(weights: Files, head: str, found: Mapping[str, str], kind: str, folder: Path) -> None:
    """A tied model may repeat its embedding as the head, but not hold another one."""
    embedding = found.get(layout(kind, {"embed.weight": ()})[0].name)
    if embedding is not None and not bool((weights.read(head) == weights.read(embedding)).all()):
        raise WorkError(
            f"{folder}: config.json ties the output head to the embedding, but {head} differs from it",
            'set "tie_word_embeddings": false in config.json',
        )
