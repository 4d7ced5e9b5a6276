"""Electronic books, notebooks and subtitles, as `read_documents` reads them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from chatsmith.text.documents import ReadReport, read_documents
from chatsmith.text.subtitles import subtitle_text

CONTAINER = '<container xmlns="urn:x"><rootfiles><rootfile full-path="O/c.opf"/></rootfiles></container>'
ITEM = '<item id="{0}" href="{1}" media-type="application/xhtml+xml"{2}/>'
PACKAGE = '<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'


def read(path: Path) -> tuple[list[str], dict[str, int]]:
    report = ReadReport()
    texts = [document.text for document in read_documents([path], report=report, duplicates="keep")]
    return texts, dict(report.reasons)


def make_book(path: Path, chapters: dict[str, str], order: list[str], more: dict[str, str] | None = None) -> None:
    items = [ITEM.format(f"i{n}", name.replace(" ", "%20"), "") for n, name in enumerate(chapters)]
    items.append(ITEM.format("nav", "nav.xhtml", ' properties="nav"'))
    spine = "".join(f'<itemref idref="i{list(chapters).index(name)}"/>' for name in order)
    package = PACKAGE.format(items="".join(items), spine='<itemref idref="nav"/>' + spine)
    files = {"META-INF/container.xml": CONTAINER, "O/c.opf": package, "O/nav.xhtml": "<p>Contents</p>", **(more or {})}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, **{f"O/{name}": text for name, text in chapters.items()}}.items():
            archive.writestr(name, text)


def test_a_book_is_read_in_its_order(tmp_path: Path) -> None:
    page = "<html><head><title>no</title></head><body><h1>{0}</h1><p>caf&eacute;</p></body></html>"
    chapters = {"z one.xhtml": page.format("One"), "a.xhtml": page.format("Two"), "unlisted.xhtml": "<p>no</p>"}
    make_book(tmp_path / "a.epub", chapters, ["z one.xhtml", "a.xhtml"])
    assert read(tmp_path / "a.epub") == (["One\n\ncafé\n\nTwo\n\ncafé"], {})


def test_books_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Good text.")
    lock = '<encryption xmlns:e="urn:e"><e:CipherReference URI="O/{0}"/></encryption>'
    locks = "META-INF/encryption.xml"
    make_book(tmp_path / "locked.epub", {"a.xhtml": "\x8f\xff"}, ["a.xhtml"], {locks: lock.format("a.xhtml")})
    make_book(tmp_path / "font.epub", {"a.xhtml": "<p>Words.</p>"}, ["a.xhtml"], {locks: lock.format("f.otf")})
    laughs = '<!DOCTYPE x [<!ENTITY a "ha">]><container>&a;</container>'
    make_book(tmp_path / "laughs.epub", {}, [], {"META-INF/container.xml": laughs})
    (tmp_path / "none.epub").write_bytes(b"PK no zip")
    with zipfile.ZipFile(tmp_path / "empty.epub", "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
    assert read(tmp_path) == (["Words.", "Good text."], {"encrypted": 1, "damaged": 3})


@pytest.mark.parametrize("old", [False, True])
def test_a_notebook_is_its_prose_and_code(tmp_path: Path, old: bool) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {
            "cell_type": "code",
            "input" if old else "source": "x = 1\n",
            "outputs": [{"text": ["no"], "data": {"image/png": "iV"}}],
        },
        {"cell_type": "raw", "source": []},
    ]
    (tmp_path / "a.ipynb").write_text(
        json.dumps({"worksheets": [{"cells": cells}]} if old else {"cells": cells, "nbformat": 4})
    )
    (tmp_path / "b.ipynb").write_text('{"cells": [')
    (tmp_path / "c.ipynb").write_text("[1, 2]")
    assert read(tmp_path) == (["# Title\nWords.\n\nx = 1"], {"damaged": 1, "no text in it": 1})


def test_subtitles_are_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\n{\\an8}<i>Hello there,</i>\r\nyou.\r\n\r\n"
        "2\r\n00:00:03,000 --> 00:00:04,000\r\n\r\n3\r\n00:00:05,000 --> 00:00:06,000\r\n1984\r\n"
    )
    (tmp_path / "b.vtt").write_text(
        "WEBVTT\n\nNOTE no\nno\n\nSTYLE\n::cue {}\n\nid\n00:01.000 --> 00:02.000 align:start\n<v Bob>Hi &amp; bye.\n\n"
        "00:02.000 --> 00:03.000\nHi<00:02.500><c> again</c>\n\n00:03.000 --> 00:04.000\nHi again\nNew line\n"
    )
    assert read(tmp_path) == (["Hello there,\nyou.\n1984\n", "Bob: Hi & bye.\nHi again\nNew line\n"], {})
    many = [line for number in range(100) for line in ("0:01.0 --> 0:02.0\n", f"Line {number}.\n", "\n")]
    parts = list(subtitle_text(iter(many), 100))
    assert len(parts) > 5
    assert "".join(parts) == "".join(many[1::3])
