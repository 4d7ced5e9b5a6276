"""`chatsmith data`: a corpus in parts, as a person makes it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatsmith.text.shards import TokenFolder


def documents(folder: Path) -> Path:
    """Six files; two of them are the same."""
    folder.mkdir()
    words = [f"{a}{b}{c}" for a in "bdfglmnrst" for b in "aeiou" for c in "lmnr"]
    for number in range(6):
        text = " ".join(random.Random(number % 5).choices(words, k=400))
        (folder / f"{number}.txt").write_text(text)
    (folder / "photo.jpeg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_a_corpus_in_parts(run: Callable[..., Any], tmp_path: Path) -> None:
    files = documents(tmp_path / "files")
    words, parts, out = (tmp_path / name for name in ("words", "parts", "tokens"))
    ran = run("data", "vocabulary", files, "--size", 400, "--out", words)
    assert ran.code == 0, ran.err
    assert "400 tokens, learned from 5 documents from 6 files" in ran.out
    for number in (2, 1, 3):
        ran = run("data", "shard", files, "--part", f"{number}/3", "--tokenizer", words, "--out", parts)
        assert ran.code == 0, ran.err
        assert f"part {number}/3: 2 documents" in ran.out
    again = run("data", "shard", files, "--part", "3/3", "--tokenizer", words, "--out", parts)
    assert "part 3/3 is there already" in again.out
    shard = ("data", "shard", files, "--tokenizer", words, "--out", parts)
    first = json.loads(run(*shard, "--part", "3/3", "--overwrite", "--json").out)
    assert (first["documents"], first["new"]) == (2, True)
    assert first["read"]["skipped_by_reason"] == {"unknown kind of file": 1}
    ran = run("data", "merge", parts, "--out", out, "--held-out", 0.2)
    assert ran.code == 0, ran.err
    assert "What was written" in ran.out
    assert "unknown kind of file" in ran.out
    assert TokenFolder.open(out).manifest.documents == 5
    ran = run("data", "merge", parts, "--out", out)
    assert ran.code == 2
    assert "already holds tokens" in ran.err
    found = json.loads(run("data", "merge", parts, "--out", out, "--overwrite", "--json").out)
    assert (found["parts"], found["read"]["exact_duplicates"], found["read"]["documents"]) == (3, 1, 5)


def test_text_of_tests_is_cut_out_and_counted(run: Callable[..., Any], tmp_path: Path) -> None:
    files = documents(tmp_path / "files")
    tests = tmp_path / "tests.jsonl"
    question = " ".join((files / "2.txt").read_text().split()[150:170])
    tests.write_text(json.dumps({"question": question}) + "\n")
    words, parts = tmp_path / "words", tmp_path / "parts"
    run("data", "vocabulary", files, "--size", 300, "--out", words)
    ran = run("data", "shard", files, "--tokenizer", words, "--out", parts, "--clean-of", tests)
    assert ran.code == 0, ran.err
    ran = run("data", "merge", parts, "--out", tmp_path / "tokens")
    assert "What was cleaned of the tests" in ran.out
    assert "documents that were cut" in ran.out
    found = json.loads(run("data", "merge", parts, "--out", tmp_path / "again", "--json").out)
    assert found["read"]["overlap"]["documents"] == 1
    assert found["read"]["overlap"]["found"] == 8
    ran = run("read", files, "--clean-of", tests, "--show", 9)
    assert "What was cleaned of the tests" in ran.out
    assert question not in ran.out


def test_wrong_requests_say_what_to_type(run: Callable[..., Any], tmp_path: Path) -> None:
    files = documents(tmp_path / "files")
    run("data", "vocabulary", files, "--size", 300, "--out", tmp_path / "words")
    shard = ("data", "shard", files, "--tokenizer", tmp_path / "words", "--out", tmp_path / "parts")
    for arguments, message in (
        ((*shard, "--part", "4/3"), "there is no part 4/3"),
        ((*shard, "--part", "three"), "'three' is not a part"),
        ((*shard, "--part", "²/4"), "'²/4' is not a part"),
        ((*shard, "--part", "9" * 5000 + "/4"), "is not a part"),
        ((*shard, "--clean-of", tmp_path / "nothing"), "does not exist"),
        (("data", "merge", tmp_path / "nothing", "--out", tmp_path / "t"), "is not a part of a corpus"),
        (("data", "mixture", tmp_path / "no.toml"), "no file"),
    ):
        ran = run(*arguments)
        assert (ran.code, message in ran.err) == (2, True), ran.err
    assert run(*shard, "--part", "2/3").code == 0
    ran = run("data", "merge", tmp_path / "parts", "--out", tmp_path / "t")
    assert "parts are missing: 1/3, 3/3" in ran.err
    assert "chatsmith data shard" in ran.err


def test_the_mixture_of_the_paper(run: Callable[..., Any]) -> None:
    ran = run("data", "mixture", "gpt3")
    assert ran.code == 0
    assert "common_crawl" in ran.out
    assert "3.4" in ran.out
    assert json.loads(run("data", "mixture", "gpt3", "--tokens", "3T", "--json").out)["total"] == 3 * 10**12


def test_a_filter_of_quality(run: Callable[..., Any], tmp_path: Path) -> None:
    for kind in ("good", "raw"):
        (tmp_path / kind).mkdir()
        for number in range(30):
            words = random.Random(f"{kind}{number}").choices([f"{kind}{word}" for word in range(60)], k=80)
            (tmp_path / kind / f"{number:02d}.txt").write_text(" ".join(words))
    files = ("--good", tmp_path / "good", "--raw", tmp_path / "raw", "--out", tmp_path / "quality.json")
    ran = run("data", "quality", *files)
    assert ran.code == 0, ran.err
    assert "learned from 27 good and 27 raw documents" in ran.out
    assert json.loads(run("data", "quality", *files, "--json").out)["auc"] == 1
    run("data", "vocabulary", tmp_path / "raw", "--size", 300, "--out", tmp_path / "words")
    shard = ("data", "shard", tmp_path / "raw", "--tokenizer", tmp_path / "words", "--out", tmp_path / "parts")
    found = json.loads(run(*shard, "--quality", tmp_path / "quality.json", "--json").out)
    assert found["documents"] + found["read"]["low_quality"] == 30
    assert found["documents"] < 15
