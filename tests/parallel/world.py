"""What torchrun starts for the parity tests: many runs in one world. `world.py CASES.json`

A case is {"name", "recipe", "out"}, and may say "resume": true and a step to "stop" after. Starting a process costs
more than a run, so all runs of a number of processes share their processes.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from chatsmith.settings import from_mapping
from chatsmith.train.callbacks import Callback, Moment
from chatsmith.train.recipe import Recipe
from chatsmith.train.run import train


class StopAt(Callback):
    """Ends a run after a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, moment: Moment) -> None:
        if moment.record.step == self.step:
            signal.raise_signal(signal.SIGINT)


def run(case: dict[str, Any]) -> None:
    """Train a case."""
    watch = [StopAt(case["stop"])] if "stop" in case else []
    chosen = from_mapping(Recipe, case["recipe"], case["name"])
    train(chosen, Path(case["out"]), resume=case.get("resume", False), callbacks=watch)


def main() -> None:
    """Run the cases one after another; the world ends with the first that fails."""
    cases = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for case in cases:
        try:
            run(case)
        except BaseException:
            Path(case["out"]).with_suffix(f".error-{dist.get_rank()}").write_text(traceback.format_exc())
            raise
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
