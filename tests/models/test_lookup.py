"""A table with two uses gets the gradient it would get without the shortcut, and takes no second one of its size."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from chatsmith.kernels import native
from chatsmith.models.decoder import Decoder
from chatsmith.models.lookup import for_lookup_and_head, names_rows, rows_of
from chatsmith.specs import ModelSpec
from chatsmith.text.batches import NO_TARGET
from chatsmith.train import losses
from chatsmith.train.losses import next_token_loss

IDS = torch.tensor([[3, 0, 3], [7, 3, 9]])


def table(dtype: torch.dtype = torch.float32) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).to(dtype))


def test_the_gradients_of_both_uses_are_added() -> None:
    mine, plain = table(), table()
    lookup, head = for_lookup_and_head(mine)
    ((rows_of(lookup, IDS) ** 2).sum() + (head**3).sum()).backward()
    ((F.embedding(IDS, plain) ** 2).sum() + (plain**3).sum()).backward()
    assert mine.grad is not None
    assert plain.grad is not None
    assert not mine.grad.is_sparse
    torch.testing.assert_close(mine.grad, plain.grad)


@pytest.mark.parametrize("use", ["lookup", "head", "twice"])
def test_one_use_alone_and_sums_over_passes(use: str) -> None:
    mine, plain = table(), table()
    for _ in range(2 if use == "twice" else 1):
        lookup, head = for_lookup_and_head(mine)
        if use != "head":
            rows_of(lookup, IDS).sin().sum().backward(retain_graph=True)
            F.embedding(IDS, plain).sin().sum().backward()
        if use != "lookup":
            head.cos().sum().backward()
            plain.cos().sum().backward()
    assert mine.grad is not None
    assert plain.grad is not None
    assert not mine.grad.is_sparse
    torch.testing.assert_close(mine.grad, plain.grad)


def test_a_word_that_is_read_often_loses_nothing_in_bfloat16() -> None:
    weight = table(torch.bfloat16)
    lookup, head = for_lookup_and_head(weight)
    (rows_of(lookup, torch.full((1, 600), 3)).sum() + (0 * head).sum()).backward()
    assert weight.grad is not None
    assert (weight.grad[3] == 600).all()  # one by one, sums of ones in bfloat16 end at 256
    assert not weight.grad[4].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_model_learns_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(vocab_size=64, context=16, width=32, layers=1, heads=2)
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(0, 64, (2, 2, 16), generator=generator)
    targets[0, :5] = NO_TARGET
    found = []
    for named in (False, True):
        model = Decoder(spec, dtype=dtype)
        model.init_weights(0)
        monkeypatch.setattr(losses, "names_rows", lambda *_, named=named: named)
        loss, _ = next_token_loss(model, inputs, targets)
        loss.backward()
        found.append((float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(
            found[1][1][name], gradient, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=2e-2
        )


def test_only_large_tables_and_few_tokens() -> None:
    large, small = torch.empty(50_000, 128), torch.empty(1000, 128)
    few, many = torch.zeros(4, 256, dtype=torch.long), torch.zeros(64, 256, dtype=torch.long)
    assert names_rows(large, few) == native.ready(large)
    assert not names_rows(large, many)
    assert not names_rows(small, few)
    assert not names_rows(large.double(), few)
    with torch.no_grad():
        assert not names_rows(large, few)
