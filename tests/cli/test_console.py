"""What is printed: nothing that steers a terminal, JSON that parses, sizes and times for people."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.cli import console


@given(st.text())
def test_a_models_text_cannot_steer_the_terminal(text: str) -> None:
    shown = console.safe(text)
    assert len(shown) == len(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown if c not in "\n\t")


def test_an_escape_sequence_is_shown() -> None:
    assert console.safe("\x1b]0;title\x07 é\n") == "␛]0;title␇ é\n"


@dataclass(frozen=True)
class Result:
    path: Path
    loss: float
    counts: tuple[int, ...]
    best: np.float32


def test_results_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"result": Result(Path("a/b"), math.inf, (1, 2), np.float32(0.5)), "é": None})
    assert json.loads(capsys.readouterr().out) == {
        "result": {"path": "a/b", "loss": None, "counts": [1, 2], "best": 0.5},
        "é": None,
    }


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (25 * 2**30, "25.0 GiB"), (2**41, "2.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert console.memory_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert console.seconds_text(seconds) == text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_what_stdout_cannot_say_ends_no_command(
    encoding: str, tiny_model: Path, process: Callable[..., Any], tmp_path: Path
) -> None:
    """The tables' own signs get near ones, a model's text question marks, and JSON loses nothing."""
    shown = process("next", tiny_model, "日本", "--top", "2", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("??\n")
    assert "#" in shown.out
    wrong = process("chat", "日本", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert wrong.code == 2
    assert "??" in wrong.err
    result = process("next", tiny_model, "日本", "--json", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert json.loads(result.out)["steps"][0]["text"] == "日本"
