"""How faithful one form of a model is to another: the same tokens through both, compared at every place.

Perplexity is exp of the mean negative log probability of the text's own tokens. The divergence is Kullback and
Leibler's (1951) of the second form's distribution from the first's, in nats; top-1 agreement is how often both find the
same token likeliest. Backends only: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chatsmith.errors import RequestError
from chatsmith.generate.backend import Backend, Floats, Step
from chatsmith.text.tokenizer import Tokenizer

_ROWS = 64  # logits of so many places at a time
_SAMPLES = 8  # the fewest texts that a model writes


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """What was found over `tokens` places. `change` is that of the perplexity, and `change_error` its standard error,
    both as parts of the first one."""

    tokens: int
    perplexity: float
    perplexity_after: float
    change: float
    change_error: float
    divergence: float
    agreement: float


def compare(first: Backend, second: Backend, ids: Sequence[int], vocab_size: int) -> Faithfulness:
    """Read `ids` through both, in windows of the model's context; `vocab_size` leaves out columns that only pad."""
    context = first.spec.context
    windows = [ids[start : start + context] for start in range(0, len(ids), context)]
    found = [_window(first, second, np.array(w, np.int32), vocab_size) for w in windows if len(w) > 1]
    if not found:
        raise RequestError("a text of fewer than two tokens says nothing about a model", "give a longer one")
    before, after, divergence, same = (np.concatenate(part) for part in zip(*found, strict=True))
    change = float(after.mean() - before.mean())
    error = float((after - before).std() / math.sqrt(len(before)))
    return Faithfulness(
        tokens=len(before),
        perplexity=math.exp(before.mean()),
        perplexity_after=math.exp(after.mean()),
        change=math.expm1(change),
        change_error=error,
        divergence=float(divergence.mean()),
        agreement=float(same.mean()),
    )


def own_words(backend: Backend, tokenizer: Tokenizer, tokens: int, *, after: int = 0) -> list[int]:
    """Texts drawn from the model at temperature 1, `tokens` ids or a little fewer in all, always the same.

    The texts are numbered, and each number has its draws; `after` leaves out so many, for words that were not read yet.
    """
    context, groups = backend.spec.context, len(backend.bands)
    length = min(context, max(tokens // _SAMPLES, 2))
    begin = tokenizer.end_of_text if tokenizer.begin_of_text is None else tokenizer.begin_of_text
    texts = np.full((max(tokens // length, 1), length), begin, np.int32)
    blocks = -(-length // backend.block_size)
    most = max(backend.blocks // (groups * blocks), 1)
    for first in range(0, len(texts), most):
        some = texts[first : first + most]
        draws = [np.random.default_rng((0, after + first + number)) for number in range(len(some))]
        tables = np.arange(groups * len(some) * blocks, dtype=np.int32).reshape(groups, len(some), blocks)
        starts, rows = np.arange(len(some) + 1, dtype=np.int32), np.arange(len(some), dtype=np.int32)
        for place in range(length - 1):
            step = Step(some[:, place], np.full(len(some), place, np.int32), starts, tables, rows)
            logits = backend.logits(step)[:, : tokenizer.vocab_size]
            noise = np.stack([draw.gumbel(size=tokenizer.vocab_size) for draw in draws])
            some[:, place + 1] = (logits + noise).argmax(-1)
    return [int(token) for token in texts.ravel()]


def _window(first: Backend, second: Backend, ids: np.ndarray, vocab_size: int) -> tuple[np.ndarray, ...]:
    """For each place but the last: nats of the next token in both, the divergence, and whether the likeliest agree."""
    parts = []
    for start in range(0, len(ids) - 1, _ROWS):
        rows = ids[start : min(start + _ROWS, len(ids) - 1)]
        after = ids[start + 1 : start + 1 + len(rows)]
        one, two = (_log_softmax(_feed(b, rows, start, len(ids))[:, :vocab_size]) for b in (first, second))
        at = np.arange(len(rows))
        divergence = (np.exp(one) * (one - two)).sum(-1)
        parts.append((-one[at, after], -two[at, after], divergence, one.argmax(-1) == two.argmax(-1)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _feed(backend: Backend, rows: np.ndarray, start: int, length: int) -> Floats:
    """The next rows of a single sequence, in the first blocks of the backend's cache."""
    places = np.arange(start, start + len(rows), dtype=np.int32)
    blocks = -(-length // backend.block_size)
    table = np.arange(blocks * len(backend.bands), dtype=np.int32).reshape(len(backend.bands), 1, blocks)
    starts = np.array([0, len(rows)], np.int32)
    return backend.logits(Step(rows, places, starts, table, np.arange(len(rows), dtype=np.int32)))


def _log_softmax(logits: Floats) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    return wide
