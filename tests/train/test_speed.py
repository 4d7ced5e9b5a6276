"""What a machine trains at is measured where that is quick, and reckoned from it where it is not."""

from __future__ import annotations

import pytest
import torch

from chatsmith.specs import ModelSpec, modern
from chatsmith.train.speed import TrainingSpeed, matrix_rate


def spec(width: int) -> ModelSpec:
    return modern(512, 64, width, 2, 2)


def test_rates_are_rates() -> None:
    assert 1e8 < matrix_rate("float32", seconds=0.05) < 1e17


def test_a_shape_is_measured_once_and_nothing_random_is_used_up() -> None:
    torch.manual_seed(0)
    speed = TrainingSpeed(seconds=0.05)
    first = speed(spec(32))
    assert 10 < first < 1e9
    assert speed(spec(32)) == first
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))


def test_a_step_too_long_to_try_is_reckoned_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = TrainingSpeed(seconds=0.05)
    measured = speed(spec(32))
    monkeypatch.setattr(speed, "_measured", lambda spec: pytest.fail("measured"))
    large = modern(512, 64, 8192, 48, 64)
    ratio = large.training_flops_per_token() / spec(32).training_flops_per_token()
    assert speed(large) == pytest.approx(measured / ratio)
