"""What torchrun starts for the parity tests: many runs in one world. `world.py CASES.json`

A case is {"name", "recipe", "out"}, and may say "resume": true, a step to "stop" after, and a "fault" that the run is
to end with: {"kind", "rank", "step"}, with "ends": false where it goes on. With "memory": true each process writes
OUT.peak-RANK, the most bytes that were allocated in the second of three steps. Starting a process costs more than a
run, so all runs of a number of processes share their processes.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from chatsmith.settings import from_mapping
from chatsmith.text.batches import Batch
from chatsmith.train.callbacks import Callback, Moment
from chatsmith.train.parallel import teams
from chatsmith.train.recipe import Recipe
from chatsmith.train.run import train


class StopAt(Callback):
    """Ends a run after a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, moment: Moment) -> None:
        if moment.record.step == self.step:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def fault(kind: str, rank: int, step: int, **_: Any) -> Iterator[None]:
    """In one process and step: weights that are no numbers while it computes ("nan"), or one that stays changed."""
    gradients, steps = teams.Replicas.gradients, 0
    watch = teams.Divided.watch

    def poisoned(self: teams.Replicas, batch: Batch) -> float:
        nonlocal steps
        steps += 1
        if (self.rank, steps) != (rank, step):
            return gradients(self, batch)
        weight = next(self.model.parameters()).data
        kept = weight.clone()
        weight.fill_(float("nan"))
        loss = gradients(self, batch)
        weight.copy_(kept)
        return loss

    def flipped(self: teams.Divided, at: int) -> None:
        if (self.rank, at) == (rank, step):
            tensor = next(iter(self.optimizer.copies().values()))[0]
            tensor.view(torch.int32).flatten()[0] ^= 1
        watch(self, at)

    chosen = (teams.Replicas, "gradients", poisoned) if kind == "nan" else (teams.Divided, "watch", flipped)
    with patch.object(*chosen):
        yield


@contextmanager
def allocations(path: Path) -> Iterator[None]:
    """Writes down the most bytes that PyTorch's allocator had handed out during the second step."""

    def marked(gradients: Callable[[Any, Batch], float]) -> Callable[[Any, Batch], float]:
        def wrapped(self: Any, batch: Batch) -> float:
            with record_function("a step begins"):
                pass
            return gradients(self, batch)

        return wrapped

    with (
        patch.object(teams.Replicas, "gradients", marked(teams.Replicas.gradients)),
        patch.object(teams.Divided, "gradients", marked(teams.Divided.gradients)),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched,
    ):
        yield
    events = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    second, third = sorted(event.start_ns() for event in events if event.name() == "a step begins")[1:3]
    now = most = 0
    for start, change in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        now += change
        most = max(most, now) if second < start < third else most
    path.write_text(str(most))


def run(case: dict[str, Any]) -> None:
    """Train a case."""
    watch = [StopAt(case["stop"])] if "stop" in case else []
    chosen = from_mapping(Recipe, case["recipe"], case["name"])
    counted = allocations(Path(f"{case['out']}.peak-{dist.get_rank()}")) if case.get("memory") else nullcontext()
    with counted, fault(**case["fault"]) if "fault" in case else nullcontext():
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
            if not case.get("fault", {}).get("ends"):
                raise
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
