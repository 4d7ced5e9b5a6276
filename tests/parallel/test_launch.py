"""How processes of this machine are started, and what starts them anew; that they are is in `test_elastic`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from chatsmith.errors import RequestError, WorkError
from chatsmith.settings import from_mapping
from chatsmith.train.parallel import launch as module
from chatsmith.train.parallel.launch import launch
from chatsmith.train.parallel.telling import report
from chatsmith.train.recipe import Recipe
from chatsmith.train.run import train

from .cases import Layout, recipe

Launched = Callable[..., list[str]]
Said = list[tuple[int, str, int]]
"""What processes report: their rank, the message, the exit code."""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    """Have torchrun's runs end with the exit codes given, one after another; a list tells of the runs."""

    def with_ends(*ends: list[int] | Exception, said: Said | None = None) -> list[str]:
        told: list[str] = []

        def run(given: object) -> None:
            end = ends[len(told)]
            told.append(os.environ[module.RESTARTS])
            for rank, message, code in said or []:
                with pytest.MonkeyPatch.context() as process:
                    process.setenv("RANK", str(rank))
                    assert report(message, None, code)
            if isinstance(end, Exception):
                raise end
            if end:
                failures = {rank: ProcessFailure(rank, 1, code, "<NA>") for rank, code in enumerate(end)}
                raise ChildFailedError("chatsmith", failures)

        monkeypatch.setattr(module.torchrun, "run", run)
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "1")
        return told

    return with_ends


@pytest.mark.parametrize(
    ("ends", "code", "runs"),
    [
        ([[]], 0, 1),
        ([[2, 2]], 2, 1),  # a wrong request is as wrong again
        ([[-15, 2]], 2, 1),
        ([[143, 143]], 143, 1),  # told to stop, all of them
        ([[1, -9], []], 0, 2),
        ([[75, 143], []], 0, 2),  # one was out of touch, and torchrun told the other to stop
        ([[1, 143]], 1, 1),  # it said what was wrong, which would be as wrong again
        ([[75, 1]], 1, 1),
        ([SignalException("", sigval=signal.SIGINT)], 130, 1),
    ],
)
def test_what_is_tried_again(ends: list[list[int] | Exception], code: int, runs: int, launched: Launched) -> None:
    told = launched(*ends)
    before = dict(os.environ)
    assert launch(["-m", "chatsmith"], 2, restarts=2) == code
    assert told == [str(number) for number in range(runs)]
    # Of a stop that was asked for torchrun would warn in words of its own.
    assert not logging.getLogger("torch.distributed.elastic.agent.server.api").isEnabledFor(logging.WARNING)
    assert dict(os.environ) == before  # a run of this process is no part of that launch


def test_what_is_wrong_is_told_once(launched: Launched) -> None:
    """By whoever knows it: who lost touch with that one has nothing to add."""
    heard: list[str] = []
    launched([75, 1, 1], said=[(0, "lost touch", 75), (1, "the disk is full", 1), (2, "the disk is full", 1)])
    assert launch(["-m", "chatsmith"], 3, note=heard.append, tell=lambda message, hint: heard.append(message)) == 1
    assert heard == ["the disk is full"]


def test_a_stop_is_told_once(launched: Launched) -> None:
    """And is no error; torchrun has nothing to add about threads either."""
    notes: list[str] = []
    launched(SignalException("", sigval=signal.SIGINT), said=[(0, "stopped", 130), (1, "stopped", 130)])
    assert launch(["-m", "chatsmith"], 2, note=notes.append, tell=lambda message, hint: notes.append("error")) == 130
    assert notes == ["stopped"]


def test_a_process_that_fails_without_a_word_is_named(launched: Launched) -> None:
    heard: list[str] = []
    launched([143, 1])
    assert launch(["-m", "chatsmith"], 2, tell=lambda message, hint: heard.append(message)) == 1
    assert heard == ["process 1 of 2 failed and did not say why"]


def test_processes_that_lose_touch_again_and_again_say_how(launched: Launched) -> None:
    heard: list[str] = []
    told = launched(*[[75, -15]] * 3, said=[(0, "process 0 of 2 lost touch with another: time is up", 75)])
    with pytest.raises(WorkError, match="lost touch with another: time is up, 3 times in all"):
        launch(["-m", "chatsmith"], 2, restarts=2, note=heard.append)
    assert len(told) == 3
    assert heard[0] == "process 0 of 2 lost touch with another: time is up; starting all anew (1 of 2 times)"


def test_a_process_that_is_killed_again_and_again_is_named(launched: Launched) -> None:
    launched(*[[-15, -9]] * 3)
    with pytest.raises(WorkError, match="process 1 of 2 was ended by SIGKILL, 3 times"):
        launch(["-m", "chatsmith"], 2, restarts=2)


@pytest.mark.parametrize("table", [{"tensor": 3}, {"shard": 4}, {"context": 2, "tensor": 1}])
def test_under_torchrun_a_wrong_layout_leaves_nothing_behind(
    table: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    mapping = recipe("tokens", "gpt2", Layout("", 2, table), model={"context": 33}, batch={"context": 33})
    with pytest.raises(RequestError, match="the layout"):
        train(from_mapping(Recipe, mapping, "made"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [1, 2])
def test_one_of_several_processes_ends_without_taking_the_interpreter_down(size: int) -> None:
    """Threads of groups that PyTorch keeps would be in its way; a process alone has none."""
    code = """if True:
        import atexit
        from chatsmith import __main__
        from chatsmith.cli import app
        import chatsmith.train.parallel.process
        atexit.register(print, "taken down")
        app.run = lambda words: print("done") or 3
        raise SystemExit(__main__.main())
    """
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": str(size)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split("\n") == ["done", *["taken down"] * (size == 1), ""]
