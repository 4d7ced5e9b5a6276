"""What the card takes from a file beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatsmith.serve.card import _skills, _trained
from chatsmith.serve.tell import dumps

_ROW = {"skill": "sums", "split": "held_out", "shots": 0, "correct": 3, "count": 22, "chance": 0.05}


def test_skills_are_read(tmp_path: Path) -> None:
    (tmp_path / "skills.json").write_text(json.dumps({"rows": [_ROW | {"low": 0.1}, {"skill": 1}, 7]}))
    assert _skills(tmp_path) == [_ROW]


@pytest.mark.parametrize("text", [None, "no json", "[]", "{}", '{"rows": 3}'])
def test_a_file_that_is_not_there_or_holds_something_else_tells_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "skills.json").write_text(text)
    assert _skills(tmp_path) == []


def test_figures_that_json_cannot_say_are_left_out(tmp_path: Path) -> None:
    run = {"tokens": 10, "held_out_loss": float("inf"), "seconds": float("nan"), "machine": "a CPU"}
    told = _trained({"run": run, "recipe": {"seed": 1}})
    assert told == {"tokens": 10, "machine": "a CPU", "seed": 1}
    (tmp_path / "skills.json").write_text(json.dumps({"rows": [_ROW, _ROW | {"chance": float("nan")}]}))
    assert _skills(tmp_path) == [_ROW]
    dumps(told)
