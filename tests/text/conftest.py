"""Vocabularies small enough to check by eye: five special tokens and the 256 bytes, without any merge."""

from __future__ import annotations

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from chatsmith.text.chat import CHAT_TEMPLATE
from chatsmith.text.tokenizer import SPECIALS, Tokenizer


def bytes_only(**far: int) -> Tokenizer:
    """A vocabulary of single bytes; `far` names more special tokens, with ids that may lie anywhere."""
    specials = {name: number for number, name in enumerate(SPECIALS)} | {f"<|{name}|>": far[name] for name in far}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    vocabulary = {name: number for name, number in specials.items() if number < len(SPECIALS)}
    vocabulary |= {character: len(vocabulary) + place for place, character in enumerate(sorted(ByteLevel.alphabet()))}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return Tokenizer(
        {
            "version": "1.0",
            "added_tokens": [{"id": number, "content": name} | flags for name, number in specials.items()],
            "normalizer": None,
            "pre_tokenizer": step,
            "post_processor": None,
            "decoder": step,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        },
        {"chat_template": CHAT_TEMPLATE},
    )


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """261 ids."""
    return bytes_only()


@pytest.fixture(scope="session")
def wide_tokenizer() -> Tokenizer:
    """As `byte_tokenizer`, and one special token far away, so that ids need 32 bits and most belong to nothing."""
    return bytes_only(far=70_000)
