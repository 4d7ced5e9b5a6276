"""A checkpoint is whole or not there: whatever kills the writer, and whatever happens to the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from chatsmith.errors import RequestError, WorkError
from chatsmith.store import state as module
from chatsmith.store import weights
from chatsmith.store.state import checkpoints, load_state, save_state


def tensors(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "weight": torch.randn(64, 16, generator=generator),
        "half": torch.randn(33, generator=generator).bfloat16(),
        "rng": generator.get_state(),
        "count": torch.tensor(step),
    }


def check(folder: Path, allowed: set[int]) -> int:
    """The newest checkpoint is one of `allowed` and holds exactly what was saved."""
    state = load_state(folder)
    assert state.step in allowed
    assert state.skipped == []
    assert state.meta == {"step": state.step, "position": [state.step, 0.1]}
    expected = tensors(state.step)
    assert state.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state.tensors[name].dtype == tensor.dtype
        assert torch.equal(state.tensors[name], tensor)
    return state.step


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return save_state(folder, step, tensors(step), {"step": step, "position": (step, 0.1)}, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state").iterdir())


def test_the_newest_is_read_and_only_so_many_are_kept(tmp_path: Path) -> None:
    for step in (1, 5, 30, 200):
        assert save(tmp_path, step) == tmp_path / "state" / f"step-{step:08d}"
        check(tmp_path, {step})
    assert names(tmp_path) == ["step-00000030", "step-00000200"]


def test_checksums_are_in_the_form_of_sha256sum(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    command = shutil.which("sha256sum")
    if command is None:
        pytest.skip("no sha256sum on this machine")
    subprocess.run([command, "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)


class Killed(BaseException):
    """The process is gone: no handler may do anything more to the disk."""


class Disk:
    """Counts the steps that change the disk, and stops the process, or fills the disk, at a chosen one."""

    STEPS = ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "chmod")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int, full: bool = False) -> None:
        self.left, self.full, self.dead = stop_at, full, False
        for name in self.STEPS:
            monkeypatch.setattr(os, name, self.guard(getattr(os, name)))
        monkeypatch.setattr(weights, "save_file", self.guard(safetensors.torch.save_file, self.half_a_file))

    def guard(self, real: Callable[..., Any], partly: Callable[..., None] | None = None) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.dead or (self.left < 0 and not self.full):
                if partly is not None and not self.dead:
                    partly(*args)
                self.dead = True
                raise Killed
            if self.full and self.left < 0 and real.__name__ in ("fsync", "mkdir", "save_file"):
                if partly is not None:
                    partly(*args)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **options)

        return step

    @staticmethod
    def half_a_file(_: object, path: Path, *__: object) -> None:
        Path(path).write_bytes(b"half a file")


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step again"])
def test_killed_at_any_step_the_old_or_the_new_checkpoint_is_whole(keep: int, again: bool, tmp_path: Path) -> None:
    """A sweep: the write is stopped at its first change to the disk, its second, … until it gets through."""
    for stop_at in range(100):
        folder = tmp_path / str(stop_at)
        for step in (1, 2, 3):
            save(folder, step, keep)
        following = 3 if again else 4
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, stop_at)
            try:
                save(folder, following, keep)
                finished = True
            except Killed:
                finished = False
        check(folder, {following} if finished else {3, following})
        save(folder, 5, keep)
        check(folder, {5})
        assert [name for name in names(folder) if not name.startswith("step-")] == []
        assert len(names(folder)) == keep
        if finished:
            assert stop_at > 10
            return
    raise AssertionError("the write never got through")


def test_a_disk_that_fills_at_any_step_loses_nothing(tmp_path: Path) -> None:
    for stop_at in range(12):
        folder = tmp_path / str(stop_at)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, stop_at, full=True)
            # From the last sync on the checkpoint is there, and nothing needs room any more.
            with suppress(WorkError) if stop_at > 8 else pytest.raises(WorkError, match="the disk is full"):
                save(folder, 2)
        check(folder, {1, 2})
        save(folder, 3)
        check(folder, {3})


@pytest.mark.parametrize("nbytes", [10, 200, 5000])
def test_files_that_may_not_grow_leave_the_old_checkpoint(
    nbytes: int, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    save(tmp_path, 1)
    with pytest.raises(WorkError, match=r"could not write .*untouched"), file_size_limit(nbytes):
        save(tmp_path, 2)
    check(tmp_path, {1})
    assert names(tmp_path) == ["step-00000001"]


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_state import check, save
from chatsmith.store.state import checkpoints
folder = Path(sys.argv[1])
step = check(folder, set(range(10**6))) if checkpoints(folder) else 0
print("ready", flush=True)
while True:
    step += 1
    save(folder, step)
    print(step, flush=True)
"""


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(0)
    reached = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            for _ in range(2):
                writer.stdout.readline()  # whatever the disk is like, something is written
            time.sleep(0.2 * chance.random())
            writer.send_signal(signal.SIGKILL)
        if reached or checkpoints(tmp_path):
            reached = check(tmp_path, set(range(reached, 10**6)))
    assert reached > 3


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bit in a tensor": lambda folder: flip(folder / "tensors.safetensors", -5),
    "bit in the header": lambda folder: flip(folder / "tensors.safetensors", 20),
    "bit in the counters": lambda folder: flip(folder / "meta.json", 12),
    "bit in the checksums": lambda folder: flip(folder / "SHA256SUMS", 3),
    "tensors cut short": lambda folder: os.truncate(folder / "tensors.safetensors", 100),
    "tensors gone": lambda folder: (folder / "tensors.safetensors").unlink(),
    "checksums gone": lambda folder: (folder / "SHA256SUMS").unlink(),
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(newest)
    state = load_state(tmp_path)
    assert state.step == 1
    assert len(state.skipped) == 1
    assert str(newest) in state.skipped[0]
    assert "\n" not in state.skipped[0]
    # The run goes on from step 1; the damaged later step does not push the new one out.
    save(tmp_path, 2 if damage is DAMAGE["empty folder"] else 1, keep=1)
    assert load_state(tmp_path).skipped == []
    assert len(names(tmp_path)) == 1


def test_when_all_are_damaged_or_none_is_there_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no checkpoint") as nothing:
        load_state(tmp_path)
    assert "--resume" in (nothing.value.hint or "")
    for step in (1, 2):
        flip(save(tmp_path, step) / "meta.json", 5)
    with pytest.raises(WorkError, match=r"every checkpoint .* is damaged") as caught:
        load_state(tmp_path)
    assert "step-00000001" in caught.value.message
    assert "step-00000002" in caught.value.message


def test_meta_that_json_cannot_hold_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(TypeError):
        save_state(tmp_path, 2, tensors(2), {"set": {1, 2}})
    check(tmp_path, {1})
    assert names(tmp_path) == ["step-00000001"]


def test_numbers_in_meta_come_back_exactly(tmp_path: Path) -> None:
    meta = {"seed": 2**127 - 1, "loss": 0.1 + 0.2, "best": float("inf"), "text": "é\u2028\U0001f600"}
    save_state(tmp_path, 7, {}, meta)
    state = load_state(tmp_path)
    assert state.meta == meta
    assert state.tensors == {}
    assert json.loads((state.path / module.META).read_text())["step"] == 7


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (5, 0), (10**12, 1)])
def test_senseless_requests_are_refused(step: int, keep: int, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        save_state(tmp_path, step, {}, {}, keep)
