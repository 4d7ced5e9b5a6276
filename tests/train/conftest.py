"""Text whose entropy is known, a vocabulary of bytes, and tiny recipes over them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from chatsmith.settings import from_mapping
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.documents import Document
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.recipe import Recipe

LETTERS = "abcdefgh"
CHAIN_ENTROPY = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
"""Nats per letter of `chain_text`: after each letter come two others, with probabilities 3/4 and 1/4."""


def chain_text(length: int, seed: int) -> str:
    """Letters of a first-order Markov chain."""
    chance, place, letters = random.Random(seed), seed % len(LETTERS), []
    for _ in range(length):
        place = (place + (1 if chance.random() < 0.75 else 3)) % len(LETTERS)
        letters.append(LETTERS[place])
    return "".join(letters)


@pytest.fixture(scope="session")
def bytes_vocabulary() -> Tokenizer:
    """The 256 bytes and the five marks: no merges, so a letter is a token."""
    return train_tokenizer([LETTERS], 261)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, bytes_vocabulary: Tokenizer) -> TokenFolder:
    """60 documents of 500 letters, a tenth held out, and the vocabulary beside them."""
    folder = tmp_path_factory.mktemp("chain") / "tokens"
    documents = [Document(chain_text(500, seed), f"made/{seed}") for seed in range(60)]
    write_shards(documents, bytes_vocabulary, folder, held_out=0.1)
    bytes_vocabulary.save(folder.parent)
    return TokenFolder.open(folder)


TinyRecipe = Callable[..., Recipe]


@pytest.fixture
def tiny(chain: TokenFolder) -> TinyRecipe:
    """A recipe for a model of about 9,000 parameters on the chain; tables given replace keys of these."""

    def make(**changes: dict[str, Any]) -> Recipe:
        mapping: dict[str, Any] = {
            "data": {"sources": [{"path": str(chain.folder)}]},
            "model": {"preset": "modern", "width": 16, "layers": 1, "heads": 2, "context": 32, "ffn_width": 32},
            "batch": {"micro_batch": 8},
            "schedule": {"steps": 20},
            "evaluation": {"times": 0},
            "precision": {"compute": "float32"},
            "threads": 1,
        }
        for table, keys in changes.items():
            mapping[table] = {**mapping.get(table, {}), **keys} if isinstance(keys, dict) else keys
        if {"minutes", "tokens"} & mapping["schedule"].keys():
            mapping["schedule"].pop("steps")
        return from_mapping(Recipe, mapping, "tiny")

    return make
