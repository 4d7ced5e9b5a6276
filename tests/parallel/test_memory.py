"""The planner's bills of memory rank layouts as what their processes take does."""

from __future__ import annotations

import itertools
import platform
from pathlib import Path
from typing import Any

import pytest

from chatsmith.plan.memory import RESERVED, memory_of
from chatsmith.plan.parallel import MIXED, Layout, Precision, Workload
from chatsmith.specs import ModelSpec

from .cases import Layout as Division
from .cases import recipe
from .test_parity import launch
from .test_parity import tokens as tokens  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")]
PROCESSES, ROWS, CONTEXT = 4, 8, 256
MODEL: dict[str, Any] = {"width": 512, "heads": 8, "context": CONTEXT, "layers": 8, "vocab_size": 4096}
SPEC = ModelSpec(4096, CONTEXT, 512, 8, 8)
APART = 1.15
"""Bills that differ by less are not ranked."""

REPLICAS = Precision(MIXED.weight, MIXED.gradient + 4 + 4, MIXED.optimizer)
"""Replicas sum the gradients of micro-batches in float32, and send them in float32: eight bytes more than the planner's
own bill has for each parameter."""

# As the recipe says it, and as the planner does: replicas alone shard the optimizer's state, FSDP all states, and
# copies of a model that is otherwise divided nothing.
LAYOUTS: list[tuple[dict[str, Any], Layout, Precision]] = [
    ({}, Layout(data=4, zero=1), REPLICAS),
    ({"shard": 4}, Layout(data=4, zero=3), MIXED),
    ({"tensor": 4}, Layout(tensor=4), MIXED),
    ({"pipeline": 4}, Layout(pipeline=4), MIXED),
    ({"tensor": 2}, Layout(data=2, tensor=2), MIXED),
    ({"shard": 2, "tensor": 2}, Layout(data=2, tensor=2, zero=3), MIXED),
]


def test_the_planner_ranks_layouts_as_they_are(tokens: str, tmp_path: Path) -> None:
    cases = []
    for number, (table, *_) in enumerate(LAYOUTS):
        mapping = recipe(
            tokens,
            "gpt2",
            Division("", PROCESSES, table),
            model=MODEL,
            batch={"micro_batch": 1, "accumulation": ROWS, "ramp_start": 1.0, "ramp_until": 0.0},
            schedule={"steps": 3},
            evaluation={"times": 0},
            precision={"compute": "bfloat16"},
        )
        cases.append({"name": str(table), "recipe": mapping, "out": str(tmp_path / str(number)), "memory": True})
    launch(PROCESSES, cases, tmp_path)
    found = []
    for number, (table, layout, precision) in enumerate(LAYOUTS):
        bill = memory_of(Workload(SPEC, CONTEXT, ROWS, precision=precision), layout).total - RESERVED
        peaks = [int((tmp_path / f"{number}.peak-{rank}").read_text()) for rank in range(PROCESSES)]
        found.append((str(table), bill, max(peaks)))
        print(f"{table}: planned {bill / 1e6:.0f} MB, took {[peak // 10**6 for peak in peaks]} MB")
    for one, other in itertools.combinations(sorted(found, key=lambda row: row[1]), 2):
        assert other[1] < APART * one[1] or other[2] > one[2], (one, other)
