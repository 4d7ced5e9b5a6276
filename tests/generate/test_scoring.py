"""Scores against whole forward passes in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chatsmith.errors import RequestError
from chatsmith.generate import schedule
from chatsmith.generate.engine import Engine
from tiny import tiny_engine, tiny_model


def expected(engine: Engine, ids: list[int]) -> np.ndarray:
    """Log probabilities by one pass in float64, which must fit the context."""
    model = tiny_model().double()
    with torch.inference_mode():
        logits = model(torch.tensor([ids]))[0, :-1, : engine.tokenizer.vocab_size]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


def random_ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 268, count).tolist()


def test_scores_are_log_probabilities(engine: Engine) -> None:
    ids = random_ids(64)
    np.testing.assert_allclose(engine.score(ids), expected(engine, ids), atol=1e-4)


def test_many_texts_of_any_length_in_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_LOGITS_AT_ONCE", 268 * 7)
    texts = [random_ids(count, seed=count) for count in (0, 1, 2, 64, 3, 40, 17, 33)]
    for ids, found in zip(texts, engine.score_many(texts), strict=True):
        wanted = expected(engine, ids) if len(ids) > 1 else np.zeros(0)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_long_text_is_read_in_windows_that_overlap_by_half(engine: Engine) -> None:
    ids = random_ids(64 + 32 + 32 + 5)
    found = engine.score(ids)
    assert len(found) == len(ids) - 1
    np.testing.assert_allclose(found[:63], expected(engine, ids[:64]), atol=1e-4)
    np.testing.assert_allclose(found[63:95], expected(engine, ids[32:96])[-32:], atol=1e-4)
    np.testing.assert_allclose(found[127:], expected(engine, ids[-64:])[-5:], atol=1e-4)


def test_ids_outside_the_vocabulary_are_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match="outside the vocabulary"):
        engine.score([1, 268])
