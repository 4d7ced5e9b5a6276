"""The planner's bills of memory rank layouts as what their processes take does."""

from __future__ import annotations

import itertools
import platform
from pathlib import Path
from typing import Any

import pytest

from chatsmith.plan.memory import RESERVED, memory_of
from chatsmith.plan.parallel import Layout, Workload
from chatsmith.specs import ModelSpec

from .cases import Layout as Division
from .cases import recipe
from .test_parity import launch
from .test_parity import tokens as tokens  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")]
CONTEXT = 256
MODEL: dict[str, Any] = {"width": 512, "heads": 8, "context": CONTEXT, "layers": 8, "vocab_size": 4096}
SPEC = ModelSpec(4096, CONTEXT, 512, 8, 8)
APART = 1.15
"""Bills that differ by less are not ranked."""
NEAR = (0.75, 1.15)
"""How near bills are to what was taken: of tensor groups they leave out some 20 MB of what passes."""

# As the recipe says it, and as the planner does: replicas alone shard the optimizer's state, FSDP all states, and
# copies of a model that is otherwise divided nothing.
LAYOUTS: dict[int, list[tuple[dict[str, Any], Layout]]] = {
    4: [
        ({}, Layout(data=4, zero=1)),
        ({"shard": 4}, Layout(data=4, zero=3)),
        ({"tensor": 4}, Layout(tensor=4)),
        ({"pipeline": 4}, Layout(pipeline=4)),
        ({"tensor": 2}, Layout(data=2, tensor=2)),
        ({"shard": 2, "tensor": 2}, Layout(data=2, tensor=2, zero=3)),
    ],
    8: [
        ({}, Layout(data=8, zero=1)),
        ({"shard": 8}, Layout(data=8, zero=3)),
        ({"tensor": 8}, Layout(tensor=8)),
        ({"pipeline": 8}, Layout(pipeline=8)),
        ({"shard": 4, "tensor": 2}, Layout(data=4, tensor=2, zero=3)),
        ({"tensor": 4, "pipeline": 2}, Layout(tensor=4, pipeline=2)),
    ],
}


@pytest.mark.parametrize("processes", LAYOUTS)
def test_the_planner_ranks_layouts_as_they_are(processes: int, tokens: str, tmp_path: Path) -> None:
    rows, cases = 2 * processes, []
    for number, (table, _) in enumerate(LAYOUTS[processes]):
        mapping = recipe(
            tokens,
            "gpt2",
            Division("", processes, table),
            model=MODEL,
            batch={"micro_batch": 1, "accumulation": rows, "ramp_start": 1.0, "ramp_until": 0.0},
            schedule={"steps": 3},
            evaluation={"times": 0},
            precision={"compute": "bfloat16"},
        )
        cases.append({"name": str(table), "recipe": mapping, "out": str(tmp_path / str(number)), "memory": True})
    launch(processes, cases, tmp_path)
    found = []
    for number, (table, layout) in enumerate(LAYOUTS[processes]):
        bill = memory_of(Workload(SPEC, CONTEXT, rows, here=True), layout).total - RESERVED
        peaks = [int((tmp_path / f"{number}.peak-{rank}").read_text()) for rank in range(processes)]
        found.append((str(table), bill, max(peaks)))
        print(f"{table}: planned {bill / 1e6:.0f} MB, took {[peak // 10**6 for peak in peaks]} MB")
    for table, bill, peak in found:
        assert NEAR[0] < bill / peak < NEAR[1], table
    for one, other in itertools.combinations(sorted(found, key=lambda row: row[1]), 2):
        assert other[1] < APART * one[1] or other[2] > one[2], (one, other)
