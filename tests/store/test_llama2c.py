"""Models and vocabularies of llama2.c become folders that speak the same words."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.language_model import load
from chatsmith.models.decoder import Decoder
from chatsmith.store.folder import load_model
from chatsmith.store.llama2c import import_llama2c, read_llama2c
from chatsmith.store.sentencepiece import Vocabulary, merges, read_vocabulary, tokenizer_json
from tiny import Cached

BABYLLAMA_TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the sunshine. "
    "One day, she went to the park with her mommy and daddy."
)


def greedy(model: Decoder, count: int) -> list[int]:
    """The greedy words after the begin token alone, with the cache."""
    cached = Cached(model, 1)
    text = [1]
    with torch.inference_mode():
        for _ in range(count):
            [logits] = cached([text[-1:]], [len(text) - 1])
            text.append(int(logits[-1].argmax()))
    return text


@pytest.mark.shared
def test_stories260k_says_its_published_words(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "stories260K"
    folder = import_llama2c(source / "stories260K.bin", source / "tok512.bin", tmp_path / "stories")
    loaded = load_model(folder)
    expected = (source / "expected_greedy.txt").read_text(encoding="utf-8").rstrip("\n")
    text = greedy(loaded.model, 256)
    assert loaded.tokenizer.decode(text[1:]).strip() == expected
    assert (loaded.generation["bos_token_id"], loaded.generation["eos_token_id"]) == (1, [2, 1])
    # What begins the next story ends this one.
    [story] = load(folder).engine.complete([Request((1,), Sampling(temperature=0, max_tokens=500))])
    assert (story.finish_reason, "<s>" in story.text) == ("eos", False)
    # The same folder, the same words in Transformers.
    other = transformers.AutoModelForCausalLM.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    start = torch.tensor([[1]])
    continued = other.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=256, do_sample=False)
    assert continued[0].tolist() == text
    assert words.decode(continued[0], skip_special_tokens=True).strip() == expected
    ids = torch.tensor([text])
    with torch.inference_mode():
        assert (loaded.model(ids) - other(ids).logits).abs().max() < 1e-4


@pytest.mark.shared
def test_babyllama_says_its_published_words(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "babyllama105"
    folder = import_llama2c(source / "model5000.bin", source / "tok105.model", tmp_path / "baby")
    loaded = load_model(folder)
    assert loaded.tokenizer.decode(greedy(loaded.model, 255)[1:]).strip().startswith(BABYLLAMA_TEXT)


def test_the_model_file_of_sentencepiece_agrees_with_its_list_of_pieces(shared: Path) -> None:
    source = shared / "models" / "babyllama105"
    vocabulary = read_vocabulary(source / "tok105.model")
    listed = [line.split("\t") for line in (source / "tok105.vocab").read_text(encoding="utf-8").split("\n")[:-1]]
    assert vocabulary.pieces == tuple(piece for piece, _ in listed)
    assert vocabulary.scores == tuple(float(score) for _, score in listed)
    assert not vocabulary.byte_fallback


def encode_as_llama2c(vocabulary: Vocabulary, text: str) -> list[int]:
    """llama2.c's encoder, from its description: characters or bytes, then the best-scoring merge, over and over."""
    ids = {piece: index for index, piece in enumerate(vocabulary.pieces)}
    tokens: list[int] = []
    for character in "▁" + text.replace(" ", "▁"):
        fallback = [ids[f"<0x{byte:02X}>"] for byte in character.encode()]
        tokens += [ids[character]] if character in ids else fallback
    while True:
        joined = [vocabulary.pieces[a] + vocabulary.pieces[b] for a, b in itertools.pairwise(tokens)]
        known = [(-vocabulary.scores[ids[piece]], place) for place, piece in enumerate(joined) if piece in ids]
        if not known:
            return tokens
        place = min(known)[1]
        tokens[place : place + 2] = [ids[joined[place]]]


@pytest.mark.shared
def test_the_vocabulary_encodes_as_llama2c_does(shared: Path) -> None:
    vocabulary = read_vocabulary(shared / "models" / "stories260K" / "tok512.bin")
    ours = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))
    stories = (shared / "models" / "stories260K" / "expected_greedy.txt").read_text(encoding="utf-8")

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=40) | st.text("aeinorst h.,L\"'", max_size=60) | st.just(stories))
    def check(text: str) -> None:
        if not text or "<" in text:
            return  # llama2.c has no notion of special tokens in text
        assert ours.encode(text).ids == [1, *encode_as_llama2c(vocabulary, text)]
        assert ours.decode(ours.encode(text).ids) == text or "▁" in text

    check()


def test_merges_follow_the_scores() -> None:
    pieces = ("<unk>", "<s>", "</s>", "a", "b", "c", "ab", "bc", "abc")
    vocabulary = Vocabulary(pieces, (0, 0, 0, -4, -5, -6, -2, -1, -3))
    assert merges(vocabulary) == [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]


def tiny_model(path: Path, vocab_size: int = 300, layers: int = 1) -> bytes:
    """A llama2.c file of width 8, two heads sharing one key head, with random weights."""
    width, ffn, heads, kv_heads, context, rows = 8, 12, 2, 1, 16, abs(vocab_size)
    floats = rows * width + layers * (2 * width + 2 * width * width + 2 * width * 4 + 3 * width * ffn) + width
    floats += 2 * context * 2 + (rows * width if vocab_size < 0 else 0)
    numbers = np.random.default_rng(0).standard_normal(floats, dtype=np.float32) * 0.1
    content = struct.pack("<7i", width, ffn, layers, heads, kv_heads, vocab_size, context) + numbers.tobytes()
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("vocab_size", [300, -300])
def test_a_head_of_its_own_is_told_by_the_sign(vocab_size: int, tmp_path: Path) -> None:
    content = tiny_model(tmp_path / "x.bin", vocab_size)
    model = read_llama2c(tmp_path / "x.bin")
    assert model.spec.tied == (vocab_size > 0)
    embedding = np.frombuffer(content, "<f4", 300 * 8, 28).reshape(300, 8)
    assert np.array_equal(model.embed.weight.detach().numpy(), embedding)
    if vocab_size < 0:
        head = np.frombuffer(content[-300 * 8 * 4 :], "<f4").reshape(300, 8)
        assert np.array_equal(model.head_weight.detach().numpy(), head)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-4], "its header describes"),
        (lambda content: content + b"more", "its header describes"),
        (lambda content: content[:20], "too short"),
        (lambda content: b"\x00" * len(content), "not a llama2.c model"),
        (lambda content: b"\xff" * len(content), "not a llama2.c model"),
        (lambda content: struct.pack("<7i", *[2**17] * 7) + content[28:], "not a llama2.c model"),
    ],
)
def test_a_damaged_model_file_is_named(change: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(change(tiny_model(path)))  # type: ignore[operator]
    with pytest.raises(WorkError) as caught:
        read_llama2c(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".bin", ".model"]))
def test_any_bytes_are_a_vocabulary_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"vocabulary{suffix}"
    path.write_bytes(content)
    with pytest.raises(ChatsmithError) as caught:
        read_vocabulary(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"gone\.bin"):
        read_llama2c(tmp_path / "gone.bin")
    with pytest.raises(RequestError, match=r"gone\.model"):
        read_vocabulary(tmp_path / "gone.model")
