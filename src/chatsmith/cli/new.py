"""`chatsmith new`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Json


def new(
    *paths: Annotated[Path, Parameter(help="Files and folders; without any, the built-in corpus.")],
    minutes: Annotated[float, Parameter(help="How long to train.")] = 5.0,
    out: Annotated[Path, Parameter(help="The model folder to make.")] = Path("my-model"),
    field: Annotated[
        str | None, Parameter(help="The field of JSON, CSV or Parquet records that holds the text.")
    ] = None,
    vocab_size: Annotated[int | None, Parameter(help="Size of the vocabulary (default: it follows the text).")] = None,
    seed: Annotated[int, Parameter(help="Another seed gives another model.")] = 1337,
    overwrite: Annotated[bool, Parameter(help="Replace a model that the folder already holds.")] = False,
    json: Json = False,
) -> None:
    """Make a model that talks from your documents, in the minutes you give.

    Reads the documents, drops duplicates, learns a vocabulary, measures this machine for a few seconds, chooses model
    and schedule for the minutes, and trains. Ctrl-C ends training after its step and leaves a usable model.
    """
