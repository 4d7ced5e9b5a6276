"""Decoders as GGUF files, both ways: which key and which tensor is what, for GPT-2, Llama and Qwen3.

llama.cpp names families by `general.architecture` and turns Llama's heads in adjacent pairs where ours turn halves; the
rows of queries and keys are put in its order on the way out and in ours on the way in. What a file says of its family,
or holds, and our decoder does not do is refused by name, never passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.kernels.infer.matrix import Floats, as_floats
from chatsmith.models.rotary import llama3_factors
from chatsmith.specs import ModelSpec, RopeScaling
from chatsmith.store.contents import check_vocabulary
from chatsmith.store.gguf import Gguf, write_gguf
from chatsmith.store.gguf_numbers import rounded
from chatsmith.store.gguf_vocabulary import read_vocabulary, vocabulary_values
from chatsmith.store.packing import Read, check_layers, parameter_shapes
from chatsmith.store.saving import check_parents
from chatsmith.text.tokenizer import Tokenizer

FILE_FORMATS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
_LAYER = {
    "attention_norm": "attn_norm", "attention.query": "attn_q", "attention.key": "attn_k", "attention.value": "attn_v",
    "attention.output": "attn_output", "attention.query_norm": "attn_q_norm", "attention.key_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm", "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down",
}  # fmt: skip
_TOP = {"embed": "token_embd", "positions": "position_embd", "norm": "output_norm", "head": "output"}
_FACTORS = "rope_freqs.weight"  # what the frequencies of rotary pairs are divided by
_POSITIONS = "position_embd.weight"  # looked up, never multiplied
_QKV = ("attention.query", "attention.key", "attention.value")
# What a file may say of its family without changing any number, and what changes none if it has this value.
_ORIGINAL = "rope.scaling.original_context_length"
_IDLE = ("vocab_size", _ORIGINAL, "rope.scaling.finetuned")
_USUAL = {
    "attention.causal": True,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.attn_factor": 1.0,
    "tensor_data_layout": "Meta AI original pth",  # the order of Llama's rows that is read
}


def write_model(
    path: Path,
    spec: ModelSpec,
    read: Read,
    tokenizer: Tokenizer,
    to: str,
    name: str,
    stops: Collection[int] = (),
) -> None:
    """Write a decoder as one GGUF file. `to` int8 is Q8_0; int4 is Q4_0 with embedding and head in Q8_0.

    `stops` are ids that end a text besides the tokenizer's own. Raises `RequestError` for a shape or a vocabulary that
    GGUF has no name for.
    """
    values = model_values(spec, tokenizer, name, stops)
    write_gguf(path, values, _tensors(spec, read, to))


def check_file(path: Path, overwrite: bool) -> None:
    """Raises `RequestError` where no GGUF file can be written: there is one already (unless `overwrite`), or a folder
    of that name, or what it would lie in is a file."""
    check_parents(path)
    if path.is_dir():
        raise RequestError(f"{path} is a folder, not a file", "choose another name")
    if path.exists() and not overwrite:
        raise RequestError(f"{path} is there already", "choose another name, or add --overwrite")


def as_written(spec: ModelSpec, read: Read, to: str) -> Read:
    """How to read the parameters as `write_model` writes them: rounded to what the file keeps."""
    kept = {parameter: name for name, parameters in _names(spec).items() for parameter in parameters}

    def rounded_read(parameter: str) -> Floats:
        # Numbers share a scale only within a row, so that neither stacking nor turning rows changes any.
        numbers = as_floats(read(parameter))
        return rounded(numbers, _kind(kept[parameter], numbers.shape, to))

    return rounded_read


def model_values(spec: ModelSpec, tokenizer: Tokenizer, name: str, stops: Collection[int] = ()) -> dict[str, Any]:
    """What the file says of a model and its vocabulary; raises `RequestError` for what GGUF has no name for."""
    check_vocabulary(Path(name), tokenizer, spec)
    return _values(spec, name) | vocabulary_values(tokenizer, spec.vocab_size, stops)


def _values(spec: ModelSpec, name: str) -> dict[str, Any]:
    family = spec.architecture
    if family is None:
        raise RequestError("GGUF has no name for this shape", "GPT-2, Llama and Qwen3 can be written")
    if family != "gpt2" and spec.attention_bias:
        raise RequestError("biases of attention are written as GGUF for GPT-2 alone", "write a folder instead")
    if spec.activation == "gelu":
        raise RequestError(
            "llama.cpp computes GPT-2's GELU by its tanh form, and this model has the exact one (activation gelu)",
            "write a folder instead",
        )
    scaling = spec.rope_scaling
    if scaling is not None and scaling.kind == "llama3" and family != "llama":
        raise RequestError(f"rotary positions stretched as llama3 are not written as GGUF for {family}")
    norm = "layer_norm_epsilon" if family == "gpt2" else "layer_norm_rms_epsilon"
    sizes: dict[str, Any] = {
        "context_length": spec.context,
        "embedding_length": spec.width,
        "feed_forward_length": spec.ffn_width,
        "block_count": spec.layers,
        "attention.head_count": spec.heads,
        f"attention.{norm}": float(spec.norm_epsilon),
    }
    if family != "gpt2":
        sizes |= {
            "attention.head_count_kv": spec.kv_heads,
            "attention.key_length": spec.head_dim,
            "attention.value_length": spec.head_dim,
            "rope.dimension_count": spec.head_dim,
            "rope.freq_base": float(spec.rope_theta),
            "vocab_size": spec.vocab_size,
        }
    if scaling is not None and scaling.kind == "linear":
        sizes |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    elif scaling is not None:
        sizes |= {_ORIGINAL: scaling.original_context}
    return {"general.architecture": family, "general.name": name} | {f"{family}.{k}": v for k, v in sizes.items()}


def _names(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Tensor of the file → the parameters stacked in it."""
    found: dict[str, list[str]] = {}
    for parameter in parameter_shapes(spec):
        module, _, leaf = parameter.rpartition(".")
        top, _, rest = module.partition("blocks.")
        number, _, stem = rest.partition(".")
        if not rest:
            found.setdefault(f"{_TOP[top]}.{leaf}", []).append(parameter)
        else:
            short = "attn_qkv" if spec.architecture == "gpt2" and stem in _QKV else _LAYER[stem]
            found.setdefault(f"blk.{number}.{short}.{leaf}", []).append(parameter)
    return {name: tuple(parameters) for name, parameters in found.items()}


def formats_of(spec: ModelSpec, to: str) -> str:
    """The formats of a file's matrices in words, for `to` as `write_model` understands it."""
    told = FILE_FORMATS[to] + (", embedding and head in Q8_0" if to == "int4" else "")
    shapes = parameter_shapes(spec)
    matrices = [(name, shapes[parameters[0]]) for name, parameters in _names(spec).items()]
    kinds = [_kind(name, shape, to) for name, shape in matrices if len(shape) > 1 and name != _POSITIONS]
    odd = kinds.count("F16")
    if to not in ("int8", "int4") or not odd:
        return told
    whose = "whose rows are not whole blocks of 32"
    if odd == len(kinds):
        return f"F16: there is no matrix but those {whose}"
    return f"{told}; {odd} of {len(kinds)} matrices in F16, {whose}"


def _tensors(spec: ModelSpec, read: Read, to: str) -> Iterator[tuple[str, Floats, str]]:
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3":
        yield _FACTORS, llama3_factors(spec).astype(np.float32), "F32"
    for name, parameters in _names(spec).items():
        numbers = np.concatenate([_adjacent(spec, p, as_floats(read(p))) for p in parameters])
        yield name, numbers, _kind(name, numbers.shape, to)


def _kind(name: str, shape: tuple[int, ...], to: str) -> str:
    """The format that a tensor of the file is kept in."""
    kind = FILE_FORMATS[to]
    if len(shape) == 1:
        return "F32"
    if name == _POSITIONS:
        return "F32" if to == "f32" else "F16"
    if kind.startswith("Q") and shape[1] % 32:
        return "F16"  # no whole number of blocks
    return "Q8_0" if kind == "Q4_0" and name.startswith(("token_embd", "output.")) else kind


def _turned(spec: ModelSpec, parameter: str) -> int:
    """The heads whose rows llama.cpp keeps in another order; 0 for what it does not turn."""
    if spec.architecture != "llama" or not parameter.endswith(".weight"):
        return 0
    return {"query": spec.heads, "key": spec.kv_heads}.get(parameter.split(".")[-2], 0)


def _adjacent(spec: ModelSpec, parameter: str, numbers: Floats) -> Floats:
    heads = _turned(spec, parameter)
    if not heads:
        return numbers
    return numbers.reshape(heads, 2, -1, numbers.shape[1]).swapaxes(1, 2).reshape(numbers.shape)


def _halves(spec: ModelSpec, parameter: str, numbers: Floats) -> Floats:
    heads = _turned(spec, parameter)
    if not heads:
        return numbers
    return np.ascontiguousarray(numbers.reshape(heads, -1, 2, numbers.shape[1]).swapaxes(1, 2).reshape(numbers.shape))


def open_model(path: Path) -> tuple[ModelSpec, Read, Tokenizer, dict[str, Any]]:
    """The shape, parameters and vocabulary of a GGUF file, and what its generation_config.json would say.

    Raises `RequestError` for a family, vocabulary or setting that is not read, and `WorkError` for a file that is
    damaged.
    """
    file = Gguf(path)
    try:
        spec = _spec(file)
    except RequestError as error:
        raise RequestError(f"{path}: {error.message}", error.hint) from None
    check_layers(spec, len(file.tensors), path)
    shapes, holds = parameter_shapes(spec), {}
    names = _names(spec)
    for name, parameters in names.items():
        rows = [shapes[parameter][0] for parameter in parameters]
        wanted = (sum(rows), *shapes[parameters[0]][1:])
        tensor = file.tensors.get(name)
        if tensor is None or tensor.shape != wanted:
            have = "is missing" if tensor is None else f"has shape {list(tensor.shape)}, not {list(wanted)}"
            raise WorkError(f"{path}: the tensor {name} {have}", "the file contradicts its own sizes")
        start = 0
        for parameter, count in zip(parameters, rows, strict=True):
            holds[parameter] = (name, start, start + count)
            start += count
    spare = file.tensors.keys() - names.keys() - {_FACTORS}
    if spare:
        raise RequestError(
            f"{path}: unexpected tensor {min(spare)} ({len(spare)} in all)",
            f"models of type {spec.architecture} are read without it",
        )
    tokenizer, generation = read_vocabulary(file)
    check_vocabulary(path, tokenizer, spec)
    return spec, partial(_read, file, spec, holds), tokenizer, generation


def _read(file: Gguf, spec: ModelSpec, holds: dict[str, tuple[str, int, int]], parameter: str) -> Floats:
    name, start, end = holds[parameter]
    return _halves(spec, parameter, file.read(name)[start:end])


class _Settings:
    """What a file says of its family, by the keys below the family's name; what nobody asked for is refused."""

    def __init__(self, file: Gguf, family: str) -> None:
        self.file, self.family = file, family
        self.asked = set(_IDLE)

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        self.asked.add(key)
        name = f"{self.family}.{key}"
        if isinstance(self.file.values.get(name), np.ndarray):
            raise RequestError(f"{name} differs between layers, which is not supported")
        return self.file.get(name, kind, default)

    def size(self, key: str, default: int | None = None) -> int:
        value: int = self.get(key, int, default)
        return value

    def only(self, key: str, wanted: Any) -> None:
        """Refuse a setting that is there and has another value than the one that our decoder follows."""
        value = self.get(key, type(wanted), wanted)
        if value != wanted:
            raise RequestError(f"{self.family}.{key} = {value!r} is not supported (only {wanted!r})")

    def refuse_others(self) -> None:
        for key, wanted in _USUAL.items():
            self.only(key, wanted)
        begin = f"{self.family}."
        for key in sorted(key for key in self.file.values if key.startswith(begin)):
            if key.removeprefix(begin) not in self.asked:
                raise RequestError(f"{key} = {repr(self.file.values[key])[:40]} is not supported")


def _spec(file: Gguf) -> ModelSpec:
    family = file.get("general.architecture", str)
    if family not in ("gpt2", "llama", "qwen3"):
        raise RequestError(f"models of type {family!r} are not read", "gpt2, llama and qwen3 are")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise WorkError(f"{file.path}: the tensor token_embd.weight is missing", "it holds no model")
    said = _Settings(file, family)
    width, heads = said.size("embedding_length"), said.size("attention.head_count")
    shape: dict[str, Any] = {
        "vocab_size": embedding.shape[0],
        "context": said.size("context_length"),
        "width": width,
        "layers": said.size("block_count"),
        "heads": heads,
        "ffn_width": said.size("feed_forward_length"),
        "tied": "output.weight" not in file.tensors,
    }
    if family == "gpt2":
        said.only("attention.head_count_kv", heads)
        shape |= {"norm_epsilon": said.get("attention.layer_norm_epsilon", float)}
    else:
        head_dim = said.size("attention.key_length", width // heads if heads else 0)
        said.only("attention.value_length", head_dim)
        said.only("rope.dimension_count", head_dim)
        shape |= {
            "kv_heads": said.size("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "norm": "rms",
            "norm_epsilon": said.get("attention.layer_norm_rms_epsilon", float),
            "activation": "swiglu",
            "positions": "rotary",
            "rope_theta": said.get("rope.freq_base", float, 10000.0),
            "rope_scaling": _rope_scaling(said, head_dim),
            "attention_bias": False,
            "ffn_bias": False,
            "qk_norm": family == "qwen3",
        }
    said.refuse_others()
    spec = ModelSpec(**shape)
    _check_factors(file, spec)
    return spec


def _rope_scaling(said: _Settings, head_dim: int) -> RopeScaling | None:
    """How rotary positions are stretched: evenly, if no type is named, by a factor under its newer or older key; or as
    a table says, which has to be Llama 3.1's (see `_check_factors`)."""
    kind = said.get("rope.scaling.type", str, "linear")
    if kind not in ("none", "linear"):
        raise RequestError(f"rotary positions stretched as {kind!r} are not read")
    factor = said.get("rope.scaling.factor", float, said.get("rope.scale_linear", float, 0.0))
    if kind == "linear" and factor not in (0.0, 1.0):
        return RopeScaling("linear", factor)
    factors = _factors(said.file, head_dim)
    largest = 1.0 if factors is None else float(str(factors.max()))
    return RopeScaling("llama3", largest, original_context=said.size(_ORIGINAL, 8192)) if largest > 1 else None


def _factors(file: Gguf, head_dim: int) -> Floats | None:
    """The table of factors, if there is one."""
    tensor = file.tensors.get(_FACTORS)
    if tensor is None:
        return None
    if tensor.shape != (head_dim // 2,) or tensor.format.name != "F32":
        raise RequestError(f"{_FACTORS} is not a table of {head_dim // 2} factors in F32")
    return file.read(_FACTORS)


def _check_factors(file: Gguf, spec: ModelSpec) -> None:
    """A table of factors must be that of Llama 3.1, whose settings besides the largest factor no file names."""
    found = _factors(file, spec.head_dim)
    same = found is None or np.allclose(found, llama3_factors(spec), rtol=1e-5, atol=0)
    if not same or (found is not None and spec.architecture != "llama"):
        raise RequestError(f"{_FACTORS} stretches positions otherwise than Llama 3.1 does, which is not read")
