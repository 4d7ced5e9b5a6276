"""`chatsmith next`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.options import ChoiceFlags, Json, text_argument


def next_(
    model: Annotated[Path, Parameter(help="A model folder.")],
    text: Annotated[str, text_argument("The text so far; - reads it from stdin.")] = "-",
    /,
    *,
    top: Annotated[int, Parameter(help="How many tokens to list.")] = 10,
    steps: Annotated[int, Parameter(help="Follow the top choice for so many steps.")] = 1,
    sampling: ChoiceFlags = ChoiceFlags(),  # noqa: B008 - frozen
    json: Json = False,
) -> None:
    """Show the ranked next tokens with probability and bits, before and after temperature.

    With --steps the likeliest token is taken each time, and the growing text is shown with it.
    """
    from chatsmith.cli.console import out, print_json
    from chatsmith.cli.options import given_text
    from chatsmith.language_model import load

    text = given_text(text)
    report = load(model).next(text, top=top, steps=steps, **sampling.given())
    if json:
        print_json(report.to_mapping())
    else:
        out().print(report)
