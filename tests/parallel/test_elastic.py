"""A process that is killed is replaced, and the run ends with the bits of one that was not disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from chatsmith.settings import from_mapping
from chatsmith.store.state import checkpoints
from chatsmith.text.batches import Batch
from chatsmith.train.metrics import read_log
from chatsmith.train.parallel.process import round_of
from chatsmith.train.parallel.teams import Divided, odd_ones
from chatsmith.train.recipe import Recipe
from patience import PATIENCE

from .cases import Layout, recipe
from .test_parity import SOURCE
from .test_parity import tokens as tokens  # the fixture

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")


def start(path: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """`chatsmith train --processes 2`."""
    command = [sys.executable, "-m", "chatsmith", "train", str(path), "--out", str(out), "--processes", "2", *more]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers(parent: int) -> list[int]:
    """The processes that torchrun started, in the order of their numbers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (entry / "environ").read_bytes().split(b"\0") if ppid == parent else []
            except OSError:
                continue
            found += [(word, int(entry.name)) for word in environment if word.startswith(b"RANK=")]
    return [pid for _, pid in sorted(found)]


def write(path: Path, tokens: str, layout: dict[str, Any], **changes: Any) -> Path:
    """A recipe file that saves often."""
    mapping = {**recipe(tokens, "gpt2", Layout("", 2, layout), **changes), "checkpoint": {"steps": 7}}
    path.write_text(from_mapping(Recipe, mapping, "made").to_toml(), encoding="utf-8")
    return path


def test_a_killed_worker_is_replaced(tokens: str, tmp_path: Path) -> None:
    steps = 120  # so many that the run is not over before it is looked at again
    path = write(tmp_path / "recipe.toml", tokens, {"shard": 2}, schedule={"steps": steps})
    whole, out = tmp_path / "whole", tmp_path / "out"
    undisturbed = start(path, whole)
    assert undisturbed.wait(timeout=PATIENCE) == 0, undisturbed.stderr
    run = start(path, out)
    while len(mine := workers(run.pid)) < 2 and run.poll() is None:
        time.sleep(0.02)
    while not checkpoints(out) and run.poll() is None:
        time.sleep(0.005)
    os.kill(mine[1], signal.SIGKILL)
    assert run.wait(timeout=PATIENCE) == 0
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    tell = [[(r["step"], r["loss"], r["tokens"]) for r in read_log(folder)] for folder in (out, whole)]
    assert tell[0] == tell[1]
    assert [step for step, _, _ in tell[0]] == list(range(1, steps + 1))


def test_workers_whose_launcher_is_killed_save_and_end(tokens: str, tmp_path: Path) -> None:
    """Else they would train on, and who resumes the run would train beside them."""
    out = tmp_path / "out"
    run = start(write(tmp_path / "recipe.toml", tokens, {}, schedule={"steps": 10**6}), out)
    while not checkpoints(out) and run.poll() is None:
        time.sleep(0.02)
    mine = workers(run.pid)
    assert len(mine) == 2
    run.kill()
    run.wait()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in mine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in mine if Path(f"/proc/{pid}").exists()]
    assert checkpoints(out)[0].name == f"step-{len(read_log(out)):08d}"  # of the step that they were in


def test_workers_whose_launcher_is_killed_before_they_have_met_end_too(
    tokens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they load torch they have not asked to be told of it yet."""
    monkeypatch.setenv("CHATSMITH_TIMEOUT", str(2 * PATIENCE))  # that they wait for each other
    run = start(write(tmp_path / "recipe.toml", tokens, {}), tmp_path / "out")
    while len(mine := workers(run.pid)) < 2 and run.poll() is None:
        time.sleep(0.002)
    run.kill()
    run.wait()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in mine) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in mine if Path(f"/proc/{pid}").exists()]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_a_row_alone_is_divided_without_a_warning() -> None:
    """Its places are an array that cannot be written to, of which PyTorch warns."""
    ids = np.arange(8).reshape(1, 8)
    divided = SimpleNamespace(
        parallel=SimpleNamespace(context=2), place=SimpleNamespace(at=lambda name: 1), _device="cpu"
    )
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Divided._tensors(divided, Batch(ids, ids + 1))  # type: ignore[arg-type]
    finally:
        torch.set_warn_always(always)
    assert {name: part.tolist() for name, part in found.items()} == {
        "inputs": [[4, 5, 6, 7]],
        "targets": [[5, 6, 7, 8]],
        "positions": [[4, 5, 6, 7]],
    }


def test_the_process_whose_copy_differs_is_named() -> None:
    """By what most hold; where two disagree nobody can tell, and both are named."""
    assert odd_ones([{"a": 1, "b": 5}, {"a": 1}, {"a": 2, "b": 5}, {"a": 1}]) == [2]
    assert odd_ones([{"a": 1}, {"a": 2}]) == [0, 1]
    assert odd_ones([{"a": 1}, {"b": 2}]) == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_store_that_outlives_its_processes_keeps_rounds_apart(first: int) -> None:
    """What the dead left in it is not read by those who follow, whoever of them comes first."""
    store = dist.HashStore()

    def one_round(word: str) -> tuple[set[str], set[bool]]:
        with ThreadPoolExecutor(3) as pool:
            order = [first, *({0, 1, 2} - {first})]
            found = []
            for rank in order:
                found.append(pool.submit(round_of, store, rank, 3, 30.0))
                time.sleep(0.03)
            stores, again = zip(*(future.result() for future in found), strict=True)
        stores[order.index(0)].set("address", word)
        return {mine.get("address").decode() for mine in stores}, set(again)

    assert one_round("of the first") == ({"of the first"}, {False})
    assert one_round("of the second") == ({"of the second"}, {True})


def test_a_process_that_does_not_come_is_waited_for_so_long() -> None:
    for rank in range(2):
        with pytest.raises(RuntimeError, match=r"waited 0\.05 seconds"):
            round_of(dist.HashStore(), rank, 2, 0.05)
