"""The log: a line per step, whole lines only, read back whatever happened to its end."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import MissingExtra, RequestError, WorkError
from chatsmith.train.callbacks import Moment, Outcome, RunStart
from chatsmith.train.metrics import LogWriter, StepRecord, read_log


def record(step: int, **changes: object) -> StepRecord:
    values: dict[str, object] = dict(
        step=step, loss=2.0 / step, learning_rate=1e-3, gradient_norm=1.0, tokens=64 * step, tokens_per_second=1e4,
        memory=10**8, seconds=0.02 * step, progress=step / 100, rows=2,
    )  # fmt: skip
    return StepRecord(**(values | changes))  # type: ignore[arg-type]


def write(folder: Path, steps: range, keep: int = 0) -> None:
    log = LogWriter(folder, keep)
    for step in steps:
        log.write(record(step))
    log.close()


def test_written_and_read(tmp_path: Path) -> None:
    log = LogWriter(tmp_path)
    log.write(record(1))
    log.write(record(2, held_out_loss=1.5, bits_per_byte=0.7, held_out={"a": 1.0, "b": 2.0}, share_of_peak=0.5))
    log.write(record(3, loss=math.nan, gradient_norm=math.inf, skipped=True))
    log.close()
    first, second, third = read_log(tmp_path)
    assert first["loss"] == 2.0
    assert not {"held_out_loss", "bits_per_byte", "held_out", "skipped"} & first.keys()
    assert (second["bits_per_byte"], second["held_out"], second["share_of_peak"]) == (0.7, {"a": 1.0, "b": 2.0}, 0.5)
    assert (third["loss"], third["gradient_norm"], third["skipped"]) == (None, None, True)


@given(cut=st.integers(0, 400))
def test_a_cut_last_line_is_dropped(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A kill may leave any beginning of a write; what is whole is read, and a resumed run goes on cleanly."""
    folder = tmp_path_factory.mktemp("log")
    write(folder, range(1, 6))
    path = folder / "log.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    left = read_log(folder)
    assert [r["step"] for r in left] == list(range(1, 1 + whole[: len(whole) - cut].count(b"\n")))
    keep = len(left)
    write(folder, range(keep + 1, 6), keep)
    assert path.read_bytes() == whole


def test_resuming_says_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, range(1, 10))
    write(tmp_path, range(6, 12), keep=5)
    assert [r["step"] for r in read_log(tmp_path)] == list(range(1, 12))


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    path = tmp_path / "log.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
    with pytest.raises(WorkError, match="line 2 is damaged"):
        read_log(tmp_path)
    with pytest.raises(RequestError, match=r"no log\.jsonl"):
        read_log(tmp_path / "nowhere")


def test_a_line_costs_next_to_nothing(tmp_path: Path) -> None:
    """Below 1% of a step of 20 ms, with the file system's share."""
    log = LogWriter(tmp_path)
    began = time.process_time()
    for step in range(1, 2001):
        log.write(record(step))
    log.close()
    assert (time.process_time() - began) / 2000 < 200e-6
    assert len(read_log(tmp_path)) == 2000


def test_lines_are_json_of_seven_digits(tmp_path: Path) -> None:
    line = record(3).to_line()
    assert json.loads(line)["loss"] == 0.6666667
    assert "\n" not in line


@pytest.mark.skipif(util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_tensorboard_names_its_extra(tmp_path: Path) -> None:
    from chatsmith.train.tensorboard import TensorBoard

    with pytest.raises(MissingExtra, match="tensorboard") as caught:
        TensorBoard(tmp_path)
    assert caught.value.hint == 'pip install "chatsmith[track]"'


class Figures:
    """Stands for TensorBoard's writer: a file a run, and what it was told."""

    made: ClassVar[list[Figures]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.purge_step, self.closed, self.steps = purge_step, False, set[int]()
        self.path = Path(folder) / f"events.out.tfevents.{len(self.made)}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.steps.add(step)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_tensorboard_keeps_the_figures_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Figures))
    monkeypatch.setattr(Figures, "made", [])
    from chatsmith.train.tensorboard import TensorBoard

    def run(steps: range) -> Figures:
        callback = TensorBoard(tmp_path)
        unstarted = len(Figures.made)
        callback.on_checkpoint(tmp_path)  # nothing is touched before the run begins
        assert len(Figures.made) == unstarted
        start = SimpleNamespace(first_step=steps.start - 1)
        callback.on_start(cast(RunStart, start))
        for step in steps:
            callback.on_step(Moment(record(step), 9, None))
        callback.on_end(cast(Outcome, None))
        return Figures.made[-1]

    first, again = run(range(1, 4)), run(range(3, 6))
    assert first.closed
    assert (first.purge_step, again.purge_step) == (1, 3)  # TensorBoard passes over what the first said of steps from 3
    assert again.steps == {3, 4, 5}
    assert first.path.exists()
    replaced = run(range(1, 3))
    assert list(tmp_path.iterdir()) == [replaced.path]


def test_tensorboard_shows_the_run_that_is_there(tmp_path: Path) -> None:
    """Not the one it replaced, nor steps behind the checkpoint that it went on from, nor one that never began."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from chatsmith.train.tensorboard import TensorBoard

    folder = tmp_path / "tensorboard"
    TensorBoard(folder)
    assert not folder.exists()

    def train(first_step: int, steps: Iterable[int]) -> None:
        board = TensorBoard(folder)
        board.on_start(cast("RunStart", SimpleNamespace(first_step=first_step)))
        for step in steps:
            board.on_step(Moment(record(step), 9, 0.0))
        board.on_checkpoint(tmp_path)

    train(0, range(1, 8))
    train(0, range(1, 5))
    train(2, range(3, 4))
    shown = events.EventAccumulator(str(folder)).Reload()
    assert [event.step for event in shown.Scalars("loss/training")] == [1, 2, 3]
