"""Added tokens that are text, such as <think>, or GPT-NeoX's runs of spaces: found in every text, before it is cut.

A file marks its added tokens as special or not. Special ones mean what their names do not say (a role, an end), so no
text becomes one; the others are words that the vocabulary was given whole, and whoever says them gets them, as with
the tokenizers library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Row = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]
_MANNERS = ("lstrip", "rstrip", "single_word")


def is_text(token: Mapping[str, Any]) -> bool:
    """Whether an entry of `added_tokens` stands for its own text."""
    return not token.get("special", True)


def plainly_found(tokens: Iterable[Mapping[str, Any]], normalizes: bool) -> bool:
    """Whether these added tokens are found by their letters alone, all in one search: none swallows the spaces around
    it, or is looked for in text after this was normalised."""
    kinds = {(bool(token.get("normalized")), any(token.get(key) for key in _MANNERS)) for token in tokens}
    return not kinds or kinds == {(False, False)} or (kinds == {(True, False)} and not normalizes)


def finding(names: Iterable[str]) -> re.Pattern[str]:
    """Finds any of these names, of those that begin at one place the longest; `split` gives them in between."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if longest_first else r"(?!)()")


class Words:
    """Cuts text at the added tokens that are text; something else encodes what is between them."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = dict(ids)
        self._split = finding(self._ids).split

    def encode(self, text: str, between: Callable[[str], list[int]]) -> list[int]:
        """The ids of one text."""
        if not self._ids:
            return between(text)
        first, *rest = self._split(text)
        ids = between(first)
        for word, part in zip(rest[::2], rest[1::2], strict=True):
            ids.append(self._ids[word])
            if part:
                ids += between(part)
        return ids

    def encode_row(self, texts: Sequence[str], between: Callable[[Sequence[str]], Row]) -> Row:
        """The ids of many texts, and where each ends."""
        split = [self._split(text) for text in texts] if self._ids else []
        words = [self._ids[word] for parts in split for word in parts[1::2]]
        if not words:
            return between(texts)
        ids, ends = between([part for parts in split for part in parts[::2]])
        last = np.cumsum([len(parts) // 2 + 1 for parts in split]) - 1
        followed = np.ones(len(ends), bool)
        followed[last] = False
        return np.insert(ids, ends[followed], words), ends[last] + np.cumsum(followed)[last]
