"""What a file name says of the file."""

from __future__ import annotations

import pytest

from chatsmith.text.formats import COMPRESSIONS, Format, Kind, format_of, readable


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            (name, Kind.TEXT)
            for name in ("a.txt", "A.TXT", "a.b.md", "a.rst", "README", "readme.md", "LICENSE", "a.tex")
        ),
        *((name, Kind.CODE) for name in ("a.py", "a.c++", "a.h", "a.rs", "a.JAVA", "Makefile", "Dockerfile", "a.toml")),
        *((name, Kind.HTML) for name in ("a.html", "a.htm", "a.xhtml")),
        *((name, Kind.JSON_LINES) for name in ("a.jsonl", "a.ndjson")),
        *(("a.json", Kind.JSON), ("a.csv", Kind.CSV), ("a.tsv", Kind.TSV)),
        *(("a.parquet", Kind.PARQUET), ("a.pdf", Kind.PDF), ("a.docx", Kind.DOCX)),
        *(("a.rtf", Kind.RTF), ("a.epub", Kind.EPUB), ("a.ipynb", Kind.NOTEBOOK), ("a.srt", Kind.SUBTITLES)),
        *(("a.tar", Kind.TAR), ("a.zip", Kind.ZIP), ("a.txt.zip", Kind.ZIP)),
    ],
)
def test_names_with_and_without_compression(name: str, kind: Kind) -> None:
    assert format_of(name) == Format(kind)
    for suffix in COMPRESSIONS:
        assert format_of(name + suffix) == Format(kind, suffix)


@pytest.mark.parametrize("name", ["a", "a.exe", ".txt", "a.gz", ".gz", ".tgz", "a.rar", "txt", "a.", "", "a.png"])
def test_other_names_are_not_guessed(name: str) -> None:
    assert format_of(name) is None


def test_the_hint_names_what_is_read() -> None:
    for suffix in readable().replace(",", "").split():
        if suffix.startswith(".") and suffix not in COMPRESSIONS:
            assert format_of(f"a{suffix}") is not None
    assert all(suffix in readable() for suffix in COMPRESSIONS)
