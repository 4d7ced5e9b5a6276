"""Learned vocabularies against the tokenizers library's trainer, and against training written out plainly."""

from __future__ import annotations

import itertools
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from chatsmith.errors import RequestError
from chatsmith.text import bpe
from chatsmith.text.bpe import SMALLEST, count_words, learn_merges, train_tokenizer
from chatsmith.text.tokenizer import SPECIALS, Tokenizer
from chatsmith.text.tokenizer_words import BREAK, GPT2, LLAMA3, QWEN2, SMOLLM, WordPattern


def library_model(texts: list[str], size: int, pattern: WordPattern, min_frequency: int = 2) -> dict[str, Any]:
    """Vocabulary and merges that the tokenizers library learns."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(pattern.regex), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())["model"]


def model_of(tokenizer: Tokenizer) -> dict[str, Any]:
    return tokenizer._document["model"]


@pytest.mark.parametrize("pattern", [GPT2, LLAMA3, QWEN2, SMOLLM], ids=lambda pattern: pattern.name)
def test_real_text_gives_the_library_s_vocabulary(shared: Path, pattern: WordPattern) -> None:
    with lzma.open(shared / "data/wikipedia/general_A.jsonl.xz", "rt") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(40), strict=False)]
    ours, theirs = model_of(train_tokenizer(texts, 3_000, pattern=pattern)), library_model(texts, 3_000, pattern)
    assert len(ours["vocab"]) == 3_000
    assert ours["merges"] == theirs["merges"]
    assert ours["vocab"] == theirs["vocab"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab cé1.'s\n"), max_size=60), min_size=1, max_size=4), st.integers(1, 3))
def test_small_texts_give_the_library_s_vocabulary(texts: list[str], min_frequency: int) -> None:
    if not any(texts):
        return
    ours = model_of(train_tokenizer(texts, 300, min_frequency=min_frequency, threads=1))
    theirs = library_model(texts, 300, QWEN2, min_frequency)
    if len(theirs["merges"]) == len({left + right for left, right in theirs["merges"]}):
        assert (ours["merges"], ours["vocab"]) == (theirs["merges"], theirs["vocab"])


def plain_merges(words: dict[str, int], count: int, min_frequency: int) -> list[tuple[bytes, bytes]]:
    """Byte-pair encoding as the paper's listing has it: count all pairs anew for each merge."""
    order = {bytes([value]): place for place, value in enumerate(bpe._SINGLES)}
    spelled = {word: [bytes([value]) for value in word.encode()] for word in words}
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < count:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in spelled.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        fresh = {pair: amount for pair, amount in pairs.items() if pair[0] + pair[1] not in order}
        if not fresh or max(fresh.values()) < min_frequency:
            break
        best = min(fresh, key=lambda pair: (-fresh[pair], order[pair[0]], order[pair[1]]))
        merges.append(best)
        order[best[0] + best[1]] = len(order)
        for word, parts in spelled.items():
            merged: list[bytes] = []
            place = 0
            while place < len(parts):
                both = tuple(parts[place : place + 2]) == best
                merged.append(best[0] + best[1] if both else parts[place])
                place += 1 + both
            spelled[word] = merged
    return merges


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.text(st.sampled_from("aab é"), min_size=1, max_size=14), st.integers(1, 9), min_size=1, max_size=12
    ),
    st.integers(1, 4),
)
def test_merges_are_those_of_the_plain_algorithm(words: dict[str, int], min_frequency: int) -> None:
    tokens = [bytes([value]) for value in bpe._SINGLES]
    found = []
    for left, right in learn_merges(words, 25, min_frequency):
        found.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    assert found == plain_merges(words, 25, min_frequency)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("abé 中1.'s\n"), max_size=40), max_size=6))
def test_words_are_counted_as_the_expression_cuts_them(texts: list[str]) -> None:
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN2.regex), "isolated")
    wanted = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text))
    assert count_words(texts) == dict(wanted)


def test_any_number_of_threads_gives_the_same_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where words are forgotten on the way, as they are when there are too many to keep."""
    monkeypatch.setattr(bpe, "SECTION", 500)
    monkeypatch.setattr(bpe, "_PERIOD", 5_000)
    texts = [f"Tale {place}: the otter {'xyzzy'[place % 5 :]}{place * place} swims. " * 9 for place in range(200)]
    every = count_words(texts, threads=1)
    few = [count_words(iter(texts), threads=threads, most=40) for threads in (1, 2, 3)]
    assert few[0] == few[1] == few[2]
    assert len(few[0]) <= 40 + 60  # what one period may add
    assert few[0][" otter"] == every[" otter"] == 1_800
    fingerprints = {train_tokenizer(texts, 400, threads=threads).fingerprint for threads in (1, 2, 3)}
    assert len(fingerprints) == 1


def test_the_shape_of_a_vocabulary() -> None:
    tokenizer = train_tokenizer(["the cat sat on the mat, the cat sat on the hat"] * 3, 270)
    assert tokenizer.engine == "tiktoken"
    assert tokenizer.specials == {name: number for number, name in enumerate(SPECIALS)}
    assert tokenizer.vocab_size == 270
    assert [tokenizer.token_bytes(number) for number in range(5, 9)] == [b"!", b'"', b"#", b"$"]
    assert len(tokenizer.encode(" the")) == 1
    assert tokenizer.encode("2024") == [tokenizer.encode(digit)[0] for digit in "2024"]
    assert tokenizer.stop_ids == {0, 4}


@pytest.mark.parametrize("text", ["x", "é", "\n", "\x00", "\ud800"])
def test_one_character_is_enough(text: str) -> None:
    tokenizer = train_tokenizer([text], 1_000)
    assert tokenizer.vocab_size == SMALLEST
    assert tokenizer.decode(tokenizer.encode("anything")) == "anything"


def test_endless_words_teach_nothing_and_do_no_harm() -> None:
    texts = ["a" * 3_000_000, "otter " * 100, BREAK * 3, "x" + BREAK]
    words = count_words(texts)
    assert words[" otter"] == 99
    assert max(map(len, words)) <= bpe.MAX_WORD_LENGTH


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [([], 300, "no text"), ([""], 300, "no text"), (["a"], 260, "is not possible"), (["a"], 2**25, "is not possible")],
)
def test_requests_that_cannot_be_met(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        train_tokenizer(texts, size)
