"""The README and the docs do what they show: their snippets are run, in order, in an empty folder for each page.

Blocks fenced as ```console (lines that begin with "$ " are commands, the others what they print) and ```python are
run. A comment before a block says more:

    <!-- test: skip WHY -->            not run
    <!-- test: output -->              what is shown must be what is printed, where "…" stands for anything;
                                       a python block's output is the ```text block that follows it
    <!-- test: instead COMMAND -->     run this shorter command for the one that is shown
    <!-- test: setup COMMAND -->       run this first
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    if path.is_file() and "reference" not in path.parts
)
_FENCE = re.compile(r"^```(\w*)\s*$")
_COMMENT = re.compile(r"<!-- test: (skip|output|instead|setup)\b\s*(.*?)\s*-->")
_REPLAY = """import contextlib as _c, io as _i
with _c.redirect_stdout(_i.StringIO()), open(".before.py") as _f:
    exec(compile(_f.read(), "before", "exec"))
"""
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@dataclass
class Block:
    """A fenced block with what the comments before it ask for."""

    language: str
    line: int
    text: str = ""
    asked: dict[str, str] = field(default_factory=dict)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page in order; comments apply to the block that follows them."""
    asked: dict[str, str] = {}
    block: Block | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if block is None and (comment := _COMMENT.search(line)):
            asked[comment[1]] = comment[2]
        elif fence := _FENCE.match(line):
            if block is None:
                block, asked = Block(fence[1], number, asked=asked), {}
            else:
                yield block
                block = None
        elif block is not None:
            block.text += line + "\n"
    assert block is None, f"the block from line {block and block.line} is never closed"


def commands(text: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a console block; a line that ends in a backslash goes on."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0] + "\n" + line, "")
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    return found


def shows(expected: str, printed: str) -> bool:
    """Whether `printed` is what is shown, where "…" in it stands for anything (also for lines)."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = ".*?".join(re.escape(part) for part in tidy(expected).split("…"))
    return re.fullmatch(pattern, tidy(printed), re.DOTALL) is not None


class Page:
    """One page's folder, environment and the Python it has run so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bin_folder = folder / ".bin"
        bin_folder.mkdir()
        script = bin_folder / "chatsmith"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m chatsmith "$@"\n')
        script.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CHATSMITH_CACHE": str(folder / ".cache"),
            "COLUMNS": "100",
        }
        if paths := os.environ.get("PYTHONPATH"):  # relative ones would lead elsewhere from the page's folder
            self.environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        self.python = ""

    def shell(self, command: str, where: str) -> str:
        """Run a command; its stdout and stderr in the order they came."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{where}: `{command}` left with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def run_python(self, code: str, where: str) -> str:
        """Run a block after all those before it, whose output is thrown away."""
        (self.folder / ".before.py").write_text(self.python, encoding="utf-8")
        (self.folder / ".snippet.py").write_text(_REPLAY + code, encoding="utf-8")
        self.python += code
        return self.shell(f'"{sys.executable}" .snippet.py', where)


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_pages_snippets(path: Path, tmp_path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    page = Page(tmp_path)
    found = list(blocks(text))
    for index, block in enumerate(found):
        where = f"{path}:{block.line}"
        if "setup" in block.asked:
            page.shell(block.asked["setup"], where)
        if "skip" in block.asked:
            assert block.asked["skip"], f"{where}: say why it is skipped"
        elif block.language == "console" and "instead" in block.asked:
            page.shell(block.asked["instead"], where)
        elif block.language == "console":
            for command, expected in commands(block.text):
                printed = page.shell(command, where)
                if "output" in block.asked:
                    assert shows(expected, printed), f"{where}: `{command}` printed\n{printed}"
        elif block.language == "python":
            printed = page.run_python(block.text, where)
            if "output" in block.asked:
                following = found[index + 1].text if index + 1 < len(found) else ""
                assert shows(following, printed), f"{where}: printed\n{printed}"


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_pages_links_lead_somewhere(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    outside = ("http://", "https://", "mailto:")
    dead = [
        link
        for link in _LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        if not link.startswith(outside) and not ((ROOT / path).parent / link).exists()
    ]
    assert dead == []


def test_the_runner_reads_blocks_and_what_is_asked_of_them() -> None:
    text = (
        "<!-- test: output -->\n```console\n$ echo a \\\n  b\na b\n$ true\n```\n"
        "words\n<!-- test: skip needs an hour -->\n```python\n1/0\n```\n"
    )
    first, second = blocks(text)
    assert (first.language, first.line, first.asked) == ("console", 2, {"output": ""})
    assert commands(first.text) == [("echo a \\\n  b", "a b\n"), ("true", "")]
    assert second.asked == {"skip": "needs an hour"}


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb\n", "a  \nb", True),
        ("loss …, done", "loss 1.23, done", True),
        ("first\n…\nlast", "first\n1\n2\nlast", True),
        ("a.c", "abc", False),
        ("a", "a\nb", False),
    ],
)
def test_what_is_shown_is_compared(expected: str, printed: str, same: bool) -> None:
    assert shows(expected, printed) is same


def test_python_blocks_see_those_before_them_and_only_their_own_output(tmp_path: Path) -> None:
    page = Page(tmp_path)
    assert page.run_python("x = 1\nprint('first')\n", "here") == "first\n"
    assert page.run_python("print(x + 1)\n", "here") == "2\n"
