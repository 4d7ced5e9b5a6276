"""What papers print, and what their own inputs give."""

from __future__ import annotations

import pytest

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import find_accelerator
from chatsmith.plan.published import GPT3_TOKENS, gpt3_tables, printed_costs, printed_sizes, published_table
from chatsmith.specs import PRESETS


def test_every_row_of_table_d1_is_reproduced_to_the_printed_digits() -> None:
    rows = gpt3_tables().compute
    assert len(rows) == 17
    assert [row.model for row in rows if not row.agrees] == []
    gpt3 = {row.model: row for row in rows}["GPT-3 175B"]
    assert gpt3.flops == pytest.approx(3.1428e23)
    assert gpt3.pf_days == pytest.approx(3637.5)


def test_a_wrong_figure_would_be_seen() -> None:
    row = gpt3_tables().compute[-1]
    wrong = type(row)(row.model, row.parameters, row.tokens, 6, 3.16e23, 3640)
    assert not wrong.agrees


def test_counted_parameters_round_to_those_of_the_table() -> None:
    for row in gpt3_tables().compute:
        if row.model.startswith("GPT-3"):
            assert row.counted_parameters is not None
            assert row.counted_parameters == pytest.approx(row.parameters, rel=0.004)


def test_the_tables_are_a_line_at_a_prompt() -> None:
    assert repr(gpt3_tables()) == "<Gpt3Tables of 8 sizes and 17 runs; print() draws it>"


def test_table_2_1_is_misprinted_in_two_rows() -> None:
    rows = gpt3_tables().sizes
    assert [row.preset for row in rows if row.misprinted] == ["gpt3-1.3b", "gpt3-13b"]
    for row in rows:
        assert row.heads * row.head_dim == row.width
        assert row.layers == PRESETS[row.preset].layers
        assert (row.printed_heads * row.head_dim == row.printed_width) != row.misprinted


def test_printed_and_right_stand_side_by_side() -> None:
    shown = str(published_table("gpt3"))
    assert "24 → 16" in shown
    assert "5,140 → 5,120" in shown
    [found] = printed_sizes("gpt3-13b")
    assert (found.printed, found.found) == ("5,140", "5,120")
    [found] = printed_sizes("gpt3-1.3b")
    assert (found.printed, found.found) == ("24", "16")
    assert printed_sizes("gpt2-124m") == ()
    assert printed_sizes("transformer-xl-wt103-large")[0].printed == "257 M"


def test_the_articles_figures_follow_from_its_inputs_but_for_one() -> None:
    v100, rtx = find_accelerator("v100"), find_accelerator("rtx8000")
    years, cost, weights = printed_costs("gpt3-175b", GPT3_TOKENS, v100, 28, 1.5)
    assert (years.printed, years.found) == ("355 years", "355.6 years")
    assert (cost.printed, cost.found) == ("$4.6M", "$4.67 million")
    assert (weights.printed, weights.found) == ("700 GB", "700 GB")
    years, _ = printed_costs("gpt3-175b", GPT3_TOKENS, rtx, 15, None)
    assert (years.printed, years.found) == ("665 years", "663.8 years")


@pytest.mark.parametrize(
    ("name", "tokens", "device", "tflops"),
    [
        ("gpt3-13b", GPT3_TOKENS, "v100", 28),
        ("gpt3-175b", 499e9, "v100", 28),
        ("gpt3-175b", GPT3_TOKENS, "v100", 30),
        ("gpt3-175b", GPT3_TOKENS, "a100", 28),
    ],
)
def test_the_article_is_quoted_only_where_the_same_is_asked(
    name: str, tokens: float, device: str, tflops: float
) -> None:
    assert printed_costs(name, tokens, find_accelerator(device), tflops, 1.5) == ()


def test_an_unknown_table() -> None:
    with pytest.raises(RequestError, match="no table called 'gpt2'"):
        published_table("gpt2")
