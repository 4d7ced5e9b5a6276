"""What cannot be read: it is passed over and listed with its reason, or refused in one line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError
from chatsmith.text import documents as module
from chatsmith.text.documents import ReadReport, read_documents
from documents import TEXT, read, reasons


def test_bad_files_are_listed_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "one.txt").write_bytes(b"x")
    (tmp_path / "blank.txt").write_bytes(b" \n\t\n")
    (tmp_path / "zeros.txt").write_bytes(b"MZ\0\0\1\2" * 100)
    (tmp_path / "control.txt").write_bytes(bytes(range(1, 32)) * 10)
    (tmp_path / "latin.txt").write_bytes("Un été à la plage, où l'on a rêvé.".encode("latin-1"))
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "noname").write_bytes(b"what is it")
    (tmp_path / "bad.json").write_text('[{"text": }]')
    (tmp_path / "bad.jsonl").write_text('{"text": \n{"n": 1}\n')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "chatsmith.toml").touch()
    assert reasons(tmp_path) == {
        "empty": 1,
        "a single byte": 1,
        "no text in it": 1,
        "binary, not text": 2,
        "not UTF-8 text": 1,
        "unknown kind of file": 2,
        "not valid JSON": 3,
        "record without text": 1,
        "hidden": 3,
        "a model made by chatsmith": 1,
    }


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("recipe.toml", "tokens/0/manifest.json"), "a training run of chatsmith"),
        (("recipe.toml", "state/step-00000001/meta.json"), "a training run of chatsmith"),
        (("tokens/prepared.json", "tokens/tokenizer.json"), "tokens made by chatsmith"),
        (("manifest.json", "token_bytes"), "tokens made by chatsmith"),
        (("part.json", "tokenizer.json"), "tokens made by chatsmith"),
    ],
)
def test_what_chatsmith_wrote_is_passed_over_unfinished_too(
    tmp_path: Path, names: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "mine.txt").write_text("my own words")
    (tmp_path / "recipe.toml").write_text("a recipe of mine, beside it")
    for name in names:
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "words of a machine"}')
    documents, report = read(tmp_path)
    assert [document.text for document in documents] == ["my own words", "a recipe of mine, beside it"]
    assert list(report.reasons) == [reason]


@pytest.mark.parametrize(("mark", "card"), [("chatsmith.toml", 1), ("recipe.toml", 0)])
def test_of_a_model_that_is_named_itself_only_ones_own_text_is_read(tmp_path: Path, mark: str, card: int) -> None:
    """Its vocabulary, its settings and its log were learned by the next model."""
    own = {"mine.txt": "my own words", "README.md": "of whoever wrote it", "more/config.json": '{"text": "mine, too"}'}
    written = ("config.json", "tokenizer.json", "log.jsonl", "tokens/tokenizer.json", mark)
    for name, text in own.items() | dict.fromkeys(written, '{"text": "words of a machine"}').items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    documents, report = read(tmp_path)
    told = {document.text for document in documents}
    assert told == {"my own words", "mine, too"} | ({"of whoever wrote it"} if not card else set())
    assert sum(report.reasons.values()) == len(written) + card
    for name in own:
        (tmp_path / name).unlink()
    if card:
        with pytest.raises(RequestError, match=r"skipped 5 a model made by chatsmith; such as") as caught:
            read(tmp_path)
        assert "chatsmith train --resume" in str(caught.value.hint)


def test_an_address_is_no_path() -> None:
    with pytest.raises(RequestError) as caught:
        read(Path("https://example.org/a.txt"))
    assert caught.value.message == "https://example.org/a.txt is an address"
    assert caught.value.hint == "only files and folders of this machine are read: download it first"


def test_hidden_files_are_read_when_asked(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / ".notes.txt").write_text("hidden words")
    assert [document.text for document in read(tmp_path, hidden=True)[0]] == ["hidden words"]


def test_few_bad_bytes_are_replaced_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 1000 + b"\xff end")
    documents, report = read(tmp_path)
    assert documents[0].text.endswith("word \ufffd end")
    assert report.repaired == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes((TEXT * 9000).encode(encoding))
    assert "".join(document.text for document in read(tmp_path, duplicates="keep")[0]) == TEXT * 9000


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.txt").chmod(0)
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Path, *rest: Any) -> Any:  # to root, nothing is forbidden
        if Path(path).name in ("secret.txt", "locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path) if Path(path).is_dir() else module_open(path, *rest)

    module_open = module.open_bounded
    monkeypatch.setattr(module, "open_bounded", refuse)
    monkeypatch.setattr("chatsmith.text.walk.os.scandir", refuse)
    assert reasons(tmp_path) == {"no permission to read it": 2}


def test_links_neither_loop_nor_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("outside")
    (root / "in" / "loop").symlink_to(root)
    (root / "out").symlink_to(tmp_path / "out")
    (root / "self.txt").symlink_to(root / "self.txt")
    (root / "nothing.txt").symlink_to(root / "missing")
    (root / "b.txt").symlink_to(tmp_path / "out" / "a.txt")
    os.mkfifo(root / "pipe.txt")
    documents, report = read(root)
    assert [document.source for document in documents] == [str(root / "b.txt")]
    assert report.reasons == {"a link to a folder": 2, "a link to nothing": 2, "no regular file": 1}
    (tmp_path / "entry").symlink_to(root)
    assert len(read(tmp_path / "entry")[0]) == 1  # a link that was named itself is followed


def test_the_order_is_that_of_names_and_overlapping_paths_are_read_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b.txt", "a.txt", "C.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"this is {name}")
    documents, _ = read(tmp_path / "a", tmp_path, tmp_path, tmp_path / "a" / "z.txt")
    names = [str(Path(document.source).relative_to(tmp_path)) for document in documents]
    assert names == ["C.txt", "a/b.txt", "a/z.txt", "a.txt", "b.txt"]


def test_what_is_not_there_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "shakespeare.txt").write_text("To be")
    with pytest.raises(RequestError, match="does not exist") as caught:
        read_documents([tmp_path / "shakespear.txt"], report=ReadReport())
    assert "shakespeare.txt" in str(caught.value.hint)
    with pytest.raises(RequestError, match="no path"):
        read_documents([], report=ReadReport())


def test_nothing_to_read_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing is there") as caught:
        read(tmp_path)
    assert ".parquet" in str(caught.value.hint)
    (tmp_path / "a.exe").write_bytes(b"MZ")
    with pytest.raises(RequestError, match=r"found: .*a\.exe: unknown kind of file \(\.exe\)") as caught:
        read(tmp_path)
    assert ".parquet" in str(caught.value.hint)
    (tmp_path / "b.txt").write_bytes(b"")
    with pytest.raises(RequestError, match=r"skipped 1 unknown kind of file, 1 empty; such as .*a\.exe"):
        read(tmp_path)
    (tmp_path / "c.txt").write_bytes("Très bien, dit-elle à l'été éternel. ".encode("cp1252") * 9)
    with pytest.raises(RequestError, match=r"c\.txt: not UTF-8 text but probably WINDOWS-1252\n") as caught:
        read(tmp_path / "c.txt")
    assert caught.value.hint == "convert it first: iconv -f WINDOWS-1252 -t UTF-8"
    (tmp_path / "d.jsonl").write_text('{"role": "user", "content": "Hi."}\n')
    with pytest.raises(RequestError, match="turn without its conversation") as caught:
        read(tmp_path / "d.jsonl")
    assert "--field" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("a.txt.zst", "zstandard", "data"), ("a.parquet", "pyarrow", "data"), ("a.pdf", "pypdf", "docs")],
)
def test_a_missing_library_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str
) -> None:
    (tmp_path / name).write_bytes(b"some bytes")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RequestError, match=rf'pip install "chatsmith\[{extra}\]"'):
        read(tmp_path)


def test_a_field_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "no", "meta": {"note": "yes"}}\n{"text": "no"}\n')
    documents, report = read(tmp_path, field="meta.note")
    assert [document.text for document in documents] == ["yes"]
    assert report.reasons == {"no text in field 'meta.note'": 1}
    assert report.skipped[0].detail == "it has: text"


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    words = " ".join(f"word{number * number % 1009}" for number in range(400))
    for name, text in {"a": words, "b": words.replace(" ", "\n"), "c": words + " more", "d": "dog", "e": "cat"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    documents, report = read(tmp_path)
    assert [Path(document.source).stem for document in documents] == ["a", "d", "e"]
    assert (report.documents, report.exact_duplicates, report.near_duplicates) == (3, 1, 1)
    assert read(tmp_path, duplicates="exact")[1].documents == 4
    assert read(tmp_path, duplicates="keep")[1].documents == 5


def test_many_questions_about_one_passage_are_no_duplicates(tmp_path: Path) -> None:
    passage = " ".join(f"word{number * number % 1009}" for number in range(400))
    rows = [{"context": passage, "question": f"Which is number {n}?", "answer": f"It is {n}."} for n in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[2]])))
    _, report = read(tmp_path)
    assert (report.conversations, report.exact_duplicates, report.near_duplicates) == (5, 1, 0)
