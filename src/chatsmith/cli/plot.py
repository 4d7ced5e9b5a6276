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
    out: Annotated[Path | None, Parameter(help="Write a picture instead: NAME.svg or NAME.png.")] = None,
    json: Json = False,
) -> None:
    """Draw a run's training curve in the terminal, or as SVG or PNG."""
    from chatsmith.cli import console
    from chatsmith.train.curve import read_curve, terminal_picture, write_picture

    curve = read_curve(run)
    if out is not None:
        write_picture(curve, out)
    if json:
        console.print_json(curve)
    elif out is not None:
        console.say(f"wrote {out}")
    else:
        screen = console.out()
        print(terminal_picture(curve, min(screen.width, 110), max(10, min(screen.height - 4, 24))))
