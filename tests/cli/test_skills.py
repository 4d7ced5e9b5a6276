"""`chatsmith skills`"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_skills_are_counted(run: Callable[..., Any], tiny_model: Path) -> None:
    arguments = ("skills", tiny_model, "--skill", "sums", "--shots", 0, "--count", 4)
    ran = run(*arguments, "--misses", 1)
    assert ran.code == 0, ran.err
    assert "sums" in ran.out
    assert "answered" in ran.out
    rows = json.loads(run(*arguments, "--json").out)["rows"]
    assert {row["count"] for row in rows} == {4}


def test_an_unknown_skill_names_the_nearest(run: Callable[..., Any], tiny_model: Path) -> None:
    ran = run("skills", tiny_model, "--skill", "smus")
    assert ran.code == 2
    assert "sums" in ran.err


def test_without_any_model(run: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CHATSMITH_CACHE", str(tmp_path))
    ran = run("skills")
    assert ran.code == 2
    assert "chatsmith chat" in ran.err
