"""`chatsmith read`"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.arguments import whole
from chatsmith.cli.options import Duplicates, Field, Hidden, Json, Tests


def read(
    path: Annotated[Path, Parameter(help="A file or a folder.")],
    /,
    *paths: Annotated[Path, Parameter(help="More of them.")],
    field: Field = None,
    duplicates: Duplicates = "near",
    hidden: Hidden = False,
    clean_of: Tests = (),
    show: Annotated[int, Parameter(help="Print the beginnings of so many documents.")] = 0,
    json: Json = False,
) -> None:
    """Read documents and list what is in them and what was skipped.

    This is what `chatsmith new` will read from the same paths; nothing is written. The counts of documents and text are
    those before anything is cut out as text of tests.
    """
    from chatsmith.cli.console import out, print_json, write_text
    from chatsmith.text.documents import ReadReport, read_documents
    from chatsmith.text.overlap import TestGrams, cleaned

    whole("--show", show, 0, 10**9)
    report = ReadReport()
    read_all = partial(read_documents, [path, *paths], field=field, duplicates=duplicates, hidden=hidden)
    documents = read_all(report=report)
    if clean_of:
        documents = cleaned(lambda again: read_all(report=again), TestGrams.read(clean_of), report)
    for number, document in enumerate(documents):
        if number < show and not json:
            text = document.text or "\n".join(f"{turn.role}: {turn.content}" for turn in document.messages)
            write_text(f"── {document.source}\n{text[:_BEGINNING].rstrip()}{'…' if len(text) > _BEGINNING else ''}\n\n")
    if json:
        print_json(report.to_json())
    else:
        out().print(report)


_BEGINNING = 300  # characters
