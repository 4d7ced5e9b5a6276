"""Tokens on disk: what is written is read back, faults are named, and half a folder never passes for a whole one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError, WorkError
from chatsmith.text import corpus_writer, encode_pool, shard_writer
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.chat import Message
from chatsmith.text.documents import Document
from chatsmith.text.encode_pool import EncodePool
from chatsmith.text.held_out import HeldOutSplit, cut_tail, fraction_of, text_bytes
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from documents import contents, talk, texts

OF_TMP_PATH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=40)


@OF_TMP_PATH
@given(words=TEXTS, held_out=st.sampled_from([0.0, 0.1, 0.5, 0.9]), shard_tokens=st.integers(1, 50), wide=st.booleans())
def test_every_text_comes_back_once(
    tmp_path: Path,
    words: list[str],
    held_out: float,
    shard_tokens: int,
    wide: bool,
    byte_tokenizer: Tokenizer,
    wide_tokenizer: Tokenizer,
) -> None:
    documents = [Document(text, f"file {number}") for number, text in enumerate(words)]
    tokenizer = wide_tokenizer if wide else byte_tokenizer
    out = tmp_path / "tokens"
    if not any(words):
        with pytest.raises(RequestError, match="no text"):
            write_shards(documents, tokenizer, out, held_out=held_out, overwrite=True)
        return
    manifest = write_shards(documents, tokenizer, out, held_out=held_out, overwrite=True, shard_tokens=shard_tokens)
    folder = TokenFolder.open(out)
    folder.verify()
    assert folder.manifest == manifest
    back: list[str] = []
    for name in folder.splits:
        split = folder.split(name)
        parts = list(split.iter_text(tokenizer))
        assert len(parts) == split.documents
        assert sum(len(part.encode()) for part in parts) == split.bytes
        assert len(split) == split.bytes + split.documents
        assert split.shard(0).dtype == (np.uint32 if wide else np.uint16)
        back += parts
    assert manifest.bytes == sum(len(text.encode()) for text in words)
    if manifest.held_out_by == "tail of one document":
        assert sorted("".join(back)) == sorted("".join(words))
    else:
        assert sorted(back) == sorted(text for text in words if text)
    assert "train" in folder.splits


def test_a_position_leads_back_to_its_document_and_source(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = texts(50)
    write_shards(documents, byte_tokenizer, tmp_path / "t", held_out=0.2, seed=3, shard_tokens=100)
    folder = TokenFolder.open(tmp_path / "t")
    words = {document.source: document.text for document in documents}
    for name in folder.splits:
        split = folder.split(name)
        for position in range(0, len(split), 13):
            found = split.document_at(position)
            assert found.start <= position < found.end
            assert split.text(byte_tokenizer, found.start, found.end) == words[found.source]
            assert found.bytes == len(words[found.source])
            assert split.document(found.index) == found
        with pytest.raises(RequestError, match="no position"):
            split.document_at(len(split))
        with pytest.raises(RequestError, match="no document"):
            split.document(split.documents)


def test_sources_are_kept_once_while_memory_is_bounded(
    byte_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_writer, "_REMEMBERED_SOURCES", 2)
    sources = ["a", "a", "b", "a", "c", "d", "a", "ü\udcff"]
    documents = [Document(f"text {number}", source) for number, source in enumerate(sources)]
    manifest = write_shards(documents, byte_tokenizer, tmp_path / "t", held_out=0)
    split = TokenFolder.open(tmp_path / "t").split("train")
    assert [split.document(number).source for number in range(len(sources))] == sources
    assert len(set(sources)) <= manifest.sources < len(sources)


def test_the_side_of_a_document_depends_on_its_words_only(tmp_path: Path) -> None:
    documents = texts(400)
    held: list[set[str]] = []
    for order in (documents, documents[::-1], documents[100:] + texts(30)):
        splitter = HeldOutSplit(0.1, seed=5)
        held.append({document.text for document, side in splitter.sides(order) if side == "held_out"})
        assert splitter.method == "hash of each document"
    assert held[0] == held[1]
    assert held[2] <= held[0]
    assert 20 <= len(held[0]) <= 60
    assert {d.text for d, side in HeldOutSplit(0.1, seed=6).sides(documents) if side == "held_out"} != held[0]


def test_fractions_are_evenly_spread_and_tell_conversations_apart() -> None:
    fractions = np.array([fraction_of(Document(f"number {number}"), 0) for number in range(20_000)])
    assert np.abs(np.histogram(fractions, 20, (0, 1))[0] / 1000 - 1).max() < 0.12
    first = Document(messages=(Message("user", "ab"), Message("assistant", "c")))
    assert fraction_of(first, 0) != fraction_of(
        Document(messages=(Message("user", "a"), Message("assistant", "bc"))), 0
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=25), st.integers(0, 1000), st.sampled_from([0.01, 0.1, 0.5, 0.95])
)
def test_a_small_corpus_still_gets_both_sides(sizes: list[int], seed: int, share: float) -> None:
    documents = [Document(f"{number} " + "word " * size) for number, size in enumerate(sizes)]
    splitter = HeldOutSplit(share, seed)
    sides = list(splitter.sides(documents))
    assert {side for _, side in sides} == {"train", "held_out"}
    assert sum(text_bytes(document) for document, _ in sides) == sum(map(text_bytes, documents))
    if splitter.method == "tail of one document":
        held = [document for document, side in sides if side == "held_out"]
        assert len(held) == 1
        assert len(sides) == len(documents) + 1
    else:
        assert sorted(document.text for document, _ in sides) == sorted(document.text for document in documents)
    again = {(d.text, side) for d, side in HeldOutSplit(share, seed).sides(documents[::-1])}
    assert again == {(d.text, side) for d, side in sides}


def test_one_document_loses_its_tail_at_a_paragraph(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "".join(f"Paragraph {number} has some words.\n\n" for number in range(100))
    manifest = write_shards([Document(text, "book")], byte_tokenizer, tmp_path / "t", held_out=0.1)
    assert manifest.held_out_by == "tail of one document"
    folder = TokenFolder.open(tmp_path / "t")
    head, tail = (next(iter(folder.split(name).iter_text(byte_tokenizer))) for name in ("train", "held_out"))
    assert head + tail == text
    assert head.endswith("\n\n")
    assert tail.startswith("Paragraph 90 ")
    assert folder.split("held_out").document_at(0).source == "book"


def test_copies_of_one_document_do_not_leak_into_the_held_out_part() -> None:
    documents = [Document("one line of text\n" * 50, f"copy {number}") for number in range(4)]
    sides = list(HeldOutSplit(0.1, 0).sides(documents))
    assert {side for _, side in sides} == {"train", "held_out"}
    heads = {document.text for document, side in sides if side == "train"}
    assert len(heads) == 1
    assert len(heads.pop()) < len(documents[0].text)


def test_what_cannot_be_cut_is_all_trained_on(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert cut_tail(Document("a"), 0.1) is None
    assert cut_tail(Document(" a "), 0.1) is None
    assert cut_tail(talk(0), 0.1) is None
    manifest = write_shards([Document("a", "x")], byte_tokenizer, tmp_path / "t", held_out=0.1)
    assert manifest.held_out_by == "nothing"
    with pytest.raises(RequestError, match="holds nothing back"):
        TokenFolder.open(tmp_path / "t").split("held_out")
    long = replace(talk(0), messages=talk(0).messages * 5)
    head, tail = cut_tail(long, 0.2) or pytest.fail("not cut")
    assert (len(head.messages), len(tail.messages)) == (8, 2)


@pytest.mark.parametrize("shard_tokens", [7, 10_000])
def test_only_what_the_assistant_says_is_learned_of_a_conversation(
    byte_tokenizer: Tokenizer, tmp_path: Path, shard_tokens: int
) -> None:
    documents = [texts(9)[8], talk(1), texts(5)[4], talk(2, "")]
    write_shards(documents, byte_tokenizer, tmp_path / "t", held_out=0, shard_tokens=shard_tokens)
    folder = TokenFolder.open(tmp_path / "t")
    folder.verify()
    split = folder.split("train")
    learned = split.gather_loss(np.arange(len(split)))
    tokens = split.read(0, len(split))
    parts = [split.document(number) for number in range(4)]
    assert learned[parts[0].start : parts[0].end].all()
    conversation = slice(parts[1].start, parts[1].end)
    assert byte_tokenizer.decode(tokens[conversation][learned[conversation]]) == "I am well.<|end|>"
    assert not learned[parts[1].end - 1]
    assert learned[parts[3].start : parts[3].end].sum() == 1
    assert split.learned_tokens == learned.sum() < len(split)
    assert split.has_loss
    assert sum(parts[n].bytes for n in (1, 3)) == sum(text_bytes(documents[n]) for n in (1, 3))


def test_plain_text_has_no_file_of_marks(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    manifest = write_shards(texts(3), byte_tokenizer, tmp_path / "t")
    assert not [name for name in manifest.files if name.endswith(".loss")]
    assert not TokenFolder.open(tmp_path / "t").split("train").has_loss


def test_equal_documents_give_equal_folders_and_fingerprints(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    first, again, other = (
        write_shards(documents, byte_tokenizer, tmp_path / name, seed=1)
        for name, documents in (("a", texts(40)), ("b", texts(40)), ("c", texts(41)))
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_another_vocabulary_is_refused(byte_tokenizer: Tokenizer, wide_tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_shards(texts(3), byte_tokenizer, tmp_path / "t")
    with pytest.raises(RequestError, match="another vocabulary"):
        TokenFolder.open(tmp_path / "t").split("train").text(wide_tokenizer)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"held_out": 1.0}, "share"), ({"held_out": -0.1}, "share"), ({"shard_tokens": 0}, "at least one")],
)
def test_bad_requests_are_refused_before_work_begins(
    byte_tokenizer: Tokenizer, tmp_path: Path, options: dict[str, float], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        write_shards(iter(()), byte_tokenizer, tmp_path / "t", **options)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_processes_encode_as_this_one_does(
    byte_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [*texts(60), talk(1), Document("ünïcode \ud800 \n\0 end", "odd"), *texts(99)]
    alone = write_shards(documents, byte_tokenizer, tmp_path / "alone", threads=1)
    monkeypatch.setattr(shard_writer, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(encode_pool, "_ALONE_CHARACTERS", 300)
    assert write_shards(documents, byte_tokenizer, tmp_path / "together", threads=3) == alone
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


def test_a_dead_worker_is_reported(byte_tokenizer: Tokenizer) -> None:
    with EncodePool(byte_tokenizer, 1) as pool:
        for texts in (["a", "", "bc"], ["é", "a\udcff", ""], []):
            ids, ends = pool.encode_row(texts)
            wanted, wanted_ends = byte_tokenizer.encode_row(texts)
            assert (ids.tolist(), ends.tolist()) == (wanted.tolist(), wanted_ends.tolist())
        pool._workers[0].kill()
        pool._workers[0].wait()
        with pytest.raises(WorkError, match="ended before"):
            pool.encode_row(["x" * 10**6])


def test_an_interrupt_ends_the_workers_too(
    byte_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(EncodePool):
        def __enter__(self) -> EncodePool:
            started.extend(self._workers)
            return super().__enter__()

    def documents() -> Iterator[Document]:
        yield from texts(40)
        raise KeyboardInterrupt

    monkeypatch.setattr(encode_pool, "EncodePool", Watched)
    monkeypatch.setattr(shard_writer, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(encode_pool, "_ALONE_CHARACTERS", 300)
    with pytest.raises(KeyboardInterrupt):
        write_shards(documents(), byte_tokenizer, tmp_path / "t", threads=2)
    assert [worker.poll() for worker in started] == [0, 0]
    assert not any(tmp_path.iterdir())


def test_a_learned_vocabulary_counts_the_same_bytes(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = [*texts(40), Document("Größe, naïve café, 東京 \U0001f9a6\r\n\ttabs  and   spaces", "odd"), talk(3)]
    learned = train_tokenizer([document.text for document in documents], 320)
    plain = write_shards(documents, byte_tokenizer, tmp_path / "bytes", held_out=0.2)
    manifest = write_shards(documents, learned, tmp_path / "learned", held_out=0.2)
    assert (manifest.bytes, manifest.documents) == (plain.bytes, plain.documents)
    assert manifest.tokens < plain.tokens
    for name in manifest.splits:
        assert manifest.splits[name].bytes == plain.splits[name].bytes
        ours, theirs = (TokenFolder.open(tmp_path / folder).split(name) for folder in ("learned", "bytes"))
        assert list(ours.iter_text(learned)) == list(theirs.iter_text(byte_tokenizer))
