"""What a step really allocates: small models are trained for two steps and PyTorch's own allocations are counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from chatsmith.kernels import build, layer, native
from chatsmith.models import fused
from chatsmith.models.decoder import Decoder
from chatsmith.plan.memory_here import training_memory
from chatsmith.specs import ModelSpec, modern
from chatsmith.text.batches import Batch
from chatsmith.train import spare
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.recipe import Optimizer

GPT = ModelSpec(2048, 256, 128, 2, 4)
SHAPES = {
    "gpt": GPT,
    "gpt wide vocabulary": ModelSpec(16384, 128, 128, 2, 4),
    "gpt widest vocabulary": ModelSpec(70000, 64, 128, 2, 4),
    "modern grouped": modern(1024, 128, 192, 2, 6, kv_heads=2),
    "llama": ModelSpec(
        2048, 256, 128, 2, 4, norm="rms", activation="swiglu", positions="rotary", attention_bias=False,
        ffn_bias=False, tied=False,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _all_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer takes from NumPy comes from PyTorch here, whose profiler counts."""
    monkeypatch.setattr(layer, "room_of", lambda size: torch.empty(size, dtype=torch.uint8))


@pytest.fixture(params=["fused", "plain", "plain torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way through a layer that this machine has; the fused one also where another would be faster."""
    library = build.library()
    if request.param == "plain torch":
        monkeypatch.setattr(build, "library", lambda: None)
        monkeypatch.setattr(native, "_multiplies", lambda: False)
    elif library is None:
        pytest.skip("the kernels cannot be built here")
    elif request.param == "fused":
        if not library.gemm_built():
            pytest.skip("the matrix kernels cannot be built here")
        monkeypatch.setattr(native, "_multiplies", lambda: True)
    else:
        monkeypatch.setattr(fused, "suits", lambda *_: False)
        monkeypatch.setattr(native, "_multiplies", lambda: False)
    chosen: str = request.param
    return chosen


class _Rows:
    """An objective of random tokens."""

    def __init__(self, spec: ModelSpec, context: int) -> None:
        self._spec, self._context, self._dice = spec, context, np.random.default_rng(0)

    def draw(self, rows: int) -> Batch:
        ids = self._dice.integers(0, self._spec.vocab_size, (rows, self._context + 1))
        return Batch(inputs=ids[:, :-1].copy(), targets=ids[:, 1:].copy())


def allocated(
    spec: ModelSpec, rows: int, context: int, dtype: torch.dtype, optimizer: str, accumulation: int = 1
) -> int:
    """The most bytes that PyTorch's allocator had handed out during the second step of a run."""
    from chatsmith.train.accumulation import GradientSums
    from chatsmith.train.objectives import batch_loss, micro_batches

    torch.manual_seed(0)
    vars(native._local).clear()  # so that the kernels' scratch is allocated within the count
    spare._spare.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        model = Decoder(spec)
        model.init_weights(0)
        model.to(dtype).train()
        stepper = TrainingOptimizer(model, Optimizer(name=optimizer))  # type: ignore[arg-type]
        sums = GradientSums(model.parameters()) if accumulation > 1 and dtype != torch.float32 else None
        objective = _Rows(spec, context)
        for step in range(2):
            with record_function(f"step {step}"):
                for part in micro_batches(objective.draw(rows * accumulation), rows):
                    (batch_loss(model, part) / (rows * context)).backward()
                    if sums is not None:
                        sums.take()
                if sums is not None:
                    sums.put()
                stepper.step(1.0)
    events = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    second = next(event.start_ns() for event in events if event.name() == "step 1")
    now = most = 0
    for start, change in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        now += change
        most = max(most, now) if start > second else most
    return most


def expected(spec: ModelSpec, rows: int, way: str, dtype: torch.dtype, optimizer: str, **more: object) -> int:
    return training_memory(
        spec,
        rows,
        path="fused" if way == "fused" else "plain",
        kernels=way != "plain torch",
        weight_bytes=4 if dtype == torch.float32 else 2,
        optimizer=optimizer,  # type: ignore[arg-type]
        threads=torch.get_num_threads(),
        **more,  # type: ignore[arg-type]
    ).total


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_a_step_takes_what_was_reckoned(name: str, dtype: torch.dtype, way: str) -> None:
    spec = SHAPES[name]
    for rows, optimizer in ((1, "muon"), (6, "adamw")):
        found = allocated(spec, rows, spec.context, dtype, optimizer)
        assert expected(spec, rows, way, dtype, optimizer) == pytest.approx(found, rel=0.05), rows


def test_gradients_summed_over_micro_batches_take_their_float32_sums(way: str) -> None:
    found = allocated(GPT, 2, GPT.context, torch.bfloat16, "adamw", accumulation=2)
    reckoned = expected(GPT, 2, way, torch.bfloat16, "adamw", accumulate=True)
    assert reckoned == pytest.approx(found, rel=0.05)
    assert reckoned - expected(GPT, 2, way, torch.bfloat16, "adamw") == 4 * GPT.parameters


def test_dropout_and_long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose attention weights are too many to keep, with masks besides: only plain layers do this."""
    monkeypatch.setattr(native, "_multiplies", lambda: False)
    spec = replace(GPT, context=1024, dropout=0.1)
    kernels = build.library() is not None
    for rows in (1, 5):
        found = allocated(spec, rows, 1024, torch.float32, "adamw")
        reckoned = training_memory(spec, rows, path="plain", kernels=kernels, weight_bytes=4, optimizer="adamw").total
        assert reckoned == pytest.approx(found, rel=0.05)


def test_more_of_anything_takes_more() -> None:
    base = training_memory(GPT, 4).total
    assert training_memory(GPT, 8).total > base
    assert training_memory(GPT, 4, weight_bytes=4).total > base
    assert training_memory(GPT, 4, optimizer="adamw").total > base
    assert training_memory(GPT, 4, 128).total < base
