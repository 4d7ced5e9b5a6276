"""The stages of sampling against float64 arithmetic from the papers, and against transformers' processors."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from chatsmith.errors import RequestError, WorkError
from chatsmith.generate.noise import key
from chatsmith.generate.sampling import Past, Sampling, Stages, kth_largest

SETTINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.7),
    Sampling(temperature=1.7, top_k=5),
    Sampling(temperature=1.0, top_k=50, top_p=0.9),
    Sampling(temperature=0.8, top_p=0.95),
    Sampling(temperature=1.3, top_p=0.1, min_p=0.02),
    Sampling(temperature=1.0, min_p=0.1),
    Sampling(temperature=0.9, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
    Sampling(temperature=1.0, repetition_penalty=0.7),
    Sampling(temperature=1.0, presence_penalty=0.8, frequency_penalty=-0.4),
    Sampling(temperature=0.7, repetition_penalty=1.1, frequency_penalty=0.3, logit_bias={3: 5.0, 6: -3.0}),
]


def logits_of(rows: int, vocabulary: int, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, vocabulary))
    return (drawn * spread).astype(np.float32)


def final(stages: Stages) -> np.ndarray:
    weights = stages.weights["min_p"].astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def pasts(rows: int, vocabulary: int) -> list[Past]:
    """Texts so far: every third token seen, some of them in the answer, some often."""
    found = []
    for row in range(rows):
        seen = np.arange(row, vocabulary, 3)
        found.append(Past.of(seen[: len(seen) // 2].tolist(), [*seen[len(seen) // 2 :], *seen[-2:], seen[-1]]))
    return found


def reference(logits: np.ndarray, sampling: Sampling, past: Past) -> np.ndarray:
    """One row in float64, written from the definitions and not for speed."""
    z = logits.astype(np.float64)
    for token in past.seen.tolist():
        z[token] = z[token] * sampling.repetition_penalty if z[token] < 0 else z[token] / sampling.repetition_penalty
    for token, count in zip(past.said.tolist(), past.counts.tolist(), strict=True):
        z[token] -= sampling.presence_penalty + count * sampling.frequency_penalty
    for token, bias in sampling.logit_bias:
        z[token] += bias
    p = np.exp((z - z.max()) / sampling.temperature)
    p /= p.sum()
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    if sampling.top_k:
        for token in order[sampling.top_k :]:
            p[token] = 0.0
        p /= p.sum()
    if sampling.top_p < 1:
        total = 0.0
        for token in order:
            likelier, total = total, total + p[token]
            if likelier >= sampling.top_p:
                p[token] = 0.0
        p /= p.sum()
    p[p < sampling.min_p * p.max()] = 0.0
    return p / p.sum()


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("vocabulary", [7, 300, 5000])
def test_equals_the_definitions_in_float64(sampling: Sampling, vocabulary: int) -> None:
    logits = logits_of(6, vocabulary)
    seen = pasts(6, vocabulary)
    found = final(Stages(logits, sampling, seen))
    for row in range(6):
        expected = reference(logits[row], sampling, seen[row])
        assert ((found[row] > 0) == (expected > 0)).all()
        np.testing.assert_allclose(found[row], expected, rtol=2e-5, atol=1e-12)


# The last two have what transformers has not.
@pytest.mark.parametrize("sampling", SETTINGS[:-2], ids=str)
def test_equals_transformers(sampling: Sampling) -> None:
    logits = logits_of(8, 2000, seed=1)
    prompt = np.random.default_rng(2).integers(0, 2000, (8, 50))
    steps = hf.LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(hf.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        steps.append(hf.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(hf.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(hf.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(hf.MinPLogitsWarper(sampling.min_p))
    theirs = steps(torch.from_numpy(prompt), torch.from_numpy(logits.copy())).softmax(-1).numpy()
    ours = final(Stages(logits, sampling, [Past.of(row) for row in prompt.tolist()]))
    assert ((ours > 0) == (theirs > 0)).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-9)


def test_temperature_zero_takes_the_likeliest_and_among_equals_the_lowest_id() -> None:
    logits = np.array([[1.0, 5.0, 5.0, 0.0], [9.0, 9.0, 9.0, 9.0]], np.float32)
    stages = Stages(logits, Sampling(temperature=0))
    assert stages.choose(np.zeros(2, np.uint64)).tolist() == [1, 0]
    assert final(stages).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    penalised = Stages(logits[:1], Sampling(temperature=0, repetition_penalty=2.0), [Past.of([1])])
    assert penalised.choose(np.zeros(1, np.uint64)).tolist() == [2]


def test_a_very_low_temperature_is_greedy_without_overflow() -> None:
    logits = logits_of(3, 500)
    for temperature in (1e-300, 1e-6, 0.001):
        stages = Stages(logits, Sampling(temperature=temperature))
        assert stages.choose(np.arange(3, dtype=np.uint64)).tolist() == logits.argmax(axis=1).tolist()


def test_ties_at_the_edge_of_top_k_stay_and_at_the_edge_of_top_p_the_lowest_ids_stay() -> None:
    logits = np.log(np.array([[0.4, 0.15, 0.15, 0.15, 0.15]], np.float32))
    assert (final(Stages(logits, Sampling(temperature=1, top_k=2))) > 0).tolist() == [[True] * 5]
    kept = final(Stages(logits, Sampling(temperature=1, top_p=0.6))) > 0
    assert kept.tolist() == [[True, True, True, False, False]]
    flat = np.zeros((2, 1000), np.float32)
    assert (final(Stages(flat, Sampling(temperature=1, top_p=0.25))) > 0).sum(axis=1).tolist() == [250, 250]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3000), st.data())
def test_kth_largest_is_what_sorting_gives(seed: int, vocabulary: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, vocabulary))
    values = np.random.default_rng(seed).integers(-40, 40, (3, vocabulary)).astype(np.float32)
    assert kth_largest(values, k)[:, 0].tolist() == np.sort(values, axis=1)[:, vocabulary - k].tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(2, 1200),
    st.floats(0.05, 5),
    st.integers(0, 100),
    st.floats(0.01, 1),
    st.floats(0, 0.9),
)
def test_any_settings_leave_the_likeliest_and_a_choice_that_was_kept(
    seed: int, vocabulary: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    stages = Stages(logits_of(4, vocabulary, seed), sampling)
    kept = stages.weights["min_p"]
    assert (kept.max(axis=1) == 1.0).all()
    chosen = stages.choose(np.arange(4, dtype=np.uint64) + np.uint64(seed))
    assert (kept[np.arange(4), chosen] > 0).all()


@pytest.mark.parametrize("sampling", [*SETTINGS, Sampling(temperature=0)], ids=str)
@pytest.mark.parametrize("vocabulary", [37, 2048, 5001])
def test_a_row_is_the_same_to_the_last_bit_alone_or_in_a_batch(sampling: Sampling, vocabulary: int) -> None:
    logits = logits_of(9, vocabulary, seed=5)
    seen = pasts(9, vocabulary)
    keys = np.array([key(3, position) for position in range(9)], np.uint64)
    together = Stages(logits, sampling, seen)
    chosen = together.choose(keys)
    logprobs = together.logprobs(chosen)
    for row in range(9):
        alone = Stages(logits[row : row + 1].copy(), sampling, seen[row : row + 1])
        assert alone.choose(keys[row : row + 1]).tolist() == [chosen[row]]
        assert alone.logprobs(chosen[row : row + 1])[0] == logprobs[row]
        assert (alone.weights["min_p"][0] == together.weights["min_p"][row]).all()


def test_looking_changes_no_number() -> None:
    logits, seen = logits_of(4, 5000), [Past.of(range(9))] * 4
    for sampling in SETTINGS:
        one, other = (Stages(logits, sampling, seen, look=look).weights["min_p"] for look in (False, True))
        assert (one == other).all()


def test_logprobs_are_the_models_own() -> None:
    logits = logits_of(5, 1000)
    ids = np.arange(5) * 7
    stages = Stages(logits, Sampling(temperature=0.1, top_k=1))
    expected = torch.log_softmax(torch.from_numpy(logits).double(), -1)[torch.arange(5), torch.from_numpy(ids)]
    np.testing.assert_allclose(stages.logprobs(ids), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_named(bad: float) -> None:
    logits = logits_of(2, 10)
    logits[1, 3] = bad
    with pytest.raises(WorkError, match="not finite"):
        Stages(logits, Sampling())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": -0.1}, "temperature must be from 0"),
        ({"temperature": float("nan")}, "temperature must be a number"),
        ({"temperature": "warm"}, "temperature must be a number"),
        ({"top_k": -1}, "top_k must be from 0"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"min_p": 1.5}, "min_p must be from 0"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"max_tokens": -1}, "max_tokens must be from 0 to 16777216, not -1"),
        ({"presence_penalty": 2.5}, "presence_penalty must be from -2"),
        ({"logit_bias": {5: 101.0}}, "logit_bias must give"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias must give"),
        ({"logit_bias": [(1, 1.0), (1, 2.0)]}, "logit_bias must give"),
        ({"logit_bias": {1: float("nan")}}, "logit_bias must give"),
        ({"logit_bias": 3}, "logit_bias must give"),
        ({"max_tokens": True}, "max_tokens must be a whole number"),
        ({"seed": -1}, "seed must be from 0 to 9223372036854775807, not -1"),
        ({"stop": [""]}, "a stop text must have"),
        ({"stop": ["x" * 2000]}, "a stop text must have"),
        ({"stop": ["x"] * 17}, "17 stop texts are too many"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(given: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Sampling(**given)


def test_numbers_of_numpys_become_pythons() -> None:
    """A seed of numpy's was accepted, and then there was no key to be made of it; and JSON cannot say such numbers."""
    given = {
        "temperature": np.float32(0.5), "top_k": np.int64(3), "top_p": np.float64(0.5), "min_p": np.float32(0.25),
        "repetition_penalty": np.float32(1.5), "presence_penalty": np.int32(1), "frequency_penalty": np.int8(1),
        "logit_bias": {np.int64(5): np.float32(2)}, "seed": np.uint64(3), "max_tokens": np.int32(4),
    }  # fmt: skip
    made = Sampling(**given)
    assert json.loads(json.dumps(asdict(made)))["logit_bias"] == [[5, 2.0]]
    assert made == Sampling(0.5, 3, 0.5, 0.25, 1.5, 1, 1, ((5, 2),), 3, (), 4)
    assert key(made.seed, 0) == key(3, 0)  # type: ignore[arg-type]


def test_settings_by_name_over_defaults() -> None:
    base = Sampling(temperature=0.3, top_k=7)
    assert Sampling.of(base, top_k=None, seed=4) == Sampling(temperature=0.3, top_k=7, seed=4)
    assert Sampling(stop="\n").stop == ("\n",)
    with pytest.raises(RequestError, match="no sampling setting called 'temprature'") as caught:
        Sampling.of(base, temprature=1)
    assert caught.value.hint == "did you mean temperature?"
