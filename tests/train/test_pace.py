"""A budget of minutes, on a machine whose speed doubles and halves."""

from __future__ import annotations

import random

import pytest

from chatsmith.train.pace import Pacer
from chatsmith.train.recipe import Batch
from chatsmith.train.schedules import Milestones, Timeline, rows_at


def _spend(budget: float, speed_at: list[float], seed: int, evaluation: float = 0.0) -> tuple[float, int, Timeline]:
    """Run a budget on a made-up clock; the machine's speed goes through `speed_at` in equal spans of the budget."""
    noise = random.Random(seed)
    batch, now = Batch(micro_batch=16, ramp_start=0.25, ramp_until=0.1), 0.0
    pacer, milestones, evaluations = Pacer(budget, batch, lambda: now), Milestones(20), 0

    def step_seconds(rows: int) -> float:
        speed = speed_at[min(len(speed_at) - 1, int(now / budget * len(speed_at)))]
        return rows * 0.02 / 16 / speed * noise.uniform(0.8, 1.25)

    pacer.observe(step_seconds(16), 16)
    timeline, step = Timeline([(0, pacer.plan(0, 0.0, now, 0.0))]), 0
    while step < timeline.total:
        before, rows = timeline.progress(step), rows_at(timeline.progress(step + 0.5), batch)
        took = step_seconds(rows)
        now += took
        pacer.observe(took, rows)
        step += 1
        if milestones.passed(before, timeline.progress(step)):
            now += evaluation
            evaluations += 1
        progress = timeline.progress(step)
        if pacer.due(now) and step < timeline.total:
            timeline.replan(step, pacer.plan(step, progress, now, evaluation * milestones.left(progress)))
    assert evaluations == 20
    return now, step, timeline


@pytest.mark.parametrize(
    "speeds",
    [[1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 0.5, 1.0, 0.5], [2.0] * 19 + [1.0], [1.0] * 39 + [0.5], [0.5, 1.0] * 20],
)
@pytest.mark.parametrize("budget", [10.0, 180.0])
def test_a_budget_is_kept_while_speed_doubles_and_halves(speeds: list[float], budget: float) -> None:
    """Within 10%, with evaluations counted; the plans made are a few dozen."""
    for seed in range(3):
        spent, _, timeline = _spend(budget, speeds, seed, evaluation=budget / 400)
        assert spent == pytest.approx(budget, rel=0.1)
        assert len(timeline.plans) <= 60
