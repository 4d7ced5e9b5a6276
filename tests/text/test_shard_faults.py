"""Token folders that are damaged, lie, or were never finished: each fault is named, and nothing half is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsmith.errors import RequestError, WorkError
from chatsmith.text import chat, new_folder
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from documents import contents, talk, texts
from patience import PATIENCE


def test_what_stands_in_the_way_is_not_touched(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    target = tmp_path / "t"
    write_shards(texts(3), byte_tokenizer, target)
    before = contents(target)
    with pytest.raises(RequestError, match="already holds tokens"):
        write_shards(texts(9), byte_tokenizer, target)
    assert contents(target) == before
    write_shards(texts(9), byte_tokenizer, target, overwrite=True, held_out=0)
    assert TokenFolder.open(target).manifest.documents == 9

    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "letter").write_text("dear")
    with pytest.raises(RequestError, match="other than tokens"):
        write_shards(texts(3), byte_tokenizer, precious, overwrite=True)
    with pytest.raises(RequestError, match="is a file"):
        write_shards(texts(3), byte_tokenizer, precious / "letter", overwrite=True)
    assert (precious / "letter").read_text() == "dear"


def test_a_failing_reader_leaves_nothing(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    def documents() -> object:
        yield from texts(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(documents(), byte_tokenizer, tmp_path / "t")  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


CHILD = """
import sys, resource
sys.path.insert(0, {path!r})
from pathlib import Path
from chatsmith.errors import WorkError
from chatsmith.text.documents import Document
from chatsmith.text import shard_writer
from chatsmith.text.tokenizer import Tokenizer
shard_writer._BATCH_CHARACTERS = 100_000
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def documents():
    for number in range(10**9 if not limit else 50):
        yield Document(f"{{number}} " + "word " * 10_000, "s")
        if number == 20:
            print("going", flush=True)
try:
    shard_writer.write_shards(documents(), Tokenizer.load(Path(sys.argv[3])), Path(sys.argv[1]), overwrite=True)
except WorkError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Tokenizer) -> Callable[..., subprocess.Popen[str]]:
    """Starts a writer in another process."""
    saved = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer.save(saved)
    code = CHILD.format(path=str(Path(chat.__file__).parents[2]))

    def start(target: Path, limit: int) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", code, str(target), str(limit), str(saved)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def test_a_full_disk_is_said_in_one_line_and_leaves_what_was_there(
    child: Callable[..., subprocess.Popen[str]], byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_shards(texts(3), byte_tokenizer, tmp_path / "t")
    before = contents(tmp_path / "t")
    process = child(tmp_path / "t", 1_000_000)
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 1, said
    assert "the disk is full" in said
    assert "free some space" in said
    assert contents(tmp_path / "t") == before
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_killed_writer_leaves_nothing_that_opens_and_the_next_one_clears_up(
    child: Callable[..., subprocess.Popen[str]], byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    process = child(tmp_path / "t", 0)
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    process.stdout.close()
    (left,) = tmp_path.iterdir()
    for folder in (tmp_path / "t", left):
        with pytest.raises(RequestError):
            TokenFolder.open(folder)
    write_shards(texts(3), byte_tokenizer, tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_living_writer_is_not_taken_for_a_dead_one(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    with new_folder.write_folder(tmp_path / "t", overwrite=False) as first:
        first.close(first.create("file"))
        with new_folder.write_folder(tmp_path / "t", overwrite=False) as second:
            second.close(second.create("manifest.json"))
        assert (first.path / "file").exists()
        with pytest.raises(RequestError, match="already holds tokens"):
            write_shards(texts(3), byte_tokenizer, tmp_path / "t")
        (tmp_path / "t" / "manifest.json").unlink()
    assert (tmp_path / "t" / "file").exists()


def test_an_exchange_that_fails_puts_the_old_folder_back(
    byte_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(texts(3), byte_tokenizer, tmp_path / "t")
    before = contents(tmp_path / "t")
    rename = os.rename

    def fail_on_the_new_one(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_on_the_new_one)
    with pytest.raises(WorkError, match="disk is full"):
        write_shards(texts(9), byte_tokenizer, tmp_path / "t", overwrite=True)
    assert contents(tmp_path / "t") == before
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.fixture
def folder(byte_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    write_shards([*texts(30), talk(1)], byte_tokenizer, tmp_path / "t", held_out=0.2, shard_tokens=500)
    return tmp_path / "t"


def test_what_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        TokenFolder.open(folder / "nowhere")
    (folder.parent / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no manifest\.json"):
        TokenFolder.open(folder.parent / "empty")
    with pytest.raises(RequestError, match="did you mean held_out"):
        TokenFolder.open(folder).split("heldout")


@pytest.mark.parametrize("fault", ["missing", "shorter", "longer"])
def test_every_file_of_another_size_is_named(folder: Path, fault: str) -> None:
    for name in sorted(contents(folder)):
        if name == "manifest.json":
            continue
        path = folder / name
        before = path.read_bytes()
        if fault == "missing":
            path.unlink()
        else:
            path.write_bytes(before[:-1] if fault == "shorter" else before + b"x")
        with pytest.raises(WorkError, match=name):
            TokenFolder.open(folder)
        path.write_bytes(before)
    TokenFolder.open(folder).verify()


def test_every_changed_byte_is_found_by_its_checksum(folder: Path) -> None:
    for name in sorted(contents(folder)):
        if name == "manifest.json":
            continue
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(WorkError, match=name):
            TokenFolder.open(folder).verify()
        path.write_bytes(before)


LIES = {
    "version": ({"version": 2}, "version 2"),
    "format": ({"format": "other"}, "does not describe"),
    "dtype": ({"dtype": "uint32"}, "dtype"),
    "an unknown dtype": ({"dtype": "object"}, "dtype"),
    "vocabulary": ({"vocab_size": 10**12}, "vocab_size"),
    "a small vocabulary": ({"vocab_size": 0}, "vocab_size"),
    "end of text": ({"end_of_text": 300}, "end_of_text"),
    "tokens": ({"tokens": 10**9}, "add up"),
    "sources": ({"sources": 10**9}, "sources"),
    "a text for a number": ({"documents": "31"}, "whole number"),
    "an unknown key": ({"colour": "red"}, "unknown key"),
    "no splits": ({"splits": {}}, "splits are none"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused(folder: Path, lie: str) -> None:
    change, words = LIES[lie]
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((RequestError, WorkError), match=words):
        TokenFolder.open(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff", '{"version": 1' + "0" * 5000 + "}"])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises((RequestError, WorkError), match=r"manifest\.json"):
        TokenFolder.open(folder)


def test_no_name_in_a_manifest_leads_out_of_the_folder(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../secret"] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    with pytest.raises(WorkError, match="does not belong"):
        TokenFolder.open(folder)


def test_split_counts_that_contradict_the_files_are_refused(byte_tokenizer: Tokenizer, folder: Path) -> None:
    path = folder / "manifest.json"
    for change in ({"shards": [10**15]}, {"tokens": 0}, {"documents": 1}, {"learned_tokens": 10**9}, {"bytes": -1}):
        manifest = json.loads(path.read_text())
        manifest["splits"]["train"] |= change
        (folder.parent / "t" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(WorkError, match="damaged"):
            TokenFolder.open(folder)
        manifest = None
        write_shards([*texts(30), talk(1)], byte_tokenizer, folder, held_out=0.2, shard_tokens=500, overwrite=True)


def test_ids_outside_the_vocabulary_do_not_reach_a_model(folder: Path) -> None:
    path = folder / "train-00000.tokens"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(WorkError, match="outside the vocabulary"):
        TokenFolder.open(folder).split("train").read(0, 10)
