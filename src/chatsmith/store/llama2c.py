"""Models of llama2.c (its first `.bin` format) as Hugging Face Llama folders.

The file is seven int32 (width, ffn_width, layers, heads, kv_heads, vocab_size, context) and float32 blocks, one per
kind of weight over all layers. It turns neighbouring pairs of a head's features; Llama as published turns feature i
with i + D/2, so queries and keys are reordered. A negative vocab_size means that the head is not the embedding.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chatsmith.errors import RequestError, WorkError
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec
from chatsmith.store.folder import save_model
from chatsmith.store.sentencepiece import read_vocabulary, tokenizer_config, tokenizer_json
from chatsmith.store.tensors import file_sha256
from chatsmith.text.tokenizer import Tokenizer

_HEADER_BYTES = 7 * 4


def read_llama2c(path: Path) -> Decoder:
    """Read the weights of a llama2.c model; `WorkError` when the file is not as long as its header says."""
    path = Path(path)
    try:
        size = path.stat().st_size
        header = np.fromfile(path, dtype="<i4", count=7)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    if len(header) < 7:
        raise WorkError(f"{path} is {size} bytes, too short for a llama2.c model", "copy or download it again")
    spec = _spec(path, [int(number) for number in header])
    shapes = _shapes(spec)
    wanted = _HEADER_BYTES + 4 * sum(math.prod(shape) for _, shape in shapes)
    if size != wanted:
        raise WorkError(
            f"{path} is {size} bytes, and its header describes {wanted}", "it is cut short, or not a llama2.c model"
        )
    model = Decoder(spec, device="meta")
    numbers = np.memmap(path, dtype="<f4", mode="r", offset=_HEADER_BYTES)
    model.load_state_dict(dict(_parameters(spec, shapes, numbers)), assign=True)
    return model.eval()


def import_llama2c(model_file: Path, vocabulary_file: Path, folder: Path, *, overwrite: bool = False) -> Path:
    """Turn a llama2.c model and its vocabulary (`.bin` of llama2.c or SentencePiece's `.model`) into a model folder."""
    vocabulary = read_vocabulary(vocabulary_file)
    model = read_llama2c(model_file)
    with tempfile.TemporaryDirectory() as name:
        for file, content in (
            ("tokenizer.json", tokenizer_json(vocabulary)),
            ("tokenizer_config.json", tokenizer_config()),
        ):
            Path(name, file).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        tokenizer = Tokenizer.load(Path(name))
    source = {"format": "llama2.c", "file": os.path.basename(model_file), "sha256": file_sha256(Path(model_file))}
    # Its stories were laid end to end, each behind the token that begins one: that ends the one before, as in llama2.c.
    ends = {"eos_token_id": [2, 1]}
    return save_model(folder, model, tokenizer, provenance={"source": source}, generation=ends, overwrite=overwrite)


def _spec(path: Path, header: list[int]) -> ModelSpec:
    width, ffn_width, layers, heads, kv_heads, vocab_size, context = header
    try:
        return ModelSpec(
            vocab_size=abs(vocab_size),
            context=context,
            width=width,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            ffn_width=ffn_width,
            norm="rms",
            activation="swiglu",
            positions="rotary",
            attention_bias=False,
            ffn_bias=False,
            tied=vocab_size > 0,
        )
    except (RequestError, ZeroDivisionError) as error:
        raise WorkError(f"{path} is not a llama2.c model: {error}", "its first 28 bytes are not a header") from None


def _shapes(spec: ModelSpec) -> list[tuple[str, tuple[int, ...]]]:
    """The blocks of the file in order: parameter (of a layer, without its number) and shape over all layers."""
    layers, width, inner, keys = spec.layers, spec.width, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    blocks: list[tuple[str, tuple[int, ...]]] = [
        ("embed.weight", (spec.vocab_size, width)),
        ("attention_norm.weight", (layers, width)),
        ("attention.query.weight", (layers, inner, width)),
        ("attention.key.weight", (layers, keys, width)),
        ("attention.value.weight", (layers, keys, width)),
        ("attention.output.weight", (layers, width, inner)),
        ("ffn_norm.weight", (layers, width)),
        ("ffn.gate.weight", (layers, spec.ffn_width, width)),
        ("ffn.down.weight", (layers, width, spec.ffn_width)),
        ("ffn.up.weight", (layers, spec.ffn_width, width)),
        ("norm.weight", (width,)),
        ("rotary tables", (2, spec.context, spec.head_dim // 2)),
    ]
    return blocks if spec.tied else [*blocks, ("head.weight", (spec.vocab_size, width))]


def _parameters(
    spec: ModelSpec, shapes: list[tuple[str, tuple[int, ...]]], numbers: np.ndarray
) -> Iterator[tuple[str, Tensor]]:
    place = 0
    for name, shape in shapes:
        count = math.prod(shape)
        block = torch.from_numpy(np.array(numbers[place : place + count], dtype=np.float32)).view(shape)
        place += count
        if name == "rotary tables":
            continue
        if name in ("embed.weight", "norm.weight", "head.weight"):
            yield name, block
            continue
        for layer in range(spec.layers):
            weight = block[layer].clone()
            if name in ("attention.query.weight", "attention.key.weight"):
                weight = _pairs_to_halves(weight, spec.head_dim)
            yield f"blocks.{layer}.{name}", weight


def _pairs_to_halves(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of each head from (0, 1), (2, 3), … to 0, 2, … then 1, 3, …: [H·D, E] → [H·D, E]."""
    return weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
