"""Vocabularies in GGUF files: the same ids after a round trip, every kind of token, and what ends a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.convert import convert
from chatsmith.errors import RequestError, WorkError
from chatsmith.specs import ModelSpec
from chatsmith.store.folder import save_model
from chatsmith.store.gguf import Gguf, write_gguf
from chatsmith.store.gguf_model import open_model
from chatsmith.store.gguf_vocabulary import read_vocabulary, vocabulary_values
from chatsmith.store.llama2c import import_llama2c
from chatsmith.store.sentencepiece import Vocabulary, tokenizer_config, tokenizer_json, vocabulary_of
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.tokenizer_engines import library_tokenizer
from chatsmith.text.tokenizer_words import GPT2, QWEN2, SMOLLM, WordPattern
from gguf_files import GPT2 as GPT2_SHAPE
from gguf_files import LLAMA, QWEN3, edited, save
from tiny import tiny_model, tiny_tokenizer

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
MERGED = ("▁", "t", "h", "e", "a", "n", "▁t", "he", "▁the", "an", "▁▁", "▁▁▁", "aa", "aaa", "▁▁▁▁")


def pieces(vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(tokenizer_json(vocabulary), tokenizer_config())


def small(scores: dict[str, float] | None = None, **settings: Any) -> Vocabulary:
    """Three special pieces, the bytes, a few merged ones, and two added tokens."""
    names = ("<unk>", "<s>", "</s>", *BYTES, *MERGED, "<pad>", "<think>")
    known = {piece: -float(place) for place, piece in enumerate(MERGED)} | (scores or {})
    added = {"<pad>": True, "<think>": False}
    return Vocabulary(names, tuple(known.get(name, 0.0) for name in names), added, **settings)


def there_and_back(path: Path, tokenizer: Tokenizer, rows: int = 320) -> Tokenizer:
    write_gguf(path, vocabulary_values(tokenizer, rows, ()), [])
    return read_vocabulary(Gguf(path))[0]


# ---- kinds of tokens


@pytest.fixture
def thinking() -> Tokenizer:
    """The tiny vocabulary, in which <think> stands for text and is no control token."""
    document = json.loads(json.dumps(tiny_tokenizer().document).replace("<|system|>", "<think>"))
    for token in document["added_tokens"]:
        token["special"] = token["content"] != "<think>"
    return Tokenizer(document, {"eos_token": "<|endoftext|>"})


def test_added_tokens_that_are_not_special_are_user_defined(tmp_path: Path, thinking: Tokenizer) -> None:
    path = save(tmp_path / "m.gguf", QWEN3, tokenizer=thinking)
    kinds = dict(zip(*(Gguf(path).values[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type")), strict=True))
    assert (kinds["<think>"], kinds["<|user|>"], kinds["th"], kinds["[PAD319]"]) == (4, 3, 1, 5)
    found = open_model(path)[2]
    assert found.document == thinking.document
    text = "the<think>and<|end|>"
    assert found.encode(text, specials=True) == thinking.encode(text, specials=True)
    assert found.encode(text) == thinking.encode(text)
    assert found.added["<think>"] in found.encode(text)
    assert found.specials["<|end|>"] not in found.encode(text)


@pytest.mark.parametrize("kind", [0, 6.5, 7, -1])
def test_a_kind_of_token_that_there_is_not_is_damage(tmp_path: Path, kind: float) -> None:
    path = save(tmp_path / "m.gguf", QWEN3)
    kinds = Gguf(path).values["tokenizer.ggml.token_type"].tolist()
    with pytest.raises(WorkError, match="its list of tokens contradicts itself"):
        open_model(edited(path, {"tokenizer.ggml.token_type": [kind, *kinds[1:]]}))


def test_a_token_that_comes_twice_is_damage(tmp_path: Path) -> None:
    path = save(tmp_path / "m.gguf", QWEN3)
    tokens = Gguf(path).values["tokenizer.ggml.tokens"]
    with pytest.raises(WorkError, match="its list of tokens contradicts itself"):
        open_model(edited(path, {"tokenizer.ggml.tokens": [*tokens[:7], tokens[6], *tokens[8:]]}))


# ---- what ends a text


def test_every_token_that_ends_a_text_is_read(tmp_path: Path) -> None:
    ends = {"tokenizer.ggml.eot_token_id": 70, "tokenizer.ggml.eom_token_id": 71}
    path = edited(save(tmp_path / "m.gguf", QWEN3), ends)
    assert open_model(path)[3] == {"eos_token_id": [0, 4, 70, 71]}  # <|endoftext|> and <|end|> by their names
    convert(path, tmp_path / "folder", to="f32")
    assert json.loads((tmp_path / "folder" / "generation_config.json").read_text())["eos_token_id"] == [0, 4, 70, 71]
    with pytest.raises(WorkError, match="its eot_token_id is 320, of 320 tokens"):
        open_model(edited(path, {"tokenizer.ggml.eot_token_id": 320}))


def test_every_token_that_ends_a_text_is_written(tmp_path: Path) -> None:
    ends = {"eos_token_id": [0, 4, 70]}
    folder = save_model(tmp_path / "model", tiny_model(), tiny_tokenizer(), provenance={}, generation=ends)
    convert(folder, tmp_path / "m.gguf", to="f32")
    values = Gguf(tmp_path / "m.gguf").values
    assert [values[f"tokenizer.ggml.{key}_token_id"] for key in ("eos", "eot", "eom")] == [0, 4, 70]
    assert open_model(tmp_path / "m.gguf")[3] == ends
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 4, 70, 71]}))
    with pytest.raises(RequestError, match="three tokens that end a text, and this model has 4"):
        convert(folder, tmp_path / "more.gguf", to="f32")


# ---- SentencePiece


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_come_back(tmp_path: Path, prefix: bool) -> None:
    source = pieces(small(prefix=prefix))
    path = save(tmp_path / "m.gguf", LLAMA, tokenizer=source)
    values = Gguf(path).values
    kinds = dict(zip(*(values[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type")), strict=True))
    names = ("<unk>", "<s>", "</s>", "<0x41>", "▁the", "<pad>", "<think>", "[PAD300]")
    assert [kinds[name] for name in names] == [2, 3, 3, 6, 1, 3, 4, 5]
    assert [values[f"tokenizer.ggml.{key}_token_id"] for key in ("unknown", "bos", "eos")] == [0, 1, 2]
    assert (values["tokenizer.ggml.model"], values["tokenizer.ggml.add_space_prefix"]) == ("llama", prefix)
    found = open_model(path)[2]
    assert found.document == source.document
    assert (found.begin_of_text, found.end_of_text) == (1, 2)
    assert found.decode(found.encode("the  hen")) == "the  hen"

    @given(st.text(max_size=40) | st.text("then a", max_size=60))
    def check(text: str) -> None:
        assert found.encode(text) == source.encode(text)
        assert found.encode(text + "<think>", specials=True) == source.encode(text + "<think>", specials=True)

    check()


def test_the_scores_rank_the_pieces(tmp_path: Path) -> None:
    found = vocabulary_of(pieces(small()).document)
    ranks = dict(zip(found.pieces, found.scores, strict=True))
    merged = ["▁t", "he", "▁the", "an", "▁▁", "▁▁▁", "aa", "aaa", "▁▁▁▁"]
    assert [ranks[piece] for piece in merged] == [-1, -2, -3, -4, -5, -6, -7, -8, -9]
    assert max(ranks[piece] for piece in ("t", "<0x00>", "<s>", "<think>")) < -9


def with_merges(*last: str) -> dict[str, Any]:
    """The document of the small vocabulary with the merges of these pieces at the end, one of each in turn."""
    document: dict[str, Any] = json.loads(json.dumps(pieces(small()).document))
    merges = document["model"]["merges"]
    ways = {piece: [pair for pair in merges if "".join(pair) == piece] for piece in last}
    turns = [pairs[turn] for turn in range(3) for pairs in ways.values() if turn < len(pairs)]
    document["model"]["merges"] = [pair for pair in merges if "".join(pair) not in last] + turns
    return document


def test_runs_of_spaces_may_have_one_score() -> None:
    """As Llama 2 has them: their merges then stand between each other in some published files."""
    found = vocabulary_of(with_merges("▁▁▁", "▁▁▁▁"))
    ranks = dict(zip(found.pieces, found.scores, strict=True))
    assert [ranks[piece] for piece in ("▁▁", "aaa", "▁▁▁", "▁▁▁▁")] == [-5, -7, -8, -8]
    assert tokenizer_json(found)["model"]["merges"]
    with pytest.raises(RequestError, match="the pieces '▁▁▁' and 'aaa' have the same score"):
        vocabulary_of(with_merges("▁▁▁", "aaa"))


def test_what_merges_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the pieces '▁t' and 'he' have the same score, -3"):
        pieces(small({"▁t": -3.0, "he": -3.0}))
    path = save(tmp_path / "m.gguf", LLAMA, tokenizer=pieces(small()))
    scores = Gguf(path).values["tokenizer.ggml.scores"].tolist()
    for value, message in ((float("nan"), "a score that is not a number"), (scores[259 + 7], "have the same score")):
        changed = [*scores[: 259 + 6], value, *scores[259 + 7 :]]
        with pytest.raises(RequestError, match=rf"m\.gguf: .*{message}"):
            open_model(edited(path, {"tokenizer.ggml.scores": changed}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bos_token_id": 2}, "begin with another token than <s>"),
        ({"remove_extra_whitespaces": True}, "takes spaces out of texts"),
        ({"model": "t5"}, "vocabularies of type 't5' are not read"),
        ({"scores": [0.0]}, "its list of scores contradicts itself"),
        ({"scores": None}, "scores is missing"),
        ({"eos_token_id": 320}, "its eos_token_id is 320, of 320 tokens"),
    ],
)
def test_pieces_of_another_kind_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "m.gguf", LLAMA, tokenizer=pieces(small()))
    with pytest.raises((RequestError, WorkError), match=rf"m\.gguf.*{message}"):
        open_model(edited(path, {f"tokenizer.ggml.{key}": value for key, value in values.items()}))


def test_texts_that_begin_with_nothing(tmp_path: Path) -> None:
    path = edited(save(tmp_path / "m.gguf", LLAMA, tokenizer=pieces(small())), {"tokenizer.ggml.add_bos_token": False})
    found = open_model(path)[2]
    assert found.begin_of_text is None
    assert found.document["post_processor"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}},
        {"decoder": None},
    ],
)
def test_a_tokenizer_of_another_kind_is_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    document = pieces(small()).document | change
    with pytest.raises(RequestError, match="only byte-level BPE and SentencePiece's BPE are written as GGUF"):
        save(tmp_path / "m.gguf", LLAMA, tokenizer=Tokenizer(document, tokenizer_config()))


def test_merges_that_scores_cannot_say_are_not_written() -> None:
    document = with_merges()
    document["model"]["merges"].pop(0)
    with pytest.raises(RequestError, match="in a way of its own"):
        vocabulary_of(document)


# ---- published vocabularies


@pytest.mark.shared
def test_llama_2_gives_the_known_encodings(shared: Path, tmp_path: Path) -> None:
    """Those that llama.cpp has beside its file, and the same ids after a round trip."""
    source, generation = read_vocabulary(Gguf(shared / "models/gguf_vocab/ggml-vocab-llama-spm.gguf"))
    assert (source.vocab_size, source.begin_of_text, generation) == (32000, 1, {"eos_token_id": [2]})
    vectors = shared / "data/tokenizers/vectors/ggml-vocab-llama-spm.gguf"
    texts = Path(f"{vectors}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    wanted = Path(f"{vectors}.out").read_text().split("\n")
    found = there_and_back(tmp_path / "m.gguf", source, 32000)
    assert found.document == source.document
    assert len(texts) > 40
    for text, ids in zip(texts, wanted, strict=False):
        assert found.encode(text) == [int(number) for number in ids.split()]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "model", "vocabulary"),
    [("stories260K", "stories260K.bin", "tok512.bin"), ("babyllama105", "model5000.bin", "tok105.model")],
)
def test_published_models_of_pieces_come_back(
    shared: Path, tmp_path: Path, name: str, model: str, vocabulary: str
) -> None:
    files = shared / "models" / name
    folder = import_llama2c(files / model, files / vocabulary, tmp_path / "folder")
    convert(folder, tmp_path / "m.gguf", to="f32")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="f32")
    first, second = Tokenizer.load(folder), Tokenizer.load(tmp_path / "back")
    text = (shared / "models/stories260K/expected_greedy.txt").read_text(encoding="utf-8")
    assert first.fingerprint == second.fingerprint
    assert first.encode(text) == second.encode(text)
    assert first.begin_of_text == second.begin_of_text == 1


@pytest.mark.shared
def test_gpt2_gives_the_known_encodings(shared: Path) -> None:
    found, _ = read_vocabulary(Gguf(shared / "models/gguf_vocab/ggml-vocab-gpt-2.gguf"))
    for line in (shared / "data/tokenizers/vectors/gpt2_known_encodings.txt").read_text().splitlines():
        text, ids = line.rsplit(" => ", 1)
        assert found.encode(text) == [int(number) for number in ids.split(",")]


# ---- Llama 3


def test_words_that_no_merges_make_are_looked_up(tmp_path: Path) -> None:
    path = save(tmp_path / "m.gguf", QWEN3)
    merges = Gguf(path).values["tokenizer.ggml.merges"]
    changed = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": [m for m in merges if m != "i n"]}
    found = open_model(edited(path, changed | {"tokenizer.ggml.add_bos_token": None}))[2]
    assert found.encode("in") == tiny_tokenizer().encode("in")
    assert len(found.encode("in")) == 1
    assert found.begin_of_text == 0  # texts begin with a token where the file does not say


def test_a_vocabulary_that_looks_words_up_comes_back_whole(tmp_path: Path) -> None:
    path = save(tmp_path / "m.gguf", QWEN3)
    merges = Gguf(path).values["tokenizer.ggml.merges"]
    changed = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": [m for m in merges if m != "i n"]}
    source = open_model(edited(path, changed))[2]
    found = there_and_back(tmp_path / "again.gguf", source)
    assert found.document == source.document
    other = json.loads(json.dumps(tiny_tokenizer().document))
    other["model"] |= {"ignore_merges": True, "merges": source.document["model"]["merges"]}
    with pytest.raises(RequestError, match="for Llama 3's and Tekken alone"):
        vocabulary_values(Tokenizer(other), 320, ())


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("smollm", SMOLLM), ("starcoder", SMOLLM), ("phi-2", GPT2), ("deepseek-r1-qwen", QWEN2), ("megrez", QWEN2)],
)
def test_cuts_by_any_of_their_names(tmp_path: Path, name: str, pattern: WordPattern) -> None:
    source = train_tokenizer(["There were 12 hens  and 345 eggs; don't count them. " * 9], 330, pattern=pattern)
    written = tmp_path / "m.gguf"
    values = vocabulary_values(source, 330, ())
    write_gguf(written, values | {"tokenizer.ggml.pre": name}, [])
    found = read_vocabulary(Gguf(written))[0]
    assert found.document == source.document
    assert vocabulary_values(found, 330, ())["tokenizer.ggml.pre"] == values["tokenizer.ggml.pre"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tekken", "fooBar don't 12 a//\n", ["foo", "Bar", " don", "'t", " ", "1", "2", " a", "//\n"]),
        ("deepseek-coder", "fooBar, b 12\n", ["fooBar", ",", " b", " ", "1", "2", "\n"]),
        ("deepseek-v3", "(fooBar 1234 中文", ["(fooBar", " ", "123", "4", " ", "中文"]),
        ("seed-coder", "fooBar don't 12", ["fooBar", " don", "'t", " ", "1", "2"]),
    ],
)
def test_cuts_that_the_tokenizers_library_makes(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    # The ids of 1,330 texts equal those of llama.cpp; of Tekken's, but after a combining mark before 's or 'll.
    source = train_tokenizer(["There were 12 hens  and 345 eggs; don't count them. " * 9], 330, pattern=GPT2)
    written = tmp_path / "m.gguf"
    write_gguf(written, vocabulary_values(source, 330, ()) | {"tokenizer.ggml.pre": name}, [])
    found = read_vocabulary(Gguf(written))[0]
    cut = library_tokenizer(found.document).pre_tokenizer.pre_tokenize_str(text)
    assert [text[begin:end] for _, (begin, end) in cut] == words
    assert found.decode(found.encode(text)) == text
    assert vocabulary_values(found, 330, ())["tokenizer.ggml.pre"] == name


def test_a_vocabulary_that_does_not_say_how_it_cuts(tmp_path: Path) -> None:
    """It is GPT-2's in a model of that shape; in another it may be any, and to guess would be to misread."""
    for spec in (GPT2_SHAPE, QWEN3):
        path = edited(save(tmp_path / "m.gguf", spec), {"tokenizer.ggml.pre": None})
        if spec is QWEN3:
            with pytest.raises(RequestError, match="does not say how its vocabulary cuts text"):
                open_model(path)
        else:
            assert open_model(path)[2].document == tiny_tokenizer().document


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    spec = ModelSpec(vocab_size=200, context=64, width=64, layers=2, heads=4)
    with pytest.raises(RequestError, match="the tokenizer has 268 ids, the model knows 200"):
        save(tmp_path / "m.gguf", spec)
    assert not np.any(list(tmp_path.iterdir()))
