"""Published formulas against the figures that papers print, and against the multiplies counted one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatsmith.plan import formulas
from chatsmith.specs import PRESETS
from chatsmith.specs_families import shape

GPT3 = [name for name in PRESETS if name.startswith("gpt3-")]


@pytest.mark.parametrize("name", GPT3)
def test_closed_forms_agree_with_the_multiplies(name: str) -> None:
    spec = PRESETS[name]
    counted = formulas.every_matmul(spec, 1e9, 2048).value
    assert formulas.korthikanti(spec, 1e9, 2048).value == pytest.approx(counted, rel=1e-12)
    # With the forward pass of the layers computed a second time, but not that of the output head.
    head = 2.0 * spec.vocab_size * spec.width
    again = counted / 1e9 + (counted / 1e9 - 3 * head) / 3
    assert formulas.narayanan(spec, 1e9, 2048).value == pytest.approx(again * 1e9, rel=1e-12)


def test_attention_adds_3_percent_to_the_largest_and_29_to_the_smallest() -> None:
    shares = {
        name: formulas.every_matmul(PRESETS[name], 1e9, 2048).value
        / formulas.six_nd(PRESETS[name].parameters, 1e9).value
        for name in ("gpt3-175b", "gpt3-125m")
    }
    assert shares["gpt3-175b"] == pytest.approx(1.03, abs=0.005)
    assert shares["gpt3-125m"] == pytest.approx(1.29, abs=0.005)


def test_palm_counts_all_parameters_and_full_attention() -> None:
    spec = PRESETS["gpt2-124m"]
    expected = (6 * 124_439_808 + 12 * 12 * 768 * 1024) * 1e9
    assert formulas.palm(spec, 1e9, 1024).value == pytest.approx(expected, rel=1e-12)


def test_the_causal_count_takes_half_of_long_attention_off() -> None:
    spec = PRESETS["gpt3-125m"]
    full = formulas.every_matmul(spec, 1.0, 2048).value
    kept = formulas.causal(spec, 1.0, 2048).value
    attention = 12.0 * spec.layers * spec.heads * spec.head_dim * 2048
    assert full - kept == pytest.approx(attention * (1 - 2049 / 4096), rel=1e-9)
    banded = replace(spec, band=1)  # a layer of band 1 sees itself alone: nothing is masked there
    less = formulas.every_matmul(banded, 1.0, 2048).value - formulas.causal(banded, 1.0, 2048).value
    assert less == pytest.approx(attention / 2 * (1 - 2049 / 4096), rel=1e-9)


def test_kaplan_leaves_embeddings_and_half_of_attention_out() -> None:
    spec = PRESETS["gpt3-175b"]
    body = spec.parameters - 12288 * (50257 + 2048)
    assert body == 173_961_535_488  # the 96 layers and the last norm
    assert formulas.kaplan(spec, 1.0, 2048).value == 6 * body + 6 * 96 * 2048 * 12288


def test_closed_forms_are_for_gpt_alone() -> None:
    names = [formula.name for formula in formulas.training_formulas(PRESETS["llama3-8b"], 1e9, 8192)]
    assert "PaLM's model FLOPs" in names
    assert not any("closed form" in name or "recomputation" in name for name in names)
    assert [f.name for f in formulas.training_formulas(shape("bert-base"), 1e9, 512)] == [
        "6ND",
        "every matrix multiply",
    ]


@pytest.mark.parametrize("name", GPT3 + [name for name in PRESETS if name.startswith("gpt2-")])
def test_the_closed_form_of_parameters(name: str) -> None:
    counted, closed = formulas.parameter_formulas(PRESETS[name])
    assert counted.value == closed.value


def test_every_formula_shows_its_numbers_and_its_source() -> None:
    found = formulas.parameter_formulas(PRESETS["gpt3-175b"])
    found += formulas.training_formulas(PRESETS["gpt3-175b"], 300e9, 2048)
    table = formulas.explain_table(found)
    for formula, (figure, how) in zip(found, table.rows, strict=True):
        assert formula.name in str(figure)
        assert formula.symbols in str(how)
        assert formula.numbers in str(how)
        assert formula.source
        assert formula.source in str(how)
    rows = formulas.matmul_table(PRESETS["gpt3-175b"], 2048).rows
    assert len(rows) == 7
