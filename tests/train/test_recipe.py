"""Recipes: read strictly, contradictions named in one line, written out and read back the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError
from chatsmith.settings import dump_toml, from_mapping, to_mapping
from chatsmith.specs import PRESETS
from chatsmith.train.recipe import Recipe, check_resumable, differences, load_recipe

MINIMAL: dict[str, Any] = {
    "data": {"sources": [{"path": "books"}]},
    "model": {"preset": "modern", "width": 64, "layers": 2, "heads": 2, "context": 128},
    "schedule": {"steps": 100},
}


def recipe(**changes: Any) -> Recipe:
    """The minimal recipe with tables replaced or keys set by dotted name."""
    mapping = {key: dict(table) for key, table in MINIMAL.items()}
    for key, value in changes.items():
        table, _, name = key.partition("__")
        if name:
            mapping.setdefault(table, {})[name] = value
        else:
            mapping[table] = value
    return from_mapping(Recipe, mapping, "recipe.toml")


def test_minimal_recipe_has_sensible_defaults() -> None:
    made = recipe()
    assert made.optimizer.name == "muon"
    assert made.schedule.decay == "linear"
    spec = made.spec(1000)
    assert (spec.vocab_size, spec.width, spec.architecture) == (1000, 64, "qwen3")
    assert made.context(spec) == 128
    assert made.induction_heads == 0


def test_heads_that_begin_as_ones_that_look_back_are_no_part_of_the_shape() -> None:
    made = recipe(model__induction_heads=2)
    assert made.induction_heads == 2
    assert made.spec(1000) == recipe().spec(1000)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_can_be_named(name: str) -> None:
    made = recipe(model={"preset": name})
    assert made.spec(PRESETS[name].vocab_size) == PRESETS[name]


def test_a_changed_preset_keeps_what_follows_in_step() -> None:
    spec = recipe(model={"preset": "gpt2-124m", "width": 256, "heads": 4, "layers": 2}).spec(300)
    assert (spec.head_dim, spec.kv_heads, spec.ffn_width, spec.context) == (64, 4, 1024, 1024)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"batch__micro_batch": 0}, "micro_batch must be a whole number from 1", ""),
        ({"batch__context": 256}, "batch.context 256 is longer than the model's context of 128", "at most 128"),
        ({"schedule": {}}, "does not say how long to train", "steps, tokens or minutes"),
        ({"schedule": {"steps": 10, "minutes": 3}}, "gives steps and minutes", "keep one"),
        ({"schedule__warmup": 100}, "warmup is a share of the run", "warmup = 0.05"),
        ({"schedule": {"steps": 10, "warmup": 0.5, "decay_until": 0.4}}, "longer than the run until", ""),
        ({"schedule": {"tokens": 10}}, "less than one step's 2048", "more tokens"),
        ({"batch__ramp_until": 1.5}, "ramp would end beyond the run", "ramp_until = 0.02"),
        ({"batch__ramp_start": 0.5}, "the batch would never grow", "ramp_until"),
        ({"optimiser": {}}, "unknown key optimiser", "did you mean optimizer?"),
        ({"optimizer__learning_rat": 1.0}, "unknown key optimizer.learning_rat", "learning_rate"),
        ({"optimizer__name": "adam"}, 'optimizer.name is "adam"', '"muon", "adamw"'),
        ({"optimizer__betas": [0.9]}, "betas are two numbers", ""),
        ({"optimizer__learning_rate": "fast"}, "optimizer.learning_rate must be a number", ""),
        ({"model__widht": 3}, "unknown key model.widht", "width"),
        ({"model__heads": 3}, "width 64 is not divisible by heads 3", "divide 64"),
        ({"model": {"preset": "gpt2-125m"}}, "no preset called 'gpt2-125m'", "gpt2-124m"),
        ({"model": {"preset": "modern", "width": 64}}, "model.layers is missing", "preset"),
        ({"model__vocab_size": 400, "data__vocab_size": 500}, "400, but the tokenizer has 500 ids", "leave"),
        ({"model": {"start_from": "gpt2", "width": 64}}, "model.width cannot change the model in start_from", ""),
        ({"model": {"preset": "gpt2-124m", "induction_heads": 1}}, "induction_heads needs rotary positions", "modern"),
        ({"model__induction_heads": True}, "model.induction_heads must be a whole number, not true", ""),
        ({"model__induction_heads": 3}, "from 0 to 2 for layers of 2 key/value heads, not 3", ""),
        (
            {"model": {"start_from": "gpt2", "induction_heads": 1}},
            "model.induction_heads cannot change the model in start_from",
            "",
        ),
        ({"model": {"start_from": "gpt2"}, "data__vocab_size": 500}, "brings its own vocabulary", "leave out"),
        ({"data__vocab_size": 500, "data__tokenizer": "gpt2"}, "both data.vocab_size and data.tokenizer", "one"),
        ({"data__vocab_size": 100}, "must be from 261", ""),
        ({"data__sources": []}, "data.sources must name 1", ""),
        ({"data__sources": [{"path": "a", "weight": 0}]}, "weights of all sources are 0", ""),
        ({"data__sources": [{"path": "a", "weight": -1}]}, "must not be negative", ""),
        ({"data__sources": [{"path": "a", "part": "chat"}]}, "part is for the built-in corpus", "world"),
        ({"data__stages": [{"until": 0.5, "weights": [1]}]}, "must end at until = 1", ""),
        ({"data__stages": [{"until": 1, "weights": [1, 2]}]}, "2 weights for 1 sources", ""),
        ({"data__held_out": 0}, "nothing to measure on", "evaluation.times = 0"),
        ({"data__held_out": 0.9}, "held_out is a share", ""),
        ({"schedule": {"steps": 9, "replans": [[0, 8]]}}, "replans belong to a run of minutes", "remove"),
        ({"schedule": {"minutes": 9, "replans": [[3, 9]]}}, "must begin at step 0", ""),
        ({"checkpoint__keep": 0}, "keep must be from 1", ""),
        ({"evaluation__times": -1}, "times must be from 0", ""),
        ({"precision__compute": "float16"}, 'precision.compute is "float16"', '"bfloat16"'),
        ({"precision__compile": True}, "precision.compile is true", '"auto", "on", "off"'),
        ({"samples": {"prompts": "hello"}}, 'samples.prompts must be a list of texts, not "hello"', '["hello"]'),
        ({"data__sources": "x"}, 'data.sources must be a list of tables, not "x"', ""),
        ({"data__sources": [{"path": "world", "mixture": 1}]}, "mixture must be a table of numbers, not 1", ""),
        ({"schedule__replans": 3}, "schedule.replans must be a list of lists of whole numbers, not 3", ""),
        ({"schedule__minutes": True}, "schedule.minutes must be a number, not true", ""),
        ({"seed": -1}, "seed must be from 0", ""),
    ],
)
def test_contradictions_get_one_line_and_a_hint(changes: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        recipe(**changes)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("recipe.toml: ")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_written_out_and_read_back(tmp_path: Path) -> None:
    made = recipe(
        schedule={"minutes": 3.0, "replans": [[0, 100], [20, 90]]},
        data={
            "sources": [{"path": "world", "part": "text"}, {"path": "world", "part": "chat"}],
            "stages": [{"until": 0.7, "weights": [1, 0]}, {"until": 1.0, "weights": [0.3, 0.7]}],
        },
        record={"versions": {"torch": "2.13.0"}, "tokenizer": "ab" * 32, "corpora": ["cd"]},
    )
    path = tmp_path / "recipe.toml"
    path.write_text(made.to_toml(), encoding="utf-8")
    assert load_recipe(path) == made
    nested = tmp_path / "chatsmith.toml"
    nested.write_text(dump_toml({"recipe": to_mapping(made), "run": {"loss": 1.5}}), encoding="utf-8")
    assert load_recipe(nested) == made


def test_overrides_are_read_like_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe().to_toml(), encoding="utf-8")
    changed = load_recipe(path, ["optimizer.learning_rate=3e-4", "schedule.steps=50", "name=quick"])
    assert (changed.optimizer.learning_rate, changed.schedule.steps, changed.name) == (3e-4, 50, "quick")
    with pytest.raises(RequestError, match=r"unknown key optimizer\.learning_rte"):
        load_recipe(path, ["optimizer.learning_rte=1"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.sources=x"], '--set data.sources=x: data.sources must be a list of tables, not "x"'),
        (["seed=5", "batch.mirco_batch=8"], "--set batch.mirco_batch=8: unknown key batch.mirco_batch"),
        (["schedule.warmup=2", "seed=5"], "--set schedule.warmup=2: schedule: warmup is a share of the run"),
        (["seed=-1", "checkpoint.keep=0"], "--set checkpoint.keep=0: checkpoint: keep must be"),
        (
            ["schedule.minutes=1", "schedule.tokens=9000"],
            "--set schedule.minutes=1, --set schedule.tokens=9000: schedule: the schedule gives",
        ),
        (["seed.x=1"], "--set seed.x=1: seed is not a table"),
        (["seed"], "--set 'seed' is not key=value"),
    ],
)
def test_a_wrong_override_is_blamed_and_not_the_file(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe().to_toml(), encoding="utf-8")
    with pytest.raises(RequestError) as error:
        load_recipe(path, overrides)
    assert error.value.message.startswith(message)


def test_a_wrong_file_is_blamed_and_not_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(dump_toml({**MINIMAL, "sede": 1}), encoding="utf-8")
    with pytest.raises(RequestError, match=r"^\S*recipe\.toml: unknown key sede"):
        load_recipe(path, ["seed=5"])


def test_a_length_that_is_set_takes_the_place_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(schedule={"minutes": 3.0, "replans": [[0, 100]]}).to_toml(), encoding="utf-8")
    shorter = load_recipe(path, ["schedule.steps=50"]).schedule
    assert (shorter.steps, shorter.minutes, shorter.replans) == (50, None, ())
    longer = load_recipe(path, ["schedule.minutes=9"]).schedule
    assert (longer.minutes, longer.replans) == (9.0, ())
    assert load_recipe(path, ["schedule.warmup=0.1"]).schedule.replans == ((0, 100),)


def test_resume_names_the_key_that_differs() -> None:
    base = recipe()
    check_resumable(base, recipe(checkpoint={"minutes": 1.0}, schedule={"steps": 200}, name="longer"))
    with pytest.raises(RequestError, match=r"optimizer\.learning_rate is 0\.1, and the run so far had 0\.003"):
        check_resumable(base, recipe(optimizer={"learning_rate": 0.1}))
    with pytest.raises(RequestError, match=r"schedule\.steps"):
        check_resumable(base, recipe(schedule={"steps": 50}))
    with pytest.raises(RequestError, match=r"data\.sources"):
        check_resumable(base, recipe(data={"sources": [{"path": "other"}]}))
    assert differences(base, recipe(seed=3)) == ["seed: 0 and 3"]


def test_reading_a_recipe_does_not_load_torch() -> None:
    code = "import sys, chatsmith.train.recipe, chatsmith.train.schedules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
