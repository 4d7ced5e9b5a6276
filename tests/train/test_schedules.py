"""Schedules: GPT-3's own, and progress over runs that are re-planned on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.train.recipe import Batch, Schedule, Stage
from chatsmith.train.schedules import (
    Milestones,
    Timeline,
    learning_rate_factor,
    mean_rows,
    rows_at,
    stage_at,
)

# Brown et al. 2020, appendix B, for the 125M model of Table 2.1: 300B tokens, batches of 0.5M, 6e-4 at the peak.
GPT3_TOKENS = 300_000_000_000
GPT3 = Schedule(
    tokens=GPT3_TOKENS,
    warmup=375e6 / 300e9,
    decay="cosine",
    decay_until=260 / 300,
    final_fraction=0.1,
)
GPT3_BATCH = Batch(micro_batch=16, accumulation=16, context=2048, ramp_start=32 / 512, ramp_until=4 / 300)


@pytest.mark.parametrize(
    ("tokens", "rate"),
    [
        (0, 0.0),
        (187.5e6, 3.0e-4),  # half way up the warm-up of 375M tokens
        (375e6, 6.0e-4),
        (130.1875e9, 3.3e-4),  # half way down: the mean of 6e-4 and 6e-5
        (260e9, 6.0e-5),  # "decay down to 10% of its value, over 260 billion tokens"
        (280e9, 6.0e-5),  # "after 260 billion tokens, training continues at 10%"
        (300e9, 6.0e-5),
    ],
)
def test_learning_rate_of_gpt3(tokens: float, rate: float) -> None:
    assert 6e-4 * learning_rate_factor(tokens / GPT3_TOKENS, GPT3) == pytest.approx(rate, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("tokens", "batch"), [(0, 32_768), (2e9, 278_528), (4e9, 524_288), (300e9, 524_288)])
def test_batch_ramp_of_gpt3(tokens: float, batch: int) -> None:
    """From 32k tokens linearly to the full 0.5M over the first 4 billion, in steps of a micro-batch of 32k."""
    assert rows_at(tokens / GPT3_TOKENS, GPT3_BATCH) * 2048 == pytest.approx(batch, abs=16 * 2048)
    assert rows_at(tokens / GPT3_TOKENS, GPT3_BATCH) % GPT3_BATCH.micro_batch == 0


def test_linear_decay_reaches_zero_and_constant_stays() -> None:
    linear = Schedule(steps=100, warmup=0.0)
    assert [learning_rate_factor(p, linear) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert learning_rate_factor(0.9, Schedule(steps=100, decay="constant")) == 1.0


@given(st.floats(0, 1), st.integers(1, 64), st.integers(1, 64), st.floats(0.01, 1), st.floats(0.01, 1))
def test_ramped_rows_stay_within_the_batch(p: float, micro: int, times: int, start: float, until: float) -> None:
    batch = Batch(micro_batch=micro, accumulation=times, ramp_start=start, ramp_until=until)
    assert 1 <= rows_at(p, batch) <= batch.rows
    assert rows_at(1.0, batch) == batch.rows
    assert 1 <= mean_rows(p, batch) <= batch.rows


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 500)), max_size=20), st.integers(1, 500))
def test_progress_is_continuous_and_ends_at_one(moves: list[tuple[int, int]], total: int) -> None:
    """Whatever is re-planned, progress never falls, never jumps, and is 1 at the last total."""
    timeline = Timeline([(0, total)])
    at = 0
    for ahead, left in moves:
        at = min(at + ahead, timeline.total - 1)
        before = timeline.progress(at)
        timeline.replan(at, at + left)
        assert timeline.progress(at) == pytest.approx(before, abs=1e-12)
    values = [timeline.progress(position) for position in range(timeline.total + 1)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(1.0, abs=1e-12)
    again = Timeline(timeline.plans)
    assert [again.progress(position) for position in range(timeline.total + 1)] == values


def test_a_run_of_minutes_stands_at_its_beginning_until_it_is_planned() -> None:
    timeline = Timeline([])
    assert (timeline.total, timeline.progress(0)) == (0, 0.0)
    timeline.replan(0, 10)
    assert (timeline.plans, timeline.progress(5)) == (((0, 10),), 0.5)


def test_a_plan_cannot_end_before_it_is_made() -> None:
    timeline = Timeline([(0, 10)])
    with pytest.raises(RequestError):
        timeline.replan(5, 5)
    with pytest.raises(RequestError):
        Timeline([(3, 10)])


def test_milestones_are_passed_once_each() -> None:
    milestones = Milestones(7)
    timeline = Timeline([(0, 1000)])
    passed = [s for s in range(1000) if milestones.passed(timeline.progress(s), timeline.progress(s + 1))]
    assert len(passed) == 7
    assert passed[-1] == 999
    assert milestones.left(0.0) == 7
    assert milestones.left(1.0) == 0
    assert not Milestones(0).passed(0.0, 1.0)


def test_stages_follow_progress() -> None:
    stages = (Stage(0.8, (1.0, 0.0)), Stage(1.0, (0.2, 0.8)))
    assert [stage_at(p, stages) for p in (0.0, 0.79, 0.8, 1.0)] == [0, 0, 1, 1]
    assert stage_at(0.5, ()) is None
