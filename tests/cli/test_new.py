"""`chatsmith new`: from documents to a model and a report, and the built-in model that chat makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STORY = "The fox went to the river. The river was cold, and the fox was brave. {} times it jumped over the stones. "


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text("".join(STORY.format(number * 7 + line) for line in range(30)))
    (folder / "photo.jpeg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_new_makes_a_model_and_reports(run: Callable[..., Any], documents: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    ran = run("new", documents, "--minutes", 0.15, "--out", out, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["parameters"] > 0
    assert found["gzip_bits_per_byte"] > 0
    assert f"next: chatsmith chat {out}" in ran.err
    assert run("chat", out, "--script", "--max-tokens", 2).code == 0
    again = run("new", documents, "--minutes", 0.1, "--out", out)
    assert again.code == 2
    assert "already holds a model" in again.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt", "--minutes", "1"], "nowhere.txt does not exist"),
        (["{empty}", "--minutes", "1"], "empty"),
        (["{empty}", "--minutes", "0"], "minutes must be above 0"),
        (["{empty}", "--minutes", "soon"], "soon"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    run: Callable[..., Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [argument.replace("{empty}", str(tmp_path / "empty")) for argument in arguments]
    ran = run("new", *filled, "--out", tmp_path / "out")
    assert ran.code == 2
    assert message in ran.err.splitlines()[-2]
    assert "Traceback" not in ran.err
