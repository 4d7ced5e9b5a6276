"""Guesses change the speed and nothing else: the same tokens, greedy and drawn, whoever guesses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chatsmith.errors import RequestError
from chatsmith.generate.requests import Completion, Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.speculation import DraftModel, Guesser, PromptLookup
from chatsmith.generate.torch_backend import TorchBackend
from tiny import tiny_engine, tiny_model

NONE: frozenset[int] = frozenset()
# A prompt that repeats itself, so that look-up finds something.
PROMPT = tuple([40, 41, 42, 43, 44, 45, 46, 47] * 4)


def asked(temperature: float, count: int = 6, **settings: float) -> list[Request]:
    return [
        Request(
            PROMPT[: 12 + 3 * seed],
            Sampling(temperature=temperature, seed=seed, max_tokens=40, **settings),  # type: ignore[arg-type]
            stop_ids=NONE,
        )
        for seed in range(count)
    ]


def said(guesser: Guesser | None, requests: list[Request], spread: float) -> tuple[list[Completion], dict[str, int]]:
    engine = tiny_engine(tiny_model(context=128, spread=spread), guesser=guesser)
    return engine.complete(requests), engine.batch.counts


def draft(seed: int, spread: float = 15.0, context: int = 128) -> DraftModel:
    return DraftModel(TorchBackend(tiny_model(context=context, seed=seed, spread=spread), cache_bytes=2**22), 268)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("spread", [15.0, 60.0])
def test_guesses_change_no_token(temperature: float, spread: float) -> None:
    requests = asked(temperature, repetition_penalty=1.1) + asked(temperature, top_k=9)
    plain, _ = said(None, requests, spread)
    for guesser in (PromptLookup(longest=2, shortest=1), draft(0, spread), draft(5), draft(0, context=32)):
        guessed, counts = said(guesser, requests, spread)
        assert [done.ids for done in guessed] == [done.ids for done in plain]
        assert [done.logprobs for done in guessed] == [done.logprobs for done in plain]
        assert counts["right"] <= counts["guessed"]
        if isinstance(guesser, DraftModel):
            assert guesser.blocks.held == 0


def test_a_draft_that_is_the_model_itself_is_always_right() -> None:
    _, counts = said(draft(0), asked(1.0), 15.0)
    assert counts["guessed"] == counts["right"] > 100
    assert counts["steps"] < 6 * 40 / 3


def test_look_up_finds_what_the_text_said_before() -> None:
    text = [1, 2, 3, 9, 9, 1, 2]
    engine = tiny_engine()
    [number] = [engine.batch.add(Request(tuple(text), Sampling(max_tokens=5)))]
    sequence = engine.batch._schedule.waiting[0]
    lookup = PromptLookup(count=3, longest=3, shortest=2)
    assert lookup.guess([sequence], [10]) == [(3, 9, 9)]
    assert lookup.guess([sequence], [2]) == [(3, 9)]
    sequence.tokens.append(7)
    assert lookup.guess([sequence], [10]) == [()]
    engine.batch.cancel(number)


def test_drawn_with_guesses_the_tokens_have_the_models_distribution() -> None:
    """The second token of 3,000 answers, guessed at by another model, against exact probabilities: chi-square."""
    model, count = tiny_model(context=64, spread=8.0), 3000
    prompt = (70, 71, 72)
    engine = tiny_engine(model, guesser=draft(3, spread=8.0), max_rows=64)
    request = Request(prompt, Sampling(temperature=1.0, seed=11, max_tokens=3, top_k=6), samples=1000, stop_ids=NONE)
    firsts: dict[int, list[int]] = {}
    for seed in range(count // 1000):
        again = Request(prompt, Sampling(temperature=1.0, seed=seed, max_tokens=3, top_k=6), 1000, stop_ids=NONE)
        for done in engine.complete([again]):
            firsts.setdefault(done.ids[0], []).append(done.ids[1])
    assert engine.batch.counts["guessed"] >= count
    assert 0 < engine.batch.counts["right"] < engine.batch.counts["guessed"]
    first, seconds = max(firsts.items(), key=lambda item: len(item[1]))
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, first]]))[0, -1, :268].double()
    kept = logits.topk(request.sampling.top_k)
    expected = torch.softmax(kept.values, -1).numpy() * len(seconds)
    observed = np.array([seconds.count(token) for token in kept.indices.tolist()])
    assert observed.sum() == len(seconds)
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert chi_square < 20.5  # 5 degrees of freedom: exceeded once in a thousand


def test_a_draft_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(RequestError, match="the draft model knows 320 ids"):
        DraftModel(TorchBackend(tiny_model(), cache_bytes=1), 400)
    with pytest.raises(RequestError, match="at least one token"):
        DraftModel(TorchBackend(tiny_model(), cache_bytes=1), 268, count=0)
    with pytest.raises(RequestError, match="prompt look-up needs"):
        PromptLookup(longest=1, shortest=2)
