"""write, next and chat, on a model of random weights: what is printed where, and what the flags reach."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import chatsmith
from chatsmith.cli import chat as talk
from patience import PATIENCE


def test_write_streams_what_the_library_writes(run: Callable[..., Any], tiny_model: Path) -> None:
    ran = run("write", tiny_model, "Once upon", "--seed", 7, "--temperature", 1.2, "--top-k", 50)
    assert ran.code == 0
    expected = chatsmith.load(tiny_model).write("Once upon", seed=7, temperature=1.2, top_k=50)
    assert ran.out == f"Once upon{expected.text}\n"
    assert ran.err == ""


def test_write_says_when_the_context_is_full(run: Callable[..., Any], tiny_model: Path) -> None:
    context = chatsmith.load(tiny_model).spec.context
    asked = ("write", tiny_model, "Once", "--regex", "[a-z]{2000}", "--seed", 7, "--max-tokens", context)
    ran = run(*asked)
    assert (ran.code, ran.err) == (0, f"the context of {context} tokens is full; --rolling writes on\n")
    assert run(*asked[:-1], 3).err == ""


def test_write_draws_samples_side_by_side(run: Callable[..., Any], tiny_model: Path) -> None:
    ran = run("write", tiny_model, "Once", "--samples", 3, "--seed", 7, "--max-tokens", 4)
    assert all(f"sample {number}" in ran.out for number in (1, 2, 3))
    assert "seed" in ran.out


def test_write_as_json_can_be_repeated(run: Callable[..., Any], tiny_model: Path) -> None:
    first = json.loads(run("write", tiny_model, "Once", "--samples", 2, "--json").out)
    assert [set(answer) >= {"text", "seed", "ids"} for answer in first["answers"]] == [True, True]
    seed = first["answers"][0]["seed"]
    again = json.loads(run("write", tiny_model, "Once", "--seed", seed, "--json").out)
    assert again["answers"][0]["text"] == first["answers"][0]["text"]


def test_the_text_can_come_from_a_pipe(tiny_model: Path) -> None:
    command = [sys.executable, "-m", "chatsmith", "write", str(tiny_model), "--seed", "7", "--max-tokens", "3"]
    piped = subprocess.run(command, input="Once\n", capture_output=True, text=True, check=True).stdout
    named = subprocess.run([*command, "-"], input="Once\n", capture_output=True, text=True, check=True).stdout
    given = subprocess.run([*command, "Once"], capture_output=True, text=True, check=True).stdout
    assert piped == named == given


@pytest.mark.parametrize("text", ["- a list", "-5 degrees", "--"])
def test_a_text_may_begin_with_a_dash(run: Callable[..., Any], tiny_model: Path, text: str) -> None:
    given = ["--", text] if text == "--" else [text]
    ran = run("write", tiny_model, "--seed", 7, "--max-tokens", 3, "--stop", "- no", *given)
    assert ran.code == 0
    assert ran.out.startswith(text)


def test_bytes_that_are_no_utf8_become_replacement_characters(tiny_model: Path) -> None:
    program = [sys.executable, "-m", "chatsmith"]
    limits = ["--seed", "7", "--max-tokens", "3"]
    wrote = subprocess.run([*program, "write", str(tiny_model), b"a\xffb", *limits], capture_output=True, check=True)
    assert wrote.stdout.decode().startswith("a\ufffdb")
    said = subprocess.run(
        [*program, "chat", str(tiny_model), *limits], input=b"a\xffb\nand?\n", capture_output=True, check=True
    )
    assert said.stderr == b""


def test_next_shows_probability_and_bits_before_and_after(run: Callable[..., Any], tiny_model: Path) -> None:
    ran = run("next", tiny_model, "Once upon", "--top", 5, "--steps", 2, "--temperature", 0.5)
    assert ran.code == 0
    for wanted in ("rank", "probability", "bits", "after temperature 0.5", "step"):
        assert wanted in ran.out
    found = json.loads(run("next", tiny_model, "Once upon", "--top", 5, "--json").out)
    assert len(found["steps"][0]["tokens"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["write", "no-such-folder", "Once"], "no-such-folder"),
        (["next", "{model}", "Once", "--top", "0"], "top must be from 1"),
        (["write", "{model}", "Once", "--temperature", "-1"], "temperature must be"),
        (["write", "{model}", "Once", "--samples", "0"], "sample"),
        (["chat", "{model}", "--script", "--top-p", "0"], "top_p must be"),
        (["write", "{model}", "Once", "--beams", "0"], "beams must be from 1"),
        (["write", "{model}", "Once", "--length-penalty", "1"], "length_penalty is for a search with beams"),
        (["write", "{model}", "Once", "--beams", "2", "--top-k", "1"], "top_k does nothing in a search"),
        (["write", "{model}", "Once", "--beams", "2", "--lookup"], "a search with beams reads no guesses"),
        (["next", "{model}", "Once", "--stop", "x"], "chatsmith next has no option --stop"),
        (["chat", "{model}", "--script", "--minutes", "3"], "--minutes is for making the built-in model"),
        (["serve", "{model}", "--minutes", "3"], "--minutes is for making the built-in model"),
    ],
)
def test_a_request_that_cannot_be_met(
    run: Callable[..., Any], tiny_model: Path, arguments: list[str], message: str
) -> None:
    ran = run(*(argument.replace("{model}", str(tiny_model)) for argument in arguments))
    assert ran.code == 2
    assert message in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) <= 2


@pytest.mark.parametrize("command", [["write"], ["next"], ["chat"], ["serve", "--port", "0"]])
def test_a_gguf_file_is_to_be_converted(run: Callable[..., Any], tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    ran = run(*command[:1], file, *command[1:], *(["hi"] if command[0] in ("write", "next") else []))
    assert ran.code == 2
    error, hint = ran.err.splitlines()
    assert error == f"error: {file} is a file, not a model folder"
    assert hint == f"  make a folder of it first: chatsmith convert {file} small --to int8"


def test_a_schema_that_cannot_be_read_is_one_clean_line(
    run: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    ran = run("write", tiny_model, "the", "--schema", tmp_path / "nowhere.json")
    assert ran.code == 2
    assert "nowhere.json cannot be read: No such file or directory" in " ".join(ran.err.split())
    assert "Errno" not in ran.err
    (tmp_path / "words").write_bytes(b"\xff\xfe")
    ran = run("write", tiny_model, "the", "--schema", tmp_path / "words")
    assert "it is not UTF-8 text" in " ".join(ran.err.split())


def test_without_a_terminal_chat_holds_a_scripted_talk(process: Callable[..., Any], tiny_model: Path) -> None:
    ran = process("chat", tiny_model, "--max-tokens", 3)
    assert ran.code == 0, ran.err
    assert [line for line in ran.out.splitlines() if line.startswith("you: ")] == [f"you: {t}" for t in talk.SCRIPT]


def test_lines_from_a_pipe_are_turns_and_only_replies_come_out(tiny_model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chatsmith", "chat", str(tiny_model), "--temperature", "0", "--max-tokens", "6"],
        input="Hello!\n\nWhat now?\n",
        capture_output=True,
        text=True,
        check=True,
    )
    dialogue = chatsmith.load(tiny_model).conversation(temperature=0, max_tokens=6)
    expected = "".join(dialogue.say(text).text + "\n" for text in ("Hello!", "What now?"))
    assert done.stdout == expected


@dataclass(frozen=True)
class Report:
    """As much of a report as is asked for."""

    folder: Path
    outcome: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(stopped=None))

    def __rich__(self) -> str:
        return f"made in {self.folder}"


def test_the_built_in_model_is_made_once(
    run: Callable[..., Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(paths: list[Path], *, minutes: float, out: Path, overwrite: bool) -> Any:
        made.append(out)
        shutil.copytree(tiny_model, out)
        return Report(out)

    monkeypatch.setenv("CHATSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("chatsmith.cli.new.make", make)
    first, second = (run("chat", "--script", "--max-tokens", 2, "--minutes", 1) for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert "in about 1 minutes" in first.err
    assert "--minutes does nothing" in second.err
    assert len(made) == 1
    assert [entry.name for entry in (tmp_path / "cache").iterdir() if entry.name != "kernels"] == ["world"]
    assert f"made in {tmp_path / 'cache' / 'world'}" in first.err.replace("\n", "")
    assert "making the built-in model first" in first.err


class Terminal:
    """A process that believes it has a terminal."""

    def __init__(self, *arguments: str | Path, **variables: str) -> None:
        self.handle, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatsmith", *map(str, arguments)],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "TERM": "xterm", **variables},
            start_new_session=True,
        )
        os.close(inner)
        self.seen = ""

    def until(self, wanted: str, seconds: float = PATIENCE) -> None:
        """Read on until `wanted` has been printed since the last call."""
        end = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < end, self.seen
            try:
                self.seen += os.read(self.handle, 65536).decode(errors="replace")
            except OSError:  # the process has closed its side
                break
        assert wanted in self.seen, self.seen
        self.seen = self.seen.split(wanted, 1)[1]

    def type(self, text: str) -> None:
        """Type some keys."""
        os.write(self.handle, text.encode())


def test_a_talk_in_a_terminal(tiny_model: Path, tmp_path: Path) -> None:
    terminal = Terminal("chat", tiny_model, "--max-tokens", "5", CHATSMITH_CACHE=str(tmp_path))
    terminal.until("you: ")
    terminal.type("/help\n")
    terminal.until("forget what was said")
    terminal.type("/next\n")
    terminal.until("nothing was said yet")
    terminal.type("Hello!\n")
    terminal.until("tiny: ")
    terminal.until("you: ")
    terminal.type("/next\n")
    terminal.until("probability")
    terminal.type("/nxet\n")
    terminal.until("did you mean /next")
    terminal.type("/reset\n")
    terminal.until("forgotten")
    terminal.until("you: ")
    terminal.type("\x04")
    assert terminal.process.wait(PATIENCE) == 0
    assert "Hello!" in (tmp_path / "chat_history").read_text()


def test_ctrl_c_at_the_prompt_leaves(tiny_model: Path, tmp_path: Path) -> None:
    terminal = Terminal("chat", tiny_model, CHATSMITH_CACHE=str(tmp_path))
    terminal.until("you: ")
    time.sleep(0.2)
    terminal.process.send_signal(2)
    terminal.until("stopped")
    assert terminal.process.wait(PATIENCE) == 130


def test_ctrl_c_just_after_a_reply_does_not_lose_the_talk(tiny_model: Path, tmp_path: Path) -> None:
    terminal = Terminal("chat", tiny_model, "--max-tokens", "5", CHATSMITH_CACHE=str(tmp_path))
    terminal.until("you: ")
    for _ in range(2):  # what is typed in between is no second one
        terminal.type("Hello!\n")
        terminal.until("tiny: ")
        terminal.until("you: ")
        time.sleep(0.2)
        terminal.process.send_signal(2)
        terminal.until("once more")
        terminal.until("you: ")
    time.sleep(0.2)
    terminal.process.send_signal(2)
    terminal.until("stopped")
    assert terminal.process.wait(PATIENCE) == 130
