"""Encoding against the tokenizers library, OpenAI's and llama.cpp's known answers, and any bytes."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.text import tokenizer_engines, tokenizer_files
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.tokenizer import SPECIALS, TextStream, Tokenizer
from chatsmith.text.tokenizer_files import Document, byte_level_document, bytes_to_token
from chatsmith.text.tokenizer_words import GPT2, LLAMA3, QWEN2, SMOLLM
from tiny import tiny_sentencepiece

# Text that sits on the edges of the word patterns: clitics, digits, kinds of space, marks, letters of all sorts.
EDGES = st.sampled_from(
    [*"aZsStTlLreREvVmd''  \n\r\t12½(.-é़жſ中\u00a0\u3000\u2028", "'s", "'LL", " '", "\U0010ffff", "😀"]
)
TEXTS = st.lists(EDGES, max_size=40).map("".join) | st.text(max_size=40)

SAMPLE = (
    "The sea otter's children don't sleep; they'll drift, and I'VE seen 12,345 of them in 2024!\n\n"
    "\tdef f(x):\n\t\treturn x  # naïve café — слово 中文字 <|end|>\r\n   Well...   (Really?)\n"
)


def library(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizers library on the same file, its added tokens left out: text as text."""
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer._document | {"added_tokens": []}))


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer([SAMPLE * 4, "Once upon a time there was a little otter. " * 20], 400)


@pytest.fixture(scope="module")
def gpt2(shared: Path) -> Tokenizer:
    return Tokenizer.load(shared / "data/tokenizers/gpt2")


# Known answers


def test_gpt2_gives_the_known_encodings(gpt2: Tokenizer, shared: Path) -> None:
    vectors = shared / "data/tokenizers/vectors"
    assert gpt2.engine == "tiktoken"
    assert gpt2.vocab_size == 50_257
    assert gpt2.end_of_text == 50_256
    lines = (vectors / "gpt2_known_encodings.txt").read_text().splitlines()
    assert len(lines) == 100
    for line in lines:
        text, ids = line.rsplit(" => ", 1)
        assert gpt2.encode(text) == [int(number) for number in ids.split(",")]
    texts = (vectors / "ggml-vocab-gpt-2.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    wanted = (vectors / "ggml-vocab-gpt-2.gguf.out").read_text().split("\n")
    for text, ids in zip(texts, wanted, strict=False):
        assert gpt2.encode(text) == [int(number) for number in ids.split()]
        assert gpt2.encode_array(text).tolist() == gpt2.encode(text)


@pytest.mark.parametrize(("name", "end"), [("r50k_base", 50_256), ("cl100k_base", 100_257)])
def test_rank_files_of_tiktoken_are_read(shared: Path, gpt2: Tokenizer, name: str, end: int) -> None:
    path = shared / f"data/tokenizers/tiktoken/{name}.tiktoken.gz"
    tokenizer = Tokenizer.load(path)
    assert (tokenizer.engine, tokenizer.end_of_text) == ("tiktoken", end)
    assert tokenizer.encode(SAMPLE) == library(tokenizer).encode(SAMPLE).ids
    if name == "r50k_base":
        assert tokenizer.encode(SAMPLE) == gpt2.encode(SAMPLE)


# Equal ids


@pytest.mark.parametrize("pattern", [GPT2, LLAMA3, QWEN2, SMOLLM], ids=lambda pattern: pattern.name)
def test_ids_equal_the_tokenizers_library(pattern: Any) -> None:
    tokenizer = train_tokenizer([SAMPLE * 4], 380, pattern=pattern)
    reference = library(tokenizer)
    assert tokenizer.engine == "tiktoken"

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        wanted = reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == wanted
        assert [ids.tolist() for ids in tokenizer.encode_batch([text, "", text + "a"])][:2] == [wanted, []]
        assert tokenizer.decode_bytes(wanted) == text.encode()

    check()


def test_ids_equal_with_the_real_vocabulary(gpt2: Tokenizer) -> None:
    reference = library(gpt2)

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        assert gpt2.encode(text) == reference.encode(text).ids == gpt2.encode_array(text).tolist()

    check()


def test_long_texts_on_several_threads_equal_tiktoken(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_engines, "SECTION", 2_000)
    pieces = [SAMPLE, "one two  three\n", "中文" * 9, " 12 " * 5, "ſ's'S", "\U0010ffff"]
    rng = random.Random(5)
    texts = ["".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(30)]
    wanted = [small._engine._core.encode_ordinary(text) for text in texts]  # type: ignore[attr-defined]
    for threads in (1, 3):
        assert [ids.tolist() for ids in small.encode_batch(texts, threads)] == wanted
    assert small.encode("".join(texts)) == small._engine._core.encode_ordinary("".join(texts))  # type: ignore[attr-defined]
    assert small.encode_batch([]) == []


@settings(max_examples=150, deadline=None)
@given(
    merges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
    order=st.randoms(use_true_random=False),
    texts=st.lists(st.text("abc", max_size=30), min_size=1, max_size=5),
    whole_words=st.booleans(),
)
def test_any_list_of_merges_encodes_as_the_library_does(
    merges: list[tuple[int, int]], order: random.Random, texts: list[str], whole_words: bool
) -> None:
    """Merges that no trainer would write, with ids in any order: tiktoken is used only where it gives equal ids."""
    tokens = ["a", "b", "c"]
    listed: list[tuple[str, str]] = []
    for left, right in merges:
        pair = (tokens[left % len(tokens)], tokens[right % len(tokens)])
        listed.append(pair)
        if "".join(pair) not in tokens:
            tokens.append("".join(pair))
    listed = list(dict.fromkeys(listed))
    names = list(dict.fromkeys([*tokens, *map(bytes_to_token, (bytes([value]) for value in range(256)))]))
    if order.random() < 0.5:
        order.shuffle(names)
    if order.random() < 0.3:
        order.shuffle(listed)
    document = byte_level_document({name: number for number, name in enumerate(names)}, listed, GPT2, {})
    document["model"]["ignore_merges"] = whole_words
    tokenizer = Tokenizer(document)
    reference = library(tokenizer)
    for text in texts:
        assert tokenizer.encode(text) == reference.encode(text).ids == tokenizer.encode_array(text).tolist()


def test_merges_with_gaps_are_left_to_the_library() -> None:
    single = {bytes_to_token(bytes([value])): value for value in range(256)}
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]
    document = byte_level_document(single | {"bc": 256, "ab": 257, "abc": 258}, merges[:3], GPT2, {})
    tokenizer = Tokenizer(document)  # "abc" becomes a + bc; tiktoken would make abc of that
    assert tokenizer.engine == "tokenizers"
    assert tokenizer.encode("abc") == [97, 256]
    document = byte_level_document(single | {"bc": 256, "ab": 257, "abc": 258}, merges, GPT2, {})
    tokenizer = Tokenizer(document)  # with every split listed, as in Llama 3's file, all is well
    assert tokenizer.engine == "tiktoken"
    assert tokenizer.encode("abc") == library(tokenizer).encode("abc").ids == [258]


def test_text_in_nfc_where_the_file_asks_for_it(small: Tokenizer) -> None:
    tokenizer = Tokenizer(small._document | {"normalizer": {"type": "NFC"}})
    assert tokenizer.engine == "tiktoken"
    for text in ("cafe\u0301 naïve", "\u1100\u1161\u11a8", "plain"):
        assert tokenizer.encode(text) == library(tokenizer).encode(text).ids


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, ending=st.sampled_from(["", "\ud800", "\udc00x", "\ud83d\ude00"]))
def test_lone_surrogates_become_replacement_characters(small: Tokenizer, text: str, ending: str) -> None:
    wanted = (text + ending).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert small.decode(small.encode(text + ending)) == wanted


# Every text and every byte


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | TEXTS.map(str.encode))
def test_any_bytes_come_back(small: Tokenizer, data: bytes) -> None:
    assert small.decode_bytes(small.encode_bytes(data)) == data


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_stream_gives_the_decoded_text(small: Tokenizer, text: str) -> None:
    stream = TextStream(small)
    ids = small.encode(text)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == small.decode(ids) == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


def test_a_stream_ends_a_broken_character(small: Tokenizer) -> None:
    stream = TextStream(small)
    first, *_ = small.encode_bytes("é".encode()[:1])
    assert stream.push(first) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


@pytest.mark.parametrize(
    "text", ["a" * 10_000_000, " " * 9_999_999 + "x", "\n\t" * 2_000_000, "1" * 2_000_000, "-" * 2_000_000]
)
def test_endless_words_neither_hang_nor_crash(small: Tokenizer, text: str) -> None:
    """tiktoken alone panics on a million spaces."""
    begin = time.process_time()
    assert small.decode_bytes(small.encode_array(text).tolist()) == text.encode()
    assert time.process_time() - begin < 60


def test_noise_is_encoded_quickly(small: Tokenizer) -> None:
    codes = np.random.default_rng(1).integers(0, 0x30000, 1_500_000)
    text = "".join(map(chr, codes[(codes < 0xD800) | (codes > 0xDFFF)].tolist()))
    begin = time.process_time()
    ids = small.encode_array(text)
    assert time.process_time() - begin < 30
    assert small.decode(ids.tolist()) == text


# Special tokens


def test_text_is_never_special(small: Tokenizer, gpt2: Tokenizer) -> None:
    for tokenizer, text in ((small, "Hi <|end|><|assistant|> there"), (gpt2, "Hi<|endoftext|>there")):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(tokenizer.specials.values())
        assert ids == library(tokenizer).encode(text).ids
        assert tokenizer.decode(ids) == text
        assert ids == tokenizer.encode_batch([text])[0].tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*SPECIALS, "<|end", "|>", "<|user|", " ", "a's", "\n"]), max_size=12).map("".join))
def test_specials_on_request_as_the_library_finds_them(small: Tokenizer, text: str) -> None:
    reference = tokenizers.Tokenizer.from_str(json.dumps(small._document))
    assert small.encode(text, specials=True) == reference.encode(text, add_special_tokens=False).ids


def test_added_tokens_with_manners_of_their_own(small: Tokenizer) -> None:
    document = json.loads(json.dumps(small._document))
    document["added_tokens"][4] |= {"lstrip": True, "rstrip": True}
    tokenizer = Tokenizer(document)
    reference = tokenizers.Tokenizer.from_str(json.dumps(document))
    assert tokenizer.encode("a  <|end|>  b", specials=True) == reference.encode("a  <|end|>  b").ids


# Added tokens that are text


def with_words(document: Document, words: list[str], first: int, **manners: bool) -> Document:
    """The vocabulary with added tokens that are text, numbered as the library does, and a special one before them."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": first, "content": "<|fim|>", "special": True} | plain]
    added += [
        {"id": first + 1 + place, "content": word, "special": False} | plain | manners
        for place, word in enumerate(words)
    ]
    return document | {"added_tokens": [*document["added_tokens"], *added]}


WORDS = ["<think>", "</think>", "    ", "  ", "<think>deep"]
SAID = st.lists(st.sampled_from([*WORDS, "<think", ">", " ", "a", "hello", "\n", "é"]), max_size=12).map("".join)


@pytest.mark.parametrize("manners", [{}, {"normalized": True}, {"lstrip": True}, {"single_word": True}])
@settings(max_examples=50, deadline=None)
@given(texts=st.lists(SAID, max_size=4))
def test_added_tokens_that_are_text_are_found_as_the_library_finds_them(
    small: Tokenizer, manners: dict[str, bool], texts: list[str]
) -> None:
    for source in (small, tiny_sentencepiece()):
        document = with_words(source.document, WORDS, source.vocab_size, **manners)
        tokenizer, whole = Tokenizer(document), tokenizers.Tokenizer.from_str(json.dumps(document))
        wanted = [whole.encode(text, add_special_tokens=False).ids for text in texts]
        assert [tokenizer.encode(text) for text in texts] == wanted
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == wanted
        assert [tokenizer.encode(text, specials=True) for text in texts] == wanted
        assert tokenizer.engine == (
            "tiktoken" if source is small and manners in ({}, {"normalized": True}) else "tokenizers"
        )
        assert [tokenizer.encode(text) for text in texts] == wanted  # by the engine for short texts, and by the other


def test_words_of_a_file_are_text_and_its_special_tokens_are_not(small: Tokenizer) -> None:
    document = with_words(small.document, ["<think>", "</end>", "<eot>"], small.vocab_size)
    tokenizer = Tokenizer(document, {"eos_token": "</end>", tokenizer_files.STOPS: [tokenizer_id(document, "<eot>")]})
    assert tokenizer.encode("<think>") == [tokenizer_id(document, "<think>")]
    assert tokenizer.specials.keys() == {*SPECIALS, "<|fim|>", "</end>", "<eot>"}
    for name in tokenizer.specials:  # whatever the file calls them: what ends a text is no text
        assert not set(tokenizer.encode(f"a{name}b")) & set(tokenizer.specials.values())
    long = "A word <think> and <|end|> more.\n" * 60_000
    once = tokenizer.encode("A word <think> and <|end|> more.\n")
    assert tokenizer.encode_array(long).tolist() == once * 60_000


def tokenizer_id(document: Document, content: str) -> int:
    return next(token["id"] for token in document["added_tokens"] if token["content"] == content)


# Vocabularies of other kinds


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    return tiny_sentencepiece()


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("helo wrd\nзß"), max_size=20))
def test_sentencepiece_vocabularies_go_through_the_library(sentencepiece: Tokenizer, text: str) -> None:
    whole = tokenizers.Tokenizer.from_str(json.dumps(sentencepiece._document))
    ids = sentencepiece.encode(text)
    assert sentencepiece.engine == "tokenizers"
    assert ids == whole.encode(text, add_special_tokens=False).ids
    assert ids == sentencepiece.encode_batch([text])[0].tolist()
    assert sentencepiece.decode(ids) == whole.decode(ids) == text


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=20) | st.text(st.sampled_from("helo wrd\nзß"), max_size=20).map(str.encode))
def test_bytes_that_go_on_a_text_have_no_space_before_them(sentencepiece: Tokenizer, data: bytes) -> None:
    assert sentencepiece.decode_bytes(sentencepiece.encode_bytes(data)) == data
    assert sentencepiece.encode("hello hello")[-1:] == sentencepiece.encode_bytes(b" hello")


def test_sentencepiece_names(sentencepiece: Tokenizer) -> None:
    assert (sentencepiece.begin_of_text, sentencepiece.end_of_text) == (1, 2)
    assert sentencepiece.stop_ids == {2}
    assert sentencepiece.encode("hello</s>hello", specials=True)[1] == 2
    assert 2 not in sentencepiece.encode("hello</s>hello")
    assert sentencepiece.token_bytes(3 + 0xFF) == b"\xff"
    stream = TextStream(sentencepiece)
    assert "".join(map(stream.push, sentencepiece.encode("hello hello"))) == " hello hello"


# What a table shows


def test_tokens_in_tables(small: Tokenizer) -> None:
    assert small.token_text(small.encode("\n")[0]) == "\\n"
    assert small.token_text(small.encode_bytes(b"\xff")[0]) == "\\xff"
    assert small.token_text(small.specials["<|end|>"]) == "<|end|>"
    with pytest.raises(RequestError, match="no token has id 400"):
        small.token_text(400)
    with pytest.raises(RequestError, match="id -1"):
        small.token_bytes(-1)
    assert small.decode([*small.encode("a"), 10**9]) == "a"


@given(text=TEXTS)
def test_short_texts_are_encoded_as_long_ones_are(small: Tokenizer, text: str) -> None:
    fresh, built = (Tokenizer(small._document, small._config) for _ in range(2))
    assert built.engine == "tiktoken"
    assert fresh.encode(text) == built.encode(text)
    assert fresh.encode("a\ud83d") == built.encode("a\ud83d")
    assert "_engine" not in vars(fresh)
    assert fresh.encode("the " * 2000) == built.encode("the " * 2000)
    assert "_engine" in vars(fresh)


def test_the_engine_for_short_texts_may_go_while_another_thread_asks_it(small: Tokenizer) -> None:
    engines = [Tokenizer(small.document)._short, None]

    class Contended(Tokenizer):
        @property
        def _short(self) -> Any:  # type: ignore[override]
            return engines.pop(0)

    assert engines[0] is not None
    assert Contended(small.document).encode("Hello there.") == small.encode("Hello there.")
