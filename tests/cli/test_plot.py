"""`chatsmith plot`"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    lines = [{"step": step, "loss": 6.0 - step / 20, "seconds": step * 0.1} for step in range(1, 81)]
    lines[-1] |= {"held_out_loss": 2.1, "bits_per_byte": 1.5}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_in_the_terminal(run: Callable[..., Any], trained: Path) -> None:
    ran = run("plot", trained)
    assert ran.code == 0
    assert "1.500 bits per byte" in ran.out
    assert "steps" in ran.out


def test_as_a_picture(run: Callable[..., Any], trained: Path) -> None:
    assert run("plot", trained, "--out", trained / "curve.svg").code == 0
    assert (trained / "curve.svg").read_text().startswith("<svg")
    assert run("plot", trained, "--out", trained / "curve.gif").code == 2


def test_as_json(run: Callable[..., Any], trained: Path) -> None:
    assert json.loads(run("plot", trained, "--json").out)["bits_per_byte"] == 1.5


def test_a_folder_without_a_run(run: Callable[..., Any], tmp_path: Path) -> None:
    ran = run("plot", tmp_path)
    assert ran.code == 2
    assert "no log.jsonl" in ran.err
    (tmp_path / "letter.txt").write_text("Dear Ann,\n")
    ran = run("plot", tmp_path / "letter.txt")
    assert ran.code == 2
    assert "is not the log of a training run" in ran.err
    assert "delete" not in ran.err
