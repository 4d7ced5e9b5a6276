"""`chatsmith plot`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Json


def plot(
    run: Annotated[Path, Parameter(help="A folder that a training run wrote to.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Write a picture: NAME.svg or NAME.png.")] = None,
    json: Json = False,
) -> None:
    """Draw a run's training curve in the terminal, or as SVG or PNG."""
    from chatsmith.cli import console
    from chatsmith.train.metrics import read_log

    if json:
        console.print_json(read_log(run))
        return
