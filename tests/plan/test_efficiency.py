"""The speed of a step: published runs, the two conventions of FLOPs, and what physics forbids."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.plan.accelerators import catalogue, find_accelerator
from chatsmith.plan.efficiency import device_tflops, recomputed_flops_per_token, sent_bytes, step_time, sustained_flops
from chatsmith.plan.layout_plan import LayoutPlan, make_plan
from chatsmith.plan.parallel import Grid, Layout, Links, Workload, links_of
from chatsmith.specs import PRESETS, ModelSpec

A100, H100, V100 = (find_accelerator(name) for name in ("a100", "h100", "v100-32gb"))


def plan_of(shape: tuple[int, ...], rows: int, device: object, layout: Layout, **more: object) -> LayoutPlan:
    vocabulary, context, width, layers, heads = shape
    work = Workload(ModelSpec(vocabulary, context, width, layers, heads), context, rows, **more)  # type: ignore[arg-type]
    return make_plan(work, device, links_of(device), layout)  # type: ignore[arg-type]


OLD = {"attention": "materialised", "sequence_parallel": False, "overlap_tensor": False}


def test_published_runs_are_predicted() -> None:
    """Five papers' rows, each in its own convention, within 15%."""
    # Narayanan et al. 2021, Table 1: 145.6B on 1536 A100, 148 TFLOP/s counting recomputation.
    plan = plan_of((51200, 2048, 12288, 80, 96), 2304, A100, Layout(24, 8, 8, 1, 1, 0, "full", 2), **OLD)
    assert plan.hardware_tflops_per_device == pytest.approx(148, rel=0.15)
    # Korthikanti et al. 2022, Table 5: 175B on 64 A100, MFU 51.4% and HFU 52.8%.
    plan = plan_of(
        (51200, 2048, 12288, 96, 96), 64, A100, Layout(1, 8, 8, 1, 1, 0, "selective", 3),
        attention="materialised", overlap_tensor=False,
    )  # fmt: skip
    assert (plan.mfu, plan.hfu) == pytest.approx((0.514, 0.528), rel=0.15)
    # Megatron-LM repository, README of July 2024: 177B on 2304 H100, 432.8 TFLOP/s without recomputation.
    plan = plan_of((131072, 4096, 12288, 96, 96), 1152, H100, Layout(48, 8, 6, 1, 1, 1, "none", 4))
    assert plan.model_tflops_per_device == pytest.approx(432.8, rel=0.15)
    # MosaicML llm-foundry, benchmarking table: 7B on 8 A100, MFU 64.2%.
    plan = plan_of((50368, 2048, 4096, 32, 32), 96, A100, Layout(8, micro_batch=4, zero=3))
    assert plan.mfu == pytest.approx(0.642, rel=0.15)
    # Megatron-LM repository, table of September 2020: 8.67B on 8 V100 with 8 rows of 1024, 1.407 s a step.
    plan = plan_of((51200, 1024, 4096, 42, 32), 8, V100, Layout(1, 8, 1, 1, 8, 0, "full"), **OLD)
    assert plan.step_total_seconds == pytest.approx(1.407, rel=0.15)


def test_model_and_hardware_flops_are_the_published_formulas() -> None:
    B, s, layers, h, heads, V = 64, 2048, 96, 12288, 96, 51200
    spec = ModelSpec(V, s, h, layers, heads)
    model = B * s * spec.training_flops_per_token(s)
    # Korthikanti et al. 2022, appendix A; Narayanan et al. 2021, equation 3.
    assert model == pytest.approx(72 * B * layers * s * h**2 * (1 + s / (6 * h) + V / (12 * h * layers)))
    full = model + B * s * recomputed_flops_per_token(spec, s, "full")
    assert full == pytest.approx(96 * B * s * layers * h**2 * (1 + s / (6 * h) + V / (16 * layers * h)))
    # Attention's forward pass once more: 4·s·h a token and layer. Korthikanti et al. 2022 count three times that, a
    # ratio of hardware to model FLOPs of about 1 + s/(6h), in their HFU.
    selective = recomputed_flops_per_token(spec, s, "selective")
    assert selective == 4 * layers * s * h
    assert (model + 3 * B * s * selective) / model == pytest.approx(1 + s / (6 * h), rel=0.01)
    assert recomputed_flops_per_token(spec, s, "none") == 0


def test_the_two_conventions_are_kept_apart() -> None:
    shape = (50304, 2048, 4096, 32, 32)
    kept = plan_of(shape, 64, A100, Layout(8, micro_batch=4, zero=3))
    again = plan_of(shape, 64, A100, Layout(8, micro_batch=4, zero=3, recompute="full"))
    assert kept.mfu == kept.hfu
    assert again.hfu / again.mfu == pytest.approx(4 / 3, rel=0.02)
    assert again.mfu < kept.mfu < again.hfu * 1.1


def test_bubble_and_volumes_are_those_of_the_papers() -> None:
    """Narayanan et al. 2021: a bubble of (p − 1)/(v·m) of the ideal time, and 4 all-reduces of b·s·h a layer."""
    shape, b, s, h, layers = (50304, 2048, 4096, 32, 32), 2, 2048, 4096, 32
    for v in (1, 2, 4):
        plan = plan_of(shape, 64, A100, Layout(1, 8, 4, 1, b, 0, "none", v))
        m, seconds = 64 // b, plan.step_seconds
        ideal = seconds.total - seconds.bubble - seconds.optimizer - seconds.data_communication
        assert seconds.bubble / ideal == pytest.approx((4 - 1) / (v * m))
        tensor = next(use for use in plan.links if use.group == "tensor")
        assert tensor.bytes_sent == pytest.approx(4 * 2 * 7 / 8 * (b * s * h * 2) * m * layers / 4)
        assert (tensor.link, tensor.devices) == ("inside a node", 8)
        pipeline = next(use for use in plan.links if use.group == "pipeline")
        assert pipeline.bytes_sent == pytest.approx(2 * v * m * b * s * h * 2 / 8)
        assert pipeline.link == "between nodes"
    # Zhao et al. 2023: weights gathered twice and gradients scattered once, of 2 bytes each.
    spec = ModelSpec(*shape)
    data = plan_of(shape, 64, A100, Layout(64, zero=3)).links[0]
    assert data.bytes_sent == pytest.approx(63 / 64 * 3 * 2 * spec.parameters, rel=1e-3)


def test_no_device_beats_its_peak() -> None:
    for device in catalogue().values():
        assert 0 < sustained_flops(device) < device.training_tflops * 1e12
        for spec in PRESETS.values():
            assert 0 < device_tflops(spec, device, 1024) < device.training_tflops


def test_small_models_reach_less_of_a_device() -> None:
    """MosaicML's table: 125M 44%, 350M 52%, 760M 57%, 1.3B 60% of an A100."""
    sizes = ("gpt3-125m", "gpt3-350m", "gpt3-760m", "gpt3-1.3b", "gpt3-6.7b")
    reached = [device_tflops(PRESETS[size], A100, 2048) / 312 for size in sizes]
    assert reached == sorted(reached)
    assert reached[:4] == pytest.approx([0.445, 0.516, 0.569, 0.599], rel=0.2)


@given(
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 4, 8]),
    st.sampled_from([0, 1, 2]),
    st.floats(1.0, 100.0),
)
@settings(max_examples=60, deadline=None)
def test_a_better_machine_is_never_slower(t: int, p: int, d: int, zero: int, better: float) -> None:
    work = Workload(PRESETS["gpt3-6.7b"], 2048, 64)
    grid = Grid.of([Layout(d, t, p, 1, 2, zero)])  # type: ignore[arg-type]
    links = links_of(A100)

    def seconds(device: object, links: Links) -> float:
        return float(step_time(work, device, links, grid).total[0])  # type: ignore[arg-type]

    now = seconds(A100, links)
    assert seconds(replace(A100, bf16_tflops=312 * better, power_w=400 * better), links) <= now
    assert seconds(replace(A100, bandwidth_gb_s=A100.bandwidth_gb_s * better), links) <= now
    assert seconds(A100, replace(links, inside=links.inside * better, between=links.between * better)) <= now
    sent = sent_bytes(work, links, grid)
    assert (float(sent.tensor[0]) > 0) == (t > 1)
    assert (float(sent.data[0]) > 0) == (d > 1)


def test_columns_and_single_layouts_agree() -> None:
    work, links = Workload(PRESETS["gpt3-13b"], 2048, 64), links_of(H100)
    layouts = [Layout(8, 2, 2, 1, 2, 1), Layout(4, 8, 1, 1, 4, 1, "full"), Layout(32, zero=3), Layout(8, 2, 1, 2, 1, 2)]
    together = step_time(work, H100, links, Grid.of(layouts)).total
    apart = [make_plan(work, H100, links, layout).step_total_seconds for layout in layouts]
    assert np.allclose(together, apart)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, shared: Path) -> ModuleType:
    """The bench as a module; it lives outside the package."""
    path = Path(__file__).parents[2] / "bench" / "plan_validation.py"
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setenv("CHATSMITH_SHARED", str(shared))
    described = importlib.util.spec_from_file_location("plan_validation", path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    monkeypatch.setitem(sys.modules, "plan_validation", module)
    described.loader.exec_module(module)
    return module


def test_the_bench_holds_the_model_to_every_published_run(bench: ModuleType) -> None:
    runs, left = bench.load(bench.shared())
    assert len(runs) + len(left) >= 195
    assert "impossible" in left["llmc-gpt3-125m-DO-NOT-USE"]
    assert all(left.values())
    for half in (True, False):
        errors = bench.summary(run.error(bench.PHYSICS) for run in runs if run.laid_out and run.fitted == half)
        assert errors["median"] <= 0.10
        assert errors["p90"] <= 0.25
    assert set(bench._ALSO_TOLD) <= {run.paper for run in runs}
    papers = {run.paper: run.fitted for run in runs}
    assert all(run.fitted == papers[run.paper] for run in runs)
    assert min(sum(papers.values()), len(papers) - sum(papers.values())) >= 5


def test_the_constants_are_those_that_the_fit_gives(bench: ModuleType) -> None:
    runs, _ = bench.load(bench.shared())
    fitted = bench.fit([run for run in runs if run.laid_out and run.fitted], rounds=12)
    for item in dataclasses.fields(bench.Physics):
        assert getattr(bench.PHYSICS, item.name) == pytest.approx(getattr(fitted, item.name), rel=0.02), item.name
