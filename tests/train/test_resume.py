"""Killed at any moment and resumed, a run ends with the same bits; and a resumed run is the same run or none."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError, WorkError
from chatsmith.store import state
from chatsmith.store.folder import load_model
from chatsmith.store.state import checkpoints
from chatsmith.text.shards import TokenFolder
from chatsmith.train.callbacks import Callback, Compared, Moment, RunStart
from chatsmith.train.metrics import read_log
from chatsmith.train.recipe import Recipe, load_recipe
from chatsmith.train.run import train
from patience import PATIENCE

from .conftest import TinyRecipe

SCRIPT = Path(__file__).with_name("killed.py")
STEPS = 60


@pytest.fixture
def recipe(tiny: TinyRecipe, chain: TokenFolder) -> Recipe:
    """Everything that has state: stages, a ramp, accumulation, dropout, evaluations, both optimizers."""
    source = {"path": str(chain.folder)}
    return tiny(
        data={
            "sources": [source, source],
            "stages": [{"until": 0.5, "weights": [1, 0]}, {"until": 1.0, "weights": [1, 2]}],
        },
        model={"dropout": 0.1},
        batch={"micro_batch": 4, "accumulation": 3, "ramp_start": 0.4, "ramp_until": 0.6},
        schedule={"steps": STEPS},
        checkpoint={"steps": 7},
        evaluation={"times": 5, "tokens": 512},
    )


def bits(folder: Path) -> str:
    """A digest of the weights of a model folder as they lie on disk: bytes that differ take pytest minutes to show."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def losses(folder: Path) -> list[tuple[int, float, float | None]]:
    """Each step of the log with its loss and its held-out loss."""
    return [(record["step"], record["loss"], record.get("held_out_loss")) for record in read_log(folder)]


def start(recipe: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(recipe), str(out), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def test_killed_at_any_moment_the_bits_are_the_same(recipe: Recipe, tmp_path: Path) -> None:
    """In the middle of checkpoints and of the model folder, and at moments no one chose."""
    train(recipe, tmp_path / "whole")
    path, out = tmp_path / "recipe.toml", tmp_path / "out"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert finish(start(path, out, "kill", "1", "tensors")) == -signal.SIGKILL
    assert not checkpoints(out)  # killed before there was one: the run begins again
    for number, place in ((2, "rename"), (2, "model"), (3, "tensors")):
        assert finish(start(path, out, "resume", "kill", str(number), place)) == -signal.SIGKILL
        assert checkpoints(out)
    chance = random.Random(7)
    for _ in range(3):
        process = start(path, out, "resume")
        reached = _steps(out)
        deadline = time.monotonic() + PATIENCE
        while _steps(out) <= reached and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.1))
        process.kill()
        finish(process)
    assert finish(start(path, out, "resume")) == 0
    assert bits(out) == bits(tmp_path / "whole")
    assert losses(out) == losses(tmp_path / "whole")


def test_a_run_killed_before_its_last_model_folder_still_owes_it(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "whole")
    path, out = tmp_path / "recipe.toml", tmp_path / "out"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    last = -(-STEPS // recipe.checkpoint.steps)  # every seventh step and the last have a checkpoint and a folder
    assert finish(start(path, out, "kill", str(last), "model")) == -signal.SIGKILL
    assert _steps(out) == STEPS
    assert finish(start(path, out, "resume")) == 0
    assert bits(out) == bits(tmp_path / "whole")


def _steps(out: Path) -> int:
    """The newest step that a checkpoint holds."""
    found = checkpoints(out)
    return int(found[0].name.removeprefix("step-")) if found else 0


class StopAt(Callback):
    """Ends a run after a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.notes: list[str] = []

    def on_step(self, moment: Moment) -> None:
        if moment.record.step == self.step:
            signal.raise_signal(signal.SIGINT)

    def on_note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_interrupted_at_any_step_the_bits_are_the_same(
    recipe: Recipe, tmp_path: Path, optimizer: Any, compute: Any
) -> None:
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, name=optimizer))
    recipe = replace(
        recipe, precision=replace(recipe.precision, compute=compute), schedule=replace(recipe.schedule, steps=20)
    )
    train(recipe, tmp_path / "whole")
    stop = random.Random(optimizer + compute).randrange(1, 20)
    outcome = train(recipe, tmp_path / "out", callbacks=[StopAt(stop)])
    assert (outcome.steps, outcome.stopped) == (stop, "SIGINT")
    train(recipe, tmp_path / "out", resume=True)
    assert bits(tmp_path / "out") == bits(tmp_path / "whole")
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "out", callbacks=[StopAt(23)])
    newest = checkpoints(tmp_path / "out")[0] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(data)
    watch = StopAt(0)
    train(None, tmp_path / "out", resume=True, callbacks=[watch])
    assert any("step-00000023" in note and "going on from step 21" in note for note in watch.notes)
    assert bits(tmp_path / "out") == bits(tmp_path / "whole")


def test_a_full_disk_loses_nothing(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before stays; with space again, the run goes on to the same bits."""
    train(recipe, tmp_path / "whole")
    real, calls = state.write_tensors, count(1)

    def full(path: Path, tensors: Any) -> None:
        if next(calls) == 3:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, tensors)

    monkeypatch.setattr(state, "write_tensors", full)
    with pytest.raises(WorkError, match="disk is full") as caught:
        train(recipe, tmp_path / "out")
    assert caught.value.hint == f"free some space and go on: chatsmith train --resume {tmp_path / 'out'}"
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["step-00000014", "step-00000007"]
    assert load_model(tmp_path / "out").provenance["run"]["steps"] == 14
    train(None, tmp_path / "out", resume=True)
    assert bits(tmp_path / "out") == bits(tmp_path / "whole")


def test_resume_refuses_another_run(recipe: Recipe, tmp_path: Path, chain: TokenFolder) -> None:
    train(recipe, tmp_path / "out", callbacks=[StopAt(10)])
    other = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=0.1))
    with pytest.raises(RequestError, match=r"cannot resume: optimizer\.learning_rate is 0\.1"):
        train(other, tmp_path / "out", resume=True)
    with pytest.raises(RequestError, match="no checkpoint"):
        train(recipe, tmp_path / "empty", resume=True)
    meta = next(iter(checkpoints(tmp_path / "out"))) / "meta.json"
    assert json.loads(meta.read_text())["meta"]["counters"]["step"] == 10


def test_the_recorded_recipe_resumes_too(tiny: TinyRecipe, tmp_path: Path) -> None:
    """chatsmith.toml says what the machine decided; it is still the same run."""
    recipe = replace(tiny(precision={"compute": "auto"}), threads=0)
    train(recipe, tmp_path / "out", callbacks=[StopAt(5)])
    recorded = load_recipe(tmp_path / "out" / "chatsmith.toml")
    assert recorded.threads > 0
    assert recorded.precision.compute in ("float32", "bfloat16")
    assert train(recorded, tmp_path / "out", resume=True).steps == 20


def test_stopped_before_the_first_step_there_is_a_model(tiny: TinyRecipe, tmp_path: Path) -> None:
    class StopAtOnce(Callback):
        def on_start(self, start: RunStart) -> None:
            signal.raise_signal(signal.SIGINT)

    outcome = train(tiny(), tmp_path / "out", callbacks=[StopAtOnce()])
    assert (outcome.steps, outcome.stopped) == (0, "SIGINT")
    assert load_model(tmp_path / "out").provenance["run"]["finished"] is False
    assert train(None, tmp_path / "out", resume=True).steps == 20


def test_a_longer_schedule_goes_on_from_where_it_stands(tiny: TinyRecipe, tmp_path: Path) -> None:
    """Asked for in so many words; progress is continuous, and the learning rate does not jump."""
    short = tiny(schedule={"steps": 20}, checkpoint={"steps": 5})
    train(short, tmp_path / "out", callbacks=[StopAt(10)])
    outcome = train(replace(short, schedule=replace(short.schedule, steps=40)), tmp_path / "out", resume=True)
    assert outcome.steps == 40
    progress = [record["progress"] for record in read_log(tmp_path / "out")]
    assert progress[9] == pytest.approx(0.5)
    assert progress[10] == pytest.approx(0.5 + 0.5 / 30)
    assert progress[-1] == 1.0


def test_a_finished_run_made_longer_learns_on_and_can_be_repeated(tiny: TinyRecipe, tmp_path: Path) -> None:
    out, short = tmp_path / "out", tiny(schedule={"steps": 20})
    train(short, out)
    outcome = train(replace(short, schedule=replace(short.schedule, steps=40)), out, resume=True)
    rates = [record["learning_rate"] for record in read_log(out)]
    assert rates[20] == pytest.approx(rates[3] * (1 - 20.5 / 40) / (1 - 3.5 / 20))  # where a run of 40 steps would be
    assert min(rates[20:]) > 0
    assert outcome.recipe.schedule.replans == ((0, 20), (20, 40))
    train(load_recipe(out / "chatsmith.toml"), tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_finished_run_is_given_more_minutes(tiny: TinyRecipe, tmp_path: Path) -> None:
    out, short = tmp_path / "out", tiny(schedule={"minutes": 0.02})
    steps = train(short, out, clock=Clock([1.0], 1.2)).steps
    assert train(short, out, resume=True, clock=Clock([1.0], 1.2)).steps == steps
    longer = replace(short, schedule=replace(short.schedule, minutes=0.06))
    assert train(longer, out, resume=True, clock=Clock([1.0], 3.6)).steps > steps
    assert all(record["learning_rate"] > 0 for record in read_log(out))


@pytest.mark.parametrize("stop", [12, 40])
def test_a_run_made_longer_is_resumed_plainly(tiny: TinyRecipe, tmp_path: Path, stop: int) -> None:
    """Stopped on its longer way, or at its end; recipe.toml says what it was last asked for."""
    out, short = tmp_path / "out", tiny(schedule={"steps": 20}, checkpoint={"steps": 5})
    train(short, out, callbacks=[StopAt(10)])
    longer = replace(short, schedule=replace(short.schedule, steps=40))
    assert train(longer, out, resume=True, callbacks=[StopAt(stop)]).steps == stop
    assert load_recipe(out / "recipe.toml") == longer
    assert train(load_recipe(out / "recipe.toml"), out, resume=True).steps == 40


def test_a_resumption_refused_leaves_the_recipe(tiny: TinyRecipe, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tiny()
    train(recipe, out, callbacks=[StopAt(10)])
    before = (out / "recipe.toml").read_bytes()
    with pytest.raises(RequestError, match="cannot resume"):
        train(replace(recipe, seed=9), out, resume=True)
    assert (out / "recipe.toml").read_bytes() == before


class Clock:
    """A machine with a speed: each look at the clock while a step runs costs what the step costs."""

    def __init__(self, speeds: list[float], budget: float) -> None:
        self.now, self.speeds, self.budget = 0.0, speeds, budget

    def __call__(self) -> float:
        # Two looks bracket a step, so a look costs half a step of 20 ms at speed 1.
        speed = self.speeds[min(len(self.speeds) - 1, int(self.now / self.budget * len(self.speeds)))]
        self.now += 0.005 / speed
        return self.now


@pytest.mark.parametrize("speeds", [[1.0, 2.0, 1.0], [2.0, 2.0, 2.0, 1.0]])
def test_a_budget_is_kept_and_its_plans_repeat_the_run(tiny: TinyRecipe, tmp_path: Path, speeds: list[float]) -> None:
    recipe = tiny(schedule={"minutes": 0.1, "warmup": 0.1}, evaluation={"times": 3, "tokens": 256})
    clock = Clock(speeds, 6.0)
    outcome = train(recipe, tmp_path / "out", clock=clock)
    assert outcome.seconds == pytest.approx(6.0, rel=0.1)
    recorded = load_recipe(tmp_path / "out" / "chatsmith.toml")
    assert recorded == outcome.recipe
    assert 10 <= len(recorded.schedule.replans) <= 60
    again = train(recorded, tmp_path / "again", clock=lambda: 0.0)
    assert again.steps == outcome.steps
    assert bits(tmp_path / "again") == bits(tmp_path / "out")
    assert losses(tmp_path / "again") == losses(tmp_path / "out")


@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_run_is_compared_where_it_began_so(began: bool, recipe: Recipe, tmp_path: Path) -> None:
    """What `chatsmith new` began ends with compressors on its card, also where `chatsmith train --resume` ends it."""
    asked: list[str] = []

    def comparison(tokens: TokenFolder, _: object) -> Callable[[object], Compared]:
        asked.append(tokens.name)
        return lambda model: Compared(1.0, 2.0, 3.0)

    train(recipe, tmp_path / "out", comparer=comparison if began else None, callbacks=[StopAt(5)])
    assert not asked  # the run is not at its end
    train(None, tmp_path / "out", resume=True, comparer=comparison)
    told = load_model(tmp_path / "out").provenance["run"].get("compared")
    if not began:
        assert (asked, told) == ([], None)
        return
    assert len(asked) == 1
    assert told == {"bits_per_byte": 1.0, "gzip_bits_per_byte": 2.0, "xz_bits_per_byte": 3.0}
    assert "gzip" in (tmp_path / "out" / "README.md").read_text()
