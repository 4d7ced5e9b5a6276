"""Scaling laws: the figures of the papers, and that an optimum is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan.scaling import DEFAULT_FIT, FITS, ParametricFit, find_fit, optimal_tokens, optimum

CHINCHILLA = 5.76e23  # FLOPs


@pytest.mark.parametrize(
    ("fit", "parameters", "tokens", "ratio"),
    [
        ("hoffmann", 32.2e9, 2.98e12, 92.6),
        ("hoffmann-unrounded", 40.3e9, 2.38e12, 59.1),
        ("besiroglu", 72.2e9, 1.33e12, 18.4),
    ],
)
def test_what_each_fit_makes_of_chinchillas_compute(fit: str, parameters: float, tokens: float, ratio: float) -> None:
    best = optimum(CHINCHILLA, fit)
    assert best.parameters == pytest.approx(parameters, rel=0.002)
    assert best.tokens == pytest.approx(tokens, rel=0.002)
    assert best.tokens_per_parameter == pytest.approx(ratio, abs=0.06)


@pytest.mark.parametrize(
    ("fit", "losses"),
    [
        ("hoffmann", (2.002, 1.937, 2.659)),
        ("hoffmann-unrounded", (1.973, 1.917, 2.639)),
        ("besiroglu", (2.009, 1.974, 2.685)),
    ],
)
def test_losses_that_each_fit_expects(fit: str, losses: tuple[float, ...]) -> None:
    law = find_fit(fit)
    runs = ((175e9, 300e9), (70e9, 1.4e12), (125e6, 300e9))
    assert [round(law.loss(*run), 3) for run in runs] == list(losses)


def test_only_the_replication_gives_twenty_tokens_a_parameter() -> None:
    assert DEFAULT_FIT == "besiroglu"
    near = [name for name in FITS if 15 < optimum(CHINCHILLA, name).tokens_per_parameter < 25]
    assert near == ["besiroglu"]


@given(
    exponent=st.floats(15, 28), fit=st.sampled_from([n for n, law in FITS.items() if isinstance(law, ParametricFit)])
)
def test_no_other_size_does_better_with_the_same_compute(exponent: float, fit: str) -> None:
    best = optimum(10**exponent, fit)
    assert 6 * best.parameters * best.tokens == pytest.approx(10**exponent)
    law = find_fit(fit)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(best.parameters * factor, best.tokens / factor) > best.loss_nats_per_token


@given(exponent=st.floats(6, 12), fit=st.sampled_from(list(FITS)))
def test_optimal_tokens_lead_back_to_the_size(exponent: float, fit: str) -> None:
    size = 10**exponent
    tokens = optimal_tokens(size, fit)
    assert optimum(6 * size * tokens, fit).parameters == pytest.approx(size, rel=1e-6)


def test_an_unknown_fit_gives_the_nearest() -> None:
    with pytest.raises(RequestError, match="no scaling law called 'hofman'") as error:
        find_fit("hofman")
    assert "hoffmann" in str(error.value.hint)
