"""Every shipped recipe is valid, says what it costs, and trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatsmith.specs import PRESETS
from chatsmith.train.recipe import load_recipe
from chatsmith.train.schedules import learning_rate_factor, rows_at

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))


def head(path: Path) -> str:
    """The comment that a recipe begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#") for line in lines[: lines.index("")])


def test_there_are_recipes() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {"tiny-shakespeare-char", "world", "books", "gpt2-124m", "gpt3-125m", "tune-chat"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid_and_says_what_it_costs(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    for word in ("Costs:", "Run:", f"recipes/{path.name}"):
        assert word in head(path)
    written = tmp_path / path.name
    written.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(written) == recipe
    if stated := re.search(r"Compute: ([\d.e]+) FLOPs", head(path)):
        spec = recipe.spec(PRESETS[str(recipe.model["preset"])].vocab_size)
        flops = spec.training_flops_per_token(recipe.context(spec)) * (recipe.schedule.tokens or 0)
        assert flops == pytest.approx(float(stated[1]), rel=0.02)
    if (stated := re.search(r"model of ([\d.]+) million parameters", head(path))) and recipe.data.vocab_size:
        millions = recipe.spec(recipe.data.vocab_size).parameters / 1e6
        assert round(millions, 1) == float(stated[1]) or round(millions) == float(stated[1])


@pytest.mark.parametrize("name", ["gpt2-124m", "gpt3-125m"])
def test_the_published_sizes_are_exact(name: str) -> None:
    assert load_recipe(FOLDER / f"{name}.toml").spec(50257) == PRESETS[name]


def test_gpt3_follows_appendix_b() -> None:
    """Learning rate, batch and decay at the tokens that the paper names."""
    recipe = load_recipe(FOLDER / "gpt3-125m.toml")
    total = recipe.schedule.tokens or 0

    def rate(tokens: float) -> float:
        return recipe.optimizer.learning_rate * learning_rate_factor(tokens / total, recipe.schedule)

    assert rate(375e6) == pytest.approx(6e-4)
    assert rate(260e9) == pytest.approx(6e-5)
    assert rate(290e9) == pytest.approx(6e-5)
    assert rows_at(0.0, recipe.batch) * 2048 == 32_768
    assert rows_at(4e9 / total, recipe.batch) * 2048 == 524_288
    assert (recipe.optimizer.betas, recipe.optimizer.epsilon) == ((0.9, 0.95), 1e-8)


@pytest.mark.parametrize("name", ["world", "tiny-shakespeare-char", "books"])
def test_a_small_recipe_trains(name: str, tmp_path: Path) -> None:
    """Two steps of the recipe as it is, on a little text in place of what would be fetched."""
    from chatsmith.train.run import train

    text = tmp_path / "text"
    text.mkdir()
    for number in range(40):
        lines = (f"Line {number} of {line}: the quick brown fox jumps over the lazy dog." for line in range(60))
        (text / f"{number}.txt").write_text("\n".join(lines))
    overrides = ["schedule={steps=2}", "evaluation.tokens=512", "batch.micro_batch=2", "threads=1"]
    if name == "world":
        parts = ",".join(f'{{path="world", part="{part}", tokens=20000}}' for part in ("text", "text", "chat"))
        recipe = load_recipe(FOLDER / f"{name}.toml", [*overrides, f"data.sources=[{parts}]", "data.held_out=0.05"])
    else:
        recipe = load_recipe(
            FOLDER / f"{name}.toml", [*overrides, f'data.sources=[{{path="{text}", duplicates="keep"}}]']
        )
    outcome = train(recipe, tmp_path / "out")
    assert outcome.steps == 2
    assert outcome.bits_per_byte is not None
