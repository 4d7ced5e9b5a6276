"""The text of Jupyter notebooks: their prose and their code, without what running them printed and drew."""

from __future__ import annotations

import json
from typing import Any

from chatsmith.text.archives import DAMAGED
from chatsmith.text.report import Unreadable


def notebook_text(text: str) -> str:
    """The sources of a notebook's cells, parted by blank lines (nbformat 4, and the `worksheets` of 3)."""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(DAMAGED, getattr(error, "msg", "") or str(error)) from None
    sheets = notebook.get("worksheets", [notebook]) if isinstance(notebook, dict) else []
    cells = [cell for sheet in _dicts(sheets) for cell in _dicts(sheet.get("cells"))]
    sources = [_joined(cell.get("source", cell.get("input"))).strip("\n") for cell in cells]
    return "\n\n".join(source for source in sources if source and not source.isspace())


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _joined(source: Any) -> str:
    """A cell's text, which is kept as a string or as its lines."""
    if isinstance(source, list):
        return "".join([line for line in source if isinstance(line, str)])
    return source if isinstance(source, str) else ""
