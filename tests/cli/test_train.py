"""`chatsmith train`: a run, its dry run, its changes, its interruption and its resumption."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patience import PATIENCE

RECIPE = """
seed = 1
threads = 1
[data]
vocab_size = 300
[[data.sources]]
path = "world"
tokens = 20000
[model]
preset = "modern"
width = 32
layers = 1
heads = 2
context = 64
[batch]
micro_batch = 4
[schedule]
steps = 20
[precision]
compute = "float32"
[evaluation]
times = 2
tokens = 2048
[samples]
prompts = ["Once upon a time"]
times = 1
tokens = 8
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def test_a_run_shows_its_course_and_leaves_a_model(run: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("train", recipe, "--out", out, "--set", "schedule.steps=12", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["steps"] == 12
    assert found["bits_per_byte"] > 0
    for wanted in ("training ", "step 12 of 12 (100%)", "tokens/s", "of this machine's peak", "sample at step"):
        assert wanted in ran.err
    assert (out / "model.safetensors").is_file()
    assert run("write", out, "Once", "--max-tokens", 3).code == 0
    again = run("train", recipe, "--out", out)
    assert again.code == 2
    assert "already holds" in again.err


def test_a_dry_run_prints_the_recipe_and_writes_nothing(run: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    ran = run("train", recipe, "--out", tmp_path / "out", "--dry-run", "--set", "optimizer.learning_rate=3e-4")
    assert ran.code == 0
    assert "learning_rate = 0.0003" in ran.out
    assert "parameters, into" in ran.out
    assert "in one process on a CPU" in ran.out
    assert not (tmp_path / "out").exists()
    found = json.loads(run("train", recipe, "--dry-run", "--json").out)
    assert found["recipe"]["schedule"]["steps"] == 20
    assert found["folder"] == "small"
    assert found["memory_bytes"] > 12 * found["parameters"]  # weights, gradients and averages alone
    assert found["flops_per_token"] > 6 * found["parameters"] / 2  # most of a small model may be its embedding


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--set", "optimizer.learning_rat=1"], "optimizer.learning_rat", "learning_rate"),
        (["--set", "optimizer.learning_rate"], "is not key=value", "--set optimizer.learning_rate=3e-4"),
        (["--set", "model.heads=3"], "width 32 is not divisible by heads 3", "heads"),
        (["--set", "batch.context=4096"], "batch.context 4096 is longer", "context"),
        (["--set", "schedule.minutes=1", "--set", "schedule.tokens=9000"], "tokens and minutes", "keep one"),
    ],
)
def test_a_contradictory_recipe_is_one_line(
    run: Callable[..., Any], recipe: Path, arguments: list[str], message: str, hint: str
) -> None:
    ran = run("train", recipe, *arguments)
    assert ran.code == 2
    first, second = ran.err.splitlines()
    assert message in first
    assert hint in second


@pytest.mark.parametrize(
    ("processes", "changes", "message"),
    [
        (1, ["parallel.tensor=2"], "(--processes 2), or change [parallel], for example --set parallel.tensor=1"),
        (2, ["parallel.replicate=3"], "for example --set parallel.replicate=0"),
        (2, ["parallel.tensor=3"], "the layout tensor 3 is for 3 processes, and there are 2"),
        (2, ["parallel.shard=4"], "the layout shard 4 is for 4 processes, and there are 2"),
        (2, ["parallel.context=2", "model.context=33"], "rows of 33 tokens do not divide by 2"),
        (3, ["parallel.tensor=3"], "2 heads do not divide by tensor 3"),
        (0, [], "--processes must be from 1"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_before_anything_starts(
    run: Callable[..., Any], recipe: Path, tmp_path: Path, processes: int, changes: list[str], message: str
) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    ran = run("train", recipe, "--out", tmp_path / "out", "--processes", processes, *sets)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_a_missing_recipe_names_the_nearest(run: Callable[..., Any], recipe: Path) -> None:
    ran = run("train", recipe.with_name("smal.toml"))
    assert ran.code == 2
    assert "small.toml" in ran.err


def test_ctrl_c_leaves_a_checkpoint_and_resume_goes_on(run: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = ["--set", "schedule.steps=100000", "--set", "samples.times=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "chatsmith", "train", str(recipe), "--out", str(out), *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = ""
    while not line.startswith("step "):
        line = process.stderr.readline()
        assert line, "the run ended before its first step"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"go on with: chatsmith train --resume {out}" in err
    assert (out / "model.safetensors").is_file()
    steps = len((out / "log.jsonl").read_text().splitlines())

    more = steps + 5
    resumed = run("train", "--resume", recipe, "--out", out, "--set", f"schedule.steps={more}", *changes[2:])
    assert resumed.code == 2, "a run cannot be made shorter than it was planned"
    assert "schedule.steps" in resumed.err


def test_resume_takes_the_runs_folder(run: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("train", recipe, "--out", out, "--set", "schedule.steps=6").code == 0
    ran = run("train", "--resume", out, "--set", "schedule.steps=9")
    assert ran.code == 0, ran.err
    assert "going on from step 6 of 9 steps" in ran.err
    assert len((out / "log.jsonl").read_text().splitlines()) == 9
    refused = run("train", out)
    assert refused.code == 2
    assert f"chatsmith train --resume {out}" in refused.err
    assert f"next: chatsmith chat {out}" in ran.err  # the small world has talks
    missing = run("train", "--resume", tmp_path / "oot")
    assert missing.code == 2
    assert f"there is no run {tmp_path / 'oot'}" in missing.err
    assert "did you mean out?" in missing.err


def test_tensorboard_is_an_extra(run: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("train", recipe, "--out", out, "--set", "schedule.steps=4", "--tensorboard")
    if importlib.util.find_spec("tensorboard") is None:
        assert ran.code == 2
        assert ran.err.splitlines()[-1] == '  pip install "chatsmith[track]"'
    else:
        assert ran.code == 0, ran.err
        assert list((out / "tensorboard").glob("events.*"))
