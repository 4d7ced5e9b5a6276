"""Rich Text Format."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.report import Unreadable
from chatsmith.text.richtext import rich_text


def text(body: str) -> str:
    return "".join(rich_text(rf"{{\rtf1\ansi\ansicpg1252\deff0{{\fonttbl{{\f0 Times;}}}}{body}}}"))


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (r"\f0\b One\b0  two\par Three", "One two\nThree"),
        ("soft\r\n line \\{x\\} \\\\", r"soft line {x} " + "\\"),
        (r"caf\'e9 \u8364? \u-10179?\u-8704? \'93q\'94", "café € \U0001f600 “q”"),
        (r"\uc2 \u8364\'3f\'3fx{\uc0 \u945 y}\u946??z", "€xαyβz"),
        (r"{\*\generator X 1.2;}{\info{\title No}}{\header no}{\pict 00ff}shown{\*\unknown no}", "shown"),
        (r'{\field{\*\fldinst{HYPERLINK "http://x"}}{\fldrslt here}}', "here"),
        (r"\trowd a\cell b\cell\row c\cell d\cell\row end", "a\tb\nc\td\nend"),
        (r"\ansicpg1251 \'cf\'f0\'e8", "При"),
        (r"\ansicpg932 \'93\'fa\'96\'7b", "日本"),
        (r"{\object\bin3 }}}}shown", "shown"),
    ],
)
def test_text(body: str, shown: str) -> None:
    assert text(body) == shown


def test_damage() -> None:
    with pytest.raises(Unreadable, match="damaged"):
        list(rich_text("plain words"))
    parts = rich_text(r"{\rtf1 what came before")
    assert next(parts) == "what came before"
    with pytest.raises(Unreadable, match="ends early"):
        next(parts)
    with pytest.raises(Unreadable):
        list(rich_text("{\\rtf1" + "{" * 100_000))


@given(
    st.lists(
        st.sampled_from(["{", "}", "\\", "\\u55357", "\\uc", "\\bin9", "\\'e9", "\\par ", "a", "\\*", "\\ansicpg7"])
    )
)
def test_any_document_is_taken(parts: list[str]) -> None:
    with contextlib.suppress(Unreadable):
        assert all(part.encode() is not None for part in rich_text("{\\rtf1" + "".join(parts)))
