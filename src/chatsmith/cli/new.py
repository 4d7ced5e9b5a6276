"""`chatsmith new`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from chatsmith.cli.options import Field, Json, Tests

if TYPE_CHECKING:
    from chatsmith.new_report import NewReport


def new(
    *paths: Annotated[Path, Parameter(help="Files and folders; without any, the built-in corpus.")],
    minutes: Annotated[float, Parameter(help="How long it may take, reading included.")] = 5.0,
    out: Annotated[Path, Parameter(help="The model folder to make.")] = Path("my-model"),
    field: Field = None,
    vocab_size: Annotated[int | None, Parameter(help="Size of the vocabulary; by default it follows the text.")] = None,
    clean_of: Tests = (),
    seed: Annotated[int, Parameter(help="Another seed gives another model.")] = 1337,
    overwrite: Annotated[bool, Parameter(help="Replace a model that the folder already holds.")] = False,
    json: Json = False,
) -> int:
    """Make a model that talks from your documents, in the minutes you give.

    Reads the documents, drops duplicates, learns a vocabulary, measures this machine for a few seconds, chooses model
    and schedule for the minutes, and trains. Ctrl-C ends training after its step and leaves a usable model.
    """
    from chatsmith.cli.console import out as stdout
    from chatsmith.cli.console import print_json
    from chatsmith.cli.train import farewell

    report = make(
        paths,
        minutes=minutes,
        out=out,
        field=field,
        vocab_size=vocab_size,
        clean_of=clean_of,
        seed=seed,
        overwrite=overwrite,
    )
    if json:
        print_json(report.to_mapping())
    else:
        for read in report.read:
            stdout().print(read)
        stdout().print(report)
    return farewell(report.outcome, f"chatsmith chat {report.folder}")


def make(paths: Sequence[Path], *, minutes: float, out: Path, **settings: Any) -> NewReport:
    """`chatsmith.new` with its progress on stderr."""
    from chatsmith.cli.progress import training_view
    from chatsmith.create import new as make_model

    view = training_view()
    try:
        return make_model(paths, minutes=minutes, out=out, callbacks=[view], **settings)
    finally:
        view.close()
