"""Dropout whose choices follow from noise and place alone."""

from __future__ import annotations

import pytest
import torch

from chatsmith.models.dropout import Dropout, fresh_noise, noise_of


@pytest.fixture
def noise() -> torch.Tensor:
    torch.manual_seed(0)
    return fresh_noise(torch.empty(64, 128))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_as_many_are_dropped_as_asked_and_none_depends_on_another(noise: torch.Tensor, rate: float) -> None:
    """Shares, and correlations with the next token, feature, word of four features, place and layer: five sigmas."""
    kept = Dropout(noise, rate).kept(0, 61).double()
    count = kept.numel()
    assert abs(kept.mean().item() - (1 - rate)) < 5 * (rate * (1 - rate) / count) ** 0.5
    centred = (kept - (1 - rate)) / (rate * (1 - rate)) ** 0.5
    others = [Dropout(noise, rate).kept(1, 61), Dropout(noise_of(noise, 0), rate).kept(0, 61)]
    pairs = [(centred, (other.double() - (1 - rate)) / (rate * (1 - rate)) ** 0.5) for other in others]
    pairs += [(centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])]
    pairs += [(centred[..., step:], centred[..., :-step]) for step in (1, 2, 4, 8)]
    for one, other in pairs:
        assert abs((one * other).mean().item()) < 5 / one.numel() ** 0.5


def test_any_part_drops_what_the_whole_does(noise: torch.Tensor) -> None:
    whole = Dropout(noise, 0.3).kept(1, 10)
    part = Dropout(noise[3:7, 5:20], 0.3).kept(1, 10)
    assert torch.equal(part, whole[3:7, 5:20])


def test_what_is_kept_makes_up_for_what_is_dropped(noise: torch.Tensor) -> None:
    dropout = Dropout(noise, 0.25)
    x = torch.ones(64, 128, 16, dtype=torch.bfloat16, requires_grad=True)
    y = dropout.thin(x, 0)
    assert y.dtype == torch.bfloat16
    assert y.float().mean().item() == pytest.approx(1, abs=0.01)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_numbers_are_what_they_were() -> None:
    """Golden, by SplitMix64 in whole numbers of any size: a run that was begun before goes on with the same choices."""
    kept = Dropout(torch.arange(4)[None], 0.5).kept(0, 8)[0]
    assert ["".join(str(int(k)) for k in row) for row in kept] == ["11110100", "11110000", "01011011", "01100000"]
