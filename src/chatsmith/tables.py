"""One description of a table, drawn in the terminal and in HTML, and the report that is made of some of them.

Everything shown may come from a model or from a stranger's file: control characters become visible signs in the
terminal, and all of it is escaped in HTML. The HTML stands alone: inline styles, no script, nothing fetched.

In a narrow terminal nothing is cut: bars leave first, then columns in the order they state; what stays is folded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

_SIGNS = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {127: "␡"}
_SIGNS |= dict.fromkeys(range(0x80, 0xA0), "�")
_BAR_CELLS = 6
_LABEL_CELLS = 8  # so that bars begin below each other
_GAP = 2  # between columns
_LEAST_WRAPPED = 12  # a text in fewer cells is hard to read: columns leave before it gets there
_EIGHTHS = " ▏▎▍▌▋▊▉"
BLUE, GREY, _MARK = "#3b6ea8", "#6b7280", "#fdf3d0"
FONT = "font-family:ui-sans-serif,system-ui,sans-serif;font-size:13px;line-height:1.45"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace"


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell that shows a share from 0 to 1 as a bar with its label."""

    share: float
    label: str


Cell: TypeAlias = "str | Bar"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title and side; `code` cells are set in a typewriter face, `wrap` cells may take several lines.

    Where the terminal is too narrow for all, the column with the lowest `leaves` above 0 goes first; those of 0 stay.
    """

    title: str
    align: Literal["left", "right"] = "right"
    code: bool = False
    wrap: bool = False
    leaves: int = 0


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

        parts: list[RenderableType] = [Text(plain(self.title), style="bold")] if self.title else []
        parts.append(_Fitted(self))
        if self.note:
            parts.append(Text(plain(self.note), style="dim"))
        return Group(*parts)

    def html(self) -> str:
        """For a notebook or a page."""
        head = "".join(
            f'<th style="{_cell_style(column)};color:{GREY}">{escaped(column.title)}</th>' for column in self.columns
        )
        body = []
        for index, row in enumerate(self.rows):
            style = f' style="background:{_MARK};color:#111"' if index in self.marked else ""
            cells = "".join(
                f'<td style="{_cell_style(column)}">{_html_cell(cell)}</td>'
                for cell, column in zip(row, self.columns, strict=True)
            )
            body.append(f"<tr{style}>{cells}</tr>")
        title = f'<div style="font-weight:600;white-space:pre-wrap">{escaped(self.title)}</div>' if self.title else ""
        note = f'<div style="color:{GREY};white-space:pre-line">{escaped(self.note)}</div>' if self.note else ""
        return (
            f'<div style="{FONT};margin:6px 0">{title}<table style="border-collapse:collapse">'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{note}</div>"
        )


class Report:
    """A result made of tables: printed by rich and by `print`, and shown in a notebook.

    A subclass says which `tables`, and its `headline`; it is a dataclass whose fields are the result itself, with
    `repr=False`: at a prompt all of them would fill the screen.
    """

    __slots__ = ()

    @property
    def headline(self) -> str:
        """The result in a few words."""
        raise NotImplementedError

    def tables(self) -> list[Table]:
        """What is drawn, in order."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.headline}; print() draws it>"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=160, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        parts = [part for table in self.tables() for part in ("", table.rich())]
        return Group(*parts[1:])

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())


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


class _Fitted:
    """A table as wide as the terminal allows, which is known only when it is drawn."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        yield _rich_table(self.table, options.max_width)


def _rich_table(table: Table, width: int) -> RichTable:
    from rich.table import Table as RichTable

    kept, bars = list(range(len(table.columns))), True
    leaving = sorted((index for index in kept if table.columns[index].leaves), key=lambda i: table.columns[i].leaves)
    while (narrow := _width(table, kept, bars) > width) and (bars or leaving):
        if bars:
            bars = False
        else:
            kept.remove(leaving.pop(0))
    drawn = RichTable(box=None, pad_edge=False, header_style="dim")
    for column in (table.columns[index] for index in kept):
        drawn.add_column(column.title, justify=column.align, no_wrap=not (column.wrap or narrow), overflow="fold")
    for number, row in enumerate(table.rows):
        cells = [_rich_cell(row[index], table.columns[index], bars) for index in kept]
        drawn.add_row(*cells, style="bold yellow" if number in table.marked else None)
    return drawn


def _width(table: Table, kept: Sequence[int], bars: bool) -> int:
    """The cells that these columns need side by side."""
    from rich.cells import cell_len

    def widest(index: int) -> int:
        column = table.columns[index]
        texts = [column.title, *(_rich_cell(row[index], column, bars).plain for row in table.rows)]
        cells = max(cell_len(line) for text in texts for line in text.split("\n"))
        return min(cells, _LEAST_WRAPPED) if column.wrap else cells

    return sum(map(widest, kept)) + _GAP * (len(kept) - 1)


def _rich_cell(cell: Cell, column: Column, bars: bool) -> Text:
    from rich.text import Text

    if not isinstance(cell, Bar):
        return Text(plain(cell), style="bold" if column.code else "")
    label = cell.label.rjust(_LABEL_CELLS)
    return Text.assemble(label, " ", (_blocks(cell.share), "blue")) if bars else Text(label)


def _blocks(share: float) -> str:
    eighths = round(min(max(share, 0.0), 1.0) * _BAR_CELLS * 8)
    if share > 0:
        eighths = max(eighths, 1)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return bar.ljust(_BAR_CELLS)


def _html_cell(cell: Cell) -> str:
    if not isinstance(cell, Bar):
        return escaped(cell)
    width = 90 * min(max(cell.share, 0.0), 1.0)
    return (
        f'<span style="display:inline-block;min-width:5em">{escaped(cell.label)}</span> '
        f'<svg width="90" height="10" role="img" aria-label="{escaped(cell.label)}">'
        f'<rect width="90" height="10" fill="#e5e9ef"/><rect width="{width:.1f}" height="10" fill="{BLUE}"/></svg>'
    )


def _cell_style(column: Column) -> str:
    face = f"{_MONO};white-space:pre" if column.code else "white-space:pre-line"  # lines stay lines
    return f"text-align:{column.align};vertical-align:top;padding:1px 12px 1px 0;{face}"


def escaped(text: str) -> str:
    """Text for HTML: no markup, no control characters."""
    return escape(plain(text), quote=True)
