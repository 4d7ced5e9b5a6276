"""One description of a table or a row of texts, drawn in the terminal and in HTML.

Everything shown may come from a model or from a stranger's file: control characters become visible signs in the
terminal, and all of it is escaped in HTML. The HTML stands alone: inline styles, no script, nothing fetched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

_SIGNS = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {127: "␡"}
_SIGNS |= dict.fromkeys(range(0x80, 0xA0), "�")
_BAR_CELLS = 6  # so that the table of next tokens fits 80 columns
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BLUE, _GREY, _MARK = "#3b6ea8", "#6b7280", "#fdf3d0"
_FONT = "font-family:ui-sans-serif,system-ui,sans-serif;font-size:13px;line-height:1.45"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace"


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell that shows a share from 0 to 1 as a bar with its label."""

    share: float
    label: str


Cell: TypeAlias = "str | Bar"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title and side; `code` cells are set in a typewriter face, `wrap` cells may take several lines."""

    title: str
    align: Literal["left", "right"] = "right"
    code: bool = False
    wrap: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a title above and a note below; `marked` rows stand out."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()
    note: str = ""

    def rich(self) -> RenderableType:
        """For the terminal."""
        from rich.console import Group
        from rich.text import Text

        table = _rich_table(self.columns)
        for index, row in enumerate(self.rows):
            cells = [_rich_cell(cell, column) for cell, column in zip(row, self.columns, strict=True)]
            table.add_row(*cells, style="bold yellow" if index in self.marked else None)
        parts: list[RenderableType] = [Text(plain(self.title), style="bold")] if self.title else []
        parts.append(table)
        if self.note:
            parts.append(Text(plain(self.note), style="dim"))
        return Group(*parts)

    def html(self) -> str:
        """For a notebook or a page."""
        head = "".join(
            f'<th style="{_cell_style(column)};color:{_GREY}">{_e(column.title)}</th>' for column in self.columns
        )
        body = []
        for index, row in enumerate(self.rows):
            style = f' style="background:{_MARK};color:#111"' if index in self.marked else ""
            cells = "".join(
                f'<td style="{_cell_style(column)}">{_html_cell(cell)}</td>'
                for cell, column in zip(row, self.columns, strict=True)
            )
            body.append(f"<tr{style}>{cells}</tr>")
        title = f'<div style="font-weight:600;white-space:pre-wrap">{_e(self.title)}</div>' if self.title else ""
        note = f'<div style="color:{_GREY}">{_e(self.note)}</div>' if self.note else ""
        return (
            f'<div style="{_FONT};margin:6px 0">{title}<table style="border-collapse:collapse">'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{note}</div>"
        )


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
        title = f'<div style="font-weight:600">{_e(panel.title)}</div>' if panel.title else ""
        note = f'<div style="color:{_GREY};font-size:12px">{_e(panel.note)}</div>' if panel.note else ""
        boxes.append(
            '<div style="flex:1 1 16em;max-width:48em;border:1px solid #d4d8de;border-radius:6px;padding:8px 10px">'
            f'{title}<div style="white-space:pre-wrap;overflow-wrap:anywhere">'
            f'<span style="color:{_GREY}">{_e(panel.lead)}</span>{_e(panel.text)}</div>{note}</div>'
        )
    return f'<div style="{_FONT};display:flex;flex-wrap:wrap;gap:8px;margin:6px 0">{"".join(boxes)}</div>'


def html_tokens(tokens: Sequence[tuple[str, float]]) -> str:
    """A text whose tokens are shaded by their bits of surprise (white at 0, full blue at 16 and more)."""
    spans = "".join(
        f'<span title="{surprise:.2f} bits" style="background:rgba(59,110,168,{min(max(surprise, 0) / 16, 1):.2f})">'
        f"{_e(text)}</span>"
        for text, surprise in tokens
    )
    return f'<div style="{_FONT};white-space:pre-wrap;overflow-wrap:anywhere">{spans}</div>'


def plain(text: str) -> str:
    """Text that cannot steer a terminal: control characters other than newline and tab become visible signs."""
    return text.translate(_SIGNS)


def percent(share: float) -> str:
    """A probability for people, to three digits: 4.51%, 0.0123%, <0.0001%, 0 for none at all."""
    if share <= 0:
        return "0"
    if share < 1e-6:
        return "<0.0001%"
    digits = min(6, max(1, 2 - math.floor(math.log10(share * 100)))) if share < 1 else 0
    return f"{100 * share:.{min(digits, 4)}f}%"


def bits(count: float) -> str:
    """Bits with two digits; a dash for a token that cannot come."""
    return f"{count:.2f}" if math.isfinite(count) else "–"


def _rich_table(columns: Sequence[Column]) -> RichTable:
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.title, justify=column.align, no_wrap=not column.wrap)
    return table


def _rich_cell(cell: Cell, column: Column) -> RenderableType:
    from rich.text import Text

    if isinstance(cell, Bar):
        return Text.assemble(cell.label.rjust(8), " ", (_blocks(cell.share), "blue"))
    return Text(plain(cell), style="bold" if column.code else "")


def _blocks(share: float) -> str:
    eighths = round(min(max(share, 0.0), 1.0) * _BAR_CELLS * 8)
    if share > 0:
        eighths = max(eighths, 1)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return bar.ljust(_BAR_CELLS)


def _html_cell(cell: Cell) -> str:
    if not isinstance(cell, Bar):
        return _e(cell)
    width = 90 * min(max(cell.share, 0.0), 1.0)
    return (
        f'<span style="display:inline-block;min-width:5em">{_e(cell.label)}</span> '
        f'<svg width="90" height="10" role="img" aria-label="{_e(cell.label)}">'
        f'<rect width="90" height="10" fill="#e5e9ef"/><rect width="{width:.1f}" height="10" fill="{_BLUE}"/></svg>'
    )


def _cell_style(column: Column) -> str:
    face = f";{_MONO};white-space:pre" if column.code else ""
    return f"text-align:{column.align};padding:1px 12px 1px 0{face}"


def _e(text: str) -> str:
    return escape(plain(text), quote=True)
