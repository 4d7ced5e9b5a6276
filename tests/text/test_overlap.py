"""Text of tests in training text: found as the paper finds it, cut as the paper cuts it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.text.chat import Message
from chatsmith.text.corpus import write_corpus
from chatsmith.text.documents import Document, ReadReport, read_documents
from chatsmith.text.merge import merge
from chatsmith.text.overlap import TestGrams, cleaned, folded, pieces_without
from chatsmith.text.parts import write_part
from chatsmith.text.shards import TokenFolder
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.unit_reader import Reading

QUESTION = "Which of the seven old bridges over the river was finished before the great flood came?"


def filler(seed: int, words: int) -> str:
    """Words that no test has."""
    return " ".join(random.Random(seed).choices([f"w{number}x" for number in range(5000)], k=words))


def plain_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams as the paper words it: lower-case words between white space, without punctuation."""
    words = [re.sub(r"[^\w\s]|_", "", word) for word in text.lower().split()]
    words = [word for word in words if word]
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


LETTERS = st.text(st.sampled_from("aBé’“.,-_ \t\n\u00a0\u2028中"), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.lists(LETTERS, max_size=5), st.lists(LETTERS, min_size=1, max_size=5), st.integers(1, 4))
def test_what_is_found_is_what_a_plain_search_finds(tests: list[str], texts: list[str], n: int) -> None:
    wanted = {gram for test in tests for gram in plain_grams(test, n)}
    if not wanted:
        with pytest.raises(RequestError, match="words in a row"):
            TestGrams.of_texts(tests, n)
        return
    grams = TestGrams.of_texts(tests, n)
    rows, words, _ = grams.found_in(texts)
    found = [
        (row, at) for row, text in enumerate(texts) for at, gram in enumerate(plain_grams(text, n)) if gram in wanted
    ]
    assert list(zip(rows.tolist(), words.tolist(), strict=True)) == found
    assert len(grams.hashes) == len(wanted)
    loaded = TestGrams.load(grams.save())
    assert (loaded.fingerprint, loaded.n, loaded.too_short) == (grams.fingerprint, n, grams.too_short)


def test_long_words_differ_by_any_letter() -> None:
    word = "x" * 15 + "middle-of-a-very-long-address" + "y" * 15
    assert folded(word) != word.encode()
    grams = TestGrams.of_texts([f"one two {word}"], 3)
    assert len(grams.found_in([f"One, two {word.upper()}!"])[0]) == 1
    assert len(grams.found_in([f"one two {word}y"])[0]) == 0


def test_a_window_is_cut_out_around_the_words() -> None:
    grams = TestGrams.of_texts([QUESTION])
    before, after = filler(1, 300), filler(2, 300)
    text = f"{before} {QUESTION.upper()} {after}"
    head, tail = pieces_without(text, grams)
    assert text.startswith(head)
    assert text.endswith(tail)
    start, end = len(before) + 1, len(before) + 1 + len(QUESTION)
    assert len(head) == start - 200
    assert len(tail) == len(text) - end - 200
    assert pieces_without(before, grams) == [before]
    # What is left before it is shorter than 200 characters.
    assert len(pieces_without(f"{before[:390]} {QUESTION} {after}", grams)) == 1
    assert len(pieces_without(f"{before[:410]} {QUESTION} {after}", grams)) == 2


@pytest.mark.parametrize(("times", "left"), [(9, 10), (10, 0)])
def test_a_document_in_more_than_ten_pieces_is_dropped(times: int, left: int) -> None:
    grams = TestGrams.of_texts([QUESTION])
    text = filler(0, 200) + "".join(f" {QUESTION} {filler(number + 1, 200)}" for number in range(times))
    assert len(pieces_without(text, grams)) == left


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """Documents, a file of tests, and the documents' texts."""
    common = "all rights are reserved by the owner of this site and by nobody else at all"
    texts = [f"{filler(number, 150)} {common} {filler(number + 50, 150)}" for number in range(11)]
    texts.append(f"{filler(20, 200)} {QUESTION} {filler(21, 200)}")
    texts.append(f"{QUESTION} {filler(22, 20)}")
    texts.append(filler(23, 100))
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:02d}.txt").write_text(text)
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": filler(30, 60)}]
    (folder / "talk.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    tests = tmp_path / "tests.jsonl"
    record = {"question": QUESTION, "choices": ["the old one", "the new one"], "note": common}
    tests.write_text(json.dumps(record) + "\n")
    return folder, tests, texts


def written(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """The text of every document in a folder of tokens."""
    tokens = TokenFolder.open(folder)
    return [text for name in tokens.splits for text in tokens.split(name).iter_text(tokenizer)]


def test_a_corpus_is_cleaned_of_tests(
    corpus: tuple[Path, Path, list[str]], tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    folder, tests, texts = corpus
    report = ReadReport()
    write_corpus([folder], byte_tokenizer, tmp_path / "t", report=report, clean_of=[tests], held_out=0)
    left = written(tmp_path / "t", byte_tokenizer)
    # A phrase in eleven documents stays; the question goes, and with it a short document and a conversation.
    assert left[:11] == texts[:11]
    assert left[11:13] == pieces_without(texts[11], TestGrams.of_texts([QUESTION]))
    assert left[13:] == [texts[13]]
    found = report.overlap
    assert found is not None
    assert (found.documents, found.dropped, found.pieces) == (3, 2, 2)
    grams = len(plain_grams(QUESTION, 13))
    assert (found.found - found.ignored, found.texts, found.too_short) == (grams, 2, 2)
    assert found.ignored >= 1
    assert "cleaned of tests: 1 document cut and 2 dropped" in report.summary()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "t", "tests.jsonl"]
    again = ReadReport()
    documents = cleaned(lambda one: read_documents([folder], report=one), TestGrams.read([tests]), again)
    assert [document.text for document in documents] == left
    assert again.overlap == found


def test_parts_count_together_in_how_many_documents_an_n_gram_is(
    corpus: tuple[Path, Path, list[str]], tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    folder, tests, _ = corpus
    write_corpus([folder], byte_tokenizer, tmp_path / "once", report=ReadReport(), clean_of=[tests])
    reading = Reading(byte_tokenizer, grams=TestGrams.read([tests]))
    for number in (1, 2, 3):
        write_part([folder], reading, tmp_path / "parts", number, 3)
    merged = merge([tmp_path / "parts"], tmp_path / "merged")
    assert merged.manifest == TokenFolder.open(tmp_path / "once").manifest
    write_part([folder], Reading(byte_tokenizer), tmp_path / "parts2", 1, 3)
    with pytest.raises(RequestError, match="different corpora"):
        merge([tmp_path / "parts2", *sorted((tmp_path / "parts").iterdir())[1:]], tmp_path / "no")


def test_pieces_stay_on_the_side_of_their_document(
    corpus: tuple[Path, Path, list[str]], tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    folder, tests, texts = corpus
    for seed in range(6):
        place = tmp_path / str(seed)
        write_corpus([folder], byte_tokenizer, place, report=ReadReport(), clean_of=[tests], held_out=0.4, seed=seed)
        tokens = TokenFolder.open(place)
        sides = {name: set(tokens.split(name).iter_text(byte_tokenizer)) for name in tokens.splits}
        pieces = set(pieces_without(texts[11], TestGrams.of_texts([QUESTION])))
        assert any(pieces <= side for side in sides.values())


def test_every_string_of_a_record_is_a_text_of_the_tests(tmp_path: Path) -> None:
    tests = tmp_path / "tests.json"
    deep = {"id": 7, "data": [{"paragraphs": [{"qas": [{"question": QUESTION}]}]}]}
    tests.write_text(json.dumps(deep))
    assert len(TestGrams.read([tests]).found_in([QUESTION])[0]) == len(plain_grams(QUESTION, 13))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no document found"):
        TestGrams.read([tmp_path / "empty"])


def test_hashes_are_the_same_everywhere() -> None:
    assert TestGrams.of_texts([QUESTION]).fingerprint[:16] == "fb4db7aa20ee79e3"


def test_conversations_are_searched_turn_by_turn(byte_tokenizer: Tokenizer) -> None:
    talk = Document(messages=(Message("user", QUESTION), Message("assistant", "The third one.")))
    columns = TestGrams.of_texts([QUESTION]).columns([talk, Document("nothing of it")])
    assert columns["overlaps"].tolist() == [len(plain_grams(QUESTION, 13)), 0]
    assert (columns["text_lengths"] > 0).tolist() == [True, False]
