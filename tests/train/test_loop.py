"""The loop: it learns what there is to learn, steps are exact, and what goes wrong is said."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from chatsmith.errors import RequestError, WorkError
from chatsmith.models.decoder import Decoder
from chatsmith.store.folder import load_model
from chatsmith.text.shards import TokenFolder
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train import objectives
from chatsmith.train.accumulation import GradientSums
from chatsmith.train.callbacks import Callback, Moment, Outcome, RunStart
from chatsmith.train.metrics import read_log
from chatsmith.train.objectives import batch_loss, micro_batches, predicted
from chatsmith.train.recipe import load_recipe
from chatsmith.train.run import train
from chatsmith.train.staged_batches import StagedBatches

from .conftest import CHAIN_ENTROPY, TinyRecipe


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model folder."""
    return load_model(folder).model.state_dict()


def largest_difference(first: Path, second: Path) -> float:
    """Over all weights of two model folders."""
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_tiny_model_learns_all_there_is(tiny: TinyRecipe, tmp_path: Path, optimizer: str) -> None:
    """On a chain of known entropy the held-out loss comes within 6% of it, and not below what chance allows."""
    recipe = tiny(
        optimizer={"name": optimizer, "learning_rate": 0.02},
        batch={"micro_batch": 16},
        schedule={"steps": 250},
        evaluation={"times": 2, "tokens": 4096},
    )
    outcome = train(recipe, tmp_path / "out")
    assert outcome.held_out_loss is not None
    assert CHAIN_ENTROPY * 0.95 < outcome.held_out_loss < CHAIN_ENTROPY * 1.06
    assert outcome.bits_per_byte == pytest.approx(outcome.held_out_loss / math.log(2), rel=0.02)
    assert outcome.perplexity == pytest.approx(math.exp(outcome.held_out_loss))


def test_accumulation_equals_one_large_batch(tiny: TinyRecipe, tmp_path: Path) -> None:
    """Also where the parts hold unequal numbers of predicted tokens: these are whole documents, masked and padded.

    With AdamW and a large epsilon, because Muon, and Adam's division by the root of a tiny square, magnify rounding.
    """
    same = {
        "data": {"mask_documents": True, "pack": "documents"},
        "optimizer": {"name": "adamw", "epsilon": 0.01, "learning_rate": 0.01},
    }
    for name, micro_batch in (("whole", 12), ("parts", 4), ("rows", 1)):
        train(tiny(batch={"micro_batch": micro_batch, "accumulation": 12 // micro_batch}, **same), tmp_path / name)
    for name in ("parts", "rows"):
        assert largest_difference(tmp_path / "whole", tmp_path / name) < 1e-6
        for a, b in zip(read_log(tmp_path / "whole"), read_log(tmp_path / name), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
            assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-5)


@pytest.mark.parametrize("pack", ["stream", "documents"])
def test_gradients_equal_those_of_a_plain_float64_loss(chain: TokenFolder, tiny: TinyRecipe, pack: Any) -> None:
    """Against cross entropy over all logits in float64, for a step in parts with documents masked."""
    recipe = tiny()
    model = Decoder(recipe.spec(261), dtype=torch.float32)
    model.init_weights(1)
    exact = Decoder(recipe.spec(261), dtype=torch.float64)
    exact.load_state_dict(model.state_dict())
    batches = StagedBatches([chain.split("train")], [1.0], context=32, seed=0, mask_documents=True, pack=pack)
    batch = batches.next(7)
    for part in micro_batches(batch, 3):
        (batch_loss(model, part) / predicted(batch)).backward()
    assert batch.segments is not None
    assert batch.positions is not None
    logits = exact(
        torch.from_numpy(batch.inputs),
        segments=torch.from_numpy(batch.segments),
        positions=torch.from_numpy(batch.positions),
    )
    F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten(), ignore_index=-100).backward()
    for (name, one), (_, other) in zip(model.named_parameters(), exact.named_parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        scale = float(other.grad.abs().max())
        assert float((one.grad.double() - other.grad).abs().max()) < 2e-5 * max(scale, 1e-3), name


def test_the_log_has_a_line_per_step(tiny: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny(evaluation={"times": 4, "tokens": 512}, schedule={"steps": 20, "warmup": 0.5})
    outcome = train(recipe, tmp_path / "out", peak_flops=1e9)
    records = read_log(tmp_path / "out")
    assert [record["step"] for record in records] == list(range(1, 21))
    assert [record["step"] for record in records if "bits_per_byte" in record] == [5, 10, 15, 20]
    assert [record["tokens"] for record in records] == [8 * 32 * step for step in range(1, 21)]
    rates = [record["learning_rate"] for record in records]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    for record in records:
        assert math.isfinite(record["loss"])
        assert record["memory"] > 10**7
        assert record["tokens_per_second"] > 0
        assert record["share_of_peak"] > 0
    assert records[-1]["progress"] == 1.0
    assert (outcome.steps, outcome.tokens) == (20, 20 * 8 * 32)
    assert [record["seconds"] for record in records] == sorted(record["seconds"] for record in records)


def test_hooks_are_called_in_order(tiny: TinyRecipe, tmp_path: Path) -> None:
    """Samples come from a callable, whatever it draws from the global generator."""
    seen: list[str] = []

    class Watch(Callback):
        def on_start(self, start: RunStart) -> None:
            seen.append(f"start {start.total_steps} {start.first_step} {start.total_estimated}")

        def on_step(self, moment: Moment) -> None:
            seen.append(f"step {moment.record.step}")
            assert moment.total_steps == 4
            assert moment.seconds_left is not None

        def on_evaluation(self, moment: Moment) -> None:
            seen.append(f"evaluation {moment.record.step}")

        def on_sample(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
            seen.append(f"sample {step} {samples}")

        def on_checkpoint(self, path: Path) -> None:
            seen.append(f"checkpoint {path.name}")

        def on_end(self, outcome: Outcome) -> None:
            seen.append(f"end {outcome.steps} {outcome.stopped}")

    def sampler(
        model: Decoder, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int, temperature: float
    ) -> Sequence[str]:
        assert not model.training
        assert model.dtype == torch.float32
        with torch.inference_mode():
            model(torch.zeros(1, 32, dtype=torch.int64))
        torch.rand(3)
        return [f"{prompt}{tokens}{temperature}" for prompt in prompts]

    recipe = tiny(
        schedule={"steps": 4},
        evaluation={"times": 2, "tokens": 64},
        samples={"prompts": ["ab"], "times": 1, "tokens": 5, "temperature": 0.3},
        checkpoint={"steps": 3},
        model={"dropout": 0.1},
    )
    train(recipe, tmp_path / "out", callbacks=[Watch()], sampler=sampler)
    assert seen == [
        "start 4 0 False",
        "step 1",
        "evaluation 2",
        "step 2",
        "step 3",
        "checkpoint step-00000003",
        "sample 4 [('ab', 'ab50.3')]",
        "evaluation 4",
        "step 4",
        "checkpoint step-00000004",
        "end 4 None",
    ]
    train(recipe, tmp_path / "silent")
    assert largest_difference(tmp_path / "out", tmp_path / "silent") == 0.0
    published = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (published["do_sample"], published["temperature"]) == (True, 0.3)


def test_tokens_measure_a_run_with_a_ramp(tiny: TinyRecipe, tmp_path: Path) -> None:
    batch = {"micro_batch": 2, "accumulation": 4, "ramp_start": 0.25, "ramp_until": 0.5}
    outcome = train(tiny(batch=batch, schedule={"tokens": 4000}), tmp_path / "out")
    records = read_log(tmp_path / "out")
    assert [record["rows"] for record in records][:2] == [2, 2]
    assert [record["rows"] for record in records][-2:] == [8, 8]
    assert 4000 <= outcome.tokens < 4000 + 8 * 32
    assert records[-1]["progress"] == 1.0


def test_stages_change_the_mixture(chain: TokenFolder, tiny: TinyRecipe, tmp_path: Path) -> None:
    """Each source goes on where it stood; the shares hold from the first row of a stage."""
    split = chain.split("train")
    batches = StagedBatches([split, split], [1.0, 0.0], context=16, seed=0)
    batches.next(10)
    state = json.loads(json.dumps(batches.state()))
    batches.reweight([1.0, 3.0])
    batches.next(8)
    assert batches._drawn == [2, 6]
    following = batches.next(5)
    again = StagedBatches([split, split], [1.0, 0.0], context=16, seed=0)
    again.restore(state)
    again.reweight([1.0, 3.0])
    again.next(8)
    assert np.array_equal(again.next(5).inputs, following.inputs)
    source = {"path": str(chain.folder)}
    stages = [{"until": 0.5, "weights": [1, 0]}, {"until": 1.0, "weights": [1, 1]}]
    measure = {"times": 1, "tokens": 1024}
    train(tiny(data={"sources": [source, source], "stages": stages}, evaluation=measure), tmp_path / "out")
    last = read_log(tmp_path / "out")[-1]
    assert list(last["held_out"]) == [str(chain.folder), f"{chain.folder} 2"]
    assert last["held_out_loss"] == pytest.approx(sum(last["held_out"].values()) / 2)


def test_bfloat16_learns_and_saves_float32(tiny: TinyRecipe, tmp_path: Path) -> None:
    """The folder holds the float32 weights, not their roundings; sums of many gradients keep their small terms."""
    change = {"precision": {"compute": "bfloat16"}, "batch": {"micro_batch": 4, "accumulation": 4}}
    recipe = tiny(optimizer={"learning_rate": 0.02}, schedule={"steps": 60}, **change)
    outcome = train(recipe, tmp_path / "out")
    assert outcome.loss < 1.5
    saved = weights(tmp_path / "out")
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in saved.values())


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[int], bool]) -> None:
    """Make the loss of the calls chosen (counted from 1) not a number."""
    real, calls = objectives.next_token_loss, count(1)

    def loss(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        total, targets = real(*arguments, **options)
        return (total * math.nan if spoiled(next(calls)) else total), targets

    monkeypatch.setattr(objectives, "next_token_loss", loss)


SKIP = {"not_finite": "skip"}


def test_a_step_that_is_not_finite_stops_the_run(
    tiny: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process does what many do; the run goes on from its last good checkpoint, without that step if so told."""
    spoil(monkeypatch, lambda call: call in (9, 13))
    recipe = tiny(schedule={"steps": 12}, checkpoint={"steps": 5})
    with pytest.raises(WorkError, match="step 9: the loss or its gradient is not finite\n") as caught:
        train(recipe, tmp_path / "out")
    assert 'resume with --set parallel.not_finite="skip"' in (caught.value.hint or "")
    assert [record["step"] for record in read_log(tmp_path / "out")] == list(range(1, 9))
    skipping = tiny(schedule={"steps": 12}, checkpoint={"steps": 5}, parallel=SKIP)
    assert train(skipping, tmp_path / "out", resume=True).skipped_steps == 1
    assert [r["step"] for r in read_log(tmp_path / "out") if r.get("skipped")] == [9]  # the fourth of those after 5


def test_a_step_that_is_not_finite_is_skipped(
    tiny: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda call: call in (4, 8))
    outcome = train(tiny(schedule={"steps": 12}, parallel=SKIP), tmp_path / "out")
    records = read_log(tmp_path / "out")
    assert [record["step"] for record in records if record.get("skipped")] == [4, 8]
    assert records[3]["loss"] is None
    assert outcome.skipped_steps == 2
    assert math.isfinite(outcome.loss)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(tmp_path / "out").values())


def test_a_run_that_diverges_says_what_to_try(
    tiny: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its last good checkpoint stays."""
    spoil(monkeypatch, lambda call: call > 6)
    with pytest.raises(WorkError, match="not finite for 8 steps in a row, up to step 14") as caught:
        train(tiny(checkpoint={"steps": 5}, parallel=SKIP), tmp_path / "out")
    assert "learning_rate" in (caught.value.hint or "")
    assert load_model(tmp_path / "out").provenance["run"]["steps"] == 10
    assert [record["step"] for record in read_log(tmp_path / "out")] == list(range(1, 14))


def test_a_signal_leaves_a_whole_model(tiny: TinyRecipe, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_step(self, moment: Moment) -> None:
            if moment.record.step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    outcome = train(tiny(), tmp_path / "out", callbacks=[Interrupt()])
    assert (outcome.stopped, outcome.steps) == ("SIGTERM", 7)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert load_model(tmp_path / "out").provenance["run"]["finished"] is False
    resumed = train(None, tmp_path / "out", resume=True)
    assert (resumed.stopped, resumed.steps) == (None, 20)
    train(tiny(), tmp_path / "whole")
    assert largest_difference(tmp_path / "out", tmp_path / "whole") == 0.0


def test_a_second_interrupt_stops_at_once(tiny: TinyRecipe, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_step(self, moment: Moment) -> None:
            if moment.record.step == 7:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny(checkpoint={"steps": 5}), tmp_path / "out", callbacks=[Interrupt()])
    assert load_model(tmp_path / "out").provenance["run"]["steps"] == 5
    assert train(None, tmp_path / "out", resume=True).steps == 20


def test_a_folder_in_use_is_not_overwritten(tiny: TinyRecipe, tmp_path: Path) -> None:
    train(tiny(), tmp_path / "out")
    with pytest.raises(RequestError, match="already holds a model or a training run") as caught:
        train(tiny(), tmp_path / "out")
    assert "--resume" in (caught.value.hint or "")
    with pytest.raises(RequestError, match="is a file, not a folder"):
        train(tiny(), tmp_path / "out" / "log.jsonl")
    with pytest.raises(RequestError, match="cannot write to"):
        train(tiny(), tmp_path / "out" / "log.jsonl" / "inside")
    assert train(tiny(schedule={"steps": 2}), tmp_path / "out", overwrite=True).steps == 2
    assert len(read_log(tmp_path / "out")) == 2


def test_the_recipe_in_the_folder_repeats_the_run(tiny: TinyRecipe, tmp_path: Path) -> None:
    """What chatsmith.toml records gives the same weights again, and is refused on other text."""
    train(tiny(), tmp_path / "first")
    recorded = load_recipe(tmp_path / "first" / "chatsmith.toml")
    assert recorded.record.versions["torch"] == torch.__version__
    train(recorded, tmp_path / "second")
    assert largest_difference(tmp_path / "first", tmp_path / "second") == 0.0


def test_training_goes_on_from_a_model_folder(tiny: TinyRecipe, tmp_path: Path) -> None:
    first = train(tiny(schedule={"steps": 150}, optimizer={"learning_rate": 0.02}), tmp_path / "first")
    recipe = tiny(schedule={"steps": 5})
    tuned = train(replace(recipe, model={"start_from": str(tmp_path / "first")}), tmp_path / "second")
    assert tuned.loss < first.loss + 0.1 * train(recipe, tmp_path / "fresh").loss
    card = (tmp_path / "second" / "README.md").read_text()
    assert f"trained further with chatsmith from {tmp_path / 'first'}" in card


def test_a_recipe_lays_heads_that_look_back(tiny: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny(schedule={"steps": 1}, optimizer={"learning_rate": 1e-6, "muon_learning_rate": 1e-6})
    recipe = replace(recipe, model={**recipe.model, "layers": 2})
    looking = replace(recipe, model={**recipe.model, "induction_heads": 1})
    for run, folder in ((recipe, "plain"), (looking, "looking")):
        train(run, tmp_path / folder)
    plain, begun = weights(tmp_path / "plain"), weights(tmp_path / "looking")
    assert plain.keys() == begun.keys()
    embedding = next(name for name in plain if "embed" in name)
    # What all its embeddings have in common is there before the first step.
    assert float(begun[embedding].mean(0).norm()) > 2 * float(plain[embedding].mean(0).norm())


def test_one_process_does_not_pass_over_a_layout_for_more(tiny: TinyRecipe, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="tensor 2 is for 2 processes, and there is one"):
        train(tiny(parallel={"tensor": 2}), tmp_path / "out")


def test_bfloat16_sums_keep_small_gradients() -> None:
    """A thousand gradients of one thousandth: in bfloat16 the sum would stop growing long before 1."""
    parameter = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    idle = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    sums = GradientSums([parameter, idle])
    for _ in range(2):
        for _ in range(1000):
            parameter.grad = torch.full((2, 2), 0.001, dtype=torch.bfloat16)
            sums.take()
        sums.put()
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.bfloat16
        assert torch.allclose(parameter.grad.float(), torch.ones(2, 2), atol=0.01)
        assert idle.grad is not None
        assert not idle.grad.any()
