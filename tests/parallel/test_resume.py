"""Runs that are interrupted at random, by a signal or by SIGKILL, end as those that were left alone.

A hundred points instead of ten: `make kills`.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatsmith.store.state import checkpoints

from .cases import LAYOUTS, recipe
from .kills import survive
from .test_parity import BY_NAME, alone, control, launch, same
from .test_parity import tokens as tokens  # the fixture

in_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
SAVED: dict[str, Any] = {"steps": 5, "keep": 2}


def part(layout: str, tokens: str, out: Path, *, layers: int = 2, **more: Any) -> dict[str, Any]:
    """A case for `world.py`: a run, or a part of one."""
    asked = recipe(tokens, "gpt2", BY_NAME.get(layout) or alone(layers), model={"layers": layers})
    return {"name": layout, "recipe": {**asked, "checkpoint": SAVED}, "out": str(out), **more}


def interrupted(layout: str, tokens: str, folder: Path, chance: random.Random) -> list[dict[str, Any]]:
    """A run left alone, and the same one stopped after two random steps and gone on with."""
    first, second = sorted(chance.sample(range(1, 20), 2))
    parts = [{"stop": first}, {"resume": True, "stop": second}, {"resume": True}]
    layers, named = BY_NAME[layout].layers, folder / layout
    return [
        part(layout, tokens, named.with_name(f"{layout} whole"), layers=layers),
        *(part(layout, tokens, named, layers=layers, **more) for more in parts),
    ]


def check_bits(layouts: list[str], tokens: str, folder: Path, seed: int) -> None:
    """Interrupt runs of these layouts of one number of processes; they must end bit for bit as those left alone."""
    chance = random.Random(seed)
    launch(
        BY_NAME[layouts[0]].size,
        [case for layout in layouts for case in interrupted(layout, tokens, folder, chance)],
        folder,
    )
    for layout in layouts:
        found, expected = folder / layout, folder / f"{layout} whole"
        assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes(), layout
        same(found, expected, 1e-12)


def test_the_same_layout_ends_with_the_same_bits(tokens: str, tmp_path: Path) -> None:
    check_bits(["replicas 2", "sharded 2", "pipeline 2 interleaved"], tokens, tmp_path, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4, 8])
def test_every_layout_ends_with_the_same_bits(size: int, tokens: str, tmp_path: Path) -> None:
    check_bits([layout.name for layout in LAYOUTS if layout.size == size], tokens, tmp_path, seed=size)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_another_layout_ends_with_the_same_weights(seed: int, tokens: str, tmp_path: Path) -> None:
    """1 → 4, sharded → tensor × pipeline, 8 → 2, at random steps, against one process that was left alone."""
    chance = random.Random(seed)
    control(part("alone", tokens, tmp_path, layers=4)["recipe"], tmp_path / "whole")
    changes = {
        "1 to 4": [("alone", 1), ("sharded 4", 4)],
        "shards to a pipeline": [("sharded 4", 4), ("tensor 2 × pipeline 2", 4)],
        "8 to 2": [("sharded 2 × tensor 2 × pipeline 2", 8), ("sharded 2", 2)],
    }
    stops = {name: chance.randint(1, 19) for name in changes}
    for begin in (True, False):
        # All that begins, and then all that goes on, in one world of each size.
        worlds: dict[int, list[dict[str, Any]]] = {}
        for name, (first, then) in changes.items():
            layout, size = first if begin else then
            more = {"stop": stops[name]} if begin else {"resume": True}
            worlds.setdefault(size, []).append(part(layout, tokens, tmp_path / name, layers=4, **more))
        for size, cases in worlds.items():
            launch(size, cases, tmp_path)
        if begin:
            for name in changes:
                assert checkpoints(tmp_path / name)[0].name == f"step-{stops[name]:08d}"
    for name in changes:
        same(tmp_path / name, tmp_path / "whole")


def test_the_long_version_finds_what_it_needs() -> None:
    """`make kills` starts it as a script, outside pytest."""
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(script), "--points", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@in_proc
def test_killed_anywhere_a_run_ends_with_the_same_bits(tokens: str, tmp_path: Path) -> None:
    survive(tokens, tmp_path / "runs", random.Random(7), 3, {"shard": 2}, background=True)


@pytest.mark.slow
@in_proc
@pytest.mark.parametrize(("table", "background"), [({"shard": 2}, True), ({}, False)])
def test_killed_ten_times(table: dict[str, Any], background: bool, tokens: str, tmp_path: Path) -> None:
    survive(tokens, tmp_path / "runs", random.Random(11), 10, table, background)
