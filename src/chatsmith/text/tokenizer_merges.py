"""Can tiktoken encode with this vocabulary, and get the ids that the file's own format asks for?

The two engines state byte-pair encoding differently. `tokenizer.json` lists the merges: within a word, the earliest
listed pair that stands side by side becomes one token, until none is left. tiktoken knows only tokens with ranks: the
adjacent pair whose *concatenation* has the lowest rank becomes one, whether or not that pair is the listed one.

They agree on every text if each token, cut back to its bytes and encoded by the listed merges, ends with a listed pair
that makes it. For suppose tiktoken merged an unlisted pair into token t at some point. Nothing had crossed the ends of
t's bytes till then, so these bytes went through the same merges as when t is encoded alone; but alone, just one state
of two tokens occurs on the way to t, and that pair is listed. This module checks that condition, for all tokens at
once: instead of encoding each token, it walks along the seam between the two halves of the last merge and asks whether
any earlier merge across the seam would have come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chatsmith.text.tokenizer_added import Words, is_text, plainly_found
from chatsmith.text.tokenizer_files import BYTE_TO_CHAR, DIGITS, Document, token_to_bytes
from chatsmith.text.tokenizer_words import GPT2, PATTERNS, SMOLLM, WordPattern


@dataclass(frozen=True)
class Ranks:
    """What tiktoken needs: `of[token]` rises with the merges; `ids[rank]` is the id, or None where they are equal."""

    pattern: WordPattern
    of: dict[bytes, int]
    ids: npt.NDArray[np.uint32] | None
    compose: bool
    """Text is brought to Unicode's NFC first, as the file asks."""
    words: Words
    """The added tokens that are text."""


@dataclass(frozen=True)
class ByteLevel:
    """A byte-level BPE vocabulary, as other formats want it: token → id, merges by rank, and how text is cut."""

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    pattern: WordPattern
    whole_words: bool
    """Words that are tokens are looked up before any merge, and some that no merge makes are."""


def byte_level(document: Document) -> ByteLevel | None:
    """The vocabulary of a document that is byte-level BPE of a known cut; None for any other."""
    model = document["model"]
    try:
        pattern, _, merges = _parts(document)
    except Unsuitable:
        return None
    vocabulary: dict[str, int] = model["vocab"]
    made = {left + right for left, right in merges}
    parts = {part for pair in merges for part in pair}
    if not vocabulary.keys() >= {*BYTE_TO_CHAR, *made, *parts}:
        return None
    known = made | {token["content"] for token in document.get("added_tokens") or []}
    alone = any(len(token) > 1 and token not in known and token_to_bytes(token) for token in vocabulary)
    return ByteLevel(vocabulary, merges, pattern, bool(model.get("ignore_merges")) and alone)


class Unsuitable(Exception):
    """Why tiktoken cannot stand in for the tokenizers library with this file."""


def _parts(document: Document) -> tuple[WordPattern, Words, list[tuple[str, str]]]:
    """How a byte-level document cuts text, its added tokens that are text, and its merges; or raises `Unsuitable`."""
    model = document["model"]
    if model.get("type", "BPE") != "BPE" or not isinstance(model["vocab"], dict) or "merges" not in model:
        raise Unsuitable(f"its model is {model.get('type')}, not BPE")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise Unsuitable(f"its model uses {option}")
    normalizer = document.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        raise Unsuitable("it normalises text")
    pattern, words = pattern_of(document.get("pre_tokenizer")), words_in(document)
    if not isinstance(model["merges"], list) or not all(isinstance(pair, str | list) for pair in model["merges"]):
        raise Unsuitable("its merges are not a list of pairs")
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    if any(len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str) for pair in merges):
        raise Unsuitable("a merge does not name two tokens")
    return pattern, words, [(left, right) for left, right in merges]


def ranks_of(document: Document) -> Ranks:
    """The ranks for tiktoken; raises `Unsuitable` where equal ids are not certain."""
    pattern, words, merges = _parts(document)
    model, composes = document["model"], document.get("normalizer") is not None
    added = {token["content"] for token in document.get("added_tokens") or []}
    vocabulary: dict[str, int] = model["vocab"]
    made: dict[str, int] = {}
    for pair in merges:
        made.setdefault("".join(pair), 256 + len(made))
    rank: dict[str, int] = {}
    of: dict[bytes, int] = {}
    for token in vocabulary | made:
        data = token_to_bytes(token)
        single = data is not None and len(data) == 1
        if data is None or (not single and token not in made):
            if data is not None and model.get("ignore_merges"):
                raise Unsuitable("it has tokens that no merge makes, and looks whole words up")
            continue  # a special token, or one that no text reaches
        if token not in vocabulary or (token in added and token in made):
            raise Unsuitable(f"the merged token {token!r} is no ordinary token")
        rank[token] = of[data] = data[0] if single else made[token]
    if any(bytes([value]) not in of for value in range(256)):
        raise Unsuitable("it lacks some of the 256 single bytes")
    _check_merges(merges, rank)

    ids = np.empty(256 + len(made), np.uint32)
    for token, place in rank.items():
        ids[place] = vocabulary[token]
    if len(ids) == 256 or bool(np.all(np.diff(ids[256:].astype(np.int64)) > 0)):
        # Ids that rise with the merges serve as ranks themselves: no table on the way out.
        return Ranks(pattern, {data: int(ids[place]) for data, place in of.items()}, None, composes, words)
    return Ranks(pattern, of, ids, composes, words)


def words_in(document: Document) -> Words:
    """The added tokens that are text, where they are found by their letters alone; see `tokenizer_added`."""
    tokens = [token for token in document.get("added_tokens") or [] if is_text(token)]
    if not plainly_found(tokens, document.get("normalizer") is not None):
        raise Unsuitable("it has added tokens with manners of their own")
    return Words({token["content"]: token["id"] for token in tokens})


def pattern_of(cutter: Any) -> WordPattern:
    """The known expression behind a `pre_tokenizer` entry."""
    steps = cutter.get("pretokenizers") if isinstance(cutter, dict) and cutter.get("type") == "Sequence" else [cutter]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise Unsuitable("it does not cut text into words")
    *splits, byte_level = steps
    if byte_level.get("type") != "ByteLevel" or byte_level.get("add_prefix_space"):
        raise Unsuitable("it does not work on bytes as they come")
    if not splits and byte_level.get("use_regex", True):
        return GPT2
    if splits == [DIGITS] and byte_level.get("use_regex", True):
        return SMOLLM
    if len(splits) == 1 and not byte_level.get("use_regex", True) and splits[0].get("type") == "Split":
        split = splits[0]
        pattern = split.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        known = PATTERNS.get(regex) if isinstance(regex, str) else None
        if split.get("behavior") == "Isolated" and not split.get("invert") and known is not None:
            return known
    raise Unsuitable("it cuts text into words in a way of its own")


def _check_merges(merges: list[tuple[str, str]], rank: dict[str, int]) -> None:
    """The condition above: each merged token is made, in the end, by a pair that is listed for it."""
    if not merges:
        return
    try:
        left = np.array([rank[pair[0]] for pair in merges])
        right = np.array([rank[pair[1]] for pair in merges])
        made = np.array([rank[pair[0] + pair[1]] for pair in merges])
    except KeyError as error:
        raise Unsuitable(f"a merge names the token {error.args[0]!r}, which it lacks") from None
    if np.any(np.diff(made) < 0) or np.any(np.maximum(left, right) >= made):
        raise Unsuitable("its merges are not in the order of the tokens that they make")
    lookup = _PairTable(left, right, made)
    count = int(made[-1]) + 1
    first_half, second_half = np.full(count, -1), np.full(count, -1)
    lengths = np.array([len(pair[0]) + len(pair[1]) for pair in merges])
    # Shorter tokens first: the seam of a token runs through halves of its halves, which must be settled.
    for length in sorted(set(lengths.tolist())):  # np.unique would load numpy.ma
        which = np.flatnonzero(lengths == length)
        which = which[_survives(left[which], right[which], made[which], first_half, second_half, lookup)]
        first_half[made[which]], second_half[made[which]] = left[which], right[which]
    if np.any(first_half[256:] < 0):
        raise Unsuitable("it lists a merge that earlier merges never leave to happen")


class _PairTable:
    """From pairs of ranks to the rank of the token they make."""

    def __init__(self, left: npt.NDArray, right: npt.NDArray, made: npt.NDArray) -> None:
        pairs = left << 32 | right
        order = np.argsort(pairs)
        self._pairs, self._made = pairs[order], made[order]

    def __call__(self, left: npt.NDArray, right: npt.NDArray) -> npt.NDArray:
        pairs = left << 32 | right
        place = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        return np.where(self._pairs[place] == pairs, self._made[place], np.iinfo(np.int64).max)


def _survives(
    left: npt.NDArray,
    right: npt.NDArray,
    made: npt.NDArray,
    first_half: npt.NDArray,
    second_half: npt.NDArray,
    lookup: _PairTable,
) -> npt.NDArray[np.bool_]:
    """Whether the bytes of left + right, encoded alone with merges before `made`, stop at just these two tokens.

    Undo the merges on both sides of the seam, latest first. Before the latest was made, its inner half stood at the
    seam; a merge across the seam that is due earlier would have happened instead. Of two equally early ones the
    leftmost happens first.
    """
    fine = np.ones(len(left), bool)
    active = np.arange(len(left))
    left, right, limit = left.copy(), right.copy(), made.copy()
    while len(active):
        crossing = lookup(left, right) < limit
        fine[active[crossing]] = False
        undo_left = left > right
        latest = np.maximum(left, right)
        limit = np.where(undo_left, latest, latest + 1)
        inner_left, inner_right = second_half[left], first_half[right]
        left, right = np.where(undo_left, inner_left, left), np.where(undo_left, right, inner_right)
        go_on = ~crossing & (latest >= 256) & (np.minimum(left, right) >= 0)
        # A half that was itself found impossible (-1) makes the whole impossible.
        fine[active[~crossing & (latest >= 256) & (np.minimum(left, right) < 0)]] = False
        active, left, right, limit = active[go_on], left[go_on], right[go_on], limit[go_on]
    return fine
