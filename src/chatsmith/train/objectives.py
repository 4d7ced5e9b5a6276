"""Objectives: where a step's rows come from, and what the loss of a batch is. The loop is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
import torch
from torch import Tensor, nn

from chatsmith.text.batches import NO_TARGET, Batch
from chatsmith.train.losses import next_token_loss
from chatsmith.train.staged_batches import StagedBatches, rows_of


class Objective(Protocol):
    """What the loop asks of an objective."""

    def draw(self, rows: int) -> Batch:
        """The next rows in the run's order."""

    def reweight(self, weights: Sequence[float]) -> None:
        """Change the mixture from the next row on."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss in nats over the batch's predicted tokens, a scalar with a gradient."""

    def state(self) -> dict[str, Any]:
        """Where in the data the run stands, as JSON holds it."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


class NextToken:
    """Predict each token from those before it; targets without loss (user's words, padding) count nothing.

    Pretraining and chat tuning are both this: the difference lies in the mask that the data carries.
    """

    def __init__(self, batches: StagedBatches, device: torch.device | None = None) -> None:
        self._batches = batches
        self._device = device

    def draw(self, rows: int) -> Batch:
        """The next rows in the run's order."""
        return self._batches.next(rows)

    def reweight(self, weights: Sequence[float]) -> None:
        """Change the mixture from the next row on."""
        self._batches.reweight(weights)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed next-token loss in nats."""
        return batch_loss(model, batch, self._device)

    def state(self) -> dict[str, Any]:
        """Where in the data the run stands."""
        return self._batches.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self._batches.restore(state)


def batch_loss(model: nn.Module, batch: Batch, device: torch.device | None = None) -> Tensor:
    """The summed next-token loss of a batch in nats."""
    loss, _ = next_token_loss(
        model,
        _tensor(batch.inputs, device),
        _tensor(batch.targets, device),
        segments=_tensor(batch.segments, device),
        positions=_tensor(batch.positions, device),
        noise=_tensor(batch.noise, device),
    )
    return loss


@overload
def _tensor(array: np.ndarray, device: torch.device | None) -> Tensor: ...
@overload
def _tensor(array: None, device: torch.device | None) -> None: ...
def _tensor(array: np.ndarray | None, device: torch.device | None) -> Tensor | None:
    if array is None:
        return None
    made = torch.from_numpy(array)
    if device is None or device.type == "cpu":
        return made
    # From pinned memory the copy is queued; from any other, the call waits until the GPU has done all that is before.
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def with_noise(batch: Batch, seed: int, step: int) -> Batch:
    """The batch of a step with what dropout draws from: of seed and step, and of nothing that divides the work."""
    noise = np.random.default_rng((seed, step)).integers(-(2**63), 2**63, batch.inputs.shape)
    return replace(batch, noise=noise)


def predicted(batch: Batch) -> int:
    """How many targets of a batch are to be predicted."""
    return int(np.count_nonzero(batch.targets != NO_TARGET))


def micro_batches(batch: Batch, rows: int) -> Iterable[Batch]:
    """A step's rows, `rows` at a time, as views."""
    if len(batch.inputs) <= rows:
        return [batch]
    return [rows_of(batch, slice(start, start + rows)) for start in range(0, len(batch.inputs), rows)]


class HeldOutLoss(NamedTuple):
    """Sums over held-out text: loss in nats, tokens predicted, and UTF-8 bytes those tokens stand for."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per predicted token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text: comparable between vocabularies, and with compressors."""
        return self.nats / (self.bytes * float(np.log(2.0)))

    def __add__(self, other: object) -> HeldOutLoss:
        assert isinstance(other, HeldOutLoss)
        return HeldOutLoss(self.nats + other.nats, self.tokens + other.tokens, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out text of one source: its name, and a function that gives the same batches each time."""

    name: str
    batches: Callable[[], Iterable[Batch]]


def held_out_loss(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Callable[[nn.Module, Batch], Tensor] = batch_loss,
) -> HeldOutLoss:
    """Measure `model`, without training it, on batches that count their `text_bytes` (`evaluation_batches`)."""
    was_training = model.training
    model.eval()
    total = HeldOutLoss(0.0, 0, 0)
    try:
        with torch.no_grad():
            for batch in batches:
                if tokens := predicted(batch):
                    total += HeldOutLoss(float(loss(model, batch)), tokens, batch.text_bytes or 0)
    finally:
        model.train(was_training)
    return total
