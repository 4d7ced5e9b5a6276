"""Cleaning changes no word; what is dropped as a duplicate is one."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.text.chat import Message
from chatsmith.text.clean import Deduplicator, Verdict, normalise, sign
from chatsmith.text.documents import Document
from chatsmith.text.hashtable import ABSENT, HashTable
from chatsmith.text.minhash import sketch


def judge(*texts: str, deduplicator: Deduplicator | None = None) -> list[str]:
    verdicts = (deduplicator or Deduplicator()).judge([text.encode() for text in texts])
    return [verdict.name for verdict in verdicts]


def words(count: int, seed: int = 0) -> list[str]:
    chooser = random.Random(seed)
    return [f"w{chooser.randrange(5000)}" for _ in range(count)]


def shingles(text: str) -> set[tuple[str, ...]]:
    """Word 5-grams of a text of plain words and spaces, told apart the slow way."""
    split = text.lower().split()
    return {tuple(split[start : start + 5]) for start in range(len(split) - 4)}


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def test_only_line_ends_zero_bytes_and_the_mark_change() -> None:
    assert normalise("\ufeffa\r\nb\rc\n\0d\r\r\n") == "a\nb\nc\nd\n\n"
    decomposed = unicodedata.normalize("NFD", "é ﬁ ½")
    for text in ("  two  spaces\t\n\n\n", decomposed, "zero\u200bwidth", "a\ufeffb", "nbsp\u00a0", "\x0c"):
        assert normalise(text) == text
    assert normalise("half \ud83e pair, whole \ud83e\udda6 pair") == "half \ufffd pair, whole 🦦 pair"


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\r\n\0\ufeff\ud800\udc00 é"))))
def test_normalising_twice_changes_nothing_and_gives_sound_text(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once.encode().decode() == once
    assert "\r" not in once


@given(st.text())
def test_other_text_is_kept(text: str) -> None:
    text = text.replace("\r", "").replace("\0", "").lstrip("\ufeff")
    assert normalise(text) == text


def test_exact_duplicates_but_for_white_space() -> None:
    assert judge("a b", "a  b\n", "a\tb", "ab", "a b c", "a b", "") == [
        *("NEW", "EXACT", "EXACT", "NEW", "NEW", "EXACT", "NEW")
    ]


@given(st.lists(st.text(alphabet="ab1 \n"), max_size=30))
def test_exact_duplicates_are_those_that_are_equal(texts: list[str]) -> None:
    deduplicator = Deduplicator(near=False)
    verdicts = judge(*texts[:10], deduplicator=deduplicator) + judge(*texts[10:], deduplicator=deduplicator)
    seen: set[str] = set()
    for text, verdict in zip(texts, verdicts, strict=True):
        plain = " ".join(text.split())
        assert verdict == ("EXACT" if plain in seen else "NEW")
        seen.add(plain)
    assert deduplicator.exact_duplicates == len(texts) - len(seen)


def test_small_different_texts_are_no_duplicates() -> None:
    texts = ["dog", "cat", "", *(f"{a} + {b} = {a + b}" for a in range(40) for b in range(40))]
    texts += [f"This is line number {number} of the file." for number in range(1000)]
    assert set(judge(*texts)) == {"NEW"}
    assert set(judge(*(f"The answer to the question about the {n} is {n + 1}." for n in range(500)))) == {"NEW"}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(55, 400), st.floats(0, 1))
def test_near_duplicates_are_alike(seed: int, count: int, change: float) -> None:
    chooser = random.Random(seed)
    one = words(count, seed)
    other = [f"x{chooser.randrange(5000)}" if chooser.random() < change else word for word in one]
    verdicts = judge(" ".join(one), " ".join(other))
    if verdicts[1] == "NEAR":
        assert jaccard(" ".join(one), " ".join(other)) > 0.45  # five standard errors below 0.7 for short texts
    if one == other:
        assert verdicts[1] == "EXACT"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(alphabet="abc \n", max_size=400), max_size=12))
def test_texts_without_a_5_gram_in_common_are_kept(texts: list[str]) -> None:
    deduplicator = Deduplicator(shortest=5)
    kept: list[str] = []
    for text, verdict in zip(texts, judge(*texts, deduplicator=deduplicator), strict=True):
        if verdict == "NEAR":
            assert any(jaccard(text, other) > 0.2 for other in kept)  # a coarse bound: few 5-grams estimate coarsely
        elif verdict == "NEW":
            kept.append(text)


def test_near_duplicates_are_found() -> None:
    found = {0.99: 0, 0.9: 0, 0.6: 0}
    for seed in range(100):
        one = words(1000, seed)
        for similarity in found:
            # Replacing the last of 996 5-grams leaves (996 - k) / (996 + k) in common.
            fresh = round(996 * (1 - similarity) / (1 + similarity))
            other = one[: 1000 - fresh] + [f"y{number}" for number in range(fresh)]
            assert jaccard(" ".join(one), " ".join(other)) == pytest.approx(similarity, abs=0.005)
            found[similarity] += judge(" ".join(one), " ".join(other))[1] == "NEAR"
    assert found[0.99] == 100
    assert found[0.9] >= 97
    assert found[0.6] == 0


def test_what_is_nine_tenths_equal_is_dropped_and_what_is_half_equal_is_kept() -> None:
    found = {(length, share): 0 for length in (150, 600, 3000) for share in (0.9, 0.5)}
    for seed in range(40):
        for length, share in found:
            one = words(length, seed)
            fresh = round(length * (1 - share))
            start = seed * (length - fresh) // 40
            other = [*one[:start], *(f"y{number}" for number in range(fresh)), *one[start + fresh :]]
            found[length, share] += judge(" ".join(one), " ".join(other))[1] == "NEAR"
    assert all(count >= 34 for (_, share), count in found.items() if share == 0.9), found
    assert all(count == 0 for (_, share), count in found.items() if share == 0.5), found


def test_case_and_punctuation_do_not_hide_a_copy() -> None:
    text = " ".join(words(200))
    assert judge(text, text.upper(), text.replace(" ", ", "), "Copied from a page. " + text) == ["NEW", *["NEAR"] * 3]


def test_chinese_without_spaces() -> None:
    chooser = random.Random(1)
    text = "".join(chr(chooser.randrange(0x4E00, 0x9FA0)) for _ in range(500))
    other = "".join(chr(chooser.randrange(0x4E00, 0x9FA0)) for _ in range(500))
    assert judge(text, other, text[:250] + "，" + text[250:]) == ["NEW", "NEW", "NEAR"]


def test_a_copy_of_a_dropped_text_does_not_drift() -> None:
    """Each text is like the one before it, but what is dropped is always like one that was kept."""
    base = words(400)
    chain = [" ".join([*base[10 * step :], *(f"z{number}" for number in range(10 * step))]) for step in range(40)]
    verdicts = judge(*chain)
    assert 0 < verdicts.count("NEAR") < 39
    kept = [text for text, verdict in zip(chain, verdicts, strict=True) if verdict == "NEW"]
    for text, verdict in zip(chain, verdicts, strict=True):
        assert verdict == "NEW" or max(jaccard(text, other) for other in kept) > 0.65


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 60), st.sampled_from([1, 3, 1 << 19]))
def test_batches_do_not_change_verdicts(choices: list[int], size: int, window: int) -> None:
    """Nor does it matter that documents were signed apart, as long as they are judged in order."""
    # Some are near duplicates, and some share a band with others that they are not near to.
    texts = [
        " ".join(words(80, choice // 4)[: 80 - 15 * (choice % 4)] + words(80, 100 + choice % 7)[: 15 * (choice % 4)])
        for choice in choices
    ]
    together, parted, signed = (Deduplicator(window=window) for _ in range(3))
    expected = judge(*texts, deduplicator=together)
    got: list[str] = []
    new: list[bool] = []
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        got += judge(*part, deduplicator=parted)
        own, signatures = sign([Document(text) for text in part], True, None)
        assert own.all()
        new += signed.judge_signed(signatures).tolist()
    assert got == expected
    assert new == [verdict == "NEW" for verdict in expected]
    for one in (parted, signed):
        assert (one.exact_duplicates, one.near_duplicates) == (expected.count("EXACT"), expected.count("NEAR"))


def test_signatures_are_the_same_everywhere() -> None:
    """Parts may be made on any machine, with any version of numpy."""
    text = "A document of some words, and then of some more. " * 3 + " ".join(words(90, 1))
    signatures = sign([Document(text)], True, None)[1]
    arrays = (signatures.keys, signatures.rest, signatures.tops, signatures.bands)
    assert hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16] == "2cc04eed59d02b4b"


def test_the_window_bounds_what_is_remembered() -> None:
    deduplicator = Deduplicator(window=10)
    texts = [" ".join(words(100, seed)) for seed in range(50)]
    for text in texts:
        judge(text, deduplicator=deduplicator)
    assert deduplicator.forgetful
    assert judge(*(text + " x" for text in texts[-10:]), deduplicator=deduplicator) == ["NEAR"] * 10
    assert judge(texts[0] + " x", deduplicator=deduplicator) == ["NEW"]
    assert judge(texts[1], deduplicator=deduplicator) == ["EXACT"]  # exact ones are all remembered


def test_documents_pass_in_order() -> None:
    documents = [
        Document("one"),
        Document(messages=(Message("user", "Hi"),)),
        Document("one", "again"),
        Document("two"),
    ]
    kept = list(chain.from_iterable(Deduplicator().unique(iter(documents))))
    assert kept == [documents[0], documents[1], documents[3]]


def test_min_hashes_agree_as_often_as_the_sets_do() -> None:
    base = words(20_000)
    for keep in (0.2, 0.5, 0.8):
        other = base[: int(20_000 * keep)] + words(int(20_000 * (1 - keep)), 7)
        _, rows = sketch([" ".join(base).encode(), " ".join(other).encode()])
        expected = jaccard(" ".join(base), " ".join(other))
        assert np.mean(rows[0] == rows[1]) == pytest.approx(expected, abs=4 * 0.5 / 128**0.5)


def test_texts_are_hashed_alike_wherever_they_stand() -> None:
    long = " ".join(words(900_000)).encode()  # more than is hashed at once
    short = " ".join(words(100, 3)).encode()
    _, rows = sketch([short, long, b"", "é 漢字".encode(), short, long])
    assert np.array_equal(rows[0], rows[-2])
    assert np.array_equal(rows[1], rows[-1])
    _, alone = sketch([short])
    assert np.array_equal(alone[0], rows[0])


@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 50), max_size=200), max_size=8))
def test_the_table_is_a_dictionary(batches: list[list[int]]) -> None:
    table, expected = HashTable(4), {}
    number = 0
    for batch in batches:
        fresh = [key for key in batch if max(key, 1) not in expected]
        values = np.arange(number, number + len(fresh), dtype=np.int32)
        number += len(fresh)
        table.add(np.array(fresh, np.uint64), values)
        for key, value in zip(fresh, values.tolist(), strict=True):
            expected.setdefault(max(key, 1), value)
        asked = [*batch, 51, 52]
        found = table.find(np.array(asked, np.uint64)).tolist()
        assert found == [expected.get(max(key, 1), ABSENT) for key in asked]
    assert len(table) == len(expected)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="similarity"):
        Deduplicator(similarity=0.2)
    with pytest.raises(ValueError, match="window"):
        Deduplicator(window=0)
    assert Verdict.NEAR.value == "near duplicate"
