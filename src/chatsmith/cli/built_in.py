"""The built-in model: made once from the built-in corpus, and kept in the cache folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from chatsmith.cli.console import err, say
from chatsmith.cli.start import is_model
from chatsmith.errors import RequestError
from chatsmith.paths import cache_dir

NAME = "world"
_MINUTES = 3.0


def built_in_folder() -> Path:
    """Where the built-in model is, or will be."""
    return cache_dir() / NAME


def existing_built_in() -> Path:
    """The folder of the built-in model; `RequestError` where it was not made yet."""
    folder = built_in_folder()
    if not is_model(folder):
        raise RequestError(
            "no model was named, and the built-in one is not made yet",
            "name a model folder, or make the built-in model with: chatsmith chat",
        )
    return folder


def named_or_built_in(model: Path | None, minutes: float | None) -> Path:
    """The model folder that was named, else that of the built-in model, which is made first where it is missing."""
    if model is None:
        return make_built_in(minutes)
    if minutes is not None:
        raise RequestError(f"--minutes is for making the built-in model, and {model} was named", "leave out --minutes")
    return model


def make_built_in(minutes: float | None = None) -> Path:
    """The folder of the built-in model, which is made first, in about 3 minutes or so many, where it is missing.

    It is made beside its place and moved there when it is finished, so that a run that was stopped is never taken for
    the model.
    """
    folder = built_in_folder()
    if is_model(folder):
        if minutes is not None:
            say(f"the built-in model is made already, in {folder}: --minutes does nothing")
        return folder
    minutes = _MINUTES if minutes is None else minutes
    from chatsmith.cli.new import make

    say(f"making the built-in model first, in about {minutes:g} minutes; it is kept in {folder}")
    making = folder.parent / "making" / NAME
    report = make([], minutes=minutes, out=making, overwrite=True)
    if report.outcome.stopped is not None:
        raise KeyboardInterrupt("stopped before the built-in model was finished; chatsmith chat makes it anew")
    os.replace(making, folder)
    making.parent.rmdir()
    err().print(replace(report, folder=folder))
    return folder
