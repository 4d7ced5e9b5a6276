"""Beam search against an exhaustive one, written from the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from chatsmith.generate.requests import Beams, Request
from chatsmith.generate.sampling import Sampling
from chatsmith.models.decoder import Decoder
from tiny import tiny_engine, tiny_model

PROMPT = (70, 71, 72)


def log_probabilities(model: Decoder, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids]))[0, -1, :268].double(), -1).numpy()


def reference(model: Decoder, width: int, alpha: float, length: int, stops: frozenset[int]) -> list[tuple[int, ...]]:
    """Plain beam search over whole passes: the best `width` answers of at most `length` tokens, best first."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    found: list[tuple[float, tuple[int, ...]]] = []
    for step in range(1, length + 1):
        options = []
        for total, made in alive:
            logs = log_probabilities(model, [*PROMPT, *made])
            options += [(total + float(logs[token]), (*made, token)) for token in range(268)]
        options.sort(key=lambda option: -option[0])
        penalty = ((5 + step) / 6) ** alpha
        alive = []
        for rank, (total, made) in enumerate(options):
            if len(alive) == width:
                break
            if made[-1] in stops or step == length:
                if rank < width:
                    found.append((total / penalty, made))
                elif step == length:
                    break
            else:
                alive.append((total, made))
        found = sorted(found, key=lambda one: -one[0])[:width]
        if not alive or (len(found) == width and alive[0][0] / ((5 + length) / 6) ** alpha <= found[-1][0]):
            break
    return [made for _, made in found]


@pytest.mark.parametrize(("width", "alpha"), [(1, 0.0), (3, 0.6), (4, 0.6), (4, 2.0), (5, 0.0)])
@pytest.mark.parametrize("kind", ["qwen3", "banded"])
def test_equals_the_definition(kind: str, width: int, alpha: float) -> None:
    model = tiny_model(kind, spread=8.0)
    stops = frozenset(range(0, 268, 9))
    expected = reference(model, width, alpha, 10, stops)
    request = Request(PROMPT, Sampling(max_tokens=10), width, stop_ids=stops, beams=Beams(width, alpha))
    engine = tiny_engine(model)
    found = engine.complete([request])
    assert [done.ids for done in found] == expected
    for done in found:
        ids = list(PROMPT)
        for token, logprob in zip(done.ids, done.logprobs, strict=True):
            assert logprob == pytest.approx(log_probabilities(model, ids)[token], abs=1e-4)
            ids.append(token)
    assert engine.batch.blocks.held == 0
    [best] = engine.complete([replace(request, samples=1)])
    assert best.ids == expected[0]


def test_one_beam_is_greedy() -> None:
    engine = tiny_engine()
    plain = Request(PROMPT, Sampling(temperature=0, max_tokens=12), stop_ids=frozenset())
    [greedy], [beam] = engine.complete([plain]), engine.complete([replace(plain, beams=Beams(1))])
    assert beam.ids == greedy.ids
    assert beam.text == greedy.text
