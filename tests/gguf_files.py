"""Small GGUF files, as we write them and with something changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chatsmith.specs import ModelSpec, RopeScaling
from chatsmith.store.gguf import Gguf, write_gguf
from chatsmith.store.gguf_model import write_model
from chatsmith.store.packing import parameter_shapes
from chatsmith.text.tokenizer import Tokenizer
from tiny import tiny_spec, tiny_tokenizer

LLAMA = ModelSpec(
    vocab_size=320, context=64, width=64, layers=2, heads=4, kv_heads=2, ffn_width=96, norm="rms", activation="swiglu",
    positions="rotary", attention_bias=False, ffn_bias=False, rope_scaling=RopeScaling("linear", 2.0),
)  # fmt: skip
GPT2 = ModelSpec(vocab_size=320, context=64, width=64, layers=2, heads=4)
QWEN3 = tiny_spec("qwen3")


def numbers(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Random parameters."""
    draw = np.random.default_rng(0)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(spec).items()}


def save(path: Path, spec: ModelSpec, to: str = "f32", tokenizer: Tokenizer | None = None) -> Path:
    """A file of random parameters, with the tiny vocabulary if none is given."""
    write_model(path, spec, numbers(spec).__getitem__, tokenizer or tiny_tokenizer(), to, "tiny")
    return path


def edited(path: Path, values: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> Path:
    """The file with other values (None takes one out) and more tensors, in float32."""
    file = Gguf(path)
    known = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in file.values.items()}
    known = {key: value for key, value in {**known, **values}.items() if value is not None}
    held = {name: file.read(name) for name in file.tensors} | dict(tensors or {})
    write_gguf(path, known, [(name, array, "F32") for name, array in held.items()])
    return path
