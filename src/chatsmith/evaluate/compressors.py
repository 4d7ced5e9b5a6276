"""How many bits a model needs for each byte of held-out text, beside what gzip and xz need for the same text."""

from __future__ import annotations

import gzip
import lzma
from typing import TYPE_CHECKING

from chatsmith.text.batches import evaluation_batches
from chatsmith.text.shards import TokenFolder, TokenSplit
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.callbacks import Compared
from chatsmith.train.objectives import held_out_loss

if TYPE_CHECKING:
    from chatsmith.models.decoder import Decoder

_ROWS = 16
_MOST_BYTES = 2**20  # held-out text given to gzip and xz at most
_LEAST_BYTES = 2000  # of less, much is the headers of gzip and xz, 18 bytes and about 60
_MOST_TOKENS = 40_000  # given to the model


class Compressors:
    """Compares models with gzip and xz on the held-out text of a folder of tokens, where it keeps some.

    `found` is what came of the last comparison.
    """

    def __init__(self, tokens: TokenFolder, tokenizer: Tokenizer) -> None:
        self.found: Compared | None = None
        self._tokens, self._tokenizer = tokens, tokenizer

    def __call__(self, model: Decoder) -> Compared | None:
        if "held_out" not in self._tokens.splits:
            return None
        split = self._tokens.split("held_out")
        measured = held_out_loss(model, evaluation_batches(split, model.spec.context, _ROWS, _MOST_TOKENS))
        text = _beginning(split, self._tokenizer)
        if not text or not measured.bytes:
            return None
        gzipped = xzipped = None
        if len(text) >= _LEAST_BYTES:
            gzipped = 8 * len(gzip.compress(text, 9)) / len(text)
            xzipped = 8 * len(lzma.compress(text, preset=9)) / len(text)
        self.found = Compared(measured.bits_per_byte, gzipped, xzipped)
        return self.found


def _beginning(split: TokenSplit, tokenizer: Tokenizer) -> bytes:
    """The first mebibyte of a split's text."""
    parts: list[bytes] = []
    size = 0
    for text in split.iter_text(tokenizer):
        parts.append(text.encode("utf-8"))
        size += len(parts[-1])
        if size >= _MOST_BYTES:
            break
    return b"\n".join(parts)[:_MOST_BYTES]
