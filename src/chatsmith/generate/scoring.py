"""How likely a model finds a text: log probabilities of given tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from chatsmith.errors import RequestError
from chatsmith.models.decoder import Decoder

_BATCH_TOKENS = 4096
_LOGITS_AT_ONCE = 2**24  # numbers, 64 MiB in float32: the logits of a whole window would take gigabytes


@dataclass(frozen=True, slots=True)
class _Window:
    """Tokens [start, end) of a text, of which those from `fresh` on are scored."""

    text: int
    start: int
    fresh: int
    end: int


@torch.inference_mode()
def score_many(model: Decoder, texts: Sequence[Sequence[int]], vocab_size: int) -> list[NDArray[np.float64]]:
    """Natural log probabilities of the tokens after the first of each text; see `Engine.score`."""
    for ids in texts:
        if not all(0 <= token < vocab_size for token in ids):
            raise RequestError(f"a text to score has ids outside the vocabulary of {vocab_size}")
    scores = [np.zeros(max(len(ids) - 1, 0)) for ids in texts]
    windows = [window for text, ids in enumerate(texts) for window in _windows(text, len(ids), model.spec.context)]
    windows.sort(key=lambda window: window.end - window.start)
    training = model.training
    model.eval()
    try:
        for group in _groups(windows):
            for window, found in zip(group, _score_group(model, texts, group, vocab_size), strict=True):
                scores[window.text][window.fresh - 1 : window.end - 1] = found
    finally:
        model.train(training)
    return scores


def _windows(text: int, length: int, context: int) -> Iterator[_Window]:
    """Cover a text: windows of a whole context that move on by half of one."""
    fresh = 1
    while fresh < length:
        end = min(length, context if fresh == 1 else fresh + context - context // 2)
        yield _Window(text, max(0, end - context), fresh, end)
        fresh = end


def _groups(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """Windows of about equal length, together at most `_BATCH_TOKENS` tokens with padding."""
    group: list[_Window] = []
    for window in windows:  # rising in length, so the newest is the longest
        if group and (len(group) + 1) * (window.end - window.start) > _BATCH_TOKENS:
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _score_group(
    model: Decoder, texts: Sequence[Sequence[int]], group: Sequence[_Window], vocab_size: int
) -> list[NDArray[np.float64]]:
    longest = max(window.end - window.start for window in group)
    ids = torch.zeros(len(group), longest, dtype=torch.long)
    for row, window in zip(ids, group, strict=True):
        row[: window.end - window.start] = torch.tensor(texts[window.text][window.start : window.end])
    ids = ids.to(model.device)
    hidden = model.hidden(ids)
    rows: list[int] = []
    before: list[int] = []
    for row, window in enumerate(group):
        rows += [row] * (window.end - window.fresh)
        before += range(window.fresh - 1 - window.start, window.end - 1 - window.start)
    row_index, place = torch.tensor(rows, device=ids.device), torch.tensor(before, device=ids.device)
    targets = ids[row_index, place + 1]
    found = []
    step = max(1, _LOGITS_AT_ONCE // vocab_size)
    for part in range(0, len(rows), step):
        here = slice(part, part + step)
        logits = model.logits(hidden[row_index[here], place[here]])[:, :vocab_size].float()
        found.append(torch.log_softmax(logits, dim=-1).gather(1, targets[here, None])[:, 0].double().cpu())
    flat = torch.cat(found).numpy()
    return np.split(flat, np.cumsum([window.end - window.fresh for window in group])[:-1])
