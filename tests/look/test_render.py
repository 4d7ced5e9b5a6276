"""Numbers and cells for people."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chatsmith.look.render import Panel, html_panels
from chatsmith.tables import Bar, Column, Table, bits, percent, plain


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0"), (1, "100%"), (0.045, "4.50%"), (0.5, "50.0%"), (0.00123, "0.123%"), (0.0000123, "0.0012%"),
     (1e-9, "<0.0001%"), (0.9999, "100.0%")],
)  # fmt: skip
def test_percent(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_bits() -> None:
    assert bits(1.234) == "1.23"
    assert bits(float("inf")) == "–"


def test_control_characters_become_signs() -> None:
    assert plain("a\x1b[0m\r\tb\n\x9b\x7f") == "a␛[0m␍\tb\n�␡"


RANKED = Table(
    "",
    (Column("token", "left", code=True), Column("before", "left"), Column("after", leaves=2), Column("sum", leaves=1)),
    (("␣responsibility", Bar(0.5, "50.0%"), "12.34%", "100%"), ("a", Bar(0.1, "10.0%"), "1.20%", "7%")),
)


def drawn(table: Table, width: int) -> list[str]:
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(table.rich())
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("width", "titles", "bars"),
    [(80, ["token", "before", "after", "sum"], True), (44, ["token", "before", "after", "sum"], False),
     (36, ["token", "before", "after"], False), (26, ["token", "before"], False)],
)  # fmt: skip
def test_in_a_narrow_terminal_bars_leave_first_and_then_columns(width: int, titles: list[str], bars: bool) -> None:
    lines = drawn(RANKED, width)
    assert lines[0].split() == titles
    assert lines[1].split()[:2] == ["␣responsibility", "50.0%"]
    assert ("█" in lines[1]) == bars


@pytest.mark.parametrize("width", range(8, 60))
def test_nothing_that_stays_is_cut(width: int) -> None:
    lines = drawn(RANKED, width)
    assert max(map(len, lines)) <= width
    assert Counter("␣responsibility50.0%a10.0%") <= Counter("".join(lines))


@given(st.text(), st.text())
def test_nothing_in_a_text_reaches_the_page_as_markup(text: str, title: str) -> None:
    html = html_panels([Panel(text, title=title, lead=text, note=title)])
    html += Table(title, (Column("<b>"),), ((text,), (Bar(0.5, text),)), note=text).html()
    inside = html.replace("&lt;", "").replace("&gt;", "")
    assert set(_tags(inside)) <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect"}


def _tags(html: str) -> list[str]:
    return [part.split()[0].strip("/>") for part in html.replace(">", "> ").split("<")[1:]]
