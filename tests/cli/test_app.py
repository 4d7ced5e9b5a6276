"""The command line as a whole: exit codes, one-line errors, what `--help` costs, and the frozen list of flags."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chatsmith.cli import app
from chatsmith.errors import RequestError, WorkError
from patience import PATIENCE

FLAGS = Path(__file__).with_name("flags.txt")
TORCH_FREE = "import sys; from chatsmith.__main__ import main; sys.argv = ['chatsmith', *sys.argv[1:]]; main(); "
TORCH_FREE += "sys.exit('torch' in sys.modules)"


def cpu_seconds(*command: str) -> float:
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_takes_at_most_three_tenths_of_a_second_of_cpu() -> None:
    command = (sys.executable, "-m", "chatsmith", "--help")
    assert min(cpu_seconds(*command) for _ in range(7)) <= 0.3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        [],
        *([*command.name.split(), "--help"] for command in app.COMMANDS),
        ["version"],
        ["completion", "bash"],
    ],
    ids=" ".join,
)
def test_what_only_explains_never_loads_torch(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", TORCH_FREE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_listed_with_the_first_line_of_its_help(run: Callable[..., Any]) -> None:
    texts = {family: run(*family.split(), "--help").out for family in ("", *app.FAMILIES)}
    for command in app.COMMANDS:
        family, _, name = command.name.rpartition(" ")
        assert f" {name} " in texts[family]
        module, _, function = command.target.partition(":")
        documented = getattr(__import__(module, fromlist=[function]), function).__doc__
        assert documented, f"{command.name} has no docstring"


def test_help_breaks_lines_where_the_terminal_ends() -> None:
    def paragraph(columns: str | None) -> list[str]:
        width = {} if columns is None else {"COLUMNS": columns}
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | width
        command = [sys.executable, "-m", "chatsmith", "new", "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        return shown[shown.index("Reads the") :].split("\n\n")[0].splitlines()

    for columns, width in ((None, 100), ("70", 70)):
        lines = paragraph(columns)
        assert all(len(line) <= width for line in lines)
        for line, after in pairwise(lines):  # no line ends before it must
            assert len(f"{line.rstrip()} {after.split()[0]}") > width


def test_the_flags_grow_only_on_purpose() -> None:
    """When this fails on purpose, write the new list: `python tools/reference.py`."""
    tools = Path(__file__).parents[2] / "tools" / "reference.py"
    shown = subprocess.run([sys.executable, str(tools), "--flags"], capture_output=True, text=True, check=True).stdout
    assert shown == FLAGS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["chta"], "no command called 'chta'", "chat"),
        (["data", "shrad"], "no command called 'data shrad'", "data shard"),
        (["data", "merge"], "chatsmith data merge needs FOLDER", "chatsmith data merge --help"),
        (["doctor", "--jsn"], "chatsmith doctor has no option --jsn", "--json"),
        (["write", "model", "hi", "--temprature", "1"], "chatsmith write has no option --temprature", "--temperature"),
        (["write", "model", "--temprature", "1"], "chatsmith write has no option --temprature", "--temperature"),
        (
            ["write", "model", "hi", "--regex", "--json"],
            "--regex needs a value before --json",
            "chatsmith write --help",
        ),
        (["write", "model", "hi", "--stop"], "--stop needs a value", "chatsmith write --help"),
        (["write", "model", "hi", "--no-json"], "chatsmith write has no option --no-json", "--json or --stop"),
        (["doctor", "--nope"], "chatsmith doctor has no option --nope", "did you mean --json or --help?"),
        (["plan", "gpt3-13b", "--tokens", "-5B"], "--tokens needs a value, and -5B looks like", "--tokens=-5B"),
        (["data", "shard", "x", "--part", "-1/4"], "--part needs a value, and -1/4 looks like", "--part=-1/4"),
        (["write", "model", "--", "hi", "--json"], "--json stands after --", "put options before --"),
        (["-V"], "chatsmith has no option -V", "--version"),
        (["doctor", "too", "much"], "chatsmith doctor does not take 'too'", "chatsmith doctor --help"),
        (["completion"], "chatsmith completion needs SHELL", "chatsmith completion --help"),
        (["completion", "tcsh"], "tcsh", "chatsmith completion --help"),
        (["write", "model", "text", "--top-k", "many"], "many", "chatsmith write --help"),
        (["write", "model", "text", "--top-k", "2.5"], '"2.5"', "chatsmith write --help"),
        (["next", "model", "text", "--top", "2.5"], '"2.5"', "chatsmith next --help"),
        (["new", "--vocab-size", "300.5"], '"300.5"', "chatsmith new --help"),
    ],
)
def test_a_wrong_request_gets_one_line_and_a_hint(
    run: Callable[..., Any], arguments: list[str], message: str, hint: str
) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    first, second = ran.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint in second


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (RequestError("no such thing", "try this"), 2, ["error: no such thing", "  try this"]),
        (WorkError("the disk is full"), 1, ["error: the disk is full"]),
        (
            PermissionError(13, "Permission denied", "/a/file"),
            1,
            ["error: Permission denied: /a/file", "  check its permissions, or name another place"],
        ),
        (MemoryError(), 1, ["error: out of memory", "  a smaller model, batch or context needs less"]),
    ],
)
def test_errors_become_exit_codes(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, lines: list[str]
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr("chatsmith.cli.start.start", broken)
    ran = run()
    assert (ran.code, ran.err.splitlines()) == (code, lines)


def test_a_fault_of_ours_says_how_to_see_more(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("chatsmith.cli.start.start", broken)
    ran = run()
    assert ran.code == 1
    assert ran.err.splitlines()[0] == "error: ValueError: two lines"
    assert "--debug" in ran.err
    with pytest.raises(ValueError, match="two"):
        run("--debug")


def test_debug_after_two_dashes_is_text() -> None:
    assert app._take_debug(["write", "m", "--debug", "--", "--debug"]) == (["write", "m", "--", "--debug"], True)
    assert app._take_debug(["write", "m", "--", "--debug"]) == (["write", "m", "--", "--debug"], False)


def test_ctrl_c_says_one_line_and_exits_130(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chatsmith.cli.start.start", stopped)
    ran = run()
    assert (ran.code, ran.out, ran.err) == (130, "", "stopped\n")


def test_ctrl_c_in_a_real_process() -> None:
    # The command waits for input, so that the signal meets it at work.
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from chatsmith.cli import start\n"
         "start.start = lambda: (print('ready', flush=True), input())\n"
         "from chatsmith.__main__ import main; sys.argv = ['chatsmith']; sys.exit(main())"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "stopped\n")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    pipe = f"{sys.executable} -m chatsmith --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_every_command(run: Callable[..., Any], shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert all(word in ran.out for command in app.COMMANDS for word in command.name.split())


def test_the_bash_completion_completes() -> None:
    """The script is loaded into a real bash, which is asked what could follow `chatsmith do`."""
    script = subprocess.check_output([sys.executable, "-m", "chatsmith", "completion", "bash"], text=True)
    ask = (
        "\nCOMP_WORDS=(chatsmith do); COMP_CWORD=1; COMP_LINE='chatsmith do'; COMP_POINT=12\n"
        '$(complete -p chatsmith | sed -E "s/.*-F ([^ ]+).*/\\1/") chatsmith do chatsmith\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True)
    assert "doctor" in done.stdout.split(), done.stderr


def test_the_zsh_completion_is_called(run: Callable[..., Any], tmp_path: Path) -> None:
    """zsh runs the file at the first Tab and expects its function to be called; evaluated, it must register itself."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "_chatsmith").write_text(run("completion", "zsh").out)
    stubs = "_arguments() { print asked }; compdef() { print compdef $@ }\n"
    load = f"fpath=({tmp_path}); autoload -Uz _chatsmith; _chatsmith; source {tmp_path}/_chatsmith"
    done = subprocess.run(["zsh", "-f", "-c", stubs + load], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["asked", "compdef _chatsmith chatsmith"], done.stderr


def test_the_fish_completion_offers_no_files_for_commands(run: Callable[..., Any]) -> None:
    assert run("completion", "fish").out.endswith("complete -c chatsmith -n __fish_use_subcommand -f\n")


def test_version(run: Callable[..., Any]) -> None:
    ran = run("version")
    assert ran.out.startswith("chatsmith ")
    assert "python 3." in ran.out
