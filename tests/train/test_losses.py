"""The loss in pieces equals the plain one, with all its gradients, and never holds all logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from chatsmith.kernels import native
from chatsmith.plan import memory_here
from chatsmith.specs import ModelSpec
from chatsmith.text.batches import NO_TARGET
from chatsmith.train.losses import head_loss, next_token_loss
from chatsmith.train.parallel.stage import vocabulary_loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("pieces", [True, False])
def test_loss_and_gradients(dtype: torch.dtype, kernels: bool, pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr(native, "ready", lambda x: False)
    if pieces:
        monkeypatch.setattr(memory_here, "_CHUNK_BYTES", 1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(150, 24, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(90, 24, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, 90, (150,), generator=generator)
    targets[10:40] = NO_TARGET
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = F.cross_entropy(exact[0] @ exact[1].T, targets, ignore_index=NO_TARGET, reduction="sum")
    (expected / 7).backward()
    loss = head_loss(hidden, weight, targets)
    (loss / 7).backward()
    rough = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=rough)
    for mine, theirs in zip((hidden, weight), exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert (mine.grad - theirs.grad).norm() < rough * theirs.grad.norm()
    assert not hidden.grad[10:40].any()  # type: ignore[index]
    with torch.no_grad():
        assert float(head_loss(hidden, weight, targets)) == pytest.approx(float(loss), rel=rough)


def test_a_divided_loss_rounds_its_gradients_once() -> None:
    """A factor that is rounded to their dtype stretches them all: 1/255 is 0.4% too large in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(256, 32, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(90, 32, generator=generator).bfloat16().requires_grad_()
    targets = torch.randint(0, 90, (256,), generator=generator)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = F.cross_entropy(exact[0] @ exact[1].T, targets, reduction="sum") / 255
    expected.backward()
    loss = vocabulary_loss(hidden, weight, targets, count=255.0).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-2)
    for mine, theirs in zip((hidden, weight), exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        length = (mine.grad.double() * theirs.grad).sum() / theirs.grad.square().sum()
        assert float(length) == pytest.approx(1, abs=2e-3)


def test_nothing_counted_gives_nothing() -> None:
    hidden = torch.randn(5, 8, requires_grad=True)
    loss = head_loss(hidden, torch.randn(20, 8), torch.full((5,), NO_TARGET))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_only_the_words_of_the_assistant_count() -> None:
    from chatsmith.models.decoder import Decoder

    model = Decoder(ModelSpec(vocab_size=40, context=16, width=16, layers=1, heads=2))
    model.init_weights(0)
    inputs = torch.randint(0, 40, (2, 16), generator=torch.Generator().manual_seed(0))
    targets = inputs.roll(-1, 1)
    targets[:, :10] = NO_TARGET
    loss, count = next_token_loss(model, inputs, targets)
    assert int(count) == 12
    expected = F.cross_entropy(model(inputs)[:, 10:].reshape(-1, 40), targets[:, 10:].reshape(-1), reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_second_way_back_is_refused_rather_than_wrong() -> None:
    hidden, weight = torch.randn(5, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    loss = head_loss(hidden, weight, torch.arange(5))
    (loss / 5).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss / 5).backward()
