"""Batches of tokens in an order fixed by a seed, resumable at any sample by one number.

A sample is one row of `context` inputs and as many targets. What sample i holds depends on i, the seed and the text
alone: not on the batch size, which may change during a run, and not on how often the run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.text.order import keys, shuffled
from chatsmith.text.packing import PADDING, Pack, layout
from chatsmith.text.shards import TokenSplit

NO_TARGET = -100
"""The target of a place where nothing is to be predicted, as in PyTorch and Transformers."""

_STATE_VERSION = 1
_QUOTAS = [2**14]  # of sources that were once mixed here: a run that was begun then goes on
_MAX_SAMPLES = 2**53


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: inputs and targets int64 [B, T], a target NO_TARGET where none is to be learned.

    With documents masked, `segments` int32 [B, T] numbers the documents of a row from 0 (tokens see only their own
    document) and `positions` int64 [B, T] counts from 0 in each; otherwise both are None. `text_bytes`, in batches
    for evaluation, counts the UTF-8 bytes of text behind the targets. `noise` int64 [B, T], where the model is trained
    with dropout, is what that draws from.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segments: np.ndarray | None = None
    positions: np.ndarray | None = None
    text_bytes: int | None = None
    noise: np.ndarray | None = None


class Batches:
    """Endless training batches from one split.

    Every row comes once per epoch, in an order that changes from epoch to epoch (sampling without replacement until an
    epoch boundary: GPT-3, appendix B). `pack` is "stream" (windows over the ends of documents) or "documents" (whole
    documents, the rest of a row padded; see `WholeDocuments`).

    The end-of-text token of a document predicts the first token of the next one in "stream", as in GPT-3's training.
    With `mask_documents` documents do not see each other and this target is left out, as nothing could tell it.
    With "documents" it is left out in any case: the neighbours in a row are chosen for their length.

    Raises `RequestError` for a split that has less text than one window.
    """

    def __init__(
        self, split: TokenSplit, *, context: int, seed: int, mask_documents: bool = False, pack: Pack = "stream"
    ) -> None:
        _check_shape(context, pack)
        self.split, self.context, self.seed = split, context, seed
        self.mask_documents, self.pack = mask_documents, pack
        self.samples = 0  # how many samples have been given out
        self._layout = layout(split, context, pack, seed)
        order = [_STATE_VERSION, context, seed, mask_documents, pack, _QUOTAS, [split.fingerprint]]
        self.fingerprint = hashlib.sha256(json.dumps(order).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Rows per epoch."""
        return self._layout.rows

    def next(self, count: int) -> Batch:
        """The next `count` samples."""
        made = self.at(self.samples, count)
        self.samples += count
        return made

    def at(self, first: int, count: int) -> Batch:
        """Samples first … first + count - 1, wherever the run stands; several readers can share out a batch by it."""
        if first < 0 or count < 1:
            raise RequestError(f"there are no samples {first} to {first + count - 1}")
        epochs, places = np.divmod(np.arange(first, first + count), self.rows)
        rows = shuffled(places, self.rows, keys(self.seed, 0, epochs, 0))
        return make_batch(self.split, self._layout.positions(epochs, rows), self.mask_documents, self.pack)

    def state(self) -> dict[str, Any]:
        """Where the run stands, as JSON holds it."""
        return {"version": _STATE_VERSION, "samples": self.samples, "fingerprint": self.fingerprint}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a `state` was taken; `RequestError` if it belongs to other text or another order."""
        samples = state.get("samples")
        if state.get("version") != _STATE_VERSION or type(samples) is not int or not 0 <= samples <= _MAX_SAMPLES:
            raise RequestError("the saved place in the training text is not one this chatsmith wrote")
        if state.get("fingerprint") != self.fingerprint:
            raise RequestError(
                "the saved place belongs to other text, or to other settings of context, seed, weights or packing",
                "resume with the text and the recipe that the run began with, or begin a new run",
            )
        self.samples = samples


def evaluation_batches(
    split: TokenSplit,
    context: int,
    batch: int,
    limit_tokens: int | None = None,
    *,
    mask_documents: bool = False,
    pack: Pack = "stream",
) -> Iterator[Batch]:
    """Batches that predict each token of a split once, always the same ones, each with its `text_bytes`.

    "stream": windows one behind another, the first behind an end-of-text token, so that even the first token of the
    split is predicted. Only tokens that are to be learned count, and with `mask_documents`, or "documents", not the
    first of each document. `limit_tokens` takes about as many tokens in windows spread evenly over the split. Bits
    per byte are the sum of the targets' losses in nats / ln 2 / the sum of `text_bytes`. All batches have one shape.
    """
    _check_shape(context, pack)
    rows = layout(split, context, pack, seed=0) if pack == "documents" else None
    total = rows.rows if rows else math.ceil(len(split) / context)
    count = total if limit_tokens is None else min(max(limit_tokens // context, 1), total)
    chosen = np.arange(count) * total // count
    size = math.ceil(count / math.ceil(count / batch))
    for first in range(0, count, size):
        part = chosen[first : first + size]
        positions = np.full((size, context + 1), PADDING, dtype=np.int64)
        if rows:
            positions[: len(part)] = rows.positions(np.zeros_like(part), part)
        else:
            # Position -1, before the first token, reads as end-of-text: padding and beginning are the same thing.
            positions[: len(part)] = part[:, None] * context + np.arange(-1, context)
            positions[positions >= len(split)] = PADDING
        yield make_batch(split, positions, mask_documents, pack, count_bytes=True)


def make_batch(
    split: TokenSplit, positions: np.ndarray, mask_documents: bool, pack: Pack, *, count_bytes: bool = False
) -> Batch:
    """The batch whose rows hold the tokens at `positions` int64 [B, T+1]; PADDING reads as end-of-text, no target."""
    absent = positions < 0
    padded = bool(absent.any())
    present = np.where(absent, 0, positions) if padded else positions
    tokens = split.gather(present)
    if padded:
        tokens[absent] = split.end_of_text
    inputs, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    unlearned = absent[:, 1:]
    if split.has_loss:
        unlearned = unlearned | ~split.gather_loss(present[:, 1:])
    segments = places = None
    if mask_documents or pack == "documents":
        starts = _document_starts(split, positions)
        unlearned = unlearned | starts[:, 1:]
        if mask_documents:
            segments, places = _within_documents(starts[:, :-1])
    targets[unlearned] = NO_TARGET
    text_bytes = int(split.token_bytes[targets[targets >= 0]].sum(dtype=np.int64)) if count_bytes else None
    return Batch(inputs, targets, segments, places, text_bytes)


def _document_starts(split: TokenSplit, positions: np.ndarray) -> np.ndarray:
    """bool [B, T+1]: where a document begins, a piece of one, or padding."""
    starts = np.ones(positions.shape, dtype=bool)
    starts[:, 1:] = np.diff(positions, axis=1) != 1
    starts[:, 1:] &= (positions[:, 1:] != PADDING) | (positions[:, :-1] != PADDING)
    starts |= positions == 0
    after = np.searchsorted(split.ends, positions)
    return starts | (split.ends[np.minimum(after, split.documents - 1)] == positions)


def _within_documents(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the marks of beginnings [B, T]: the number of the document in its row, and the place in the document."""
    places = np.arange(starts.shape[1])
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    return np.cumsum(starts, axis=1, dtype=np.int32) - np.int32(1), places - first


def _check_shape(context: int, pack: str) -> None:
    if context < 1:
        raise RequestError(f"context {context} must be at least 1")
    if pack not in get_args(Pack):
        raise RequestError(f"there is no packing {pack!r}", did_you_mean(pack, get_args(Pack)))
