"""What the benches of training share: sizes, and whole runs of the loop on random ids, as a recipe makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatsmith.models.decoder import Decoder
from chatsmith.settings import from_mapping
from chatsmith.specs import ModelSpec, padded_vocabulary, preset
from chatsmith.text.batches import Batch
from chatsmith.train.callbacks import Callback
from chatsmith.train.loop import Trainer
from chatsmith.train.objectives import NextToken
from chatsmith.train.parallel.process import Process
from chatsmith.train.recipe import Recipe
from chatsmith.train.team import team_of

NEVER = 1e6


@dataclass(frozen=True, slots=True)
class Size:
    """A model, the batch of a step, and the steps of a sample."""

    spec: ModelSpec
    micro_batch: int
    accumulation: int
    steps: int

    @property
    def rows(self) -> int:
        return self.micro_batch * self.accumulation

    @property
    def tokens(self) -> int:
        return self.rows * self.spec.context


def _published(name: str, micro_batch: int, accumulation: int, context: int = 0) -> Size:
    spec = preset(name)
    spec = replace(spec, vocab_size=padded_vocabulary(spec.vocab_size), context=context or spec.context)
    return Size(spec, micro_batch, accumulation, 5)


SIZES = {
    "1m": Size(ModelSpec(1024, 64, 128, 4, 4), 16, 2, 20),
    "10m": Size(ModelSpec(8192, 256, 384, 6, 6), 8, 2, 6),
    "124m": _published("gpt2-124m", 4, 4, 256),
    "gpt2-124m": _published("gpt2-124m", 128, 4),
    "gpt2-1558m": _published("gpt2-1558m", 16, 4),
    "gpt3-1.3b": _published("gpt3-1.3b", 8, 4),
}
ON_A_CPU, ON_A_GPU = ["10m"], ["gpt2-124m", "gpt2-1558m", "gpt3-1.3b"]


class RandomRows(NextToken):
    """An objective whose rows are random ids."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        self._device, self._spec, self._ids = device, spec, np.random.default_rng(0)

    def draw(self, rows: int) -> Batch:
        ids = self._ids.integers(0, self._spec.vocab_size, (rows, self._spec.context + 1))
        return Batch(np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:]), None, None)

    def state(self) -> dict[str, Any]:
        return {}


def recipe_of(size: Size, changes: dict[str, Any]) -> Recipe:
    """A run that never ends: one process' settings, with changes."""
    chosen = {
        "seed": 0,
        "data": {"sources": [{"path": "random ids"}]},
        "model": {"width": size.spec.width, "layers": size.spec.layers, "heads": size.spec.heads},
        "batch": {"micro_batch": size.micro_batch, "accumulation": size.accumulation},
        "schedule": {"steps": 10**6},
        "checkpoint": {"minutes": NEVER},
    }
    return from_mapping(Recipe, chosen | changes, "bench")


def trainer_of(
    size: Size, model: Decoder, recipe: Recipe, process: Process, folder: Path, callbacks: Sequence[Callback]
) -> Trainer:
    """The loop over a model of float32 weights."""
    objective = RandomRows(size.spec, process.device)
    team, optimizer = team_of(model, objective, recipe, process)
    return Trainer(
        model,
        optimizer,
        objective,
        recipe,
        folder,
        meta={},
        save_folder=lambda trainer: None,
        save_often=False,
        team=team,
        callbacks=callbacks,
    )
