"""The built-in model: made once from the built-in corpus, and kept in the cache folder."""

from __future__ import annotations

from pathlib import Path

from chatsmith.cli.console import say
from chatsmith.cli.start import is_model
from chatsmith.errors import RequestError
from chatsmith.paths import cache_dir

NAME = "world"


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


def make_built_in(minutes: float) -> Path:
    """The folder of the built-in model, which is made first where it is missing."""
    folder = built_in_folder()
    if not is_model(folder):
        from chatsmith.cli.new import make

        say(f"making the built-in model first, in about {minutes:g} minutes; it is kept in {folder}")
        make([], minutes=minutes, out=folder)
    return folder
