"""Who computes a step: one process, and what the loop asks of several. Those are in `parallel.teams`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from chatsmith.models import fused
from chatsmith.models.decoder import Decoder
from chatsmith.store.state_writer import StateWriter
from chatsmith.text.batches import Batch
from chatsmith.train.accumulation import GradientSums
from chatsmith.train.float8 import float8_layers
from chatsmith.train.objectives import Objective, micro_batches, predicted
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.recipe import Optimizer as Settings
from chatsmith.train.recipe import Recipe

if TYPE_CHECKING:
    from chatsmith.train.parallel.process import Process


def transform(model: Decoder, recipe: Recipe) -> None:
    """What is done to the layers of a model or a part of one: recomputation, products in 8 bits, and compilation where
    no kernels serve."""
    model.activation_checkpointing = recipe.precision.activation_checkpointing
    if recipe.precision.float8:
        float8_layers(model)
    dtype = torch.bfloat16 if recipe.precision.compute == "bfloat16" else torch.float32
    fuses = model.fuses is not False and fused.suits(model.spec, torch.empty(1, 2, 1, dtype=dtype, device=model.device))
    if recipe.precision.compile == "on" and not fuses:
        for block in model.blocks.children():
            block.compile()


Optimizer = TypeVar("Optimizer", bound=TrainingOptimizer)


def over_masters(model: Decoder, recipe: Recipe, make: Callable[[Decoder, Settings], Optimizer]) -> Optimizer:
    """The optimizer, over float32 masters; the model's own weights become bfloat16 where it computes so."""
    if recipe.precision.compute == "float32":
        return make(model, recipe.optimizer)
    exact = {name: parameter.detach() for name, parameter in model.named_parameters()}
    model.to(torch.bfloat16)
    optimizer = make(model, recipe.optimizer)
    optimizer.put_masters(exact)  # they were widened from the rounded weights
    return optimizer


class Alone:
    """One process that does everything itself, and the pattern for those that share a step.

    What the loop decides by (losses, norms, the clock, signals) is the same in every process, so all of them take the
    same steps. Only the one that `leads` writes logs and tells callbacks.
    """

    leads = True

    def __init__(self, model: nn.Module, objective: Objective, recipe: Recipe) -> None:
        self.model, self.objective, self.micro_batch = model, objective, recipe.batch.micro_batch
        low = next(model.parameters()).dtype != torch.float32
        self._sums = GradientSums(model.parameters()) if low and recipe.batch.accumulation > 1 else None

    def gradients(self, batch: Batch) -> float:
        """Add the gradient of the batch's mean loss to the weights; returns that loss, in nats per predicted token."""
        losses = self.local_gradients(batch, max(1, predicted(batch)))
        return float(torch.stack(losses).sum())

    def local_gradients(self, batch: Batch, count: int) -> list[Tensor]:
        """The same for summed losses divided by `count`; returns those of the parts."""
        losses = []
        for part in micro_batches(batch, self.micro_batch):
            # Divided by the whole step's tokens, not the part's: so any split of a step gives the same gradient.
            loss = self.objective.loss(self.model, part) / count
            loss.backward()
            losses.append(loss.detach())
            if self._sums is not None:
                self._sums.take()
        if self._sums is not None:
            self._sums.put()
        return losses

    def held_out(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss of a held-out batch in nats."""
        return self.objective.loss(model, batch)

    def clock(self, clock: Callable[[], float]) -> float:
        """The time that all go by."""
        return clock()

    def agreed(self, asked: str | None) -> str | None:
        """The signal that all stop for, if any."""
        return asked

    def watch(self, step: int) -> None:
        """Between steps: raise `WorkError` where a machine computes wrongly."""

    def blamed(self) -> str:
        """After a step whose loss or gradient was not finite: the processes that it began in, in brackets."""
        return ""

    def writer(self, folder: Path, keep: int) -> StateWriter:
        """What writes the checkpoints."""
        return StateWriter(folder, keep)

    def pieces(self, optimizer: TrainingOptimizer) -> Mapping[str, Any]:
        """Which of the optimizer's tensors are parts of larger ones."""
        return {}


def team_of(model: Decoder, objective: Objective, recipe: Recipe, process: Process) -> tuple[Alone, TrainingOptimizer]:
    """Who computes the steps, and the optimizer: of one process, of replicas, or of a divided model."""
    if process.size > 1:
        from chatsmith.train.parallel import divide

        return divide.team(model, objective, recipe, process.device)
    transform(model, recipe)
    optimizer = over_masters(model, recipe, TrainingOptimizer)
    return Alone(model, objective, recipe), optimizer
