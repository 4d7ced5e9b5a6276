"""Weights, cache and the bound that memory sets on generating."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import find_accelerator
from chatsmith.plan.generation import Device, cache_bytes, device_of, generation_formulas, plan_generation
from chatsmith.specs import PRESETS


@pytest.mark.parametrize(
    ("name", "per_token", "per_2048"),
    [("gpt3-175b", 4.72e6, 9.66e9), ("gpt3-1.3b", 196.6e3, 0.40e9), ("gpt2-124m", 36.9e3, None)],
)
def test_the_cache_of_published_sizes(name: str, per_token: float, per_2048: float | None) -> None:
    spec = PRESETS[name]
    assert cache_bytes(spec, 1) == pytest.approx(per_token, rel=2e-3)
    if per_2048 is not None:
        assert cache_bytes(spec, 2048) == pytest.approx(per_2048, rel=7e-3)


def test_fewer_key_value_heads_and_bands_keep_less() -> None:
    spec = PRESETS["llama3-8b"]
    assert cache_bytes(replace(spec, kv_heads=32), 100) == 4 * cache_bytes(spec, 100)
    dense = PRESETS["gpt3-125m"]
    banded = replace(dense, band=128)
    assert cache_bytes(banded, 2048) / cache_bytes(dense, 2048) == pytest.approx((2048 + 128) / 4096)


def test_weights_in_four_precisions() -> None:
    found = plan_generation(PRESETS["gpt3-175b"], 2048, 1)
    assert {fit.precision: round(fit.weight_bytes / 1e9, 1) for fit in found.fits} == {
        "f32": 698.4, "bf16": 349.2, "int8": 174.6, "int4": 87.3,
    }  # fmt: skip
    assert all(fit.fits is None and fit.tokens_per_second is None for fit in found.fits)


def test_what_fits_one_device_and_what_eight() -> None:
    spec, h100 = PRESETS["gpt3-175b"], find_accelerator("h100")
    alone = plan_generation(spec, 2048, 1, device_of(h100))
    assert [fit.fits for fit in alone.fits] == [False] * 4
    eight = plan_generation(spec, 2048, 1, device_of(h100, 8))
    assert [fit.fits for fit in eight.fits] == [False, True, True, True]
    assert plan_generation(PRESETS["gpt3-1.3b"], 2048, 1, device_of(find_accelerator("t4"))).fits[1].fits


def test_the_bound_is_bandwidth_over_what_is_read() -> None:
    spec = PRESETS["gpt2-124m"]
    device = Device("x", 1e12, 1e11, 1e18)
    bf16 = plan_generation(spec, 1024, 1, device).fits[1]
    read = 2 * (spec.parameters - 1024 * 768)  # positions are looked up, not read through
    assert bf16.tokens_per_second == pytest.approx(1e11 / (read + cache_bytes(spec, 1024)))
    untied = plan_generation(replace(spec, tied=False), 1024, 1, device).fits[1]
    assert untied.tokens_per_second == pytest.approx(bf16.tokens_per_second)  # an embedding is looked up as well


@given(batch=st.integers(1, 10**4), context=st.integers(1, 1024), flops=st.floats(1e9, 1e18))
def test_a_batch_is_faster_together_and_never_beyond_the_arithmetic(batch: int, context: int, flops: float) -> None:
    spec = PRESETS["gpt2-124m"]
    device = Device("x", 1e15, 1e11, flops)
    one, many = (plan_generation(spec, context, size, device).fits[1] for size in (1, batch))
    assert one.tokens_per_second is not None
    assert many.tokens_per_second_batch is not None
    assert many.tokens_per_second_batch >= one.tokens_per_second * (1 - 1e-9)
    assert many.tokens_per_second_batch <= flops / (2 * spec.matmul_parameters) * (1 + 1e-9)
    by_memory = many.tokens_per_second_batch < flops / (2 * spec.matmul_parameters) * (1 - 1e-9)
    assert many.bound == "memory" if by_memory else many.bound in ("memory", "compute")


def test_a_context_beyond_the_positions_is_refused() -> None:
    with pytest.raises(RequestError, match="positions for 1,024 tokens, not 4,096"):
        plan_generation(PRESETS["gpt2-124m"], 4096, 1)
    assert plan_generation(PRESETS["llama2-7b"], 100_000, 1).context == 100_000


def test_it_is_drawn_and_explained() -> None:
    spec = PRESETS["gpt3-1.3b"]
    found = plan_generation(spec, 2048, 4, device_of(find_accelerator("a100"), 2))
    table = found.table()
    assert len(table.rows) == 4
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert "2 × A100-SXM4-80GB" in table.note
    cache, speed = generation_formulas(spec, found)
    assert cache.value == 196_608
    assert speed.value == found.fits[1].tokens_per_second
