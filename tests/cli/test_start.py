"""`chatsmith` alone looks at where you stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatsmith.cli.start import suggestions


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATSMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def touch(*paths: Path, text: str = "") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_with_nothing_here_the_built_in_model_comes_first(folder: Path) -> None:
    assert [found.command for found in suggestions(folder)] == [
        "chatsmith chat",
        "chatsmith new PATH… --minutes 5 --out DIR",
    ]


def test_documents_suggest_a_model_of_them(folder: Path) -> None:
    touch(folder / "diary.txt")
    assert suggestions(folder)[0].command == "chatsmith new . --minutes 5 --out my-model"


def test_a_model_suggests_a_talk(folder: Path) -> None:
    touch(folder / "my model" / "config.json", folder / "my model" / "model.safetensors")
    assert suggestions(folder)[0].command == 'chatsmith chat "my model"'


def test_a_packed_model_is_a_model(folder: Path) -> None:
    touch(folder / "light" / "config.json", folder / "light" / "packed.safetensors")
    assert suggestions(folder)[0].command == "chatsmith chat light"


def test_a_record_that_is_none_ends_nothing(folder: Path) -> None:
    touch(folder / "run" / "state" / "step-1", folder / "run" / "chatsmith.toml", text="run = 3\n")
    assert suggestions(folder)[0].command == "chatsmith train --resume run"


def test_inside_a_model_folder(folder: Path) -> None:
    touch(folder / "config.json", folder / "model.safetensors")
    assert suggestions(folder)[0].command == "chatsmith chat ."


def test_a_recipe_suggests_training(folder: Path) -> None:
    touch(folder / "recipes" / "shakespeare.toml", text="[data]\n[model]\nwidth = 64\n")
    touch(folder / "pyproject.toml", text="[model]\n")
    commands = [found.command for found in suggestions(folder)]
    assert commands[0] == "chatsmith train recipes/shakespeare.toml"
    assert not any("pyproject" in command for command in commands)


def test_a_built_in_model_that_exists_is_not_promised_again(folder: Path, tmp_path: Path) -> None:
    world = tmp_path / "cache" / "world"
    touch(world / "config.json", world / "model.safetensors")
    assert suggestions(folder)[0].why == "talk with the built-in model"


def test_the_command_prints_it(run: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ran = run()
    assert ran.code == 0
    assert "    chatsmith chat\n" in ran.out
    assert ran.err == ""
