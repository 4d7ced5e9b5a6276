"""The room of the largest gradient goes from step to step, and never belongs to two."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chatsmith.kernels import native
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec
from chatsmith.train import spare
from chatsmith.train.losses import next_token_loss
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.recipe import Optimizer


@pytest.fixture(autouse=True)
def every_size_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "_LARGE_BYTES", 64 * 16 * 4)
    monkeypatch.setattr(spare, "_spare", [])


def with_gradient(*shape: int) -> nn.Parameter:
    weight = nn.Parameter(torch.zeros(*shape))
    weight.grad = torch.ones(*shape)
    return weight


def test_room_is_given_once() -> None:
    weight, little = with_gradient(64, 16), with_gradient(3)
    gradient = weight.grad
    spare.release([weight, little])
    assert weight.grad is None
    assert little.grad is None
    assert spare.room_like(weight) is gradient
    assert spare.room_like(weight) is None


def test_room_of_another_shape_or_kind_is_let_go() -> None:
    spare.release([with_gradient(64, 16)])
    assert spare.room_like(torch.empty(16, 64)) is None
    spare.release([with_gradient(64, 16)])
    assert spare.room_like(torch.empty(64, 16, dtype=torch.bfloat16)) is None
    assert spare.room_like(torch.empty(64, 16)) is None
    spare.release([with_gradient(64, 16)])
    assert spare.room_like(torch.empty(64, 16, device="meta")) is None


def test_a_run_is_the_same_with_it() -> None:
    spec = ModelSpec(vocab_size=64, context=16, width=16, layers=1, heads=2)
    ids = torch.randint(0, 64, (3, 2, 16), generator=torch.Generator().manual_seed(0))
    ends = []
    for kept in (True, False):
        model = Decoder(spec)
        model.init_weights(0)
        stepper = TrainingOptimizer(model, Optimizer(name="adamw"))
        for step in range(3):
            for _ in range(2):  # of two passes in a step the second may not write into the gradient of the first
                next_token_loss(model, ids[step], ids[step].roll(-1, 1))[0].backward()
            stepper.step(1.0)
            if native.multiplies(model.embed.weight):
                assert bool(spare._spare)
            if not kept:
                spare._spare.clear()
        ends.append(model.embed.weight.detach().clone())
    assert torch.equal(*ends)
