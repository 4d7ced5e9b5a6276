"""Documents from files: every kind, every compression, every way a file can be bad."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from chatsmith.text.chat import Message
from chatsmith.text.documents import Document
from documents import TEXT, read, reasons


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "a.RS", "README", "Makefile", "a.c++"])
def test_plain_text_comes_byte_for_byte(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TEXT.encode())
    documents, report = read(tmp_path)
    assert documents == [Document(TEXT, str(tmp_path / name))]
    assert (report.files, report.documents, report.characters, report.bytes) == (1, 1, len(TEXT), len(TEXT.encode()))
    assert report.bytes_read == len(TEXT.encode())


def zst(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zst,
}


def message(name: str, parent: str | None, role: str, text: str, rank: int | None = None) -> dict[str, object]:
    """One row of OpenAssistant's flat tables."""
    return {"message_tree_id": name[0], "message_id": name, "parent_id": parent, "role": role, "text": text} | {
        "rank": rank,
        "lang": "en",
    }


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_messages_of_one_tree_become_a_talk(tmp_path: Path, kind: str) -> None:
    rows = [
        message("a1", None, "prompter", "How do birds fly?"),
        message("a2", "a1", "assistant", "BAD", 1),
        message("a3", "a1", "assistant", "With wings.", 0),
        message("a4", "a3", "prompter", "And planes?"),
        message("a5", "a4", "assistant", "With engines."),
        message("b1", None, "prompter", "Who are you?"),
        message("b2", "b1", "assistant", "A friend."),
        message("c1", "c0", "assistant", "BAD"),
        message("d1", "d2", "prompter", "BAD"),
        message("d2", "d1", "assistant", "BAD"),
    ]
    if kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    documents, report = read(tmp_path)
    assert [document.texts for document in documents] == [
        ("How do birds fly?", "With wings.", "And planes?", "With engines."),
        ("Who are you?", "A friend."),
    ]
    assert [document.source.rpartition(":")[2] for document in documents] == ["1", "6"]
    assert report.reasons == {"turn without its conversation": 3}


@pytest.mark.parametrize("suffix", PACKERS)
def test_each_compression(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    long = TEXT * 20_000
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(long[:100].encode()) + pack(long[100:].encode()))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(b'{"text": "one"}\n{"text": "two"}\n'))
    documents, _ = read(tmp_path, duplicates="keep")
    assert "".join(document.text for document in documents[:-2]) == long
    assert [(document.text, document.source) for document in documents[-2:]] == [
        ("one", f"{tmp_path}/b.jsonl{suffix}:1"),
        ("two", f"{tmp_path}/b.jsonl{suffix}:2"),
    ]


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_archives_are_named_and_what_came_before_is_kept(tmp_path: Path, suffix: str) -> None:
    lines = b"".join(b'{"text": "%032x"}\n' % (number * 0x9E3779B97F4A7C15 << 40) for number in range(60_000))
    packed = PACKERS[suffix](lines)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(packed[: len(packed) * 3 // 4])
    (tmp_path / f"b.txt{suffix}").write_bytes(b"this is no archive at all")
    (tmp_path / "c.txt").write_text("a good file")
    documents, report = read(tmp_path)
    assert documents[-1].text == "a good file"
    assert report.reasons == {"damaged": 2}
    # bzip2 gives what came before in blocks of 900 kB, zst in blocks of 128 kB
    assert len(documents) > 10_000


def test_html_shows_what_a_browser_shows(tmp_path: Path) -> None:
    page = "<title>T</title><h1>Head</h1><p>One &amp; <b>two</b></p><script>var a = '<p>no</p>'</script><p>Three"
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "old.htm").write_bytes('<meta charset="windows-1252"><p>café'.encode("cp1252"))
    documents, _ = read(tmp_path)
    assert [document.text for document in documents] == ["Head\n\nOne & two\n\nThree", "café"]


def test_json_in_its_shapes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "one"}, {"title": "x", "body": "two"}, "three"], indent=1))
    (tmp_path / "b.json").write_text('{"data": [{"paragraphs": [{"context": "four"}, {"context": "five"}]}]}')
    (tmp_path / "c.json").write_text('{"text": "six"}\n{"text": "seven"}')
    documents, _ = read(tmp_path)
    assert [document.text for document in documents] == ["one", "two", "three", "four", "five", "six", "seven"]
    assert documents[2].source == f"{tmp_path}/a.json:3"


def test_conversations_become_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}) + "\n\n" + json.dumps({"text": "plain"}))
    documents, report = read(tmp_path)
    assert documents[0].messages == (Message("user", "Hi."), Message("assistant", "Hello."))
    assert documents[1] == Document("plain", f"{tmp_path}/a.jsonl:3")
    assert (report.documents, report.conversations, report.characters) == (2, 1, len("Hi.Hello.plain"))
    assert pickle.loads(pickle.dumps(documents)) == documents  # they travel to worker processes


def test_what_is_left_out_of_conversations_is_listed(tmp_path: Path) -> None:
    question, answer = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}
    worse = {"role": "assistant", "content": "BAD"}
    records = [
        {"chosen": [question, answer], "rejected": [question, worse]},
        {"messages": [question, answer, question, {"role": "tool", "content": "z"}]},
        {"messages": [question, {"role": "alien", "content": "z"}, answer]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    documents, report = read(tmp_path, duplicates="keep")
    assert [document.source for document in documents] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:2"]
    assert all(document.messages == (Message("user", "Hi."), Message("assistant", "Hello.")) for document in documents)
    assert [str(one).removeprefix(str(tmp_path)) for one in report.skipped] == [
        "/a.jsonl:1: rejected answer",
        "/a.jsonl:2: rest of a conversation with tools",
        "/a.jsonl:3: conversation with an unknown role (alien)",
    ]


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('label,review\n1,"Good, ""really"" good\nfilm"\n0,Bad film\n')
    (tmp_path / "b.csv").write_text("n;text\n1;uno\n")
    (tmp_path / "c.tsv").write_text('He said "go.\tIl dit\t3\nStop!\tArrête\t4\n')
    (tmp_path / "d.csv").write_bytes("text\nwide".encode("utf-16"))
    documents, _ = read(tmp_path)
    assert [document.text for document in documents] == [
        'Good, "really" good\nfilm',
        "Bad film",
        "uno",
        'He said "go.\tIl dit',
        "Stop!\tArrête",
        "wide",
    ]
    documents, _ = read(tmp_path / "c.tsv", field="2")
    assert [document.text for document in documents] == ["Il dit", "Arrête"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parquet(tmp_path: Path, suffix: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": number, "text": f"text {number}", "other": "words of no use"} for number in range(1000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=100)
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": talk, "n": 1}]), tmp_path / "b.parquet")
    if suffix:
        for name in ("a.parquet", "b.parquet"):
            (tmp_path / (name + suffix)).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
            (tmp_path / name).unlink()
    documents, _ = read(tmp_path)
    assert [document.text for document in documents[:-1]] == [row["text"] for row in rows]
    assert documents[16].source == f"{tmp_path}/a.parquet{suffix}:17"
    assert documents[-1].messages == (Message("user", "Hi."), Message("assistant", "Hello."))
    rated = [{"prompt": "Hi.", "completion": "Hello.", "label": good, "rejected": "BAD"} for good in (True, False)]
    parquet.write_table(pyarrow.Table.from_pylist(rated), tmp_path / "rated.parquet")
    shown = [{"images": [{"bytes": b"x", "path": None}] * count, "messages": talk} for count in (0, 1)]
    parquet.write_table(pyarrow.Table.from_pylist(shown), tmp_path / "shown.parquet")
    for name, skipped in (
        ("rated.parquet", {"rejected answer": 3}),
        ("shown.parquet", {"conversation with more than text": 1}),
    ):
        documents, report = read(tmp_path / name)
        assert [document.source for document in documents] == [f"{tmp_path}/{name}:1"]
        assert report.reasons == skipped
        (tmp_path / name).unlink()
    voted = {"prompt": "Hi.", "response_a": "BAD", "response_b": "Hello.", "winner_model_a": 0, "winner_model_b": 1}
    parquet.write_table(pyarrow.Table.from_pylist([{**voted, "system": "Be kind."}]), tmp_path / "voted.parquet")
    documents, _ = read(tmp_path / "voted.parquet")
    assert documents[0].texts == ("Be kind.", "Hi.", "Hello.")
    (tmp_path / "voted.parquet").unlink()
    asked = {"question": "Which one?", "choices": ["BAD", "This one."], "answer": 1}
    parquet.write_table(pyarrow.Table.from_pylist([asked]), tmp_path / "asked.parquet")
    assert read(tmp_path / "asked.parquet")[0][0].texts == ("Which one?", "This one.")
    (tmp_path / "asked.parquet").unlink()
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert read(tmp_path)[1].reasons == {"damaged": 1}


def make_pdf(*pages: str, encrypted: bool = False) -> bytes:
    """A PDF of one line of text a page, written by hand."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(len(pages)))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, page in enumerate(pages):
        content = b"BT /F1 12 Tf 72 700 Td (%s) Tj ET" % page.encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * number)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return out + end + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))


def test_pdf(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    (tmp_path / "a.pdf").write_bytes(make_pdf("First page.", "Second page."))
    (tmp_path / "b.pdf.gz").write_bytes(gzip.compress(make_pdf("Packed page.")))
    documents, _ = read(tmp_path)
    assert [document.text for document in documents] == ["First page.\n\nSecond page.", "Packed page."]
    writer = pypdf.PdfWriter(clone_from=tmp_path / "a.pdf")
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    (tmp_path / "b.pdf.gz").unlink()
    (tmp_path / "c.pdf").write_bytes(make_pdf("Cut off.")[:200])
    (tmp_path / "d.pdf").write_bytes(make_pdf(""))
    assert reasons(tmp_path) == {"encrypted": 1, "damaged": 1, "no text in it": 1}


WORD = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>%s</w:body></w:document>'


def make_docx(path: Path, xml: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", xml)


def test_docx(tmp_path: Path) -> None:
    def paragraph(words: str) -> str:
        return f"<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>{words}</w:t></w:r></w:p>"

    cells = "".join(f"<w:tc>{paragraph(words)}</w:tc>" for words in ("a", "b"))
    body = (
        paragraph("One &amp; two")
        + "<w:p><w:r><w:t>x</w:t><w:tab/><w:t>y</w:t><w:br/><w:delText>gone</w:delText></w:r></w:p>"
        + f"<w:tbl><w:tr>{cells}</w:tr><w:tr>{cells}</w:tr></w:tbl>"
        + paragraph("End")
    )
    make_docx(tmp_path / "a.docx", WORD % body)
    documents, _ = read(tmp_path)
    assert documents[0].text == "One & two\nx\ty\n\na\tb\na\tb\nEnd"


def test_docx_equals_python_docx(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    made = docx.Document()
    for words in ("Title", "A paragraph – with a dash.", "Another."):
        made.add_paragraph(words)
    made.save(tmp_path / "a.docx")
    assert read(tmp_path)[0][0].text == "Title\nA paragraph – with a dash.\nAnother."


def test_notes_of_docx_come_after_its_text(tmp_path: Path) -> None:
    make_docx(tmp_path / "a.docx", WORD % "<w:p><w:r><w:t>Body</w:t><w:footnoteReference w:id='2'/></w:r></w:p>")
    with zipfile.ZipFile(tmp_path / "a.docx", "a") as archive:
        note = '<w:footnote w:type="separator"><w:p><w:r><w:separator/></w:r></w:p></w:footnote>'
        note += "<w:footnote><w:p><w:r><w:t>Note</w:t></w:r></w:p></w:footnote>"
        archive.writestr("word/footnotes.xml", WORD % note)
    assert read(tmp_path)[0][0].text == "Body\n\nNote"


def test_docx_refuses_entities_and_floods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + WORD % "<w:p><w:r><w:t>&b;</w:t></w:r></w:p>"
    make_docx(tmp_path / "a.docx", laughs)
    make_docx(tmp_path / "b.docx", WORD % ("<w:p/>" * 500_000))
    (tmp_path / "c.docx").write_bytes(b"PK no zip")
    monkeypatch.setattr("chatsmith.text.pages._WORD_BYTES", 1 << 20)
    assert reasons(tmp_path) == {"damaged": 2, "unfolds too far": 1}


def test_long_texts_are_cut_and_numbered(tmp_path: Path) -> None:
    story = "".join(f"This is paragraph {number}.\nIt ends.\n\n" for number in range(100))
    (tmp_path / "a.txt").write_text(story)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": story}))
    documents, _ = read(tmp_path, document_bytes=1000, duplicates="keep")
    for name in ("a.txt#", "b.jsonl:1#"):
        parts = [document for document in documents if name in document.source]
        assert [part.source for part in parts] == [f"{tmp_path}/{name}{n}" for n in range(1, len(parts) + 1)]
        assert "".join(part.text for part in parts) == story
        assert all(500 <= len(part.text) <= 1000 and part.text.endswith("\n\n") for part in parts[:-1])


def test_lone_surrogates_do_not_get_through(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "bad \ud800 good \ud83e\udda6"}')
    assert read(tmp_path)[0][0].text == "bad \ufffd good 🦦"


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_floods_are_stopped(tmp_path: Path, suffix: str) -> None:
    data = b"words " * 400_000
    (tmp_path / f"a.txt{suffix}").write_bytes(PACKERS[suffix](data) if suffix else data)
    assert reasons(tmp_path, max_file_bytes=10_000) == {"too large": 1}


def test_bombs_are_stopped(tmp_path: Path) -> None:
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(b"a" * (80 << 20)))
    documents, report = read(tmp_path, duplicates="keep")
    assert report.reasons == {"unfolds too far": 1}
    assert report.bytes < 66 << 20
    assert report.documents == len(documents)


def test_the_report_can_be_shown_and_stored(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words")
    (tmp_path / "[b].exe").write_bytes(b"MZ")
    _, report = read(tmp_path)
    console = Console(width=300, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(report)
    shown = console.export_text()
    assert "unknown kind of file" in shown
    assert "[b].exe (.exe)" in shown
    assert report.summary() == "1 document from 1 file; 10 characters (10 bytes); skipped 1 unknown kind of file"
    stored = json.loads(json.dumps(report.to_json()))
    assert stored["skipped"] == [{"source": f"{tmp_path}/[b].exe", "reason": "unknown kind of file", "detail": ".exe"}]


ONE_LINE = """
import resource, sys
from chatsmith.text.documents import ReadReport, read_documents
report = ReadReport()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
characters = sum(len(document.text) for document in read_documents(sys.argv[1:], report=report, duplicates="keep"))
print(characters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("spaces", [True, False])
def test_one_endless_line_takes_little_memory(tmp_path: Path, spaces: bool) -> None:
    block = ("lorem ipsum été " if spaces else "loremipsumété").encode() * 4096
    size = 0
    with open(tmp_path / "line.txt", "wb") as file:
        while size < 64 << 20:
            size += file.write(block)
    run = [sys.executable, "-c", ONE_LINE, str(tmp_path / "line.txt")]
    characters, growth = map(int, subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    assert characters == size // len(block) * len(block.decode())
    assert growth < 24 << 10  # kibibytes


def test_real_corpora(shared: Path) -> None:
    documents, report = read(shared / "data" / "tinyshakespeare", shared / "data" / "gsm8k", document_bytes=1 << 24)
    plays = [document for document in documents if not document.messages]
    assert plays[0].text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert sum(len(play.text) for play in plays) == 1_115_394
    assert report.conversations == 7473 + 660
