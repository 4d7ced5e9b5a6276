"""What a machine trains at is measured where that is quick, and reckoned from it where it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from chatsmith import machine
from chatsmith.specs import ModelSpec, modern
from chatsmith.train import speed as speed_module
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


@pytest.mark.parametrize(
    ("seconds", "chosen", "tried", "later"),
    [
        ({4: 1.0, 2: 1.9}, 4, [2, 4], [4]),  # nobody else is there
        ({4: 1.0, 2: 0.9, 1: 1.0}, 2, [2, 4, 1], [2, 4, 1]),
        (
            {4: 10.0, 2: 2.0, 1: 3.9},
            2,
            [2, 4, 1],
            [2, 1],
        ),  # two cores are held; four threads are given up
        ({4: 30.0, 2: 8.0, 1: 4.0}, 1, [2, 4, 1], [1, 2]),
    ],
)
def test_fewer_threads_train_where_they_are_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], chosen: int, tried: list[int], later: list[int]
) -> None:
    """Steps take so long with so many threads, whatever a clock would say."""
    asked: list[int] = []

    def times(work: object, most: float, least: int, limit: float) -> list[float]:
        asked.append(torch.get_num_threads())
        return [seconds[asked[-1]]] * 3

    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    monkeypatch.setattr(speed_module, "_times", times)
    before = torch.get_num_threads()
    speed = TrainingSpeed(seconds=1e3)
    assert speed(spec(32)) == 2048 / seconds[chosen]
    assert speed.threads(spec(32)) == chosen
    assert speed.threads(replace(spec(32), dropout=0.1)) == chosen
    assert speed.threads(spec(4096)) == chosen  # as the last that was measured
    assert asked == tried
    speed(spec(64))
    assert asked[len(tried) :] == later
    assert torch.get_num_threads() == before


def test_a_number_of_threads_that_is_hopeless_is_given_up_at_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(speed_module.time, "perf_counter", lambda: next(clock))
    calls: list[None] = []
    assert speed_module._times(lambda: calls.append(None), 10.0, 3, 0.5) == [1]
    assert len(calls) == 1
    assert speed_module._times(lambda: calls.append(None), 2.0, 3, 1.5) == [1, 1, 1]
    assert len(calls) == 5
