"""Decoders as GGUF files, both ways: which key and which tensor is what, for GPT-2, Llama and Qwen3.

llama.cpp names families by `general.architecture` and turns Llama's heads in adjacent pairs where ours turn halves; the
rows of queries and keys are put in its order on the way out and in ours on the way in. Vocabularies are byte-level BPE.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.kernels.infer.matrix import Floats, as_floats
from chatsmith.specs import ModelSpec, RopeScaling
from chatsmith.store.gguf import Gguf, rounded, write_gguf
from chatsmith.store.packing import Read, check_layers, parameter_shapes
from chatsmith.store.saving import check_parents
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.tokenizer_merges import ByteLevel
from chatsmith.text.tokenizer_words import GPT2, LLAMA3, QWEN2

FILE_FORMATS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
_LAYER = {
    "attention_norm": "attn_norm", "attention.query": "attn_q", "attention.key": "attn_k", "attention.value": "attn_v",
    "attention.output": "attn_output", "attention.query_norm": "attn_q_norm", "attention.key_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm", "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down",
}  # fmt: skip
_TOP = {"embed": "token_embd", "positions": "position_embd", "norm": "output_norm", "head": "output"}
_QKV = ("attention.query", "attention.key", "attention.value")
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
# How text is cut into words, by llama.cpp's names.
_CUTS = {"gpt-2": GPT2, "llama-bpe": LLAMA3, "qwen2": QWEN2}


def write_model(path: Path, spec: ModelSpec, read: Read, tokenizer: Tokenizer, to: str, name: str) -> None:
    """Write a decoder as one GGUF file. `to` int8 is Q8_0; int4 is Q4_0 with embedding and head in Q8_0.

    Raises `RequestError` for a shape or a vocabulary that GGUF has no name for.
    """
    values = model_values(spec, tokenizer, name)
    write_gguf(path, values, _tensors(spec, read, to))


def check_file(path: Path, overwrite: bool) -> None:
    """Raises `RequestError` where no GGUF file can be written: there is one already (unless `overwrite`), or a folder
    of that name, or what it would lie in is a file."""
    check_parents(path)
    if path.is_dir():
        raise RequestError(f"{path} is a folder, not a file", "choose another name")
    if path.exists() and not overwrite:
        raise RequestError(f"{path} is there already", "choose another name, or ask to overwrite it")


def as_written(spec: ModelSpec, read: Read, to: str) -> Read:
    """How to read the parameters as `write_model` writes them: rounded to what the file keeps."""
    kept = {parameter: name for name, parameters in _names(spec).items() for parameter in parameters}

    def rounded_read(parameter: str) -> Floats:
        # Numbers share a scale only within a row, so that neither stacking nor turning rows changes any.
        numbers = as_floats(read(parameter))
        return rounded(numbers, _kind(kept[parameter], numbers.shape, to))

    return rounded_read


def model_values(spec: ModelSpec, tokenizer: Tokenizer, name: str) -> dict[str, Any]:
    """What the file says of a model and its vocabulary; raises `RequestError` for what GGUF has no name for."""
    return _values(spec, name) | _vocabulary(tokenizer, spec.vocab_size)


def _values(spec: ModelSpec, name: str) -> dict[str, Any]:
    family = spec.architecture
    if family is None or (family != "gpt2" and spec.attention_bias) or spec.activation == "gelu":
        raise RequestError("GGUF has no name for this shape", "GPT-2, Llama and Qwen3 can be written")
    if spec.rope_scaling is not None and spec.rope_scaling.kind != "linear":
        raise RequestError(f"rotary positions stretched as {spec.rope_scaling.kind} are not written as GGUF")
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
    if spec.rope_scaling is not None:
        sizes |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(spec.rope_scaling.factor)}
    return {"general.architecture": family, "general.name": name} | {f"{family}.{k}": v for k, v in sizes.items()}


def _vocabulary(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The vocabulary as llama.cpp wants it; rows of the model that are no token are named as unused."""
    found = tokenizer.byte_level
    if found is None:
        raise RequestError("only byte-level BPE vocabularies are written as GGUF", "convert to a folder instead")
    tokens, kinds = [f"[PAD{number}]" for number in range(rows)], [_UNUSED] * rows
    for token, number in found.vocabulary.items():
        tokens[number], kinds[number] = token, _NORMAL
    for token, number in tokenizer.specials.items():
        tokens[number], kinds[number] = token, _CONTROL
    begin = tokenizer.begin_of_text
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": {pattern: name for name, pattern in _CUTS.items()}[found.pattern],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in found.merges],
        "tokenizer.ggml.bos_token_id": tokenizer.end_of_text if begin is None else begin,
        "tokenizer.ggml.eos_token_id": tokenizer.end_of_text,
        "tokenizer.ggml.add_bos_token": begin is not None,
    } | ({"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {})


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


def _tensors(spec: ModelSpec, read: Read, to: str) -> Iterator[tuple[str, Floats, str]]:
    for name, parameters in _names(spec).items():
        numbers = np.concatenate([_adjacent(spec, p, as_floats(read(p))) for p in parameters])
        yield name, numbers, _kind(name, numbers.shape, to)


def _kind(name: str, shape: tuple[int, ...], to: str) -> str:
    """The format that a tensor of the file is kept in."""
    kind = FILE_FORMATS[to]
    if len(shape) == 1:
        return "F32"
    if name.startswith("position_embd"):
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


def open_model(path: Path) -> tuple[ModelSpec, Read, Tokenizer]:
    """The shape, parameters and vocabulary of a GGUF file.

    Raises `RequestError` for a family or vocabulary that is not read, and `WorkError` for a file that is damaged.
    """
    file = Gguf(path)
    spec = _spec(file)
    check_layers(spec, len(file.tensors), path)
    shapes, holds = parameter_shapes(spec), {}
    for name, parameters in _names(spec).items():
        rows = [shapes[parameter][0] for parameter in parameters]
        wanted = (sum(rows), *shapes[parameters[0]][1:])
        tensor = file.tensors.get(name)
        if tensor is None or tensor.shape != wanted:
            have = "is missing" if tensor is None else f"has shape {list(tensor.shape)}, not {list(wanted)}"
            raise WorkError(f"{path}: the tensor {name} {have}", "the file does not belong to its own sizes")
        start = 0
        for parameter, count in zip(parameters, rows, strict=True):
            holds[parameter] = (name, start, start + count)
            start += count
    return spec, partial(_read, file, spec, holds), _tokenizer(file)


def _read(file: Gguf, spec: ModelSpec, holds: dict[str, tuple[str, int, int]], parameter: str) -> Floats:
    name, start, end = holds[parameter]
    return _halves(spec, parameter, file.read(name)[start:end])


def _spec(file: Gguf) -> ModelSpec:
    family = file.get("general.architecture", str)
    if family not in ("gpt2", "llama", "qwen3"):
        raise RequestError(f"{file.path}: models of type {family!r} are not read", "gpt2, llama and qwen3 are")
    if "rope_freqs.weight" in file.tensors:
        raise RequestError(f"{file.path}: its rotary positions are stretched by a table, which is not read from GGUF")
    size = partial(_size, file, family)
    width, heads = size("embedding_length"), size("attention.head_count")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise WorkError(f"{file.path}: the tensor token_embd.weight is missing", "it holds no model")
    shape: dict[str, Any] = {
        "vocab_size": embedding.shape[0],
        "context": size("context_length"),
        "width": width,
        "layers": size("block_count"),
        "heads": heads,
        "ffn_width": size("feed_forward_length"),
        "tied": "output.weight" not in file.tensors,
    }
    if family == "gpt2":
        return ModelSpec(**shape, norm_epsilon=file.get("gpt2.attention.layer_norm_epsilon", float))
    scaling = file.get(f"{family}.rope.scaling.type", str, "none")
    if scaling not in ("none", "linear"):
        raise RequestError(f"{file.path}: rotary positions stretched as {scaling!r} are not read")
    factor = file.get(f"{family}.rope.scaling.factor", float, 1.0)
    return ModelSpec(
        **shape,
        kv_heads=size("attention.head_count_kv", heads),
        head_dim=size("attention.key_length", width // heads if heads else 0),
        norm="rms",
        norm_epsilon=file.get(f"{family}.attention.layer_norm_rms_epsilon", float),
        activation="swiglu",
        positions="rotary",
        rope_theta=file.get(f"{family}.rope.freq_base", float, 10000.0),
        rope_scaling=RopeScaling("linear", factor) if scaling == "linear" else None,
        attention_bias=False,
        ffn_bias=False,
        qk_norm=family == "qwen3",
    )


def _size(file: Gguf, family: str, key: str, default: int | None = None) -> int:
    value: int = file.get(f"{family}.{key}", int, default)
    return value


def _tokenizer(file: Gguf) -> Tokenizer:
    """The vocabulary; its added tokens are those of type control."""
    kind = file.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise RequestError(f"{file.path}: vocabularies of type {kind!r} are not read", "byte-level BPE is")
    tokens, merges = (file.get(f"tokenizer.ggml.{key}", list) for key in ("tokens", "merges"))
    kinds = file.get("tokenizer.ggml.token_type", np.ndarray, np.full(len(tokens), _NORMAL))
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    if len(kinds) != len(tokens) or not all(isinstance(token, str) for token in tokens):
        raise WorkError(f"{file.path} is damaged: its vocabulary contradicts itself", "copy or download it again")
    named = {token: (number, kind) for number, (token, kind) in enumerate(zip(tokens, kinds.tolist(), strict=True))}
    vocabulary = {token: number for token, (number, kind) in named.items() if kind != _UNUSED}
    specials = {token: number for token, (number, kind) in named.items() if kind == _CONTROL}
    end = file.get("tokenizer.ggml.eos_token_id", int)
    if not 0 <= end < len(tokens):
        raise WorkError(f"{file.path} is damaged: its end-of-text token has number {end} of {len(tokens)}")
    config: dict[str, Any] = {"eos_token": tokens[end]}
    if file.get("tokenizer.ggml.add_bos_token", bool, False):
        begin = file.get("tokenizer.ggml.bos_token_id", int, end)
        config |= {"bos_token": tokens[begin % len(tokens)], "add_bos_token": True}
    if "tokenizer.chat_template" in file.values:
        config["chat_template"] = file.get("tokenizer.chat_template", str)
    cut = file.get("tokenizer.ggml.pre", str, "gpt-2")
    if cut not in _CUTS:
        raise RequestError(f"{file.path}: its vocabulary cuts text as {cut!r}, which is not read")
    return Tokenizer.of_byte_level(ByteLevel(vocabulary, pairs, _CUTS[cut]), specials, config)
