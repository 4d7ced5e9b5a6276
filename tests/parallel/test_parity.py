"""Every layout against one process: the same losses, gradient norms, held-out losses and weights.

All layouts are `slow` (`make test-parallel`); a few that touch every transformation run always.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatsmith.settings import from_mapping
from chatsmith.store.folder import load_model
from chatsmith.store.state import checkpoints
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.documents import Document
from chatsmith.text.shards import write_shards
from chatsmith.train.metrics import read_log
from chatsmith.train.recipe import Recipe, load_recipe
from chatsmith.train.run import train
from patience import PATIENCE

from .cases import LAYOUTS, SHAPES, WAYS, Layout, alone, recipe, text
from .world import StopAt

WORLD = Path(__file__).with_name("world.py")
SOURCE = Path(__file__).parents[2] / "src"
TOLERANCE = 1e-5
BY_NAME = {layout.name: layout for layout in LAYOUTS}
Case = tuple[Layout, str, str]
"""A layout, a shape, and a way to train it."""


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("parallel"))


def written(folder: Path) -> str:
    """Write 300 documents of the chain as tokens, a tenth held out; returns where."""
    vocabulary = train_tokenizer(["abcdefgh"], 261)
    documents = [Document(text(97 + seed % 50, seed), f"made/{seed}") for seed in range(300)]
    write_shards(documents, vocabulary, folder / "tokens", held_out=0.1)
    vocabulary.save(folder)
    return str(folder / "tokens")


def launch(size: int, cases: Sequence[dict[str, Any]], folder: Path) -> None:
    """Run the cases in one world of `size` processes, which torchrun starts."""
    path = folder / f"cases-{size}.json"
    path.write_text(json.dumps(cases))
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", str(WORLD), str(path)]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    patience = PATIENCE + 60 * len(cases)  # for processes that wait for each other for ever; a case takes seconds
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=patience)
    errors = [error.read_text() for error in sorted(folder.glob("*.error-*"))]
    assert done.returncode == 0, errors[0] if errors else done.stderr


def control(mapping: dict[str, Any], out: Path) -> None:
    """The same run in this process alone."""
    before = torch.get_num_threads()
    try:
        train(from_mapping(Recipe, mapping, "control"), out)
    finally:
        torch.set_num_threads(before)


def difference(first: Path, second: Path) -> float:
    """The largest between the weights of two model folders."""
    one, other = (load_model(folder).model.state_dict() for folder in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def same(found: Path, expected: Path, tolerance: float = TOLERANCE) -> None:
    """Assert that two runs tell the same of every step, and end with the same weights."""
    mine, theirs = read_log(found), read_log(expected)
    assert [record["rows"] for record in mine] == [record["rows"] for record in theirs]
    for key in ("loss", "gradient_norm", "held_out_loss"):
        one, other = ({r["step"]: r[key] for r in records if key in r} for records in (mine, theirs))
        assert one == pytest.approx(other, abs=tolerance, rel=tolerance), (found.name, key)
    assert difference(found, expected) < tolerance, found.name


class Controls:
    """What one process makes of each shape and depth in each way, run once."""

    def __init__(self, tokens: str, folder: Path) -> None:
        self._tokens, self._folder = tokens, folder

    def of(self, layout: Layout, shape: str, way: str) -> Path:
        """The folder of the run that this layout of this shape is held to."""
        out = self._folder / f"{shape} {way} {layout.layers}"
        if not out.is_dir():
            control(recipe(self._tokens, shape, alone(layout.layers), **WAYS[way]), out)
        return out


@pytest.fixture(scope="session")
def controls(tokens: str, tmp_path_factory: pytest.TempPathFactory) -> Controls:
    return Controls(tokens, tmp_path_factory.mktemp("controls"))


def check(chosen: Sequence[Case], tokens: str, controls: Controls, folder: Path) -> None:
    """Run some cases of one number of processes, and compare each with its control."""
    cases = [case(" ".join((layout.name, shape, way)), layout, shape, tokens, folder, **WAYS[way])
             for layout, shape, way in chosen]  # fmt: skip
    launch(chosen[0][0].size, cases, folder)
    for made, (layout, shape, way) in zip(cases, chosen, strict=True):
        same(Path(made["out"]), controls.of(layout, shape, way))


def case(name: str, layout: Layout, shape: str, tokens: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """A case for `world.py`."""
    return {"name": name, "recipe": recipe(tokens, shape, layout, **changes), "out": str(folder / name)}


FEW = [
    ("replicas 2", "gpt2", "adamw"),
    ("automatic 2", "gpt2", "muon"),
    ("sharded 2", "qwen3", "adamw"),
    ("sharded 2", "llama", "muon"),
    ("tensor 2", "gpt2", "muon"),
    ("context 2", "gpt3", "muon"),
    ("pipeline 2 1f1b", "llama", "adamw"),
    ("pipeline 2 zero-bubble-v", "gpt2", "muon"),
]


def test_layouts_give_what_one_process_gives(tokens: str, controls: Controls, tmp_path: Path) -> None:
    check([(BY_NAME[layout], shape, way) for layout, shape, way in FEW], tokens, controls, tmp_path)
    settled = load_recipe(tmp_path / "automatic 2 gpt2 muon" / "chatsmith.toml").parallel
    assert (settled.layout, settled.replicate) == ("given", 2)  # two replicas of a small model: so it is written down


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4, 8])
def test_every_layout_gives_what_one_process_gives(size: int, tokens: str, controls: Controls, tmp_path: Path) -> None:
    """Each with each shape, mixed ones with one shape each. The two ways to train take turns, so that each layout and
    each shape meets both."""
    ways = list(WAYS)
    chosen = [
        (layout, shape, ways[(place + number) % len(ways)])
        for number, shape in enumerate(SHAPES)
        for place, layout in enumerate(LAYOUTS)
        if layout.size == size and (not layout.mixed or place % len(SHAPES) == number)
    ]
    check(chosen, tokens, controls, tmp_path)


def test_a_run_goes_on_under_another_layout(tokens: str, tmp_path: Path) -> None:
    """One process → replicas → a tensor group → a pipeline of stages → one process, each taking five steps more."""
    control(recipe(tokens, "gpt2", alone(4)), tmp_path / "whole")
    names = ["replicas 2", "tensor 2", "pipeline 2 interleaved"]
    out, state = tmp_path / "run", {"steps": 5, "keep": 3, "background": True}
    first = {**recipe(tokens, "gpt2", alone(4)), "checkpoint": state}
    train(from_mapping(Recipe, first, "first"), out, callbacks=[StopAt(4)])
    cases = []
    for number, name in enumerate(names):
        asked = {**recipe(tokens, "gpt2", BY_NAME[name], model={"layers": 4}), "checkpoint": state}
        cases.append({"name": name, "recipe": asked, "out": str(out), "resume": True, "stop": 8 + 4 * number})
    launch(2, cases, tmp_path)
    assert len(checkpoints(out)) == 3
    train(from_mapping(Recipe, first, "first"), out, resume=True)
    same(out, tmp_path / "whole")
