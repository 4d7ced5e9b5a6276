"""`chatsmith read`"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_it_lists_what_was_read_and_what_was_skipped(run: Callable[..., Any], tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.txt").write_text("The same few words, long enough to be a document of its own.\n" * 5)
    (tmp_path / "photo.jpeg").write_bytes(b"\xff\xd8\xff")
    ran = run("read", tmp_path, "--show", 1)
    assert ran.code == 0
    assert "exact duplicates dropped" in ran.out
    assert "unknown kind of file" in ran.out
    assert f"── {tmp_path}/1.txt" in ran.out
    found = json.loads(run("read", tmp_path, "--json").out)
    assert (found["documents"], found["exact_duplicates"]) == (1, 1)


def test_nothing_to_read(run: Callable[..., Any], tmp_path: Path) -> None:
    ran = run("read", tmp_path)
    assert ran.code == 2
    assert "no document found" in ran.err


def test_a_number_of_documents_is_not_below_none(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some words of mine.")
    ran = run("read", tmp_path, "--show", -1)
    assert (ran.code, ran.err.partition(",")[0]) == (2, "error: --show must be from 0 to 1000000000")
