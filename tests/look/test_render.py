"""Numbers and cells for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.text(), st.text())
def test_nothing_in_a_text_reaches_the_page_as_markup(text: str, title: str) -> None:
    html = html_panels([Panel(text, title=title, lead=text, note=title)])
    html += Table(title, (Column("<b>"),), ((text,), (Bar(0.5, text),)), note=text).html()
    inside = html.replace("&lt;", "").replace("&gt;", "")
    assert set(_tags(inside)) <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect"}


def _tags(html: str) -> list[str]:
    return [part.split()[0].strip("/>") for part in html.replace(">", "> ").split("<")[1:]]
