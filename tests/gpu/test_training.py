"""A GPU trains what a CPU trains: the same losses in float32, close ones in bfloat16, compiled or not, or in 8 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from chatsmith.models.decoder import Decoder
from chatsmith.settings import from_mapping
from chatsmith.specs import ModelSpec, modern
from chatsmith.train.losses import head_loss, next_token_loss
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.precision import attention_kernels
from chatsmith.train.recipe import Recipe
from chatsmith.train.team import over_masters, transform

SHAPES = {
    "gpt2": ModelSpec(512, 128, 128, 3, 2),
    "banded": ModelSpec(512, 128, 128, 4, 2, band=16),
    "qwen3": modern(512, 128, 128, 3, 4, kv_heads=2),
}
STEPS = 20


def losses(spec: ModelSpec, device: str, documents: bool = False, **precision: Any) -> list[float]:
    """Those of some steps on random ids."""
    recipe = from_mapping(
        Recipe,
        {
            "data": {"sources": [{"path": "ids"}]},
            "model": {"width": spec.width, "layers": spec.layers, "heads": spec.heads},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "schedule": {"steps": STEPS},
            "precision": precision,
        },
        "test",
    )
    model = Decoder(spec, device=device, dtype=torch.float32)
    model.init_weights(0)
    transform(model, recipe)
    optimizer = over_masters(model, recipe, TrainingOptimizer)
    generator = torch.Generator().manual_seed(1)
    found = []
    with attention_kernels(torch.device(device)):
        for _ in range(STEPS):
            ids = torch.randint(0, spec.vocab_size, (4, spec.context + 1), generator=generator).to(device)
            more = {}
            if documents:
                at = torch.arange(spec.context, device=device).expand(4, -1)
                more = {"segments": (at // 50).int(), "positions": at % 50}
            loss, count = next_token_loss(model, ids[:, :-1], ids[:, 1:], **more)
            (loss / count).backward()
            optimizer.step(1.0)
            found.append(float(loss.detach() / count))
    return found


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_losses_are_those_of_a_cpu(shape: str, documents: bool) -> None:
    spec, how = SHAPES[shape], {"compute": "float32", "compile": "off"}
    assert losses(spec, "cuda", documents, **how) == pytest.approx(losses(spec, "cpu", documents, **how), rel=1e-4)


@pytest.mark.parametrize("how", ["off", "on"], ids=["eager", "compiled"])
@pytest.mark.parametrize(("shape", "documents"), [("gpt2", False), ("banded", False), ("qwen3", True)])
def test_bfloat16_stays_near_float32(shape: str, documents: bool, how: str) -> None:
    exact = losses(SHAPES[shape], "cuda", documents, compute="float32", compile="off")
    found = losses(SHAPES[shape], "cuda", documents, compute="bfloat16", compile=how)
    assert found == pytest.approx(exact, abs=0.02)


def test_products_in_8_bits_stay_near_float32() -> None:
    pytest.importorskip("torchao")
    exact = losses(SHAPES["gpt2"], "cuda", compute="float32", compile="off")
    found = losses(SHAPES["gpt2"], "cuda", compute="bfloat16", compile="on", float8=True)
    assert found == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [90, 8192, 50304])
def test_the_loss_kernel_is_the_plain_loss(dtype: torch.dtype, vocab_size: int) -> None:
    from chatsmith.kernels.gpu.cross_entropy import cross_entropy_

    logits = (4 * torch.randn(300, vocab_size, device="cuda")).to(dtype)
    targets = torch.randint(0, vocab_size, (300,), device="cuda")
    targets[5:9], targets[20] = -100, vocab_size
    exact = logits.double().requires_grad_()
    wanted = F.cross_entropy(exact, targets.masked_fill(targets == vocab_size, -100), reduction="none")
    wanted.sum().backward()
    found = cross_entropy_(logits, targets)
    assert exact.grad is not None
    assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert (logits - exact.grad).norm() < (1e-5 if dtype == torch.float32 else 4e-3) * exact.grad.norm()
    assert not logits[5:9].any()


def test_the_head_in_parts_is_the_head_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.randn(1000, 64, device="cuda", requires_grad=True)
    weight = torch.randn(700, 64, device="cuda", requires_grad=True)
    targets = torch.randint(0, 700, (1000,), device="cuda")
    F.cross_entropy(hidden @ weight.T, targets, reduction="sum").backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    wanted = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    monkeypatch.setattr("chatsmith.train.losses._GPU_CHUNK_BYTES", 2**19)
    head_loss(hidden, weight, targets).backward()
    for mine, theirs in zip((hidden.grad, weight.grad), wanted, strict=True):
        assert (mine - theirs).norm() < 1e-4 * theirs.norm()


def test_dropout_falls_where_it_falls_on_a_cpu() -> None:
    spec = replace(SHAPES["gpt2"], dropout=0.1)
    ids = torch.randint(0, 512, (2, 128), generator=torch.Generator().manual_seed(0))
    noise = torch.randint(-(2**62), 2**62, ids.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        model = Decoder(spec, device=device)
        model.init_weights(0)
        loss, _ = next_token_loss(model.train(), ids.to(device), ids.to(device), noise=noise.to(device))
        found.append(float(loss.detach()))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
