"""Several processes that share a step: replicas of the whole model, or a model divided among them."""

from __future__ import annotations

import math
import signal
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from chatsmith.errors import WorkError
from chatsmith.store.state_writer import StateWriter
from chatsmith.text.batches import NO_TARGET, Batch
from chatsmith.train.objectives import Objective, micro_batches, predicted
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.parallel.optimizer import DividedOptimizer
from chatsmith.train.parallel.pipeline import Pipeline
from chatsmith.train.parallel.place import Place
from chatsmith.train.parallel.process import patience
from chatsmith.train.parallel.replicas import ReplicaOptimizer
from chatsmith.train.parallel.stage import Stage
from chatsmith.train.recipe import Recipe
from chatsmith.train.recipe_tables import Parallel
from chatsmith.train.staged_batches import rows_of
from chatsmith.train.team import Alone


def padded(batch: Batch, rows: int) -> Batch:
    """The batch with rows added that hold nothing to predict, up to `rows` in all."""
    more = rows - len(batch.inputs)
    if more == 0:
        return batch

    def add(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else np.concatenate([column, np.repeat(column[:1], more, axis=0)])

    targets = np.concatenate([batch.targets, np.full((more, *batch.targets.shape[1:]), NO_TARGET, batch.targets.dtype)])
    inputs = add(batch.inputs)
    assert inputs is not None
    return Batch(inputs, targets, add(batch.segments), add(batch.positions), noise=add(batch.noise))


def share(batch: Batch, number: int, of: int) -> Batch:
    """The rows of replica `number`: as many for each, so that all take the same part in what they do together."""
    rows = -(-len(batch.inputs) // of)
    return rows_of(padded(batch, rows * of), slice(number * rows, (number + 1) * rows))


class _Together(Alone):
    """What replicas and divided models have in common: agreeing, and watching each other."""

    def __init__(self, parallel: Parallel, optimizer: ReplicaOptimizer | DividedOptimizer) -> None:
        self.parallel, self.optimizer = parallel, optimizer
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.leads = self.rank == 0
        self._own_loss = 0.0
        self._asked: str | None = None
        self._writer: StateWriter | None = None

    def total(self, own: float) -> float:
        """The sum over all processes, the same in each."""
        self._own_loss = own
        together = torch.tensor(own, dtype=torch.float64)
        dist.all_reduce(together)
        return float(together)

    def clock(self, clock: Callable[[], float]) -> float:
        """The first process' clock."""
        now = torch.tensor(clock() if self.leads else 0.0, dtype=torch.float64)
        dist.broadcast(now, 0)
        return float(now)

    def agreed(self, asked: str | None) -> str | None:
        """The signal that any of them was sent."""
        number = torch.tensor(signal.Signals[asked].value if asked else 0)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return signal.Signals(int(number)).name if int(number) else None

    def writer(self, folder: Path, keep: int) -> StateWriter:
        """What writes the checkpoints, a file of each process."""
        among = {"rank": self.rank, "size": self.size}
        self._writer = StateWriter(folder, keep, **among, meet=dist.barrier, patience=patience())
        return self._writer

    def pieces(self, optimizer: TrainingOptimizer) -> Mapping[str, Any]:
        """Which of the optimizer's tensors are parts of larger ones."""
        assert isinstance(optimizer, (ReplicaOptimizer, DividedOptimizer))
        return optimizer.pieces()

    def blamed(self) -> str:
        """The processes whose own part of the loss is not finite. Collective."""
        own: list[Any] = [None] * self.size
        dist.all_gather_object(own, (math.isfinite(self._own_loss), socket.gethostname()))
        bad = [f"process {rank} on {host}" for rank, (sound, host) in enumerate(own) if not sound]
        return f" ({', '.join(bad) or 'no process alone: the gradient overflowed'})"

    def watch(self, step: int) -> None:
        """Compare the copies of weights, every `verify` steps."""
        if not self.parallel.verify or step % self.parallel.verify:
            return
        own = {what: _checksum(tensors) for what, tensors in self.optimizer.copies().items()}
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, (own, socket.gethostname()))
        wrong = odd_ones([sums for sums, _ in found])
        if wrong:
            named = ", ".join(f"process {rank} on {found[rank][1]}" for rank in wrong)
            raise WorkError(
                f"step {step}: the weights of {named} differ from the copies that others hold",
                "memory or processor of that machine may be faulty: leave it out, and resume from the last checkpoint",
            )


def odd_ones(sums: list[dict[str, int]]) -> list[int]:
    """The processes whose checksum of something is not what most of those that hold it have (all, where none have)."""
    wrong: set[int] = set()
    for what in {key for own in sums for key in own}:
        held = {rank: own[what] for rank, own in enumerate(sums) if what in own}
        (common, votes), *rest = Counter(held.values()).most_common()
        tied = bool(rest) and rest[0][1] == votes
        wrong.update(rank for rank, value in held.items() if rest and (tied or value != common))
    return sorted(wrong)


def _checksum(tensors: list[Tensor]) -> int:
    """A number that any flipped bit changes."""
    total = 0
    for number, tensor in enumerate(tensors, 1):
        words = tensor.contiguous().flatten().view(torch.uint8)
        words = words.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
        total = (total + number * int(words.sum(dtype=torch.int64))) % 2**63
    return total


class Replicas(_Together):
    """Every process has the whole model and its share of the rows."""

    def __init__(self, model: nn.Module, objective: Objective, recipe: Recipe, optimizer: ReplicaOptimizer) -> None:
        Alone.__init__(self, model, objective, recipe)
        _Together.__init__(self, recipe.parallel, optimizer)

    def gradients(self, batch: Batch) -> float:
        """Each process' part of the gradient; the optimizer adds them up. Returns the loss of the whole batch."""
        losses = self.local_gradients(share(batch, self.rank, self.size), max(1, predicted(batch)))
        return self.total(float(torch.stack(losses).sum()))

    def held_out(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss, each process measuring some rows."""
        own = share(batch, self.rank, self.size)
        return torch.tensor(self.total(float(self.objective.loss(model, own)) if predicted(own) else 0.0))


class Divided(_Together):
    """A model divided over the processes."""

    def __init__(
        self,
        place: Place,
        stages: list[Stage],
        optimizer: DividedOptimizer,
        micro_batch: int,
        device: torch.device,
    ) -> None:
        super().__init__(place.parallel, optimizer)
        self.place, self.stages, self.micro_batch, self._device = place, stages, micro_batch, device
        self._pipeline = Pipeline(place, stages, device) if place.parallel.pipeline > 1 else None

    def gradients(self, batch: Batch) -> float:
        """This process' part of the work on the batch; returns the loss of all of it."""
        return self._losses(batch, max(1, predicted(batch)), train=True)

    def held_out(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss, computed together."""
        training = [stage.training for stage in self.stages]
        for stage in self.stages:
            stage.eval()
        try:
            return torch.tensor(self._losses(batch, 1, train=False))
        finally:
            for stage, was in zip(self.stages, training, strict=True):
                stage.train(was)

    def _losses(self, batch: Batch, count: int, *, train: bool) -> float:
        own = share(batch, self.place.replica, self.place.replicas)
        for stage in self.stages:
            stage.count = float(count)
        if self._pipeline is not None:
            rows, number = self._pipeline.micro_batches(len(own.inputs), self.micro_batch)
            data = self._tensors(padded(own, rows * number))
            losses = self._pipeline.run(data, rows, number, train=train)
        else:
            losses = []
            for part in micro_batches(own, self.micro_batch):
                data = self._tensors(part)
                loss = self.stages[0](data.pop("inputs"), **data)
                if train:
                    loss.backward()
                losses.append(loss.detach())
        # The processes of a tensor group all have the same loss.
        return self.total(float(torch.stack(losses).sum()) / self.parallel.tensor if losses else 0.0)

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        """What the stages take, this process' part of every row."""
        size, number = self.parallel.context, self.place.at("context")
        columns: dict[str, np.ndarray | None] = {
            "inputs": batch.inputs,
            "targets": batch.targets,
            "segments": batch.segments,
            "positions": batch.positions,
            "noise": batch.noise,
        }
        if size > 1 and columns["positions"] is None:
            columns["positions"] = np.broadcast_to(np.arange(batch.inputs.shape[1]), batch.inputs.shape)
        length = batch.inputs.shape[1] // size
        part = slice(number * length, (number + 1) * length)
        return {  # copies: PyTorch warns of an array that cannot be written to, as places alike in every row are
            name: torch.from_numpy(np.array(column[:, part], order="C")).to(self._device)
            for name, column in columns.items()
            if column is not None
        }
