"""Parts of a corpus: the same bytes whoever makes them, and one folder of tokens whatever their number."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError, WorkError
from chatsmith.text import parts as parts_module
from chatsmith.text import read_pool, unit_reader, units
from chatsmith.text.corpus import write_corpus
from chatsmith.text.documents import ReadReport, read_documents
from chatsmith.text.merge import merge
from chatsmith.text.parts import Part, files_of_part, parse_part, part_name, shard, write_part
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.unit_reader import Reading, ReadSettings

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "st", "m")]


def article(seed: int, words: int = 120) -> str:
    """Words drawn by a seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words)).capitalize() + "."


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files of several kinds; among them exact and near duplicates within and across files, and a photo."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(24):
        texts = [article(100 * number + place) for place in range(6)]
        if number % 5 == 3:
            texts[2] = article(100 * (number - 3) + 1)  # word for word what another file has
            texts[4] = article(100 * (number - 2)) + " And a few words more."  # nearly
        if number % 4 == 0:
            (folder / f"{number:02d}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        elif number % 4 == 1:
            (folder / f"{number:02d}.txt").write_text("\n\n".join(texts))
        elif number % 4 == 2:
            turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
            (folder / f"{number:02d}.jsonl").write_text(json.dumps({"messages": turns}) + "\n" + json.dumps(texts[0]))
        else:
            (folder / f"{number:02d}.txt.gz").write_bytes(gzip.compress("\n\n".join(texts).encode(), mtime=0))
    (folder / "photo.jpeg").write_bytes(b"\xff\xd8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tokens(folder: Path) -> dict[str, bytes]:
    """Those of a folder of tokens, without the vocabulary that `merge` puts beside them."""
    return {name: data for name, data in contents(folder).items() if not name.startswith("tokenizer")}


def make(files: Path, out: Path, tokenizer: Tokenizer, count: int, **settings: object) -> Path:
    """All parts, the last one first."""
    for number in reversed(range(1, count + 1)):
        write_part([files], Reading(tokenizer, ReadSettings(**settings)), out, number, count)  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("duplicates", ["keep", "exact", "near"])
def test_any_number_of_parts_makes_the_folder_that_reading_at_once_makes(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer, count: int, duplicates: str
) -> None:
    report = ReadReport()
    documents = read_documents([files], report=report, duplicates=duplicates)  # type: ignore[arg-type]
    manifest = write_shards(documents, byte_tokenizer, tmp_path / "once", held_out=0.1, seed=3)
    place = make(files, tmp_path / "parts", byte_tokenizer, count, duplicates=duplicates, seed=3)
    merged = merge([place], tmp_path / "merged", held_out=0.1)
    assert merged.manifest == manifest
    assert tokens(tmp_path / "merged") == tokens(tmp_path / "once")
    assert merged.read.to_json() == report.to_json()
    assert (duplicates == "near") == (report.near_duplicates > 0)
    TokenFolder.open(tmp_path / "merged").verify()
    assert Tokenizer.load(tmp_path / "merged").fingerprint == byte_tokenizer.fingerprint


def test_processes_make_what_one_makes(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [ReadReport(), ReadReport()]
    write_corpus([files], byte_tokenizer, tmp_path / "one", report=reports[0], threads=1)
    write_part([files], Reading(byte_tokenizer), tmp_path / "alone", threads=1)
    monkeypatch.setattr(read_pool, "_ALONE_BYTES", 0)
    monkeypatch.setattr(read_pool, "_JOB_FILES", 2)
    monkeypatch.setattr(read_pool, "_AHEAD_BYTES", 10_000)
    assert read_pool.is_even(parts_module.files_of([files], ReadReport()), 3)
    write_corpus([files], byte_tokenizer, tmp_path / "three", report=reports[1], threads=3)
    write_part([files], Reading(byte_tokenizer), tmp_path / "together", threads=3)
    assert tokens(tmp_path / "one") == tokens(tmp_path / "three")
    assert reports[0] == reports[1]
    assert contents(tmp_path / "alone" / part_name(1, 1)) == contents(tmp_path / "together" / part_name(1, 1))


def test_the_bytes_of_a_part_do_not_depend_on_how_it_was_cut_into_units(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part([files], Reading(byte_tokenizer), tmp_path / "large")
    monkeypatch.setattr(unit_reader, "_UNIT_DOCUMENTS", 3)
    write_part([files], Reading(byte_tokenizer), tmp_path / "small")
    assert contents(tmp_path / "large" / part_name(1, 1)) == contents(tmp_path / "small" / part_name(1, 1))
    monkeypatch.setattr(parts_module, "_BLOCK_DOCUMENTS", 5)
    small = merge([tmp_path / "small"], tmp_path / "from-small-blocks")
    monkeypatch.undo()
    assert merge([tmp_path / "large"], tmp_path / "tokens").manifest == small.manifest


def test_any_scheduler_can_call_it(files: Path, tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    byte_tokenizer.save(tmp_path / "vocabulary")
    place, vocabulary = tmp_path / "parts", tmp_path / "vocabulary"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = [pool.submit(shard, [files], vocabulary, place, f"{number}/4", processes=1) for number in (3, 1, 4, 2)]
        counts = [future.result()[0].documents for future in made]
    assert sum(counts) == sum(Part(folder).record.documents for folder in place.iterdir())
    make(files, tmp_path / "again", byte_tokenizer, 4)
    for number in range(1, 5):
        name = part_name(number, 4)
        assert contents(place / name) == contents(tmp_path / "again" / name)


def test_dask_can_call_it(files: Path, tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    dask = pytest.importorskip("dask", reason="dask is not installed")
    byte_tokenizer.save(tmp_path / "vocabulary")
    parts = [
        dask.delayed(shard)([files], tmp_path / "vocabulary", tmp_path / "parts", f"{number}/4")
        for number in (1, 2, 3, 4)
    ]
    dask.compute(*parts, scheduler="threads")
    once = write_shards(read_documents([files], report=ReadReport()), byte_tokenizer, tmp_path / "once")
    assert merge([tmp_path / "parts"], tmp_path / "merged").manifest == once


def test_neighbouring_files_make_parts_of_like_size() -> None:
    sizes = [random.Random(7).randrange(1, 1000) for _ in range(500)]
    files = [(Path(f"{number:03d}.txt"), size) for number, size in enumerate(sizes)]
    for count in (1, 7, 64, 700):
        parts = [files_of_part(files, number, count) for number in range(1, count + 1)]
        assert [file for part in parts for file in part] == files
        totals = [sum(size for _, size in part) for part in parts]
        assert max(totals) <= sum(sizes) / count + 2 * max(sizes)


@pytest.mark.parametrize(
    ("sizes", "processes", "even"),
    [([50] * 40, 2, True), ([50] * 8, 8, True), ([400, 50, 50], 8, False), ([500], 8, False), ([50] * 40, 1, False)],
)
def test_files_are_read_side_by_side_where_that_is_sooner(sizes: list[int], processes: int, even: bool) -> None:
    files = [(Path(f"{number}.txt"), size << 20) for number, size in enumerate(sizes)]
    assert read_pool.is_even(files, processes) == even
    assert not read_pool.is_even([(file, size >> 20) for file, size in files], processes)


def test_a_part_that_is_there_is_left_alone_unless_its_files_changed(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    reading = Reading(byte_tokenizer)
    first, new = write_part([files], reading, tmp_path / "parts", 2, 3)
    assert new
    assert write_part([files], reading, tmp_path / "parts", 2, 3) == (first, False)
    with pytest.raises(RequestError, match="other settings"):
        write_part([files], Reading(byte_tokenizer, ReadSettings(seed=1)), tmp_path / "parts", 2, 3)
    later = time.time() + 100
    os.utime(first.last, (later, later))
    with pytest.raises(RequestError, match="is older than"):
        write_part([files], reading, tmp_path / "parts", 2, 3)
    assert write_part([files], reading, tmp_path / "parts", 2, 3, overwrite=True) == (first, True)


KILLED = """
import sys, time
from pathlib import Path
from chatsmith.text import parts, units
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.unit_reader import Reading
real = parts.read_units
def slow(*arguments):
    for unit in real(*arguments):
        yield unit
        print("begun", flush=True)
        time.sleep(60)
parts.read_units = slow
files, out, vocabulary = map(Path, sys.argv[1:])
parts.write_part([files], Reading(Tokenizer.load(vocabulary)), out, 1, 2)
"""


def test_a_part_that_two_make_at_once_is_made(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a scheduler sent the work out twice; the slower of them finds it done."""
    reading = Reading(byte_tokenizer, ReadSettings())
    write_columns = parts_module._write_columns

    def slow(*given: Any) -> tuple[int, int]:
        monkeypatch.setattr(parts_module, "_write_columns", write_columns)
        assert write_part([files], reading, tmp_path / "parts", 1, 2, threads=1)[1]
        return write_columns(*given)

    monkeypatch.setattr(parts_module, "_write_columns", slow)
    record, new = write_part([files], reading, tmp_path / "parts", 1, 2, threads=1)
    assert not new
    assert record.documents > 0
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [part_name(1, 2)]


def test_a_killed_part_is_made_by_the_same_call(files: Path, tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    byte_tokenizer.save(tmp_path / "vocabulary")
    place = tmp_path / "parts"
    command = [sys.executable, "-c", KILLED, str(files), str(place), str(tmp_path / "vocabulary")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (place / part_name(1, 2)).exists()
    assert any(place.iterdir())
    with pytest.raises(RequestError, match="no part"):
        merge([place], tmp_path / "merged")
    make(files, place, byte_tokenizer, 2)
    assert sorted(path.name for path in place.iterdir()) == [part_name(1, 2), part_name(2, 2)]
    assert merge([place], tmp_path / "merged").parts == 2


def test_what_is_wrong_with_parts_is_said_of_which(files: Path, tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    place = make(files, tmp_path / "parts", byte_tokenizer, 3)
    second = place / part_name(2, 3)
    with pytest.raises(RequestError, match=r"parts are missing: 2/3"):
        merge([place / part_name(1, 3), place / part_name(3, 3)], tmp_path / "t")
    with pytest.raises(RequestError, match="the same part"):
        merge([place, second], tmp_path / "t")
    other = make(files, tmp_path / "other", byte_tokenizer, 3, seed=9)
    with pytest.raises(RequestError, match="different corpora"):
        merge([place / part_name(1, 3), other / part_name(2, 3), place / part_name(3, 3)], tmp_path / "t")
    ids = (second / "ids").read_bytes()
    data = bytearray(ids)
    data[len(data) // 2] ^= 1
    (second / "ids").write_bytes(data)
    with pytest.raises(WorkError, match=r"part-00002-of-00003 is damaged: the contents of ids"):
        merge([place], tmp_path / "t")
    (second / "ids").write_bytes(data[:-4])
    with pytest.raises(WorkError, match=r"part-00002-of-00003 is damaged"):
        merge([place], tmp_path / "t")
    (second / "ids").write_bytes(ids)
    record = json.loads((second / "part.json").read_text())
    for change in ({"report": {}}, {"report": {"files": "x"}}, {"documents": 1}, {"vocab_size": 200}, {"files": {}}):
        (second / "part.json").write_text(json.dumps(record | change))
        with pytest.raises(WorkError, match=r"part-00002-of-00003 is damaged"):
            merge([place], tmp_path / "t")
    (second / "part.json").write_text("{")
    with pytest.raises(WorkError, match=r"part-00002-of-00003 is damaged"):
        merge([place], tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "other", "parts"]
    with pytest.raises(RequestError, match="a window of 0"):
        merge([place], tmp_path / "t", window=0)


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "a/b", "-1/3", "1/0", "1/9999999", "1/1000000"])
def test_a_part_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="part"):
        parse_part(text)
    assert parse_part("3/64") == (3, 64)


def test_a_dead_process_is_reported(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_pool, "_ALONE_BYTES", 0)
    monkeypatch.setattr(read_pool, "_JOB_FILES", 2)
    real = read_pool.Workers

    def doomed(*arguments: object) -> object:
        workers = real(*arguments)  # type: ignore[arg-type]
        for worker in workers.running:
            worker.kill()
        return workers

    monkeypatch.setattr(read_pool, "Workers", doomed)
    with pytest.raises(WorkError, match="ended before its work was done"):
        write_corpus([files], byte_tokenizer, tmp_path / "t", report=ReadReport(), threads=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


def test_a_corpus_of_few_documents_gets_both_sides_from_parts_too(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    for count in (1, 2, 5):
        folder = tmp_path / f"few-{count}"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.txt").write_text("\n\n".join(article(number * 50 + line) for line in range(9)))
        once = write_shards(
            read_documents([folder], report=ReadReport()), byte_tokenizer, tmp_path / f"once-{count}", held_out=0.05
        )
        make(folder, tmp_path / f"parts-{count}", byte_tokenizer, 2)
        merged = merge([tmp_path / f"parts-{count}"], tmp_path / f"merged-{count}", held_out=0.05)
        assert merged.manifest == once
        assert merged.manifest.held_out_by != "hash of each document"


def test_units_go_over_a_pipe_and_are_joined(files: Path, byte_tokenizer: Tokenizer) -> None:
    made = list(Reading(byte_tokenizer).units(sorted(files.iterdir()), ReadReport()))
    whole = units.joined(made)
    back = units.joined([whole.taken(units.np.arange(0, 30)), whole.taken(units.np.arange(30, len(whole)))])
    assert all((back[name] == whole[name]).all() for name in units.COLUMNS)
    assert back.sources == whole.sources


def test_wide_vocabularies_and_conversations_go_through_parts(
    files: Path, tmp_path: Path, byte_tokenizer: Tokenizer, wide_tokenizer: Tokenizer
) -> None:
    for name, tokenizer in (("narrow", byte_tokenizer), ("wide", wide_tokenizer)):
        make(files, tmp_path / name, tokenizer, 2)
        merge([tmp_path / name], tmp_path / f"{name}-tokens", shard_tokens=5000)
    sizes = [(tmp_path / name / part_name(1, 2) / "ids").stat().st_size for name in ("narrow", "wide")]
    assert sizes[1] == 2 * sizes[0]
    splits = [TokenFolder.open(tmp_path / f"{name}-tokens").split("train") for name in ("narrow", "wide")]
    assert splits[0].has_loss
    texts = [list(splits[0].iter_text(byte_tokenizer)), list(splits[1].iter_text(wide_tokenizer))]
    assert texts[0] == texts[1]
    places = units.np.arange(len(splits[0]))
    assert (splits[0].gather_loss(places) == splits[1].gather_loss(places)).all()


def test_what_is_written_among_the_files_is_not_read(files: Path, tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    outside = make(files, tmp_path / "parts", byte_tokenizer, 3)
    inside = make(files, files / "parts", byte_tokenizer, 3)
    merged = [merge([place], tmp_path / name).manifest for place, name in ((outside, "a"), (inside, "b"))]
    assert merged[0] == merged[1]
    report = ReadReport()
    list(read_documents([files], report=report, leave_out=files / "parts"))
    assert report.reasons["where this command writes"] == 1
