"""The search for a layout: it fits, it is the fastest that does, and wrong requests are refused in a line."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import catalogue, find_accelerator
from chatsmith.plan.budgeted import expectations, loss_formulas
from chatsmith.plan.layout import search
from chatsmith.plan.layout_formulas import layout_formulas
from chatsmith.plan.layout_plan import make_plan
from chatsmith.plan.memory import memory_of
from chatsmith.plan.parallel import Layout, Links, Workload, default_rows, links_of
from chatsmith.plan.scaling import FITS
from chatsmith.specs import PRESETS, ModelSpec

H100, A100 = find_accelerator("h100"), find_accelerator("a100")
LINKED = [device for device in catalogue().values() if device.memory_gb and device.bandwidth_gb_s]


@given(
    st.sampled_from(sorted(PRESETS)),
    st.sampled_from(LINKED),
    st.integers(1, 3000),
    st.one_of(st.none(), st.integers(1, 4096)),
    st.sampled_from([None, 1024, 2048]),
)
@settings(max_examples=150, deadline=None)
def test_what_is_found_fits(name: str, device: object, count: int, rows: int | None, context: int | None) -> None:
    try:
        plan = search(PRESETS[name], device, count, rows=rows, context=context)  # type: ignore[arg-type]
    except RequestError:
        return
    work = Workload(PRESETS[name], plan.context_tokens, plan.rows_per_step, here=True)
    plan.layout.check(work)
    assert plan.layout.devices == count
    assert plan.layout.data * plan.layout.micro_batch * plan.micro_batches == plan.rows_per_step
    assert plan.fits
    assert memory_of(work, plan.layout).total <= plan.device_memory_bytes
    assert 0 < plan.mfu <= plan.hfu < 1
    assert 0 <= plan.bubble < 1
    seconds = plan.step_seconds
    assert seconds.total == pytest.approx(plan.tokens_per_step / plan.tokens_per_second)


def test_nothing_faster_fits() -> None:
    """Every division of eight devices, priced one by one, against the search."""
    spec, links = PRESETS["gpt3-2.7b"], links_of(A100)
    rows, context = 64, 2048
    work = Workload(spec, context, rows, here=True)
    found = search(spec, A100, 8, rows=rows, context=context)
    fastest = 0.0
    sizes = (1, 2, 4, 8)
    for t, p, c in ((t, p, c) for t in sizes for p in sizes for c in (1, 2) if 8 % (t * p * c) == 0):
        d = 8 // (t * p * c)
        for b in (1, 2, 4, 8, 16, 32, 64):
            for zero in (0, 1, 2, 3):
                for recompute in ("none", "full"):
                    for v in (1, 2, 4):
                        sound = rows % (d * b) == 0 and (v == 1 or (p > 1 and rows // (d * b) % p == 0))
                        if not sound or (zero > 1 and p > 1):
                            continue
                        layout = Layout(d, t, p, c, b, zero, recompute, v)  # type: ignore[arg-type]
                        plan = make_plan(work, A100, links, layout)
                        if plan.fits:
                            fastest = max(fastest, plan.tokens_per_second)
    assert found.tokens_per_second == pytest.approx(fastest, rel=1e-9)


def test_a_large_model_is_divided_and_a_small_one_is_not() -> None:
    large = search(PRESETS["gpt3-175b"], A100, 1024).layout
    assert large.tensor * large.pipeline >= 16
    assert large.tensor <= 8  # within a node
    small = search(PRESETS["gpt2-124m"], A100, 8).layout
    assert small.data == 8
    assert search(PRESETS["gpt2-124m"], A100, 1).layout.devices == 1


def test_slower_links_never_help() -> None:
    spec = PRESETS["gpt3-13b"]
    usual = links_of(H100)
    rates = [
        search(spec, H100, 64, links=replace(usual, between=usual.between / slower)).tokens_per_second
        for slower in (1, 4, 16)
    ]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]


def test_given_numbers_are_kept() -> None:
    plan = search(PRESETS["gpt3-13b"], A100, 64, given={"tensor": 4, "pipeline": 2, "zero": 1})
    assert (plan.layout.tensor, plan.layout.pipeline, plan.layout.zero) == (4, 2, 1)


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(RequestError, match="do not fit 8 × H100") as refused:
        search(PRESETS["gpt3-175b"], H100, 8)
    assert refused.value.hint is not None
    count = int(refused.value.hint.rsplit(" ", 1)[1])
    assert "--count" in refused.value.hint
    assert search(PRESETS["gpt3-175b"], H100, count).fits
    with pytest.raises(RequestError, match="cannot be divided over 13 devices"):
        search(PRESETS["gpt2-124m"], H100, 13, rows=8)
    for count in (0, -1, 2**21):
        with pytest.raises(RequestError, match="cannot be laid out"):
            search(PRESETS["gpt2-124m"], H100, count)
    with pytest.raises(RequestError, match="a step cannot have 0 rows"):
        search(PRESETS["gpt2-124m"], H100, 8, rows=0)


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        (Layout(tensor=5), "12 heads"),
        (Layout(data=3), "64 rows"),
        (Layout(pipeline=16), "12 layers"),
        (Layout(interleave=2), "nothing to interleave"),
        (Layout(context=3), "context 1024"),
    ],
)
def test_a_layout_that_does_not_suit_says_why(layout: Layout, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        layout.check(Workload(PRESETS["gpt2-124m"], 1024, 64))


def test_layouts_are_validated() -> None:
    for wrong in ({"data": 0}, {"tensor": 1.5}, {"zero": 4}, {"recompute": "some"}, {"pipeline": True}):
        with pytest.raises(RequestError):
            Layout(**wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError):
        Links(0, 1e9, 1e9)


def test_default_batches_are_about_those_of_gpt3() -> None:
    """Brown et al. 2020, Table 2.1: half a million tokens up to 760M, then 1, 1, 2, 2 and 3.2 million."""
    published = {"125m": 0.5, "350m": 0.5, "760m": 0.5, "1.3b": 1, "2.7b": 1, "6.7b": 2, "13b": 2, "175b": 3.2}
    for name, million in published.items():
        tokens = 2048 * default_rows(PRESETS[f"gpt3-{name}"], 2048)
        assert 0.5 <= tokens / (million * 1e6) <= 2, name


def test_the_picture_names_every_layer_once() -> None:
    for layers, pipeline, interleave in ((96, 8, 1), (96, 8, 4), (126, 16, 8), (12, 5, 1), (7, 3, 1)):
        spec = ModelSpec(50304, 1024, 256, layers, 8)
        layout = Layout(pipeline=pipeline, interleave=interleave)
        plan = make_plan(Workload(spec, 1024, 64), A100, links_of(A100), layout)
        named = sorted(n for stage in range(1, pipeline + 1) for a, b in plan.layers_of(stage) for n in range(a, b + 1))
        assert named == list(range(1, layers + 1))


def test_the_report_shows_picture_bill_speed_and_links() -> None:
    plan = search(PRESETS["gpt3-175b"], H100, 1024)
    shown = str(plan)
    assert "1024 × H100-SXM5-80GB, 8 to a node: data" in shown
    for word in ("stage", "replica 1", "■", "embedding", "output head", "MFU", "HFU", "optimizer", "bubble", "between"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 120
    alone = str(search(PRESETS["gpt2-124m"], H100, 1))
    assert "nothing divided" in alone
    assert "communication of a device" not in alone


def worked_out(numbers: str) -> float:
    """The value of a formula's numbers, as they are written: "2 × (3 B + 4) / 5"."""
    scales = {"T": "e12", "B": "e9", "M": "e6", "K": "e3", "GB": "e9", "MB": "e6", "kB": "e3"}
    plain = re.sub(r"([\d.]+) (GB|MB|kB|T|B|M|K)\b", lambda part: part[1] + scales[part[2]], numbers.replace(",", ""))
    plain = plain.replace("×", "*").replace("−", "-").replace("^", "**")
    assert re.fullmatch(r"[\d.e+*/() -]+", plain), plain
    value = eval(plain)
    assert isinstance(value, (int, float))
    return value


@pytest.mark.parametrize(
    "layout",
    [
        Layout(data=8, zero=1, micro_batch=2),
        Layout(data=8, zero=3, recompute="full"),
        Layout(data=2, tensor=2, pipeline=2, zero=1),
        Layout(pipeline=8),
        Layout(tensor=4, pipeline=2, interleave=2, recompute="full"),
    ],
)
def test_the_numbers_of_each_formula_give_its_value(layout: Layout) -> None:
    spec = PRESETS["gpt2-774m"]
    plan = make_plan(Workload(spec, 1024, 64, here=True), A100, links_of(A100), layout)
    found = layout_formulas(plan)
    for formula in found:
        assert worked_out(formula.numbers) == pytest.approx(formula.value, rel=0.01), formula
        assert formula.source
    assert sum(formula.value for formula in found if formula.unit == "bytes" and "sent" not in formula.name) == (
        pytest.approx(plan.memory_total_bytes - plan.memory_bytes.logits)
    )


@pytest.mark.parametrize("fit", FITS)
def test_the_numbers_of_a_law_give_the_loss_it_expects(fit: str) -> None:
    spec = PRESETS["gpt3-1.3b"]
    rows = expectations(spec, 3e11, [fit])
    for formula in loss_formulas(spec, 3e11, rows):
        assert worked_out(formula.numbers) == pytest.approx(formula.value, rel=1e-3)
