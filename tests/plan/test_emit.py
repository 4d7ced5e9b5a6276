"""Launch files: each is parsed by its own rules, and torchrun's is run with two processes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import find_accelerator
from chatsmith.plan.emit import KINDS, RESTARTS, launch_file, settings
from chatsmith.plan.layout_plan import LayoutPlan, make_plan
from chatsmith.plan.parallel import Layout, Workload, links_of
from chatsmith.specs import PRESETS, ModelSpec
from chatsmith.train.metrics import read_log
from chatsmith.train.recipe import load_recipe
from chatsmith.train.run import RECIPE
from patience import PATIENCE


def plan(layout: Layout, device: str = "h100", rows: int = 64, spec: ModelSpec = PRESETS["gpt3-6.7b"]) -> LayoutPlan:
    found = find_accelerator(device)
    return make_plan(Workload(spec, spec.context, rows), found, links_of(found), layout)


def options(words: list[str]) -> dict[str, str]:
    """The options of a command line, as name and value."""
    return dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)


def program(text: str) -> list[str]:
    """The words of the file's bash array, as bash itself reads them."""
    array = re.search(r"^program=\(\n.*?^\)$", text, re.S | re.M)
    assert array is not None
    shown = subprocess.run(
        ["bash", "-c", f'{array[0]}\nprintf "%s\\n" "${{program[@]}}"'], capture_output=True, text=True, check=True
    )
    return shown.stdout.splitlines()


def changes(words: list[str]) -> dict[str, str]:
    """The settings of the recipe among a program's words."""
    return dict(after.split("=", 1) for before, after in pairwise(words) if before == "--set")


WIDE = Layout(data=4, tensor=4, pipeline=2, micro_batch=2, zero=1, recompute="full", interleave=2)
WIDE_SETTINGS = {
    "batch.micro_batch": "2",
    "batch.accumulation": "32",
    "batch.context": "2048",
    "parallel.shard": "4",
    "parallel.reshard": "false",
    "parallel.tensor": "4",
    "parallel.pipeline": "2",
    "parallel.schedule": "interleaved",
    "parallel.interleave": "2",
    "precision.activation_checkpointing": "true",
    "parallel.layout": "given",
    "parallel.replicate": "0",
    "parallel.context": "1",
}


@pytest.mark.parametrize("kind", ["torchrun", "slurm"])
def test_shell_files_are_shell_and_carry_the_layout(kind: str) -> None:
    text = launch_file(kind, plan(WIDE), recipe="my recipe's.toml", out="out folder")  # type: ignore[arg-type]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert text.startswith("#!/usr/bin/env bash\n")
    words = program(text)
    assert words[:6] == ["-m", "chatsmith", "train", "my recipe's.toml", "--out", "out folder"]
    assert changes(words) == WIDE_SETTINGS
    assert "set -euo pipefail" in text
    assert max(map(len, text.splitlines())) <= 120


def test_slurm_asks_for_the_nodes_and_devices() -> None:
    text = launch_file("slurm", plan(WIDE))
    asked = options([line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")])
    assert asked["nodes"] == "4"
    assert asked["gpus-per-node"] == "8"
    assert asked["ntasks-per-node"] == "1"
    head = text.index("#SBATCH")
    assert not [line for line in text[:head].splitlines() if line and not line.startswith("#")]
    start = shlex.split(text[text.index("srun ") :].replace("\\\n", " "))
    assert start[:3] == ["srun", "--cpus-per-task=$SLURM_CPUS_ON_NODE", "torchrun"]
    assert options(start)["rdzv-id"] == "$SLURM_JOB_ID"
    assert options(start)["nproc-per-node"] == "8"
    assert options(start)["rdzv-endpoint"] == "$head:29500"


def test_torchrun_names_its_machines() -> None:
    many = launch_file("torchrun", plan(WIDE))
    start = options(shlex.split(many[many.index("exec torchrun") :].replace("\\\n", " ")))
    assert (start["nnodes"], start["nproc-per-node"]) == ("4", "8")
    assert start["master-port"] == "${PORT:-29500}"
    run = subprocess.run(["bash", "-s"], input=many, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert run.returncode != 0
    assert "NODE_RANK: number of this machine, from 0" in run.stderr
    one = launch_file("torchrun", plan(Layout(data=8, zero=2)))
    assert "--standalone --nproc-per-node=8" in one
    assert "--nproc-per-node=6" in launch_file("torchrun", plan(Layout(data=12), rows=48))


def test_skypilot_files_are_yaml_of_its_shape() -> None:
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load(launch_file("skypilot", plan(WIDE), recipe="it's.toml"))
    assert set(task) == {"name", "num_nodes", "volumes", "resources", "workdir", "setup", "run"}
    assert task["num_nodes"] == 4
    assert task["volumes"] == {"/shared": "FILL-IN-A-VOLUME"}  # which no cloud has: one must say which it is to be
    assert task["resources"] == {"accelerators": "H100:8"}
    subprocess.run(["bash", "-n"], input=task["run"], text=True, check=True)
    start = options(shlex.split(task["run"][task["run"].index("torchrun ") :].replace("\\\n", " ")))
    assert start["nproc-per-node"] == "$SKYPILOT_NUM_GPUS_PER_NODE"
    assert start["rdzv-id"] == "$SKYPILOT_TASK_ID"
    words = program(task["run"])
    assert words[:6] == ["-m", "chatsmith", "train", "it's.toml", "--out", "/shared/run"]
    assert changes(words) == WIDE_SETTINGS
    alone = yaml.safe_load(launch_file("skypilot", plan(Layout(data=8))))
    assert "volumes" not in alone
    assert program(alone["run"])[4:6] == ["--out", "run"]


@pytest.mark.parametrize("kind", KINDS)
def test_files_replace_what_dies_and_go_on_with_a_run_that_is_there(kind: str, tmp_path: Path) -> None:
    text = launch_file(kind, plan(Layout(data=8)), out="out folder")  # type: ignore[arg-type]
    assert f" --max-restarts={RESTARTS} " in text
    array = re.search(r"^ *program=\(\n.*?\(--resume\)$", text, re.S | re.M)
    assert array is not None

    def last() -> str:
        command = ["bash", "-euc", f'{array[0]}\nprintf "%s\n" "${{program[@]}}"']
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()[-1]

    assert last() != "--resume"
    (tmp_path / "out folder").mkdir()
    (tmp_path / "out folder" / RECIPE).touch()
    assert last() == "--resume"


def test_recipes_take_what_the_files_carry(tmp_path: Path) -> None:
    """The rows of a step are the same however it is divided."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[data.sources]]\npath = "world"\n[model]\npreset = "gpt3-6.7b"\n[schedule]\nsteps = 1\n')
    alone = [f"{key}={value}" for key, value in settings(plan(Layout(micro_batch=4))).items()]
    assert load_recipe(recipe, alone).batch.rows == 64
    divided = [f"{key}={value}" for key, value in settings(plan(WIDE)).items()]
    taken = load_recipe(recipe, divided)
    assert taken.batch.rows == 64
    assert (taken.parallel.shard, taken.parallel.tensor, taken.parallel.pipeline) == (4, 4, 2)


@pytest.mark.parametrize("table", ['layout = "auto"', "tensor = 2\nreshard = false", "pipeline = 2\nreplicate = 3"])
@pytest.mark.parametrize("layout", [Layout(data=8), Layout(data=2, zero=3), WIDE])
def test_nothing_of_a_division_that_the_recipe_has_shows_through(table: str, layout: Layout, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    plain = '[[data.sources]]\npath = "world"\n[model]\npreset = "gpt3-6.7b"\n[schedule]\nsteps = 1\n'
    carried = [f"{key}={value}" for key, value in changes(program(launch_file("torchrun", plan(layout)))).items()]
    found = []
    for text in (plain, f"{plain}[precision]\nactivation_checkpointing = true\n[parallel]\n{table}\n"):
        recipe.write_text(text)
        found.append(load_recipe(recipe, carried))
    assert found[0] == found[1]


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "launch.sh"
    script.write_text(text)
    source = str(Path(__file__).parents[2] / "src")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": source,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, cwd=folder, env=environment, timeout=PATIENCE
    )


def test_arguments_take_the_place_of_training(tmp_path: Path) -> None:
    """So that the machines can be tried out first; a torchrun that only says what it was asked for shows it."""
    said = tmp_path / "torchrun"
    said.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    said.chmod(0o755)
    for layout in (Layout(data=2), Layout(data=16)):
        script = launch_file("torchrun", plan(layout))
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NODE_RANK": "1", "HEAD": "first"}
        words = [
            subprocess.run(
                ["bash", "-s", *instead], input=script, capture_output=True, text=True, env=environment, check=True
            ).stdout.splitlines()
            for instead in ((), ("hello.py", "a b"))
        ]
        start = words[1][:-2]
        assert words == [[*start, *program(script)], [*start, "hello.py", "a b"]]
        assert f"--nproc-per-node={min(layout.data, 8)}" in start


def test_the_torchrun_file_trains_in_two_processes(tmp_path: Path) -> None:
    """The file as it stands divides a training run over two processes, here of the CPU."""
    (tmp_path / "text.txt").write_text("One two three four five six seven eight nine ten. " * 400)
    (tmp_path / "recipe.toml").write_text(
        '[data]\nheld_out = 0.0\nvocab_size = 300\n[[data.sources]]\npath = "text.txt"\n'
        "[model]\nwidth = 64\nlayers = 2\nheads = 2\ncontext = 64\n[schedule]\nsteps = 3\n[evaluation]\ntimes = 0\n"
    )
    layout = Layout(data=2, zero=3, micro_batch=2, recompute="full")
    small = plan(layout, rows=8, spec=ModelSpec(512, 64, 64, 2, 2))
    found = run(launch_file("torchrun", small), tmp_path)
    assert found.returncode == 0, found.stderr
    kept = load_recipe(tmp_path / "run" / "chatsmith.toml")
    assert (kept.batch.rows, kept.batch.micro_batch, kept.batch.context) == (8, 2, 64)
    assert (kept.parallel.shard, kept.precision.activation_checkpointing) == (2, True)
    assert [record["rows"] for record in read_log(tmp_path / "run")] == [8, 8, 8]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    again = run((tmp_path / "launch.sh").read_text(), tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on from step 3 of 3 steps" in again.stderr


def test_a_request_that_makes_no_file_is_refused() -> None:
    with pytest.raises(RequestError, match="no launch file") as refused:
        launch_file("slrum", plan(WIDE))  # type: ignore[arg-type]
    assert "slurm" in str(refused.value.hint)
    for path in ("", "a\nb.toml", "--out"):
        for kind in KINDS:
            with pytest.raises(RequestError, match="not a path"):
                launch_file(kind, plan(WIDE), recipe=path)
    with pytest.raises(RequestError, match="not started by torchrun"):
        launch_file("torchrun", plan(Layout(data=64), "tpu v4"))
    with pytest.raises(RequestError, match="SkyPilot rents no"):
        launch_file("skypilot", plan(Layout(data=8), "h800"))
