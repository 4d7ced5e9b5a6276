"""Kill runs by SIGKILL at random points, let them go on, and hold their end to that of runs that were left alone.

    python tests/parallel/kills.py --points 100             a hundred points, in ten runs (`make kills`)
    python tests/parallel/kills.py --points 10 --seed 4     as the tests do

A point is a call: the dying process counts the calls that chatsmith's training and its checkpoints make, Python
functions and C functions alike, and kills itself before the one that was drawn. So death may come between any two
system calls of a checkpoint that is being written. What waits in a loop is not counted, so a seed gives about the
same points again. Half of them count all calls, half only those of the rooms that write. Three in four kill one
worker, which torchrun replaces; the fourth kills everything, torchrun first, and the run is resumed. A run is right
if its weights have the bits of the run that was left alone, and its log the same steps and losses, each once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

if __package__:
    from .cases import Layout, recipe
else:  # started as a script
    sys.path.insert(0, str(Path(__file__).parent))
    from cases import Layout, recipe  # type: ignore[import-not-found,no-redef]

import chatsmith

ROOT = Path(chatsmith.__file__).parent
ROOMS = {
    "all": (f"{ROOT}/train/", f"{ROOT}/store/", f"{ROOT}/paths.py"),
    "written": (f"{ROOT}/store/", f"{ROOT}/paths.py"),
}
WAITING = {"round_of", "patient", "_part"}
REACH = 5
"""Steps that a process does at most before it dies, by the calls of a mean step; checkpoints are two steps apart."""
POINTS_OF_A_RUN = 10
LAYOUTS: list[tuple[dict[str, Any], bool]] = [
    ({"shard": 2}, True),
    ({}, False),
    ({"tensor": 2}, True),
    ({"pipeline": 2}, False),
    ({"shard": 2}, False),
    ({}, True),
    ({"context": 2}, False),
    ({"pipeline": 2, "schedule": "interleaved"}, True),
]
"""Divisions of two processes, and whether checkpoints are written in the background."""


# ---- the process that dies -----------------------------------------------------------------------------------------


class Calls:
    """Counts calls by room, in every thread, and does `then` before number `at` of a room."""

    def __init__(self, room: str = "", at: int = 0, then: Callable[[str], None] = lambda place: None) -> None:
        self.counts = Counter[str]()
        self._room, self._at, self._then = room, at, then

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """What `sys.setprofile` calls."""
        if event not in ("call", "c_call") or frame.f_code.co_name in WAITING:
            return
        file = frame.f_code.co_filename
        for room, places in ROOMS.items():
            if file.startswith(places):
                self.counts[room] += 1
                if room == self._room and self.counts[room] == self._at:
                    called = getattr(argument, "__name__", "") if event == "c_call" else ""
                    self._then(f"{Path(file).relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_name} {called}")

    def watch(self) -> None:
        """Count from now on."""
        threading.setprofile(self)
        sys.setprofile(self)


def work(plan: dict[str, Any]) -> None:
    """Train as one worker; die where the next point of the plan says so."""
    from chatsmith.settings import from_mapping
    from chatsmith.train.recipe import Recipe
    from chatsmith.train.run import train

    rank, journal, pids = int(os.environ["RANK"]), Path(plan["journal"]), Path(plan["pids"])
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")
    died = len(journal.read_text().splitlines()) if journal.exists() else 0
    point = plan["points"][died] if died < len(plan["points"]) else None

    def die(place: str) -> None:
        with journal.open("a") as file:
            file.write(json.dumps({**point, "place": place}) + "\n")
        if point["everything"]:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    calls = Calls(point["room"], point["at"], die) if point and point["rank"] == rank else Calls()
    out = Path(plan["out"])
    chosen = from_mapping(Recipe, plan["recipe"], "made")
    calls.watch()
    train(chosen, out, resume=plan["resume"] and (out / "recipe.toml").exists())
    sys.setprofile(None)
    Path(f"{journal}-calls-{rank}").write_text(json.dumps(calls.counts))


# ---- its keeper ----------------------------------------------------------------------------------------------------


def started(plan: dict[str, Any], path: Path) -> int:
    """Run a plan under torchrun to its end or its death; returns how it ended."""
    path.write_text(json.dumps(plan))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--monitor-interval=0.05"]
    command += [f"--max-restarts={len(plan['points'])}", __file__, "--work", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT.parent)}
    with path.with_suffix(".log").open("a") as log:
        return subprocess.run([sys.executable, *command], env=environment, stdout=log, stderr=log).returncode


def bury(pids: Path) -> None:
    """Kill the workers that outlived their torchrun."""
    for pid in map(int, pids.read_text().split()):
        try:
            if __file__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def draw(chance: random.Random, count: int, each_step: list[dict[str, float]]) -> list[dict[str, Any]]:
    """So many points, from the calls of a mean step in each process."""
    points = []
    for number in range(count):
        rank, room = chance.randrange(2), chance.choice(list(ROOMS))
        at = chance.randint(1, round(REACH * each_step[rank][room]))
        points.append({"rank": rank, "room": room, "at": at, "everything": number % 4 == 3})
    return points


def survive(
    tokens: str, folder: Path, chance: random.Random, count: int, table: dict[str, Any], background: bool
) -> list[str]:
    """One run left alone and one that is killed `count` times: the places of death. Raises where they end otherwise."""
    from chatsmith.train.metrics import read_log

    steps = (REACH + 1) * count
    layers = 4 if table.get("schedule") == "interleaved" else 2  # it has two stages in each process
    settings = recipe(tokens, "gpt2", Layout("", 2, table, layers), schedule={"steps": steps})
    settings["checkpoint"] = {"steps": 2, "background": background}
    folder.mkdir()

    def plan(name: str, points: list[dict[str, Any]], resume: bool = False) -> dict[str, Any]:
        paths = {
            "out": str(folder / name),
            "journal": str(folder / f"{name}.died"),
            "pids": str(folder / f"{name}.pids"),
        }
        return {"recipe": settings, "points": points, "resume": resume, **paths}

    def log(name: str) -> str:
        return (folder / f"{name}.log").read_text()[-3000:]

    if started(plan("whole", []), folder / "whole.json"):
        raise AssertionError(log("whole"))
    each = [json.loads((folder / f"whole.died-calls-{rank}").read_text()) for rank in range(2)]
    points = draw(chance, count, [{room: calls / steps for room, calls in counts.items()} for counts in each])
    ended, journal = started(plan("killed", points), folder / "killed.json"), folder / "killed.died"
    while ended == -signal.SIGKILL:
        bury(folder / "killed.pids")
        ended = started(plan("killed", points, resume=True), folder / "killed.json")
    if ended:
        raise AssertionError(log("killed"))
    deaths = [json.loads(line)["place"] for line in journal.read_text().splitlines()]
    if len(deaths) != count:
        raise AssertionError(f"the run ended after {len(deaths)} of {count} deaths")
    logs = [
        [[record[key] for key in ("step", "loss", "gradient_norm", "tokens")] for record in read_log(folder / name)]
        for name in ("killed", "whole")
    ]
    if logs[0] != logs[1] or [record[0] for record in logs[0]] != list(range(1, steps + 1)):
        raise AssertionError(f"the logs differ: {logs[0]} {logs[1]}")
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    if weights[0] != weights[1]:
        raise AssertionError("the weights differ")
    return deaths


def main() -> None:
    """All runs, with a line for each; the exit code is 1 where one ended otherwise than it should have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(json.loads(Path(asked.work).read_text()))
        return
    if __package__:
        from .test_parity import written
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it
        from parallel.test_parity import written  # type: ignore[import-not-found,no-redef]
    chance, left, wrong, number = random.Random(asked.seed), asked.points, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        tokens = written(Path(scratch) / "data")
        while left:
            count, (table, background) = min(left, POINTS_OF_A_RUN), LAYOUTS[number % len(LAYOUTS)]
            named = f"{table or 'replicas'}{', background' if background else ''}"
            try:
                deaths = survive(tokens, Path(scratch) / f"run-{number}", chance, count, table, background)
                print(f"run {number} ({named}): the same end after {count} deaths", flush=True)
                for place in deaths:
                    print(f"    {place}", flush=True)
            except AssertionError as error:
                wrong += 1
                print(f"run {number} ({named}): WRONG: {error}", flush=True)
            left, number = left - count, number + 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
