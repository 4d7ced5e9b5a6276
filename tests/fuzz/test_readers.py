"""A bounded, seeded part of `tests/fuzz/readers.py`, and that it would see what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("readers.py")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(PROGRAM), *words], capture_output=True, text=True)


def test_damaged_models_are_read_or_refused_in_one_line() -> None:
    done = run("--count", "600", "--seed", "1")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cases"] == found["read"] + found["refused"] == 600
    assert min(found["read"], found["refused"]) > 30  # damage is neither always seen nor never


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise KeyError('head')", "KeyError"),
        ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
        ("held = bytes(16 << 20)", "bytes were taken to read files"),
        ("bytearray(1 << 30)", "MemoryError"),
    ],
)
def test_what_a_reader_must_not_do_is_found(tmp_path: Path, broken: str, said: str) -> None:
    """The readers, with one that does it in the third case (nine good models come first)."""
    text = PROGRAM.read_text(encoding="utf-8")
    begin = "def use(folder: Path, checked: Callable[[], None]) -> None:\n"
    assert text.count(begin) == 1
    hook = f"def break_(n=[0]):\n    n[0] += 1\n    if n[0] == 12:\n        {broken}\n\n\n"
    text = text.replace(begin, hook + begin).replace("    file = folder / ", "    break_()\n    file = folder / ", 1)
    (tmp_path / "readers.py").write_text(text, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "readers.py"), "--count", "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["found"][0] == 2
