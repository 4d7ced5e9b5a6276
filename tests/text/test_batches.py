"""Batches: every row once per epoch, the same after any interruption, and nothing learned that should not be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.text.batches import NO_TARGET, Batch, Batches, evaluation_batches
from chatsmith.text.chat import Message
from chatsmith.text.documents import Document
from chatsmith.text.order import keys, shuffled
from chatsmith.text.packing import PADDING, Pack, WholeDocuments, best_fit, layout
from chatsmith.text.shards import TokenFolder, TokenSplit, write_shards
from chatsmith.text.tokenizer import Tokenizer

STORED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)
PACKS = st.sampled_from(["stream", "documents"])


def store(tokenizer: Tokenizer, folder: Path, documents: Iterable[Document], shard_tokens: int = 10**6) -> TokenSplit:
    options: dict[str, Any] = {"held_out": 0, "overwrite": True, "shard_tokens": shard_tokens}
    write_shards(documents, tokenizer, folder, **options)
    return TokenFolder.open(folder).split("train")


def words(lengths: Iterable[int]) -> list[Document]:
    """Texts of given lengths that differ from each other and at every place."""
    return [
        Document("".join(chr(33 + (7 * number + 3 * place + place // 31) % 90) for place in range(length)), str(number))
        for number, length in enumerate(lengths)
    ]


def talks(count: int) -> list[Document]:
    return [
        Document(
            source=f"talk {number}",
            messages=(Message("user", "hi" * (1 + number % 5)), Message("assistant", f"hello {number}" * (number % 3))),
        )
        for number in range(count)
    ]


def same(one: Batch, other: Batch) -> bool:
    names = ("inputs", "targets", "segments", "positions")
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) or getattr(one, name) is getattr(other, name) is None
        for name in names
    )


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_a_shuffle_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    order = shuffled(np.arange(count), count, keys(seed, epoch))
    assert np.array_equal(np.sort(order), np.arange(count))
    some = np.arange(0, count, 7)
    assert np.array_equal(shuffled(some, count, keys(seed, epoch)), order[some])


def test_shuffles_are_fair_and_differ() -> None:
    """Each of four items stands at each place, and next to each other, about equally often over 20,000 epochs."""
    epochs = 20_000
    orders = shuffled(np.tile(np.arange(4), (epochs, 1)), 4, keys(1, np.arange(epochs))[:, None])
    for place in range(4):
        assert np.abs(np.bincount(orders[:, place]) / epochs - 0.25).max() < 0.015
    patterns = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(patterns) == 24
    assert np.abs(patterns / epochs - 1 / 24).max() < 0.01
    large = shuffled(np.arange(100_000), 100_000, keys(1, 0))
    assert abs(np.corrcoef(np.arange(100_000), large)[0, 1]) < 0.02
    assert np.abs(np.diff(large)).mean() == pytest.approx(100_000 / 3, rel=0.02)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 33), min_size=1, max_size=200))
def test_best_fit_overfills_no_row_and_wastes_little(lengths: list[int]) -> None:
    lengths = sorted(lengths, reverse=True)
    home = best_fit(np.array(lengths), 33)
    filled = np.bincount(home, weights=lengths)
    assert filled.max() <= 33
    assert filled.min() > 0
    # Johnson 1973: best-fit decreasing needs at most 11/9 of the optimum, and 4 rows.
    assert len(filled) <= 11 / 9 * -(-sum(lengths) // 33) * 2 + 4
    half_full = np.sum(filled <= 33 / 2)
    assert half_full <= 1


def test_best_fit_packs_ordinary_lengths_tightly() -> None:
    lengths = np.random.default_rng(0).lognormal(4.0, 0.8, 20_000).astype(int).clip(2, 257)
    home = best_fit(-np.sort(-lengths), 257)
    assert lengths.sum() / ((home.max() + 1) * 257) > 0.99


@STORED
@given(lengths=LENGTHS, context=st.integers(1, 24), seed=st.integers(0, 50), shard_tokens=st.sampled_from([17, 10**6]))
def test_a_stream_predicts_each_token_once_per_epoch(
    byte_tokenizer: Tokenizer, tmp_path: Path, lengths: list[int], context: int, seed: int, shard_tokens: int
) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words(lengths), shard_tokens)
    tokens = split.read(0, len(split))
    if len(split) <= context:
        with pytest.raises(RequestError, match="too few for one window"):
            Batches(split, context=context, seed=seed)
        return
    batches = Batches(split, context=context, seed=seed)
    rows = batches.rows
    starts = []
    for epoch in range(3):
        positions = layout(split, context, "stream", seed).positions(np.full(rows, epoch), np.arange(rows))
        targets = positions[:, 1:].ravel()
        assert len(np.unique(targets)) == len(targets) > len(split) - context
        assert np.array_equal(np.diff(positions, axis=1) % len(split), np.ones((rows, context)) % len(split))
        starts.append(positions[0, 0])
        batch = batches.next(rows)
        found = np.concatenate([batch.inputs, batch.targets[:, -1:]], axis=1)
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, tokens[positions].tolist()))
        assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert batches.samples == 3 * rows
    if len(split) > 100:
        assert len(set(starts)) > 1


@STORED
@given(lengths=LENGTHS, context=st.integers(1, 24), seed=st.integers(0, 50))
def test_whole_documents_are_cut_only_where_they_must_be(
    byte_tokenizer: Tokenizer, tmp_path: Path, lengths: list[int], context: int, seed: int
) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words(lengths), 50)
    packed = layout(split, context, "documents", seed)
    begins = {0, *split.ends[:-1].tolist()}
    for epoch in (0, 1, 7):
        positions = packed.positions(np.full(packed.rows, epoch), np.arange(packed.rows))
        present = positions[positions != PADDING]
        # Every token, once; those at the seam of a long document's pieces twice.
        assert np.array_equal(np.unique(present), np.arange(len(split)))
        seams = sum(max(-(-length // context), 1) - 1 for length in lengths)
        assert len(present) == len(split) + seams
        for row in positions:
            kept = row[row != PADDING]
            assert np.array_equal(row[: len(kept)], kept)
            for place, position in enumerate(kept.tolist()):
                follows = place > 0 and kept[place - 1] == position - 1
                document = split.document_at(position)
                if not follows and position not in begins:
                    assert document.end - document.start > context + 1
        batch = Batches(split, context=context, seed=seed, pack="documents").at(epoch * packed.rows, packed.rows)
        # Exactly the tokens that are not the first of a document are predicted, each once.
        assert np.count_nonzero(batch.targets != NO_TARGET) == len(split) - split.documents


def test_documents_of_equal_length_change_company_between_epochs(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words([9] * 40))
    packed = WholeDocuments(split, 29, 0, 0)
    first, second = (packed.positions(np.full(packed.rows, epoch), np.arange(packed.rows)) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=None), np.sort(second, axis=None))


@pytest.fixture(scope="module")
def split(byte_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenSplit:
    return store(byte_tokenizer, tmp_path_factory.mktemp("tokens") / "t", words([5, 30, 2, 17, 40]))


@STORED
@given(
    pack=PACKS,
    seed=st.integers(0, 50),
    mask=st.booleans(),
    before=st.lists(st.integers(1, 9), max_size=5),
    after=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_a_run_goes_on_where_it_stopped_whatever_the_batch_size(
    split: TokenSplit,
    pack: Pack,
    seed: int,
    mask: bool,
    before: list[int],
    after: list[int],
) -> None:
    def begin() -> Batches:
        return Batches(split, context=12, seed=seed, mask_documents=mask, pack=pack)

    run = begin()
    for count in before:
        run.next(count)
    state = json.loads(json.dumps(run.state()))
    rest = [run.next(count) for count in after]

    resumed = begin()
    resumed.restore(state)
    assert all(same(resumed.next(count), batch) for count, batch in zip(after, rest, strict=True))

    one_by_one = begin()
    one_by_one.restore(state)
    for batch in rest:
        for row in range(len(batch.inputs)):
            single = one_by_one.next(1)
            assert np.array_equal(single.inputs[0], batch.inputs[row])
            assert np.array_equal(single.targets[0], batch.targets[row])
            if mask:
                assert single.segments is not None
                assert batch.segments is not None
                assert np.array_equal(single.segments[0], batch.segments[row])
    assert one_by_one.state() == resumed.state()


def test_a_batch_may_lie_across_epochs(split: TokenSplit) -> None:
    batches = Batches(split, context=8, seed=0)
    first = batches.rows - 3
    across = batches.at(first, 6)
    for row in range(6):
        assert np.array_equal(batches.at(first + row, 1).inputs[0], across.inputs[row])


def test_other_text_or_another_order_is_not_resumed(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    one = store(byte_tokenizer, tmp_path / "one", words([30] * 9))
    other = store(byte_tokenizer, tmp_path / "other", words([30] * 10))
    plain: dict[str, Any] = {"context": 8, "seed": 0}
    state = Batches(one, **plain).state()
    Batches(one, **plain).restore(state)
    changes: list[dict[str, Any]] = [{"context": 9}, {"seed": 1}, {"pack": "documents"}, {"mask_documents": True}]
    for text, change in [(other, {}), *((one, change) for change in changes)]:
        with pytest.raises(RequestError, match="other text"):
            Batches(text, **plain | change).restore(state)
    for lie in ({}, {"samples": -1}, {"samples": "9"}, {"samples": 2**70}, {"version": 9}, {"samples": True}):
        with pytest.raises(RequestError):
            Batches(one, **plain).restore(state | lie if lie else lie)


@pytest.mark.parametrize(
    ("change", "words_of_error"),
    [
        ({"context": 0}, "at least 1"),
        ({"context": 10**6}, "too few"),
        ({"pack": "document"}, "did you mean documents"),
    ],
)
def test_requests_that_cannot_be_met(split: TokenSplit, change: dict[str, Any], words_of_error: str) -> None:
    with pytest.raises(RequestError, match=words_of_error):
        Batches(split, **{"context": 8, "seed": 0} | change)


def test_there_are_no_samples_before_the_first(split: TokenSplit) -> None:
    batches = Batches(split, context=8, seed=0)
    for first, count in ((-1, 4), (0, 0)):
        with pytest.raises(RequestError, match="no samples"):
            batches.at(first, count)


@STORED
@given(lengths=LENGTHS, pack=PACKS, seed=st.integers(0, 50), context=st.integers(2, 24))
def test_masked_documents_are_told_apart(
    byte_tokenizer: Tokenizer, tmp_path: Path, lengths: list[int], pack: Pack, seed: int, context: int
) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words([*lengths, 30]))
    batches = Batches(split, context=context, seed=seed, mask_documents=True, pack=pack)
    plain = Batches(split, context=context, seed=seed, pack=pack)
    batch, unmasked = batches.next(8), plain.next(8)
    assert unmasked.segments is unmasked.positions is None
    assert batch.segments is not None
    assert batch.positions is not None
    assert batch.segments.dtype == np.int32
    end = byte_tokenizer.end_of_text
    for row in range(8):
        segment = place = 0
        for column in range(context):
            token = batch.inputs[row, column]
            after_end = column > 0 and batch.inputs[row, column - 1] == end
            padding = pack == "documents" and after_end and token == end
            jump = batch.positions[row, column] == 0 and not padding
            if column and jump:
                segment, place = segment + 1, 0
            assert batch.segments[row, column] == segment or padding
            assert batch.positions[row, column] == place or padding
            if pack == "stream":
                # In a stream a document begins exactly behind an end of text, whose target is not to be guessed.
                assert jump == (column == 0 or after_end)
                expected = NO_TARGET if token == end else unmasked.targets[row, column]
                assert batch.targets[row, column] == expected
            place += 1


@STORED
@given(pack=PACKS, mask=st.booleans(), shard_tokens=st.sampled_from([31, 10**6]), order=st.permutations(range(20)))
def test_only_the_assistants_words_are_targets(
    byte_tokenizer: Tokenizer, tmp_path: Path, pack: Pack, mask: bool, shard_tokens: int, order: list[int]
) -> None:
    documents = talks(14) + words([20] * 6)
    split = store(byte_tokenizer, tmp_path / "t", [documents[number] for number in order], shard_tokens)
    positions = layout(split, 16, pack, 3).positions(np.zeros(4, dtype=np.int64), np.arange(4))
    batches = Batches(split, context=16, seed=3, mask_documents=mask, pack=pack)
    batch = batches.next(64)
    learned = split.gather_loss(np.arange(len(split)))
    tokens = split.read(0, len(split))
    epochs = max(round(64 / batches.rows), 1)
    whole = batches.at(0, batches.rows * epochs)
    assert positions.shape == (4, 17)
    assert set(np.unique(batch.targets)) <= {NO_TARGET, *np.unique(tokens[learned]).tolist()}
    if pack == "documents":
        expected = learned.copy()
        expected[[0, *split.ends[:-1].tolist()]] = False
        assert np.count_nonzero(whole.targets != NO_TARGET) == epochs * expected.sum()
        wanted = np.bincount(tokens[expected], minlength=261) * epochs
        assert np.array_equal(np.bincount(whole.targets[whole.targets >= 0], minlength=261), wanted)


@STORED
@given(lengths=LENGTHS, context=st.integers(1, 24), size=st.integers(1, 9), mask=st.booleans(), pack=PACKS)
def test_evaluation_predicts_each_token_once(
    byte_tokenizer: Tokenizer, tmp_path: Path, lengths: list[int], context: int, size: int, mask: bool, pack: Pack
) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words(lengths), 100)
    tokens = split.read(0, len(split))
    made = list(evaluation_batches(split, context, size, mask_documents=mask, pack=pack))
    again = list(evaluation_batches(split, context, size, mask_documents=mask, pack=pack))
    assert all(same(one, other) for one, other in zip(made, again, strict=True))
    assert {batch.inputs.shape for batch in made} == {made[0].inputs.shape}
    assert made[0].inputs.shape[0] <= size
    targets = np.concatenate([batch.targets.ravel() for batch in made])
    targets = targets[targets != NO_TARGET]
    if pack == "stream" and not mask:
        assert np.array_equal(targets, tokens)
        assert sum(batch.text_bytes or 0 for batch in made) == split.bytes
        inputs = np.concatenate([batch.inputs.ravel() for batch in made])[: len(tokens)]
        assert inputs[0] == byte_tokenizer.end_of_text
        assert np.array_equal(inputs[1:], tokens[:-1])
    else:
        first = np.concatenate([[0], split.ends[:-1]])
        assert np.array_equal(np.sort(targets), np.sort(np.delete(tokens, first)))
        assert sum(batch.text_bytes or 0 for batch in made) == split.bytes - split.documents


def test_a_limited_evaluation_takes_windows_from_all_over_the_split(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words([99] * 100))
    made = list(evaluation_batches(split, 10, 8, limit_tokens=205))
    targets = np.concatenate([batch.targets for batch in made])
    rows = targets[(targets != NO_TARGET).any(axis=1)]
    assert rows.shape == (20, 10)
    assert sum(batch.text_bytes or 0 for batch in made) == np.count_nonzero(rows)
    tokens = split.read(0, len(split)).reshape(-1, 10)
    assert np.array_equal(rows, tokens[::50])


def test_evaluation_counts_bytes_of_the_assistants_words_only(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = talks(9)
    split = store(byte_tokenizer, tmp_path / "t", documents)
    said = sum(len(document.messages[1].content) for document in documents)
    for pack in ("stream", "documents"):
        assert sum(batch.text_bytes or 0 for batch in evaluation_batches(split, 12, 4, pack=pack)) == said


def test_a_sample_far_away_is_found_like_the_first(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    split = store(byte_tokenizer, tmp_path / "t", words([20] * 500))
    batches = Batches(split, context=64, seed=0)
    assert batches.at(10**15, 16).inputs.shape == (16, 64)
