"""Byte-level BPE in plain Python, for the first short texts.

Making sure that tiktoken gives the ids of the tokenizers library, and building its tables, takes a quarter of a second
for fifty thousand tokens. A prompt of a few words needs none of that: its words are merged here as the definition says
(Sennrich et al. 2016), the earliest merge first and of equal ones the leftmost.
"""

from __future__ import annotations

from itertools import pairwise

from chatsmith.text.tokenizer_engines import without_surrogates
from chatsmith.text.tokenizer_files import BYTE_TO_CHAR, Document
from chatsmith.text.tokenizer_merges import Unsuitable, pattern_of, words_in
from chatsmith.text.tokenizer_words import words_of

MOST = 4096
"""Characters encoded in all before the real engine is worth building."""
_NEVER = 2**62


class ShortEngine:
    """Encodes until it has seen `MOST` characters; raises `Unsuitable` for what it does not do."""

    def __init__(self, document: Document) -> None:
        model = document["model"]
        options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
        if model.get("type", "BPE") != "BPE" or not isinstance(model["vocab"], dict) or "merges" not in model:
            raise Unsuitable("its model is not BPE")
        if document.get("normalizer") is not None or any(model.get(option) for option in options):
            raise Unsuitable("it does more than merge")
        self._pattern, self._words = pattern_of(document.get("pre_tokenizer")), words_in(document)
        self._vocabulary: dict[str, int] = model["vocab"]
        try:
            pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        except TypeError:
            raise Unsuitable("a merge is no pair of tokens") from None
        # "a b" is one pair, as no part of a byte-level word holds a space. Of a pair listed twice the first counts.
        self._ranks = dict(zip(reversed(pairs), range(len(pairs) - 1, -1, -1), strict=True))
        self._left = MOST

    def encode(self, text: str) -> list[int] | None:
        """The ids; None when the text is too long, or holds what the vocabulary has no token for."""
        if len(text) > self._left:
            return None
        self._left -= len(text)
        try:
            return self._words.encode(text, self._encode)
        except KeyError:
            return None

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for words in words_of(without_surrogates(text), self._pattern):
            for begin, end in zip(words.bounds[:-1].tolist(), words.bounds[1:].tolist(), strict=True):
                ids += [self._vocabulary[part] for part in self._merge(words.text[begin:end])]
        return ids

    def _merge(self, word: str) -> list[str]:
        parts = [BYTE_TO_CHAR[value] for value in word.encode()]
        while len(parts) > 1:
            ranks = [self._ranks.get(f"{left} {right}", _NEVER) for left, right in pairwise(parts)]
            least = min(ranks)
            if least == _NEVER:
                break
            at = ranks.index(least)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts
