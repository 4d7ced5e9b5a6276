"""A filter of quality: it learns to tell two kinds of text apart, and keeps as the paper's draw does."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from chatsmith.errors import RequestError, WorkError
from chatsmith.text.chat import Message
from chatsmith.text.documents import Document, ReadReport
from chatsmith.text.parts import Part, shard
from chatsmith.text.quality import ALPHA, QualityFilter, count_words, learn
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.unit_reader import Reading, ReadSettings

COMMON = [f"word{number}" for number in range(400)]


def kind(seed: int, own: str, count: int) -> list[str]:
    """Texts of common words, a tenth of them words of their own kind."""
    draw = random.Random(seed)
    special = [f"{own}{number}" for number in range(40)]
    return [" ".join(draw.choices(COMMON, k=draw.randrange(30, 90)) + draw.choices(special, k=6)) for _ in range(count)]


@pytest.fixture(scope="module")
def learned() -> QualityFilter:
    return learn(kind(1, "good", 300), kind(2, "raw", 200))[0]


def test_it_tells_what_it_has_not_seen(learned: QualityFilter) -> None:
    found, report = learn(kind(1, "good", 300), kind(2, "raw", 200))
    assert (report.good, report.raw, report.held_out) == (270, 180, 50)
    assert report.auc > 0.98
    assert report.kept_good > 5 * report.kept_raw
    good, raw = (found.scores(kind(seed, own, 200)) for seed, own in ((3, "good"), (4, "raw")))
    assert np.mean(good > 0.5) > 0.95
    assert np.mean(raw < 0.5) > 0.95
    assert found.fingerprint == learned.fingerprint  # the same from the same


def test_kinds_that_do_not_differ_are_not_told_apart() -> None:
    assert learn(kind(1, "same", 400), kind(2, "same", 400))[1].auc == pytest.approx(0.5, abs=0.15)


def test_documents_are_kept_as_by_a_draw_from_a_pareto_distribution(learned: QualityFilter) -> None:
    """Appendix A: keep iff np.random.pareto(9) > 1 - score."""
    draws = np.random.default_rng(0).pareto(ALPHA, 200_000)
    scores = np.array([0.0, 0.3, 0.6, 0.9, 1.0])
    expected = [float(np.mean(draws > 1 - score)) for score in scores]
    assert learned.chances(scores) == pytest.approx(expected, abs=0.004)
    documents = [Document(text) for seed in range(8) for text in kind(seed + 50, "good" if seed % 2 else "raw", 500)]
    chances = learned.chances(learned.scores([document.text for document in documents]))
    kept = learned.keeps(documents, seed=5)
    assert kept.mean() == pytest.approx(chances.mean(), abs=0.02)
    assert (kept == learned.keeps(documents[::-1], seed=5)[::-1]).all()
    assert (kept != learned.keeps(documents, seed=6)).any()
    assert learned.keeps([Document(messages=(Message("user", "hi"), Message("assistant", "ho")))], 0).all()


def test_counts_are_of_words_and_of_unit_length() -> None:
    counts = count_words(["One two ONE\ttwo two", "", "three"])
    assert counts.documents == 3
    assert sorted(counts.values[counts.rows == 0].tolist()) == pytest.approx([2 / 13**0.5, 3 / 13**0.5])
    assert counts.values[counts.rows == 2].tolist() == [1.0]


def test_it_goes_to_a_file_and_back(learned: QualityFilter, tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    learned.save(path)
    again = QualityFilter.read(path)
    assert again.fingerprint == learned.fingerprint
    assert again.scores(["word1 good2"]) == learned.scores(["word1 good2"])
    for data in (b"", b"[]", b"{}", b'{"format": "other"}', b"\xff"):
        path.write_bytes(data)
        with pytest.raises(RequestError, match="not a quality filter"):
            QualityFilter.read(path)
    path.write_bytes(QualityFilter(learned.weights[:7], 0.0).dump())
    with pytest.raises(WorkError, match="damaged"):
        QualityFilter.read(path)
    with pytest.raises(RequestError, match="cannot read"):
        QualityFilter.read(tmp_path / "none")
    with pytest.raises(RequestError, match="too few"):
        learn(["a"] * 20, ["b"] * 9)


def test_parts_keep_what_the_filter_keeps(learned: QualityFilter, tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    learned.save(tmp_path / "quality.json")
    byte_tokenizer.save(tmp_path / "vocabulary")
    texts = kind(7, "good", 30) + kind(8, "raw", 30)
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02d}.txt").write_text(text)
    files = sorted(tmp_path.glob("*.txt"))
    record, _ = shard(files, tmp_path / "vocabulary", tmp_path / "parts", quality=tmp_path / "quality.json", seed=2)
    kept = learned.keeps([Document(text) for text in texts], seed=2)
    assert record.documents == kept.sum() < 50
    assert record.report["low_quality"] == 60 - kept.sum()
    assert record.quality == learned.fingerprint
    assert len(list(Part(tmp_path / "parts" / "part-00001-of-00001").units())) == 1
    with pytest.raises(RequestError, match="other settings"):
        shard(files, tmp_path / "vocabulary", tmp_path / "parts", seed=2)
    report = ReadReport()
    reading = Reading(byte_tokenizer, ReadSettings(seed=2), quality=learned)
    assert sum(map(len, reading.units(files, report))) == kept.sum()
