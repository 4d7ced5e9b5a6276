"""Chance by seed: the right frequencies, no state, and little harm from a last bit."""

from __future__ import annotations

import numpy as np
import pytest

from chatsmith.generate.noise import choose, exponential, fresh_seed, key, sample_seed
from chatsmith.generate.sampling import Sampling, Stages


def keys_of(seed: int, count: int) -> np.ndarray:
    return np.array([key(seed, position) for position in range(count)], np.uint64)


def test_the_numbers_are_fixed_for_good() -> None:
    """A seed must give the same text in every version; the key is pinned, the noise is SplitMix64 in plain integers."""
    state, mask = key(7, 3), 2**64 - 1
    expected = []
    for step in (1, 2, 3):
        x = (state + step * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        x ^= x >> 31
        expected.append(-np.log(((x >> 11) + 0.5) / 2**53))
    assert state == 2306243060308923218
    np.testing.assert_allclose(exponential(np.array([state], np.uint64), 3)[0], expected, rtol=1e-15)


def test_the_noise_is_exponential() -> None:
    drawn = np.sort(exponential(keys_of(1, 40), 5000).ravel())
    assert abs(drawn.mean() - 1) < 0.01
    assert abs(drawn.var() - 1) < 0.03
    # Kolmogorov–Smirnov: the distance of 200,000 true draws exceeds 1.95/√n once in a thousand times.
    distance = np.abs(1 - np.exp(-drawn) - (np.arange(drawn.size) + 0.5) / drawn.size).max()
    assert distance < 1.95 / np.sqrt(drawn.size)


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 64, 100, 513, 2048])
def test_tokens_come_as_often_as_their_probability_says(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    weights = rng.pareto(1.0, vocabulary).astype(np.float32)
    weights[rng.random(vocabulary) < 0.3] = 0
    weights[0] = 1.0
    draws = 20_000
    chosen = choose(np.broadcast_to(weights, (draws, vocabulary)), keys_of(11, draws))
    counts = np.bincount(chosen, minlength=vocabulary)
    p = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    assert counts[p == 0].sum() == 0
    # Chi-square over the tokens expected at least 5 times, the rest as one: mean = degrees of freedom, 5 deviations.
    big = draws * p >= 5
    observed = np.append(counts[big], counts[~big].sum())
    expected = np.append(draws * p[big], draws * p[~big].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    assert ((observed - expected) ** 2 / expected).sum() <= freedom + 5 * np.sqrt(2 * max(freedom, 1))


def test_seeds_positions_and_samples_are_independent_draws() -> None:
    weights = np.ones((1, 1000), np.float32)
    first = [int(choose(weights, keys_of(seed, 1))[0]) for seed in range(300)]
    assert len(set(first)) > 230
    assert sample_seed(9, 0) == 9
    seeds = {sample_seed(9, index) for index in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert fresh_seed() != fresh_seed()


def test_an_error_of_the_last_bits_hardly_ever_changes_a_choice() -> None:
    """Another batch shape moves logits by some 1e-6; a search in a running sum would change far more choices."""
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((2000, 2048)) * 2).astype(np.float32)
    moved = logits * (1 + rng.uniform(-1e-6, 1e-6, logits.shape)).astype(np.float32)
    keys = keys_of(5, 2000)
    one, other = (Stages(z, Sampling(temperature=1.0)).choose(keys) for z in (logits, moved))
    assert (one != other).sum() <= 1
