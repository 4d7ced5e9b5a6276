"""`chatsmith replay`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.console import say, write_text


def replay(
    response: Annotated[Path, Parameter(help="A file with a response of chatsmith serve, whole or streamed.")],
    /,
    *,
    model: Annotated[
        Path | None, Parameter(help="The folder of its model, where no server here has served it.")
    ] = None,
) -> int:
    """Make the answers of a response again, and compare them token for token.

    Exits with 0 where they are the same, with 1 where one differs.
    """
    from chatsmith.serve.replay import read_record, replay

    record = read_record(response)
    loaded, answers = replay(record, model)
    for answer in answers:
        write_text(answer.text + "\n")
    different = [place for place, answer in enumerate(answers) if answer.differs is not None]
    for place in different:
        say(f"answer {place} differs from token {answers[place].differs} on")
    name = loaded.engine.backend.name
    if different and name != record.backend:
        say(f"the response was computed by {record.backend}, this by {name}: other hardware may round otherwise")
    if not different:
        say(f"the same, token for token: {sum(map(len, record.answers))} tokens of {loaded.name}")
    return 1 if different else 0
