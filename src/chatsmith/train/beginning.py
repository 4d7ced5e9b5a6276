"""A new run takes its folder over when it can train, and not before.

out/.beginning/    the recipe and the tokens of a run that is being prepared
out/.begun/        the same, renamed in one step: the folder is the new run's, and what the old one left in it goes

A process killed before the rename has changed nothing; what one killed after it left undone, the next one finishes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chatsmith.errors import RequestError
from chatsmith.paths import atomic_write, locked, sync_dir
from chatsmith.store.saving import check_others, holds_model
from chatsmith.store.state import STATE
from chatsmith.train.data import TOKENS
from chatsmith.train.metrics import LOG
from chatsmith.train.recipe import Recipe

RECIPE = "recipe.toml"
BEGINNING, _BEGUN = ".beginning", ".begun"
_LAUNCH = ".launch"  # which launch of several processes the run was begun by


def check_free(out: Path, overwrite: bool, start_from: str | None = None) -> None:
    """Raise `RequestError` unless a new run may use the folder `out`: it is no file, and holds no model, no run,
    and nothing that they would replace; with `overwrite`, at least not the model in `start_from`."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file, not a folder", "choose another folder")
    held = out.is_dir() and (holds_model(out) or any((out / name).exists() for name in (STATE, LOG, RECIPE, _BEGUN)))
    if held and not overwrite:
        raise RequestError(
            f"{out} already holds a model or a training run",
            f"go on with it: chatsmith train --resume {out}; or choose another folder",
        )
    if not overwrite:
        check_others(out)
    if start_from is not None and out.resolve() == Path(start_from).resolve():
        # Its recipe could not be repeated, and the first model would be lost.
        raise RequestError(f"the run would replace {start_from}, which it starts from", "choose another folder: --out")


@contextmanager
def beginning(out: Path) -> Iterator[Path]:
    """An empty folder in `out` to prepare a run in; if it has not taken over when the block is left, it goes.

    Raises `RequestError` where `out` cannot be written to, or another process prepares a run there.
    """
    place = out / BEGINNING
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"cannot write to {out}: {error.strerror}", "choose another folder") from error
    own = _identity(place)
    with locked(place) as alone:
        if alone is False or _identity(place) != own:
            raise RequestError(f"another process is beginning a run in {out}", "choose another folder")
        _clear(place)
        try:
            yield place
        finally:
            if _identity(place) == own:  # else it has taken over, and what has this name is another's
                _remove(place)
                with suppress(OSError):  # there is something in it, which stays
                    out.rmdir()


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the folder of a run while it is trained: two would write each other's log and checkpoints away.

    Raises `RequestError` where another process trains in it.
    """
    with locked(out) as alone:
        if alone is False:
            raise RequestError(
                f"another process is training in {out}", "wait until it has ended, or stop it; or choose another folder"
            )
        yield


def begun_by(out: Path, launch: str | None) -> bool:
    """Whether the run in `out` was begun by this launch of several processes, which are started anew where one dies.

    Else it is one that they were told to replace, or to leave alone.
    """
    found = next((path for path in (out / _BEGUN / _LAUNCH, out / _LAUNCH) if path.is_file()), None)
    return launch is not None and found is not None and found.read_text(encoding="utf-8", errors="replace") == launch


def prepare_launch(out: Path, launch: str | None) -> None:
    """Have the run that is being prepared in `out` belong to this launch, and the one that it replaces to none."""
    (out / _LAUNCH).unlink(missing_ok=True)
    if launch is not None:
        with atomic_write(out / BEGINNING / _LAUNCH, "w") as file:
            file.write(launch)


def give_up(out: Path) -> None:
    """Clear what a process that was killed had prepared."""
    with locked(out / BEGINNING) as alone:
        if alone:
            shutil.rmtree(out / BEGINNING)


def take_over(out: Path) -> None:
    """Make `out` the folder of the run that was prepared in it; the checkpoints, log and tokens of another run go."""
    sync_dir(out / BEGINNING)
    os.rename(out / BEGINNING, out / _BEGUN)
    sync_dir(out)
    finish(out)


def finish(out: Path) -> None:
    """Do what is left of a `take_over` that was interrupted, if anything is."""
    begun = out / _BEGUN
    if not begun.is_dir():
        return
    if (begun / RECIPE).exists():  # first: whoever resumes reads this one from now on
        os.replace(begun / RECIPE, out / RECIPE)
    if (begun / _LAUNCH).exists():
        os.replace(begun / _LAUNCH, out / _LAUNCH)
    _remove(out / STATE)
    (out / LOG).unlink(missing_ok=True)
    if (begun / TOKENS).exists():  # else those that are there were made for this run
        _remove(out / TOKENS)
        os.rename(begun / TOKENS, out / TOKENS)
    sync_dir(out)
    shutil.rmtree(begun)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Keep a recipe in `folder` as the one that a run goes by; one that says the same is left alone."""
    path, text = folder / RECIPE, recipe.to_toml()
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        with atomic_write(path, "w") as file:
            file.write(text)


def _identity(folder: Path) -> int | None:
    """What tells a folder from another that has its name later; None where there is none."""
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _clear(folder: Path) -> None:
    for path in list(folder.iterdir()):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
