"""Attention for training without the kernels: equal to PyTorch's, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from chatsmith.models import causal


@pytest.mark.parametrize("time", [1, 64, 129, 300])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kept", [True, False], ids=["weights kept", "weights made again"])
def test_equal_to_pytorch(time: int, masked: bool, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(causal, "_KEEP_BYTES", 0)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, time, 8, generator=generator, dtype=torch.float64) for _ in range(4)]
    slope = inputs.pop()
    at = torch.arange(time)
    distance = at[:, None] - at
    mask = ((distance >= 0) & (distance < 20))[None, None].expand(2, 1, time, time) if masked else None
    mine = [x.clone().requires_grad_() for x in inputs]
    theirs = [x.clone().requires_grad_() for x in inputs]
    output = causal.causal_attention(*mine, mask)
    expected = F.scaled_dot_product_attention(*theirs, attn_mask=mask, is_causal=not masked)
    assert torch.allclose(output, expected)
    output.backward(slope)
    expected.backward(slope)
    for one, two in zip(mine, theirs, strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.allclose(one.grad, two.grad)


def test_it_serves_only_where_a_gradient_is_wanted() -> None:
    query = torch.randn(1, 1, 4, 8, requires_grad=True)
    assert causal.suits(query)
    assert not causal.suits(query.detach())
    with torch.no_grad():
        assert not causal.suits(query)
