"""`chatsmith.plan(...)`: a model by any name, and what comes back."""

from __future__ import annotations

import inspect
import json
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chatsmith
from chatsmith.cli.console import jsonable
from chatsmith.errors import RequestError
from chatsmith.named import resolve
from chatsmith.planning import plan
from chatsmith.specs import PRESETS
from chatsmith.specs_families import FAMILY_PRESETS, shape_names
from chatsmith.store.hf import spec_to_config
from chatsmith.train.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]


def test_the_well_known_article() -> None:
    found = chatsmith.plan("gpt3-175b", tokens="300B", on="v100", tflops=28, price=1.50)
    assert found.parameters == 174_604_259_328
    spent = found.training.by_6nd
    assert spent is not None
    assert int(spent.device_years) == 355
    assert spent.usd == pytest.approx(4.68e6, rel=1e-3)
    assert {row.printed: row.found for row in found.printed} == {
        "355 years": "355.6 years",
        "$4.6M": "$4.67 million",
        "700 GB": "700 GB",
    }
    text = str(found)
    for words in ("174,604,259,328 parameters", "355.9 years", "$4.68 million", "3.143e23 FLOPs", "698.4 GB"):
        assert words in text


@pytest.mark.parametrize("name", shape_names())
def test_every_preset_can_be_planned(name: str) -> None:
    found = plan(name, on="h100")
    assert found.parameters == found.shape.parameters == sum(found.parameter_terms.values())
    assert f"{found.parameters:,} parameters" in str(found)
    assert (found.expectations == ()) == (name in FAMILY_PRESETS)
    json.dumps(jsonable(found), allow_nan=False)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("gpt2", "gpt2-124m"), ("GPT-2-XL", "gpt2-1558m"), ("gpt3-xl", "gpt3-1.3b"), ("GPT-3", "gpt3-175b")],
)
def test_the_names_of_the_papers_are_known(said: str, meant: str) -> None:
    assert plan(said).model == meant


def test_what_begins_with_a_name_is_meant_first() -> None:
    with pytest.raises(RequestError, match="no model called 'bert'") as error:
        plan("bert")
    assert error.value.hint == "did you mean bert-base or bert-base-cased or bert-large?"


def test_bert_is_planned_on_the_tokens_of_table_d1(tmp_path: Path) -> None:
    trained = plan("bert-large").training
    assert (trained.tokens, trained.tokens_origin) == (250e9, "as in Table D.1 of Brown et al. 2020")
    folder = tmp_path / "gpt3-mine"  # a name that only begins like one of the paper's
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(spec_to_config(PRESETS["gpt2-124m"])))
    assert plan(folder).training.tokens_origin == "compute-optimal by besiroglu"


@pytest.mark.parametrize("name", ["gpt3-125m", "bert-base"])
def test_rows_longer_than_the_learned_positions_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="this model has positions for"):
        plan(name, context=4096)
    assert plan("llama3-8b", context=131072).training.context == 131072  # rotary ones have no end


def test_help_says_what_a_plan_takes() -> None:
    said = pydoc.plain(pydoc.render_doc(chatsmith.plan))
    assert "chatsmith.plan(model=None, *, tokens=None, context=None" in said
    assert "Numbers may be text" in said
    assert "budget" in inspect.signature(chatsmith.plan).parameters


_NUMBERS = ["tokens", "context", "count", "price", "tflops", "budget", "days", "batch_tokens", "node_size"]
_TEXT = st.one_of(
    st.none(),
    st.sampled_from(["0", "-1", "nan", "inf", "1e400", "1e-400", "3B", "1e18", "7", "2.5", "", "x", "10M", "1,000"]),
    st.floats(allow_nan=True),
    st.integers(-3, 10**20),
)


@given(
    model=st.sampled_from([None, "gpt2-124m", "gpt3-175b", "qwen3-8b", "bert-base", "transformer-big", "nothing"]),
    on=st.sampled_from([(), "h100", "tpu-v4", "v100", ("h100", "m3-max"), "nothing"]),
    given=st.dictionaries(
        st.sampled_from(_NUMBERS),
        _TEXT,
        max_size=4,
    ),
    layout=st.booleans(),
    explain=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_asked_is_planned_or_refused_in_a_line(
    model: str | None, on: Any, given: dict[str, Any], layout: bool, explain: bool
) -> None:
    refused = ""
    try:
        found = plan(model, on=on, layout=layout, explain=explain, **given)
    except RequestError as error:
        refused = error.message
    assert "\n" not in refused
    if refused:
        return
    json.dumps(jsonable(found), allow_nan=False)
    assert str(found).startswith(found.model)


def test_a_plan_is_a_line_at_a_prompt() -> None:
    assert repr(plan("gpt2-124m")) == "<Plan gpt2-124m: 124,439,808 parameters; print() draws it>"
    layout = plan("gpt2-124m", on="a100", count=8, layout=True).layout
    assert repr(layout).startswith("<LayoutPlan on 8 × A100-SXM4-80GB: ")


def test_a_plan_is_drawn_in_a_notebook() -> None:
    html = plan("gpt2-124m", on="h100", explain=True)._repr_html_()
    assert html.count("<table") == 5
    assert "124,439,808 parameters" in html
    for cell in re.findall(r"<t[dh] style=[^>]*>[^<]*\n|<div style=[^>]*>[^<]*\n", html):
        assert "white-space:pre" in cell  # or its lines would run into one
    assert "<script" not in html


def test_a_recipe_brings_its_shape_tokens_and_context() -> None:
    by_path = plan(ROOT / "recipes" / "gpt2-124m.toml")
    assert (by_path.parameters, by_path.training.tokens) == (124_439_808, 10e9)
    assert by_path.training.tokens_origin == "as in the recipe"
    recipe = load_recipe(ROOT / "recipes" / "world.toml")
    assert plan(recipe).parameters == recipe.spec(3072).parameters


def test_a_recipe_of_steps_is_counted_in_tokens(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    text = "[data]\nvocab_size = 512\n[[data.sources]]\npath = 'world'\n[model]\nwidth = 64\nlayers = 2\nheads = 2\n"
    file.write_text(text + "context = 32\n[batch]\nmicro_batch = 3\naccumulation = 5\n[schedule]\nsteps = 7\n")
    assert plan(file).training.tokens == 7 * 3 * 5 * 32


def test_a_vocabulary_that_is_not_there_yet_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    text = (
        "[data]\ntokenizer = 'nowhere'\n[[data.sources]]\npath = 'world'\n[model]\nwidth = 64\nlayers = 2\nheads = 2\n"
    )
    file.write_text(text + "[schedule]\nsteps = 7\n")
    with pytest.raises(RequestError, match="vocabulary is not there yet"):
        plan(file)


@pytest.mark.parametrize("name", ["gpt2-124m", "llama3-8b", "qwen3-0.6b"])
def test_a_config_json_or_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "some-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(spec_to_config(PRESETS[name])))
    for place in (folder, folder / "config.json"):
        found = plan(place)
        assert (found.model, found.parameters) == ("some-model", PRESETS[name].parameters)


def test_a_shape_itself() -> None:
    assert plan(PRESETS["gpt2-355m"]).parameters == 354_823_168
    assert plan(FAMILY_PRESETS["bert-base"]).parameters == 109_482_240


def test_tokens_follow_from_the_request_the_paper_or_the_fit() -> None:
    origins = {
        "as given": plan("gpt3-125m", tokens="1B"),
        "as in Table D.1 of Brown et al. 2020": plan("gpt3-125m"),
        "compute-optimal by besiroglu": plan("gpt2-124m"),
    }
    for origin, found in origins.items():
        assert found.training.tokens_origin == origin
    [expected] = plan("gpt2-124m").expectations
    assert expected.best.parameters == pytest.approx(124_439_808)


def test_without_a_model_a_budget_finds_one() -> None:
    found = plan(budget=10_000, on="h100", price=2.5)
    assert found.budget is not None
    assert found.training.with_attention is not None
    assert found.training.with_attention.usd == pytest.approx(10_000)
    by_days = plan(days=10, on="a100", count=16)
    assert by_days.training.with_attention is not None
    assert by_days.training.with_attention.days == pytest.approx(10)


def test_with_a_model_a_budget_finds_its_tokens_by_each_fit() -> None:
    found = plan("gpt2-124m", budget="1k", on="h100", price=2, fits=("besiroglu", "hoffmann", "kaplan"))
    assert [row.fit for row in found.expectations] == ["besiroglu", "hoffmann", "kaplan"]
    assert found.training.with_attention is not None
    assert found.training.with_attention.usd == pytest.approx(1000)


def test_a_layout_brings_its_own_rate() -> None:
    found = plan("gpt3-13b", on="h100", count=64, layout=True)
    assert found.layout is not None
    assert found.training.rate is not None
    assert found.training.rate.tflops == found.layout.model_tflops_per_device
    assert "layout" in found.training.rate.origin
    for asked, rows in (("3.2M", 1536), ("2M", 1024), ("0.5M", 256)):
        batch = plan("gpt3-13b", on="h100", count=64, layout=True, batch_tokens=asked)
        assert batch.layout is not None
        assert batch.layout.rows_per_step == rows
    slow = plan("gpt3-13b", on="h100", count=64, layout=True, network_gb_s=0.1, node_size=2)
    assert slow.layout is not None
    assert slow.layout.devices_per_node == 2
    assert slow.layout.tokens_per_second < found.layout.tokens_per_second


def test_several_devices_are_compared() -> None:
    found = plan("gpt2-124m", on=["h100", "a100", "mi300x"])
    assert found.comparison is not None
    assert len(found.comparison.offers) == 3
    assert plan("gpt2-124m", compare_devices=True).comparison is not None


def test_generating_without_training(tmp_path: Path) -> None:
    found = plan("gpt3-1.3b", run=True, on="a100", batch=4)
    assert found.generation is not None
    assert "Generating" in str(found)
    assert "Training on" not in str(found)
    assert "Training on" in str(plan("gpt3-1.3b", run=True, on="a100", tokens="1B"))


def test_devices_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[accelerator]]\nname = "Abacus"\nbf16_tflops = 3\nmemory_gb = 12\nbandwidth_gb_s = 100\n')
    found = plan("gpt2-124m", on="abacus", devices=file, price=0.1)
    assert found.training.accelerator is not None
    assert found.training.accelerator.name == "Abacus"
    everything = plan("gpt2-124m", compare_devices=True, devices=file).comparison
    assert everything is not None
    assert "Abacus" in [offer.accelerator for offer in everything.offers]


def test_plot(tmp_path: Path) -> None:
    plan("gpt2-124m", plot=tmp_path / "plan.svg")
    assert "<svg" in (tmp_path / "plan.svg").read_text(encoding="utf-8")


NONSENSE: list[tuple[dict[str, Any], str]] = [
    (dict(model=None), "no model was named"),
    (dict(model="gpt3-17b"), "no model called 'gpt3-17b'"),
    (dict(model="gpt2-124m", tokens=-1), "tokens must be a number from 1"),
    (dict(model="gpt2-124m", tokens="1e400"), "tokens must be a number"),
    (dict(model="gpt2-124m", count=0, on="h100"), "count must be a number from 1"),
    (dict(model="gpt2-124m", count=1.5, on="h100"), "count must be a whole number"),
    (dict(model="gpt2-124m", on="h10"), "no accelerator called"),
    (dict(model="gpt2-124m", on="h100", price=0), "price must be a number"),
    (dict(model="gpt2-124m", on="h100", tflops=float("nan")), "tflops must be a number"),
    (dict(model="gpt2-124m", tflops=10), "a rate is for one kind of device"),
    (dict(model="gpt2-124m", on="h100", budget=float("inf")), "budget must be a number"),
    (dict(model="gpt2-124m", budget=10), "a budget is for one kind of device"),
    (dict(model="gpt2-124m", on="h100", budget=10, tokens=5), "cannot both be given"),
    (dict(model="gpt2-124m", on="rtx8000", budget=10), "needs a price"),
    (dict(model="gpt2-124m", on="h100", layout=True), "a layout needs a number of devices"),
    (dict(model="gpt2-124m", layout=True, count=8), "a layout is for one kind of device"),
    (dict(model="bert-base", on="h100", count=8, layout=True), "layouts are searched for decoders"),
    (dict(model="bert-base", run=True, on="h100"), "generating is planned for decoders"),
    (dict(model="gpt2-124m", run=True, on="h100", batch=0), "batch must be a number from 1"),
    (dict(model="gpt2-124m", context=0), "context must be a number from 1"),
    (dict(model="gpt2-124m", fits="newton"), "no scaling law called"),
    (dict(model="gpt2-124m", tokens="1B", days=1), "days are counted on a device"),
    (dict(model="gpt3-175b", on="t4", budget=0.01, price=1e6), "buys less than one token"),
]


@pytest.mark.parametrize(("settings", "problem"), NONSENSE, ids=[problem for _, problem in NONSENSE])
def test_nonsense_is_one_line(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as error:
        plan(**settings)
    assert error.value.exit_code == 2
    assert "\n" not in error.value.message


def test_heads_that_do_not_divide_the_width(tmp_path: Path) -> None:
    config = spec_to_config(PRESETS["gpt2-124m"]) | {"n_head": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match="width 768 is not divisible by heads 7"):
        resolve(tmp_path / "config.json")
