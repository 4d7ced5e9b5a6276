"""What money and days buy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import find_accelerator
from chatsmith.plan.budgeted import (
    best_use,
    budget_of,
    deadline,
    example_shape,
    expectation_table,
    expectations,
)
from chatsmith.plan.formulas import body_parameters
from chatsmith.plan.training import expected_rate, given_rate, plan_training
from chatsmith.specs import PRESETS


def test_the_tighter_of_money_and_days_decides() -> None:
    assert budget_of(100, None, 1, 2.0).device_seconds == 50 * 3600
    assert budget_of(None, 2, 8, None).device_seconds == 2 * 8 * 86400
    assert budget_of(100, 30, 8, 2.0).bound_by.startswith("$100")
    assert budget_of(1e6, 1, 8, 2.0).bound_by == "24 hours on 8 devices"
    with pytest.raises(RequestError, match="needs a price"):
        budget_of(100, None, 1, None)


@settings(max_examples=25, deadline=None)
@given(exponent=st.floats(7, 12.5))
def test_an_example_shape_is_near_the_size_and_of_sound_proportions(exponent: float) -> None:
    spec = example_shape(10**exponent)
    near = 1.35 if exponent < 8.2 else 1.15
    assert 1 / near < spec.parameters / 10**exponent < near
    assert spec.head_dim in (64, 128)
    if exponent > 8.5:
        assert 40 < spec.width / spec.layers < 180


def test_a_size_that_no_shape_has_is_refused() -> None:
    with pytest.raises(RequestError, match="no sensible shape has 1,000 T parameters"):
        example_shape(1e15)


@pytest.mark.parametrize("usd", [10, 1000, 100_000, 10_000_000])
def test_a_budget_is_spent_in_full_on_the_best_size(usd: float) -> None:
    device = find_accelerator("h100")
    spec, best = best_use(budget_of(usd, None, 1, 2.0), device, None, "besiroglu")
    run = plan_training(spec, best.tokens, "", 2048, accelerator=device, usd_per_hour=2.0)
    assert run.with_attention is not None
    assert run.with_attention.usd == pytest.approx(usd, rel=0.25)  # the shape is near the size, not on it
    assert 15 < best.tokens_per_parameter < 30


def test_more_money_buys_a_larger_model_and_a_lower_loss() -> None:
    device = find_accelerator("a100")
    found = [best_use(budget_of(usd, None, 1, 2.0), device, None, "besiroglu")[1] for usd in (10, 100, 1000, 10000)]
    assert [best.parameters for best in found] == sorted(best.parameters for best in found)
    losses = [best.loss_nats_per_token for best in found]
    assert losses == sorted(losses, reverse=True)


def test_a_rate_that_counts_attention_buys_less_6nd() -> None:
    device, spec = find_accelerator("a100"), PRESETS["gpt3-125m"]
    budget = budget_of(None, 1, 1, None)
    assert budget.flops_6nd(spec, given_rate(100, device), 2048) == pytest.approx(86400 * 100e12)
    rate = expected_rate(spec, device, 2048)
    spent = budget.flops_6nd(spec, rate, 2048)
    assert spent == pytest.approx(86400 * rate.tflops * 1e12 / 1.288, rel=1e-3)


def test_expectations_use_the_parameters_that_each_fit_counts() -> None:
    spec = PRESETS["gpt3-125m"]
    assert body_parameters(spec) == 85_056_000
    besiroglu, kaplan = expectations(spec, 300e9, ("besiroglu", "kaplan"))
    assert besiroglu.loss_nats_per_token == pytest.approx(2.685, abs=1e-3)
    counted = ((8.8e13 / 85_056_000) ** 0.8 + 5.4e13 / 300e9) ** 0.095
    assert kaplan.loss_nats_per_token == pytest.approx(counted)
    table = expectation_table((besiroglu, kaplan))
    assert len(table.rows) == 2
    assert "Kaplan et al. 2020" in table.note
    assert "foretell no validation loss" in table.note


def test_a_deadline_needs_so_many_devices() -> None:
    device = find_accelerator("a100")
    run = plan_training(PRESETS["gpt3-125m"], 300e9, "", 2048, accelerator=device, rate=given_rate(150, device))
    needed = 6 * 125_226_240 * 300e9 / 150e12 / 86400
    assert deadline(run, 4, None).devices_needed == math.ceil(needed / 4)
    found = deadline(run, 4, 8)
    assert found.tflops_needed == pytest.approx(6 * 125_226_240 * 300e9 / (4 * 86400 * 8) / 1e12)


def test_a_claim_beyond_the_peak_is_refused() -> None:
    """A public training script claims 300B tokens of GPT-3 125M in a day on eight A100: 326 of at most 312 TFLOP/s."""
    device = find_accelerator("a100")
    run = plan_training(PRESETS["gpt3-125m"], 300e9, "", 2048, accelerator=device)
    with pytest.raises(
        RequestError, match=r"would take 326\.1 TFLOP/s of each, even without attention: above its peak"
    ):
        deadline(run, 1, 8)
