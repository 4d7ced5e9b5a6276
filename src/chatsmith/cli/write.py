"""`chatsmith write`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Json, SamplingFlags


def write(
    model: Annotated[Path, Parameter(help="A model folder.")],
    text: Annotated[str, Parameter(help="The text to continue; - reads it from stdin.")] = "-",
    /,
    *,
    samples: Annotated[int, Parameter(help="So many different continuations, side by side.")] = 1,
    sampling: SamplingFlags = SamplingFlags(),  # noqa: B008 - frozen
    json: Json = False,
) -> None:
    """Continue a text, once or in several samples side by side.

    A single continuation is printed as it is made, after the text itself.
    """
    from chatsmith.cli.console import out, print_json, write_text
    from chatsmith.cli.options import given_text
    from chatsmith.language_model import load

    text = given_text(text)
    loaded = load(model)
    if json or samples != 1:
        writing = loaded.write(text, samples=samples, **sampling.given())
        if json:
            print_json(writing.to_mapping())
        else:
            out().print(writing)
        return
    pieces = loaded.write(text, stream=True, **sampling.given())
    write_text(text + next(pieces, ""))  # not before the text has proved to fit
    for piece in pieces:
        write_text(piece)
    write_text("\n")
