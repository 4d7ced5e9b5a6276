"""What goes with a layout: bfloat16, recomputed activations; and what is done when a process goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatsmith import machine
from chatsmith.train.metrics import read_log

from .cases import WAYS
from .test_parity import BY_NAME, TOLERANCE, alone, case, control, launch, recipe, same
from .test_parity import tokens as tokens  # the fixture

BFLOAT16 = {"precision": {"compute": "bfloat16"}}
RECOMPUTED = {"precision": {"compute": "float32", "activation_checkpointing": True}, **WAYS["muon"]}
VARIANTS: list[tuple[str, str, dict[str, Any], float]] = [
    # Eight bits of mantissa: sums in another order round to other numbers, at each step of the twenty.
    ("replicas 2", "gpt2", BFLOAT16, 0.02),
    ("sharded 2", "llama", BFLOAT16, 0.02),
    ("sharded 2", "gpt2", RECOMPUTED, TOLERANCE),
    ("tensor 2", "llama", RECOMPUTED, TOLERANCE),
    ("pipeline 2 1f1b", "qwen3", RECOMPUTED, TOLERANCE),
]


# Few steps of one size: each new size is compiled anew.
COMPILED: dict[str, Any] = {
    **WAYS["muon"],
    "precision": {"compute": "float32", "compile": "on"},
    "batch": {"micro_batch": 2, "accumulation": 2, "ramp_start": 1.0, "ramp_until": 0.0},
    "data": {"mask_documents": False},
    "schedule": {"steps": 4},
    "evaluation": {"times": 0},
}
SLOW: list[tuple[str, str, dict[str, Any], float]] = [("context 2", "gpt2", COMPILED, TOLERANCE)]


def test_variants_give_what_one_process_gives(tokens: str, tmp_path: Path) -> None:
    compare(VARIANTS, tokens, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(machine.compiler() is None, reason="torch.compile wants a C++ compiler")
def test_compiled_layers_give_what_one_process_gives(tokens: str, tmp_path: Path) -> None:
    compare(SLOW, tokens, tmp_path)


def compare(variants: list[tuple[str, str, dict[str, Any], float]], tokens: str, tmp_path: Path) -> None:
    """Run the variants in one world, and hold each to the same in one process."""
    cases = []
    for number, (name, shape, changes, _) in enumerate(variants):
        layout = BY_NAME[name]
        control(recipe(tokens, shape, alone(layout.layers), **changes), tmp_path / f"alone {number}")
        cases.append(case(f"divided {number}", layout, shape, tokens, tmp_path, **changes))
    launch(2, cases, tmp_path)
    for number, (*_, tolerance) in enumerate(variants):
        same(tmp_path / f"divided {number}", tmp_path / f"alone {number}", tolerance)


def test_a_process_that_goes_wrong_is_named(tokens: str, tmp_path: Path) -> None:
    """A loss that is not finite stops the run, or costs its step; a bit that flips in a copy of a weight stops it."""

    def faulty(name: str, layout: str, fault: dict[str, Any], **parallel: Any) -> dict[str, Any]:
        changes = {"parallel": parallel} if parallel else {}
        mapping = recipe(tokens, "gpt2", BY_NAME[layout], **changes)
        return {"name": name, "recipe": mapping, "out": str(tmp_path / name), "fault": fault}

    nan = {"kind": "nan", "rank": 1, "step": 6}
    cases = [
        faulty("stop", "replicas 2", {**nan, "ends": True}),
        faulty("skip", "replicas 2", nan, not_finite="skip"),
        faulty("flip", "tensor 2", {"kind": "flip", "rank": 1, "step": 7, "ends": True}),
        faulty("tied", "pipeline 2 1f1b", {"kind": "flip", "rank": 1, "step": 7, "ends": True}),
    ]
    launch(2, cases, tmp_path)
    for rank in range(2):
        stopped = (tmp_path / f"stop.error-{rank}").read_text()
        assert "step 6: the loss or its gradient is not finite (process 1 on " in stopped
        assert "process 0" not in stopped
        # Of two copies that differ nobody can tell which is right. They are compared every five steps.
        for name in ("flip", "tied"):
            assert "step 10: the weights of process 0 on " in (tmp_path / f"{name}.error-{rank}").read_text()
    steps = read_log(tmp_path / "skip")
    assert [record["step"] for record in steps if record.get("skipped")] == [6]
    assert len(steps) == 20
    assert steps[-1]["loss"] < steps[0]["loss"]  # nothing of the bad step stayed
