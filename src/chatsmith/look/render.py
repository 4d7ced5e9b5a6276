"""Texts and tokens drawn in the terminal and in HTML; tables come from `chatsmith.tables`.

The same rules hold as there: what cannot be trusted is escaped, and the HTML stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatsmith.tables import FONT, GREY, escaped, plain

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Panel:
    """A text with a title above and a note below; the `lead` (a prompt) is set apart from what was made."""

    text: str
    title: str = ""
    lead: str = ""
    note: str = ""


def rich_panels(panels: Sequence[Panel]) -> RenderableType:
    """One text as it is, several side by side as far as the terminal is wide."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.panel import Panel as RichPanel
    from rich.text import Text

    def words(panel: Panel) -> Text:
        return Text.assemble((plain(panel.lead), "dim"), plain(panel.text))

    if len(panels) == 1:
        parts: list[RenderableType] = [words(panels[0])]
        if panels[0].note:
            parts.append(Text(plain(panels[0].note), style="dim"))
        return Group(*parts)
    boxes = [
        RichPanel(words(panel), title=Text(plain(panel.title)), subtitle=Text(plain(panel.note)), width=44)
        for panel in panels
    ]
    return Columns(boxes)


def html_panels(panels: Sequence[Panel]) -> str:
    """The same for a notebook or a page."""
    boxes = []
    for panel in panels:
        title = f'<div style="font-weight:600">{escaped(panel.title)}</div>' if panel.title else ""
        note = f'<div style="color:{GREY};font-size:12px">{escaped(panel.note)}</div>' if panel.note else ""
        boxes.append(
            '<div style="flex:1 1 16em;max-width:48em;border:1px solid #d4d8de;border-radius:6px;padding:8px 10px">'
            f'{title}<div style="white-space:pre-wrap;overflow-wrap:anywhere">'
            f'<span style="color:{GREY}">{escaped(panel.lead)}</span>{escaped(panel.text)}</div>{note}</div>'
        )
    return f'<div style="{FONT};display:flex;flex-wrap:wrap;gap:8px;margin:6px 0">{"".join(boxes)}</div>'


def html_tokens(tokens: Sequence[tuple[str, float]]) -> str:
    """A text whose tokens are shaded by their bits of surprise (white at 0, full blue at 16 and more)."""
    spans = "".join(
        f'<span title="{surprise:.2f} bits" style="background:rgba(59,110,168,{min(max(surprise, 0) / 16, 1):.2f})">'
        f"{escaped(text)}</span>"
        for text, surprise in tokens
    )
    return f'<div style="{FONT};white-space:pre-wrap;overflow-wrap:anywhere">{spans}</div>'
