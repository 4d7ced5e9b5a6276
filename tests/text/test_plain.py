"""Text in pieces: nothing is lost at the cuts, and no character is cut."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.plain import blocks, lines, pieces
from chatsmith.text.report import Unreadable

TEXTS = st.text(alphabet=st.sampled_from("ab \n\ré漢🦦"), max_size=300)


def cut(data: bytes, size: int = 1 << 20) -> list[str]:
    return list(blocks(io.BytesIO(data), size, lambda count: None))


@given(TEXTS, st.integers(16, 64))
def test_blocks_make_up_the_text(text: str, size: int) -> None:
    parts = cut(text.encode(), size)
    assert "".join(parts) == text
    assert all(0 < len(part.encode()) <= size for part in parts)
    assert not any(part.endswith("\r") and after.startswith("\n") for part, after in pairwise(parts))
    assert list(pieces(text, size)) == (parts or [""])


@given(TEXTS, st.sampled_from(["utf-16", "utf-32", "utf-8-sig"]))
def test_marked_encodings(text: str, encoding: str) -> None:
    assert "".join(cut(text.encode(encoding), 32)) == text


@given(TEXTS, st.integers(16, 64))
def test_lines_make_up_the_text(text: str, size: int) -> None:
    found = list(lines(iter(cut(text.encode(), size))))
    assert "".join(found) == text
    assert all(line.endswith("\n") for line in found[:-1])
    assert all("\n" not in line[:-1] for line in found)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one two 3\n\nfour\nfive six seven", "one two 3\n\n"),
        ("one two three\nfour five six", "one two three\n"),
        ("one two three four five six", "one two three "),
        ("onetwothreefourfivesix", "onetwothreefourf"),
        ("onetwothreefou漢字漢字漢字", "onetwothreefou"),
        ("onetwothreefour\r\nfive", "onetwothreefour"),
    ],
)
def test_a_text_is_cut_where_a_reader_pauses(text: str, first: str) -> None:
    assert next(pieces(text, 16)) == first


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    refused = ""
    try:
        "".join(cut(data)).encode()
    except Unreadable as error:
        refused = error.reason
    assert refused in ("", "binary, not text") or refused.startswith("not UTF-8 text")


def test_zero_bytes_far_into_a_file() -> None:
    with pytest.raises(Unreadable, match="binary"):
        cut(b"text " * 20_000 + b"\0" * 20_000)


def test_an_endless_line_is_refused_where_lines_are_needed() -> None:
    with pytest.raises(Unreadable, match="too long"):
        list(lines(iter(["a" * 50] * 10), longest=200))


@pytest.mark.parametrize("name", ["zlib", "rot13", "idna", "nonsense", "windows-9999", "utf-8", "utf-7"])
def test_a_page_can_only_name_encodings_of_the_web(name: str) -> None:
    page = io.BytesIO(f'<meta charset="{name}">é'.encode())
    assert "".join(blocks(page, 100, lambda count: None, declared=True)).endswith("é")


@pytest.mark.parametrize(("name", "codec"), [("ISO-8859-1", "cp1252"), ("shift_jis", "cp932"), ("GBK", "gbk")])
def test_encodings_of_the_web(name: str, codec: str) -> None:
    text = f'<meta http-equiv="Content-Type" content="text/html; charset={name}">' + (
        "“é”" if codec == "cp1252" else "日本"
    )
    page = io.BytesIO(text.encode(codec))
    assert "".join(blocks(page, 1000, lambda count: None, declared=True)) == text
