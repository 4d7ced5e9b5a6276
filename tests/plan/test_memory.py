"""The memory of training: the published formulas to the byte, and what must hold for any shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.plan.memory import RESERVED, MemoryBill, layer_activations, memory_of
from chatsmith.plan.parallel import FLOAT16_MEGATRON, FLOAT32, Layout, Precision, Workload
from chatsmith.specs import PRESETS, ModelSpec

GPT3 = replace(PRESETS["gpt3-175b"], dropout=0.1)

# Korthikanti et al. 2022, Table 3: width, heads, layers, micro-batch; all with sequences of 2048 and tensor size 8.
PUBLISHED = {
    "22B": (6144, 64, 48, 4),
    "175B": (12288, 96, 96, 1),
    "530B": (20480, 128, 105, 1),
    "1T": (25600, 160, 128, 1),
}


def exactly(value: float) -> object:
    """Equal but for the last bits of a float."""
    return pytest.approx(value, rel=1e-12)


def work_of(
    spec: ModelSpec, micro_batch: int, sequence_parallel: bool = True, precision: Precision | None = None
) -> Workload:
    made = Workload(spec, spec.context, micro_batch, attention="materialised", sequence_parallel=sequence_parallel)
    return made if precision is None else replace(made, precision=precision)


@pytest.mark.parametrize("name", PUBLISHED)
def test_activations_are_the_published_formulas(name: str) -> None:
    h, a, L, b = PUBLISHED[name]
    s, t = 2048, 8
    spec = ModelSpec(51200, s, h, L, a, dropout=0.1)

    def kept(sequence_parallel: bool, layout: Layout) -> float:
        return memory_of(work_of(spec, b, sequence_parallel), layout).activations / L

    # Table 2 of the paper, line by line.
    assert kept(False, Layout(micro_batch=b)) == exactly(s * b * h * (34 + 5 * a * s / h))
    assert kept(False, Layout(tensor=t, micro_batch=b)) == exactly(s * b * h * (10 + 24 / t + 5 * a * s / (h * t)))
    assert kept(True, Layout(tensor=t, micro_batch=b)) == exactly(s * b * h / t * (34 + 5 * a * s / h))
    assert kept(False, Layout(tensor=t, micro_batch=b, recompute="selective")) == exactly(s * b * h * (10 + 24 / t))
    assert kept(True, Layout(tensor=t, micro_batch=b, recompute="selective")) == exactly(s * b * h * 34 / t)
    assert kept(True, Layout(tensor=t, micro_batch=b, recompute="full")) == exactly(s * b * h * 2)


def test_activations_of_gpt3_are_the_published_gigabytes() -> None:
    def gigabytes(sequence_parallel: bool, layout: Layout) -> float:
        return memory_of(work_of(GPT3, 1, sequence_parallel), layout).activations / 1e9

    assert gigabytes(False, Layout()) == pytest.approx(275, abs=0.6)
    assert gigabytes(False, Layout(tensor=8)) == pytest.approx(55.6, abs=0.06)
    assert gigabytes(True, Layout(tensor=8)) == pytest.approx(34.4, abs=0.06)
    assert gigabytes(True, Layout(tensor=8, recompute="selective")) == pytest.approx(10.3, abs=0.06)
    assert gigabytes(True, Layout(tensor=8, recompute="full")) == pytest.approx(4.8, abs=0.06)


def test_a_layer_keeps_what_the_paper_itemises() -> None:
    h, a, s = GPT3.width, GPT3.heads, GPT3.context
    kept = layer_activations(GPT3, s)
    assert kept.norms == 4 * h
    assert kept.attention + kept.scores == 11 * h + 5 * a * s
    assert kept.ffn == 19 * h
    assert layer_activations(GPT3, s, "flash").scores == 4 * a


@pytest.mark.parametrize(
    ("precision", "plain", "fixed", "shared"),
    [(FLOAT16_MEGATRON, 20, 4, 16), (Precision(2, 4, 12), 18, 6, 12), (FLOAT32, 16, 8, 8)],
)
def test_model_states_are_the_distributed_optimizers(precision: Precision, plain: int, fixed: int, shared: int) -> None:
    """Megatron-LM's table of bytes per parameter: plain, and with the optimizer's state sharded over d."""
    d, spec = 16, PRESETS["gpt3-1.3b"]

    def states(layout: Layout) -> float:
        bill = memory_of(work_of(spec, d, precision=precision), layout)
        return (bill.weights + bill.gradients + bill.optimizer) / spec.parameters

    assert states(Layout(data=d)) == pytest.approx(plain)
    assert states(Layout(data=d, zero=1)) == pytest.approx(fixed + shared / d)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_zero(stage: int, gigabytes: float) -> None:
    """Rajbhandari et al. 2020, Figure 1: 7.5B parameters on 64 devices."""
    spec = ModelSpec(51200, 2048, 4096, 36, 32)
    bill = memory_of(Workload(spec, 2048, 64), Layout(data=64, zero=stage))  # type: ignore[arg-type]
    states = (bill.weights + bill.gradients + bill.optimizer) * 7.5e9 / spec.parameters
    assert states / 1e9 == pytest.approx(gigabytes, abs=0.06)


def test_weights_of_a_pipeline_add_up() -> None:
    """Every stage holds its layers; the first one's embedding and the last one's tied head stand twice."""
    spec = PRESETS["gpt3-6.7b"]
    work = Workload(spec, spec.context, 8)
    whole = memory_of(work, Layout()).weights
    quarter = memory_of(work, Layout(pipeline=4)).weights
    table = 2 * (spec.vocab_size + spec.context) * spec.width
    assert 4 * quarter == pytest.approx(whole + 3 * table, rel=1e-3)


def shapes() -> st.SearchStrategy[ModelSpec]:
    def make(heads: int, dim: int, layers: int, vocabulary: int, gated: bool, dropout: bool) -> ModelSpec:
        return ModelSpec(
            vocabulary,
            1024,
            heads * dim,
            layers,
            heads,
            ffn_width=64 * heads,
            activation="swiglu" if gated else "gelu_tanh",
            dropout=0.1 if dropout else 0.0,
        )

    return st.builds(
        make,
        st.sampled_from([8, 16, 32]),
        st.sampled_from([32, 64, 128]),
        st.integers(1, 40),
        st.integers(256, 300_000),
        st.booleans(),
        st.booleans(),
    )


@given(shapes(), st.sampled_from(["none", "selective", "full"]), st.sampled_from(["flash", "materialised"]))
@settings(max_examples=50, deadline=None)
def test_memory_falls_with_more_tensor_parallelism(spec: ModelSpec, recompute: str, attention: str) -> None:
    work = Workload(spec, 1024, 8, attention=attention)  # type: ignore[arg-type]
    bills = [memory_of(work, Layout(tensor=t, recompute=recompute)) for t in (1, 2, 4, 8)]  # type: ignore[arg-type]
    totals = [bill.total for bill in bills]
    assert totals == sorted(totals, reverse=True)
    assert all(value >= 0 for bill in bills for value in (bill.weights, bill.scores, bill.kept_inputs, bill.logits))
    assert min(totals) > RESERVED


@given(shapes(), st.sampled_from([2, 4, 8]))
@settings(max_examples=50, deadline=None)
def test_each_stage_of_sharding_and_recomputation_takes_less(spec: ModelSpec, data: int) -> None:
    work = Workload(spec, 1024, 8)
    states = [memory_of(work, Layout(data=data, zero=zero)) for zero in (0, 1, 2, 3)]  # type: ignore[arg-type]
    held = [bill.weights + bill.gradients + bill.optimizer for bill in states]
    assert held == sorted(held, reverse=True)
    assert len(set(held)) == 4
    full = memory_of(work, Layout(data=data, recompute="full"))
    assert full.activations < states[0].activations


def test_the_total_is_the_sum_of_the_terms() -> None:
    bill = MemoryBill(*(float(2**n) for n in range(10)))
    assert bill.total == 2**10 - 1


def test_what_training_keeps_is_billed_as_it_keeps_it() -> None:
    """Bytes a parameter of weights, gradients and averages, by the settings that `emit.settings` makes of a layout."""
    spec = PRESETS["gpt2-1558m"]
    cases = [
        (Layout(), (2, 6, 12)),
        (Layout(micro_batch=64), (2, 2, 12)),  # one micro-batch needs no sums
        (Layout(data=8, zero=1), (2, 6, 12 / 8)),
        (Layout(data=8, zero=2), (2, 4 / 8, 12 / 8)),
        (Layout(data=8, zero=3), (0, 4 / 8, 12 / 8)),
    ]
    for layout, each in cases:
        bill = memory_of(Workload(spec, 1024, 64, here=True), layout)
        states = (bill.weights, bill.gradients, bill.optimizer)
        assert states == pytest.approx([size * spec.parameters for size in each]), layout
    layout = Layout(data=2, tensor=5, zero=1)
    here, paper = (memory_of(Workload(spec, 1024, 64, here=so), layout) for so in (True, False))
    held = here.weights + here.gradients + here.optimizer
    assert held / (spec.parameters / 5) == pytest.approx(2 + 16 / 2, rel=0.01)
    gathered = 2 * 2 * spec.width * (1 - 1 / 5) * 1024 * spec.layers  # two inputs a layer, kept whole
    assert here.activations - paper.activations == pytest.approx(gathered)
