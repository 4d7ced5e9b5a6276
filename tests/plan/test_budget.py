"""A budget of minutes leads to a model that can be trained in it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan import budget


@given(
    minutes=st.floats(0.1, 60 * 24 * 30),
    peak=st.floats(1e10, 1e15),
    text_bytes=st.integers(1, 10**12),
)
def test_every_budget_gives_a_model(minutes: float, peak: float, text_bytes: int) -> None:
    vocabulary = budget.vocabulary_size(text_bytes, minutes * 60, peak)
    choice = budget.choose(minutes * 60, budget.estimated(peak), vocabulary, text_bytes / 3)
    assert 512 <= vocabulary <= 65536
    assert choice.spec.vocab_size >= vocabulary
    assert choice.spec.architecture == "qwen3"  # so that other programs load it
    assert choice.rows * choice.spec.context >= 1024
    assert choice.tokens > 0


def test_more_time_never_chooses_a_smaller_model() -> None:
    sizes = [
        budget.choose(minutes * 60, budget.estimated(3e11), 2048, math.inf).spec.parameters
        for minutes in (1, 3, 10, 60, 600, 6000)
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 10 * sizes[0]


def test_a_model_beyond_the_smallest_sees_enough_tokens() -> None:
    choice = budget.choose(3600, budget.estimated(3e11), 4096, math.inf)
    assert choice.tokens >= budget.TOKENS_PER_PARAMETER * choice.spec.parameters


def test_text_read_many_times_asks_for_dropout() -> None:
    once, often = (budget.choose(600, budget.estimated(3e11), 1024, tokens) for tokens in (1e9, 1e5))
    assert once.spec.dropout == 0.0
    assert once.epochs < 1
    assert often.spec.dropout > 0.0
    assert often.epochs > 10


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(RequestError, match="cannot be trained in"):
        budget.choose(seconds, budget.estimated(3e11), 512, math.inf)
