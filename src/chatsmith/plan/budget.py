"""From minutes to a model: which shape, vocabulary and batch learn the most on this machine in the time given.

The rules were read off runs on two CPU cores (`bench/learn.py` repeats them): a model should see about three tokens for
each parameter, small models reach a smaller share of the machine's matrix rate, and the batch grows with the
square root of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from chatsmith.errors import RequestError
from chatsmith.specs import ModelSpec, modern, padded_vocabulary

TOKENS_PER_PARAMETER = 3.0
MAX_MINUTES = 60 * 24 * 366

# layers, width, heads: from the built-in model's own size to one that a CPU trains in weeks
_LADDER = (
    (3, 64, 2),
    (4, 96, 3),
    (4, 128, 4),
    (5, 160, 5),
    (6, 192, 6),
    (6, 256, 4),
    (8, 320, 5),
    (8, 384, 6),
    (10, 512, 8),
    (12, 640, 10),
    (12, 768, 12),
    (16, 1024, 16),
    (24, 1280, 20),
    (24, 1536, 24),
)


Speed = Callable[[ModelSpec], float]
"""Tokens per second that a shape trains at."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to train in a budget: the shape, rows of `spec.context` tokens per step, and the tokens expected.

    `epochs` is how often the text would be read in that time; `dropout` follows from it.
    """

    spec: ModelSpec
    rows: int
    tokens: float
    epochs: float
    learning_rate: float
    muon_learning_rate: float


def vocabulary_size(text_bytes: int, seconds: float, peak_flops: float) -> int:
    """How many tokens are worth learning: twice as many for four times the text, and no more than the model can carry.

    A vocabulary costs width × size parameters and their matmul at every step, so a short run gets a smaller one.
    """
    by_text = 512 * 2 ** (math.log2(max(text_bytes, 1) / 200_000) / 2)
    by_time = 1024 * 2 ** (math.log2(max(seconds * peak_flops, 1.0) / 1e13) / 2)
    return int(min(65536, max(512, 256 * round(min(by_text, by_time) / 256))))


def achieved_share(width: int) -> float:
    """The share of the matrix rate that a training step reaches at this width: calls and memory take the rest."""
    return min(0.70, max(0.25, 0.50 + 0.08 * math.log2(width / 128)))


def estimated(peak_flops: float) -> Speed:
    """What a machine of that matrix rate in FLOP/s is likely to train at, before anything was measured."""
    return lambda spec: peak_flops * achieved_share(spec.width) / spec.training_flops_per_token()


def choose(seconds: float, speed: Speed, vocab_size: int, text_tokens: float) -> Choice:
    """The model to train in `seconds` at `speed`, over `text_tokens` (inf: endless text), which fill its context.

    `speed` is asked for one shape after the other, the smallest first. Raises `RequestError` for a budget that is not
    a time.
    """
    if not 0 < seconds <= MAX_MINUTES * 60:
        raise RequestError(f"a model cannot be trained in {seconds / 60:g} minutes", "for example --minutes 5")
    best = None
    for layers, width, heads in _LADDER:
        spec = modern(padded_vocabulary(vocab_size), _context(width), width, layers, heads)
        tokens = seconds * speed(spec)
        if best is not None and (tokens < TOKENS_PER_PARAMETER * spec.parameters or text_tokens <= spec.context):
            break
        best = spec, tokens
    assert best is not None
    spec, tokens = best
    epochs = tokens / text_tokens
    dropout = 0.0 if epochs < 6 else 0.1 if epochs < 25 else 0.2
    spec = modern(spec.vocab_size, spec.context, spec.width, spec.layers, spec.heads, dropout=dropout)
    step_tokens = 2048 * 2 ** round(max(0.0, math.log2(max(tokens, 1.0) / 5e6) / 2))
    # Large models take a smaller AdamW rate; Muon's step does not depend on the width.
    return Choice(
        spec,
        rows=max(4, step_tokens // spec.context),
        tokens=tokens,
        epochs=epochs,
        learning_rate=5e-3 * min(1.0, (128 / spec.width) ** 0.5),
        muon_learning_rate=0.02,
    )


def _context(width: int) -> int:
    return 384 if width < 256 else 512 if width < 512 else 1024
