"""What a wheel would hold: the page whole, and nothing that only tests or tools need."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {".py", ".typed", ".toml", ".html", ".js", ".css", ".svg", ".c", ".h", ".csv"}


def test_a_wheel_holds_the_page_and_no_more_than_the_package() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed: pip install hatchling")
    held = {file.distribution_path for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    assert all(path.startswith("chatsmith/") for path in held)
    assert {Path(path).suffix for path in held} <= KINDS
    page = {path.name for path in files("chatsmith.serve").joinpath("page").iterdir()}
    assert {Path(path).name for path in held if path.startswith("chatsmith/serve/page/")} == page
    assert {"index.html", "app.js", "base.css", "icon.svg"} <= page


def test_the_page_asks_for_nothing_that_is_not_there() -> None:
    folder = files("chatsmith.serve").joinpath("page")
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    asked = {"index.html"}
    while more := {name for name in texts if any(name in texts[one] for one in asked)} - asked:
        asked |= more
    assert asked == set(texts), "every file is reached from index.html"
