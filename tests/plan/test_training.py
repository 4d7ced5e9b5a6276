"""Time, money and energy of a run, and hardware ranked by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import Accelerator, catalogue, find_accelerator
from chatsmith.plan.compare import compare
from chatsmith.plan.training import (
    ASSUMED_SHARE,
    expected_rate,
    given_rate,
    plan_training,
    spend,
    spending_formulas,
)
from chatsmith.specs import PRESETS
from chatsmith.specs_families import shape

GPT3 = PRESETS["gpt3-175b"]


def test_gpt3_on_v100s_at_28_tflops() -> None:
    device = find_accelerator("v100")
    run = plan_training(
        GPT3, 300e9, "as given", 2048, accelerator=device, rate=given_rate(28, device), usd_per_hour=1.5
    )
    assert run.by_6nd is not None
    assert run.with_attention is not None
    assert run.by_6nd.device_years == pytest.approx(6 * 174_604_259_328 * 300e9 / 28e12 / (365 * 86400))
    assert run.by_6nd.device_years == pytest.approx(355.9, abs=0.05)
    assert run.by_6nd.usd == pytest.approx(4.677e6, rel=1e-3)
    assert run.with_attention.device_years / run.by_6nd.device_years == pytest.approx(1.0275, abs=1e-3)
    assert run.by_6nd.kilowatt_hours == pytest.approx(run.by_6nd.device_years * 365 * 24 * 0.3)


@pytest.mark.parametrize(
    ("parameters", "tokens", "devices", "tflops", "days"),
    [(175e9, 300e9, 1024, 140, 34), (1008e9, 450e9, 3072, 163, 84)],
)
def test_days_of_training_as_megatron_reckons_them(
    parameters: float, tokens: float, devices: int, tflops: float, days: float
) -> None:
    """Narayanan et al. 2021, equation 4: 8·T·P/(n·X), recomputation counted."""
    found = spend(8 * parameters * tokens, find_accelerator("a100"), devices, tflops, None)
    assert round(found.days) == days
    assert found.usd is None


@given(tokens=st.floats(1e6, 1e14), factor=st.floats(1, 1000), count=st.integers(1, 10**5))
def test_cost_is_linear_in_tokens_and_does_not_depend_on_the_count(tokens: float, factor: float, count: int) -> None:
    device = find_accelerator("h100")
    rate = given_rate(300, device)

    def cost(amount: float, devices: int) -> tuple[float, float]:
        run = plan_training(
            PRESETS["gpt2-124m"], amount, "", 1024, accelerator=device, count=devices, rate=rate, usd_per_hour=2.0
        )
        assert run.with_attention is not None
        assert run.with_attention.usd is not None
        return run.with_attention.usd, run.with_attention.days

    usd, days = cost(tokens, 1)
    assert cost(tokens * factor, 1)[0] == pytest.approx(usd * factor)
    assert cost(tokens, count) == pytest.approx((usd, days / count))


def test_a_rate_above_the_peak_is_refused() -> None:
    with pytest.raises(RequestError, match="328 TFLOP/s is more than the A100-SXM4-80GB can do: its peak is 312"):
        given_rate(328, find_accelerator("a100"))
    with pytest.raises(RequestError, match="its peak is 5"):
        given_rate(6, Accelerator("x", 1.0, 1.0, int8_tops=5.0))
    assert given_rate(1000, find_accelerator("h100")).share_of_peak > 1  # above bf16, within fp8


def test_the_rate_says_where_it_comes_from() -> None:
    device = find_accelerator("h100")
    predicted = expected_rate(GPT3, device)
    assert "predicted" in predicted.origin
    assert predicted.counts_attention
    assert 0.2 < predicted.share_of_peak < 0.8
    assumed = expected_rate(shape("bert-base"), device)
    assert (assumed.origin, assumed.share_of_peak) == ("assumed", ASSUMED_SHARE)


def test_small_models_reach_less_of_the_peak() -> None:
    shares = [
        expected_rate(PRESETS[name], find_accelerator("h100")).share_of_peak for name in ("gpt2-124m", "gpt3-13b")
    ]
    assert shares[0] < shares[1]


@pytest.mark.parametrize("name", ["P100-SXM2-16GB", "TPU v4", "Apple M2 Ultra", "MI300X", "T4"])
def test_every_kind_of_device_has_a_rate(name: str) -> None:
    device = find_accelerator(name)
    assert 0 < expected_rate(PRESETS["gpt2-124m"], device).tflops < device.training_tflops


def test_without_a_price_there_is_no_cost_and_it_is_said() -> None:
    device = Accelerator("Abacus", 10.0, 10.0, bf16_tflops=10.0)
    run = plan_training(GPT3, 1e9, "as given", 2048, accelerator=device)
    assert run.price is None
    assert run.with_attention is not None
    assert run.with_attention.usd is None
    assert run.with_attention.kilowatt_hours is None
    assert "no price of Abacus is known" in run.table().note


def test_formulas_of_time_money_and_energy_show_their_numbers() -> None:
    device = find_accelerator("v100")
    run = plan_training(
        GPT3, 300e9, "as given", 2048, accelerator=device, rate=given_rate(28, device), usd_per_hour=1.5
    )
    years, cost, energy = spending_formulas(run)
    assert years.shown == "355.9 years"
    assert cost.numbers == "3,117,933 h × $1.50"
    assert "300 W" in energy.numbers
    assert spending_formulas(plan_training(GPT3, 1e9, "", 2048)) == ()


def test_hardware_is_ranked_by_money_and_by_time() -> None:
    found = compare(PRESETS["gpt2-1558m"], 30e9, 1024, catalogue().values())
    priced = [offer for offer in found.offers if offer.usd is not None]
    assert [offer.usd for offer in priced] == sorted(offer.usd for offer in priced if offer.usd is not None)
    assert found.offers[: len(priced)] == tuple(priced)  # those without a price come last
    assert {offer.rank_by_time for offer in found.offers if offer.rank_by_time == 1} == {1}
    fastest = min(found.offers, key=lambda offer: offer.days)
    assert fastest.rank_by_time == 1
    assert {offer.vendor for offer in found.offers} >= {"NVIDIA", "AMD", "Google"}
    assert next(o for o in found.offers if o.accelerator == "T4").devices_to_hold == 2  # 24.9 GB of state
    assert len(found.table().rows) == len(catalogue())


def test_a_given_price_ranks_by_rate_alone() -> None:
    devices = [find_accelerator("a100"), find_accelerator("h100")]
    found = compare(GPT3, 1e9, 2048, devices, usd_per_hour=2.0)
    assert [offer.accelerator for offer in found.offers] == ["H100-SXM5-80GB", "A100-SXM4-80GB"]
