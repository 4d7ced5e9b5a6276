"""Training as it is watched: the same figures in a live picture and in plain lines."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chatsmith.cli import progress
from chatsmith.specs import modern
from chatsmith.train.callbacks import Moment, Outcome, RunStart
from chatsmith.train.metrics import StepRecord
from chatsmith.train.recipe import Data, Recipe, Schedule, Source

SPEC = modern(1024, 128, 64, 2, 2)
RECIPE = Recipe(
    data=Data(sources=(Source("world"),)),
    schedule=Schedule(steps=100),
    model={"preset": "modern", "width": 64, "layers": 2, "heads": 2},
)
RECORD = StepRecord(
    step=10, loss=2.5, learning_rate=1e-3, gradient_norm=1.0, tokens=10240, tokens_per_second=12345.6, memory=10**9,
    seconds=8.0, progress=0.1, rows=16, share_of_peak=0.61,
)  # fmt: skip


def start(**changes: object) -> RunStart:
    values = dict(recipe=RECIPE, spec=SPEC, folder=Path("out"), first_step=0, total_steps=100)
    return RunStart(**(values | {"total_estimated": False, "peak_flops": 1e11} | changes))  # type: ignore[arg-type]


def outcome(**changes: object) -> Outcome:
    values = dict(folder=Path("out"), recipe=RECIPE, steps=100, tokens=102400, seconds=80.0, loss=1.5)
    values |= dict(held_out_loss=1.6, bits_per_byte=0.9, skipped_steps=0, stopped=None)
    return Outcome(**(values | changes))  # type: ignore[arg-type]


def run(view: progress.PlainView | progress.LiveView) -> None:
    view.on_start(start())
    view.on_note("the newest checkpoint is damaged")
    view.on_step(Moment(RECORD, 100, 72.0))
    view.on_sample(10, [("Once", " upon\na \x1b[31mtime")])
    view.on_sample(20, [("Once", " there was")])
    view.on_step(Moment(replace(RECORD, step=100, loss=1.5, bits_per_byte=0.9, progress=1.0), 100, 0.0))
    view.on_end(outcome())


def test_plain_lines_hold_everything_and_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    run(progress.PlainView(every=0.0))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("training ")
    assert f"{SPEC.parameters:,} parameters" in lines[0]
    assert "the newest checkpoint is damaged" in lines
    assert "step 10 of 100 (10%), 1 min 12 s left: loss 2.500, 12,346 tokens/s, 61% of this machine's peak" in lines
    assert "  sample at step 10: Once upon a ␛[31mtime" in lines
    assert any("0.900 bits per byte held out" in line for line in lines)
    assert lines[-1].startswith("trained 100 steps, 102,400 tokens in 1 min 20 s: loss 1.500, held-out loss 1.600")


def test_plain_lines_come_every_few_seconds_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    view = progress.PlainView(every=3600)
    for step in range(1, 101):
        view.on_step(Moment(replace(RECORD, step=step), 100, None))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["step 1 of 100", "step 100 of 100"]


def test_the_picture_shows_bar_figures_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, legacy_windows=False, highlight=False)
    monkeypatch.setattr(progress, "err", lambda: console)
    run(progress.LiveView())
    text = screen.getvalue()
    for wanted in (
        "step 10 of 100 (10%), 1 min 12 s left",
        "loss 2.500",
        "61% of this machine's peak",
        "━",
        "there was",
    ):
        assert wanted in text
    assert "\x1b[31mtime" not in text


def test_a_resumed_or_stopped_run_says_so() -> None:
    assert "going on from step 40 of 100 steps" in progress.opening(start(first_step=40))
    assert "about 100 steps" in progress.opening(start(total_estimated=True))
    assert progress.closing(outcome(stopped="SIGINT", bits_per_byte=None)).startswith(
        "stopped (SIGINT) after 100 steps"
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200), st.integers(1, 50))
def test_a_sparkline_has_its_width(values: list[float], width: int) -> None:
    assert len(progress.sparkline(values, width)) == min(width, len(values))


def test_a_falling_loss_falls() -> None:
    assert progress.sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert progress.sparkline([1.0]) == ""
    assert progress.sparkline([1.0, float("nan"), 2.0, float("inf")]) == "▁█"
