"""The parity matrix: layouts × shapes, on text that every process makes for itself."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"width": 32, "heads": 4, "context": 32},
    "llama": {
        "width": 32, "heads": 8, "kv_heads": 4, "context": 32, "ffn_width": 64, "norm": "rms",
        "activation": "swiglu", "positions": "rotary", "attention_bias": False, "ffn_bias": False, "tied": False,
    },
    "qwen3": {"preset": "modern", "width": 32, "heads": 8, "kv_heads": 4, "context": 32, "ffn_width": 64},
    "gpt3": {"width": 32, "heads": 4, "context": 32, "band": 8},
}  # fmt: skip

WAYS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"optimizer": {"name": "muon"}, "model": {"dropout": 0.2}},
}
"""What the recipe of a case changes: the other optimizer, and dropout, which is to drop the same numbers everywhere."""


@dataclass(frozen=True)
class Layout:
    """A division of `size` processes, as the recipe's [parallel] table says it, and how many layers it wants. One that
    puts together what others do alone, or leaves it out, is `mixed`: the matrix has it with one shape, not with all."""

    name: str
    size: int
    table: dict[str, Any]
    layers: int = 2
    mixed: bool = False


def _pipelines(size: int) -> list[Layout]:
    schedules = {
        "gpipe": {},
        "1f1b": {},
        "interleaved": {"interleave": 4 // size} if size == 2 else {"interleave": 1},
        "zero-bubble": {"interleave": 4 // size},
        "zero-bubble-v": {},
    }
    return [
        Layout(f"pipeline {size} {name}", size, {"pipeline": size, "schedule": name, **more}, layers=4)
        for name, more in schedules.items()
        if size == 2 or name != "zero-bubble-v"  # in a V each process has two stages, and these shapes have four layers
    ]


LAYOUTS: tuple[Layout, ...] = (
    Layout("replicas 2", 2, {}, mixed=True),
    Layout("automatic 2", 2, {"layout": "auto"}, mixed=True),
    Layout("sharded 2", 2, {"shard": 2}),
    Layout("tensor 2", 2, {"tensor": 2}),
    Layout("tensor 2 plain", 2, {"tensor": 2, "sequence": False, "loss": False}, mixed=True),
    Layout("context 2", 2, {"context": 2}),
    *_pipelines(2),
    Layout("replicas 4", 4, {}, mixed=True),
    Layout("sharded 4", 4, {"shard": 4}),
    Layout("replicas 2 × sharded 2", 4, {"replicate": 2, "shard": 2}, mixed=True),
    Layout("tensor 4", 4, {"tensor": 4}),
    Layout("sharded 2 × tensor 2", 4, {"shard": 2, "tensor": 2}),
    Layout("tensor 2 × pipeline 2", 4, {"tensor": 2, "pipeline": 2}),
    Layout("context 2 × sharded 2", 4, {"context": 2, "shard": 2}, mixed=True),
    *_pipelines(4),
    Layout("sharded 2 × tensor 2 × pipeline 2", 8, {"shard": 2, "tensor": 2, "pipeline": 2}),
    Layout("replicas 2 × context 2 × tensor 2", 8, {"replicate": 2, "context": 2, "tensor": 2}, mixed=True),
)


def text(length: int, seed: int) -> str:
    """Letters of a chain: after each come two others, with probabilities 3/4 and 1/4."""
    chance, place, letters = random.Random(seed), seed % 8, []
    for _ in range(length):
        place = (place + (1 if chance.random() < 0.75 else 3)) % 8
        letters.append("abcdefgh"[place])
    return "".join(letters)


def alone(layers: int) -> Layout:
    """The control of layouts that want so many layers."""
    return Layout(f"one process {layers}", 1, {}, layers)


def recipe(tokens: str, shape: str, layout: Layout, **changes: Any) -> dict[str, Any]:
    """A run of 20 steps with clipping, accumulation, a ramp, masked documents and odd numbers of rows.

    AdamW with a large epsilon: its division by the root of a tiny square magnifies rounding, which this is not about.
    """
    mapping: dict[str, Any] = {
        "seed": 3,
        "threads": 1,
        "data": {"sources": [{"path": tokens}], "mask_documents": True},
        "model": {**SHAPES[shape], "layers": layout.layers},
        "batch": {"micro_batch": 3, "accumulation": 2, "ramp_start": 0.3, "ramp_until": 0.4},
        "optimizer": {"name": "adamw", "epsilon": 0.01, "learning_rate": 0.01, "clip": 0.5},
        "schedule": {"steps": 20},
        "precision": {"compute": "float32"},
        "evaluation": {"times": 2, "tokens": 192},
        "parallel": {**layout.table, "verify": 5},
    }
    for table, keys in changes.items():
        mapping[table] = {**mapping[table], **keys} if isinstance(keys, dict) else keys
    return mapping
