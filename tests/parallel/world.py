"""What torchrun starts for the parity tests: many runs in one world. `world.py TOKENS OUT CASES.json`

A case is {"name", "recipe", "out", "resume"}; results are written to OUT/NAME.json by the first process. Starting a
process costs more than a run, so all runs of a number of processes share their processes.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from chatsmith.settings import from_mapping
from chatsmith.train.metrics import read_log
from chatsmith.train.recipe import Recipe
from chatsmith.train.run import train


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Train a case; what there is to compare."""
    began = time.monotonic()
    out = Path(case["out"])
    train(from_mapping(Recipe, case["recipe"], case["name"]), out, resume=case.get("resume", False))
    records = read_log(out) if dist.get_rank() == 0 else []
    keys = ("loss", "gradient_norm", "held_out_loss", "rows")
    return {"seconds": time.monotonic() - began, **{key: [r.get(key) for r in records] for key in keys}}


def main() -> None:
    """Run the cases one after another; the world ends with the first that fails."""
    cases = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for case in cases:
        try:
            result = run(case)
        except BaseException:
            Path(case["out"]).with_suffix(f".error-{dist.get_rank()}").write_text(traceback.format_exc())
            raise
        if dist.get_rank() == 0:
            Path(case["out"]).with_suffix(".json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
