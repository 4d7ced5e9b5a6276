"""A new run touches nothing of the one that its folder holds until it can train itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError
from chatsmith.train import beginning, data, run
from chatsmith.train.callbacks import Callback, RunStart
from chatsmith.train.recipe import Recipe, load_recipe
from chatsmith.train.run import train

from .conftest import TinyRecipe, chain_text


@pytest.fixture
def recipe(tiny: TinyRecipe, tmp_path: Path) -> Recipe:
    """A run over one file of text, with tokens of its own."""
    (tmp_path / "text.txt").write_text(" ".join(chain_text(6, word) for word in range(300)), encoding="utf-8")
    return tiny(data={"sources": [{"path": str(tmp_path / "text.txt")}], "vocab_size": 261})


@pytest.fixture
def out(recipe: Recipe, tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    train(recipe, tmp_path / "out")
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def other(recipe: Recipe, path: Path) -> Recipe:
    """The same run over another source."""
    return replace(recipe, data=replace(recipe.data, sources=(replace(recipe.data.sources[0], path=str(path)),)))


def test_a_run_takes_its_folder_over(recipe: Recipe, out: Path) -> None:
    (out / "mine.txt").write_text("stays")
    train(replace(recipe, schedule=replace(recipe.schedule, steps=7)), out, overwrite=True)
    assert [path.name for path in (out / "state").iterdir()] == ["step-00000007"]
    assert len((out / "log.jsonl").read_text().splitlines()) == 7
    assert load_recipe(out / "recipe.toml").schedule.steps == 7
    assert (out / "mine.txt").read_text() == "stays"
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_run_does_not_replace_the_model_it_starts_from(recipe: Recipe, out: Path) -> None:
    before = contents(out)
    further = replace(recipe, data=replace(recipe.data, vocab_size=None), model={"start_from": str(out)})
    with pytest.raises(RequestError, match=r"would replace .* which it starts from"):
        train(further, out.parent / "other" / ".." / "out", overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json"])
def test_what_lies_in_the_folder_is_not_replaced(recipe: Recipe, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / name).write_text("my own")
    before = contents(mine)
    with pytest.raises(RequestError, match=f"mine holds a {name} of yours"):
        train(recipe, mine)
    assert contents(mine) == before
    train(recipe, mine, overwrite=True)  # as asked for


def test_a_request_that_cannot_be_met_changes_nothing(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    before = contents(out)
    (tmp_path / "short.txt").write_text("short text")
    for path, message in (
        (tmp_path / "nope.txt", "does not exist"),
        (tmp_path / "short.txt", "too few for one window"),
    ):
        with pytest.raises(RequestError, match=message):
            train(other(recipe, path), out, overwrite=True)
        assert contents(out) == before
    with pytest.raises(RequestError, match="already holds"):
        train(recipe, out)
    assert contents(out) == before


def test_tokens_that_would_be_overwritten_are_no_source(recipe: Recipe, out: Path) -> None:
    before, tokens = contents(out), out / "tokens"
    own = other(recipe, tokens / "0")
    own = replace(own, data=replace(own.data, vocab_size=None, tokenizer=str(tokens)))
    with pytest.raises(RequestError, match="lies in the folder that the tokens of this run are written to"):
        train(own, out, overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("place", ["write_corpus", "_model"])
def test_an_interruption_before_training_changes_nothing(
    recipe: Recipe, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = contents(out)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data if place == "write_corpus" else run, place, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, overwrite=True)
    assert contents(out) == before
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_killed_before_the_exchange_it_has_changed_nothing(recipe: Recipe, out: Path) -> None:
    before = (out / "recipe.toml").read_bytes(), contents(out / "tokens"), contents(out / "state")
    (out / ".beginning" / "tokens").mkdir(parents=True)
    (out / ".beginning" / "recipe.toml").write_text("half")
    train(recipe, out, resume=True)
    assert ((out / "recipe.toml").read_bytes(), contents(out / "tokens"), contents(out / "state")) == before
    assert not (out / ".beginning").exists()


@pytest.mark.parametrize("done", range(5))
def test_killed_in_the_exchange_it_is_finished(recipe: Recipe, out: Path, tmp_path: Path, done: int) -> None:
    """After each of its parts, and whatever is asked for next."""
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=9))
    train(longer, tmp_path / "next")
    begun = out / ".begun"
    begun.mkdir()
    os.rename(tmp_path / "next" / "tokens", begun / "tokens")
    os.rename(tmp_path / "next" / "recipe.toml", begun / "recipe.toml")
    steps = (
        lambda: os.replace(begun / "recipe.toml", out / "recipe.toml"),
        lambda: shutil.rmtree(out / "state"),
        lambda: (out / "log.jsonl").unlink(),
        lambda: shutil.rmtree(out / "tokens"),
    )
    for step in steps[:done]:
        step()
    with pytest.raises(RequestError, match="already holds"):
        beginning.check_free(out, overwrite=False)
    assert train(None, out, resume=True).steps == 9
    assert not begun.exists()
    assert len((out / "log.jsonl").read_text().splitlines()) == 9


def test_started_anew_by_torchrun_it_begins_what_had_not_begun(
    recipe: Recipe, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on with what had: the run that was to be overwritten is taken for neither, whenever a process died."""
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=25))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "before")
    train(recipe, out, overwrite=True)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(RequestError, match="already holds"):  # not told to replace it
        train(recipe, out)
    notes = Notes()
    train(longer, out, overwrite=True, callbacks=[notes])
    assert (notes.first_step, notes.total_steps) == (0, 25)
    train(longer, out, overwrite=True, callbacks=[notes])
    assert notes.first_step == 25


@pytest.mark.parametrize("done", ["nothing", "renamed"])
def test_a_launch_of_the_same_name_is_not_taken_for_one_that_was_begun(
    recipe: Recipe, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: str
) -> None:
    """As soon as it prepares a run; and that one is its own from the renaming on."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    train(recipe, out, overwrite=True)
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=25))

    def killed(*_: Any) -> None:
        if done == "renamed":
            os.rename(out / ".beginning", out / ".begun")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "take_over", killed)
    with pytest.raises(KeyboardInterrupt):
        train(longer, out, overwrite=True)
    assert beginning.begun_by(out, "one") == (done == "renamed")
    assert not beginning.begun_by(out, "two")
    beginning.finish(out)
    assert beginning.begun_by(out, "one") == (done == "renamed")


class Notes(Callback):
    """Where a run began."""

    first_step = total_steps = -1

    def on_start(self, start: RunStart) -> None:
        self.first_step, self.total_steps = start.first_step, start.total_steps


HOLDER = """
import sys
from pathlib import Path
from chatsmith.train import beginning
with getattr(beginning, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_begin_in_one_folder(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "beginning", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match="another process is beginning a run"):
            train(recipe, folder)
        assert (folder / ".beginning").is_dir()
        holder.kill()
    train(recipe, folder)
    assert not (folder / ".beginning").exists()


def test_two_processes_do_not_train_in_one_folder(recipe: Recipe, out: Path) -> None:
    """Neither to go on with a run that is going on, nor to begin another in its place."""
    before = contents(out)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "alone_in", str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for how in ("resume", "overwrite"):
            with pytest.raises(RequestError, match="another process is training in"):
                train(recipe, out, **{how: True})
        assert contents(out) == before
        holder.kill()
    train(recipe, out, resume=True)
