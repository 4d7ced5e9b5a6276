"""The distribution that is shown is the one that was drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from chatsmith.errors import RequestError
from chatsmith.generate.distribution import Distribution
from chatsmith.generate.sampling import STAGES, Past, Sampling, Stages


def one(logits: list[float], sampling: Sampling, seen: tuple[int, ...] = ()) -> Distribution:
    stages = Stages(np.array([logits], np.float32), sampling, [Past.of(seen)] if seen else [], look=True)
    return Distribution.of(stages, 0, int(stages.choose(np.array([1], np.uint64))[0]))


def test_every_stage_is_there_and_sums_to_one() -> None:
    sampling = Sampling(temperature=2, top_k=4, top_p=0.9, min_p=0.25, repetition_penalty=2)
    shown = one([4, 3, 2, 1, 0, -1], sampling, (0,))
    assert [shown.kept(stage) for stage in STAGES] == [6, 6, 6, 4, 4, 4]
    for stage in STAGES:
        assert shown.probabilities(stage).sum() == pytest.approx(1)
    assert shown.probabilities("penalties").argmax() == 1
    p = np.exp(np.array([2, 3, 2, 1]) / 2.0)
    np.testing.assert_allclose(shown.after[:4], p / p.sum(), rtol=1e-6)
    with pytest.raises(RequestError, match="no stage called 'topk'"):
        shown.probabilities("topk")  # type: ignore[arg-type]


def test_ranked_rows_bits_and_cumulative_share() -> None:
    shown = one(list(np.log([0.125, 0.5, 0.25, 0.125])), Sampling(temperature=1, top_k=2))
    rows = shown.ranked(3, "abcd".__getitem__)
    assert [(row.rank, row.id, row.text) for row in rows] == [(1, 1, "b"), (2, 2, "c"), (3, 0, "a")]
    assert [row.bits for row in rows] == pytest.approx([1, 2, 3])
    assert [row.cumulative for row in rows] == pytest.approx([0.5, 0.75, 0.875])
    assert [row.after for row in rows] == pytest.approx([2 / 3, 1 / 3, 0])
    assert rows[2].bits_after == float("inf")
    assert shown.entropy() == pytest.approx(1.75)
    assert shown.rank(3) == 4
    assert shown.row_of(3).cumulative == pytest.approx(1)
    assert len(shown.ranked(99)) == 4


def test_greedy_shows_a_certain_choice() -> None:
    shown = one([1, 2, 0], Sampling(temperature=0))
    assert shown.after.tolist() == [0, 1, 0]
    assert shown.chosen == 1
    assert shown.entropy("min_p") == 0


def test_the_numbers_are_copies_of_one_row() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    stages = Stages(logits, Sampling(temperature=1, top_k=10), look=True)
    shown = Distribution.of(stages, 2, 0)
    weights = stages.weights["top_k"][2].copy()
    logits[:] = 0
    assert (shown.weights["top_k"] == weights).all()
    assert shown.weights["top_p"] is shown.weights["top_k"]
    assert shown.logits.base is None
