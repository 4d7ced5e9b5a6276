"""Vocabularies and models small enough to make in a test: bytes, a few merges, random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatsmith.generate.engine import Engine
from chatsmith.generate.torch_backend import TorchBackend
from chatsmith.models.cache import PagedCache
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, modern
from chatsmith.text.chat import CHAT_TEMPLATE
from chatsmith.text.tokenizer import SPECIALS, Tokenizer
from chatsmith.text.tokenizer_files import byte_level_document, bytes_to_token
from chatsmith.text.tokenizer_words import GPT2

_MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"a", b"n"), (b"an", b"d"), (b" ", b"and"), (b"i", b"n")]


@cache
def tiny_tokenizer(*, talks: bool = True) -> Tokenizer:
    """The five special tokens, the 256 bytes and seven merges: 268 ids."""
    names = [*SPECIALS, *(bytes_to_token(bytes([value])) for value in range(256))]
    names += [bytes_to_token(left + right) for left, right in _MERGES]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(bytes_to_token(left), bytes_to_token(right)) for left, right in _MERGES]
    document = byte_level_document(vocabulary, merges, GPT2, {name: vocabulary[name] for name in SPECIALS})
    config = {"eos_token": "<|endoftext|>"} | ({"chat_template": CHAT_TEMPLATE} if talks else {})
    return Tokenizer(document, config)


@cache
def tiny_sentencepiece() -> Tokenizer:
    """A Llama-like vocabulary as converted from SentencePiece: metaspace, byte fallback, <s> before every text."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *[f"<0x{value:02X}>" for value in range(256)],
        "▁",
        *"helowrd",
        "he",
        "ll",
        "hell",
    ]
    pieces += ["hello", "▁hello"]
    document = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": pieces[number], "special": True, "normalized": False}
            | {"single_word": False, "lstrip": False, "rstrip": False}
            for number in range(3)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: number for number, piece in enumerate(pieces)},
            "merges": ["h e", "l l", "he ll", "hell o", "▁ hello"],
        },
    }
    return Tokenizer(document, {"bos_token": "<s>", "eos_token": {"content": "</s>"}})


def tiny_spec(kind: str = "qwen3", context: int = 64) -> ModelSpec:
    """Two layers of width 32 over 320 rows, of which the last 52 belong to no token."""
    if kind == "qwen3":
        return modern(vocab_size=320, context=context, width=32, layers=2, heads=4, kv_heads=2, tied=False)
    band = 5 if kind == "banded" else None
    return ModelSpec(vocab_size=320, context=context, width=32, layers=2, heads=4, band=band, tied=False)


def tiny_model(kind: str = "qwen3", context: int = 64, seed: int = 0, spread: float = 15.0) -> Decoder:
    """A random model; `spread` scales its output matrix so that its guesses are neither flat nor certain."""
    model = Decoder(tiny_spec(kind, context))
    model.init_weights(seed)
    with torch.no_grad():
        model.head.weight.mul_(spread)
    return model.eval()


def tiny_engine(model: Decoder | None = None, *, cache_bytes: int = 8 * 2**20, **settings: Any) -> Engine:
    """An engine over a model (a tiny one) and the tiny vocabulary."""
    return Engine(TorchBackend(model or tiny_model(), cache_bytes=cache_bytes), tiny_tokenizer(), **settings)


class Cached:
    """Some sequences in a paged cache, read a few tokens at a time."""

    def __init__(self, model: Decoder, sequences: int) -> None:
        self.model = model
        probe = PagedCache(model.spec, 1)
        blocks = -(-model.spec.context // probe.block_size)
        shape = (len(probe.bands), sequences, blocks)
        self.tables = np.random.default_rng(0).permutation(np.prod(shape)).astype(np.int32).reshape(shape)
        self.cache = PagedCache(model.spec, self.tables.size, device=model.device, dtype=model.dtype)

    def __call__(self, new: list[list[int]], places: list[int]) -> list[Tensor]:
        """Logits [tokens, V] for the new tokens of each sequence, the first of which stands at its place."""
        starts = np.cumsum([0, *map(len, new)]).astype(np.int32)
        at = [np.arange(place, place + len(ids)) for place, ids in zip(places, new, strict=True)]
        opened = self.cache.open(np.concatenate(at).astype(np.int32), starts, self.tables)
        logits = self.model(torch.tensor([[token for ids in new for token in ids]]), cache=opened)[0]
        return list(logits.split([len(ids) for ids in new]))
