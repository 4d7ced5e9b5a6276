"""What torchrun starts for the parity tests: many runs in one world. `world.py CASES.json`

A case is {"name", "recipe", "out"}, and may say "resume": true, a step to "stop" after, and a "fault" that the run is
to end with: {"kind", "rank", "step"}, with "ends": false where it goes on. With "memory": true each process writes
OUT.peak-RANK, the most bytes in use in the second of three steps. Starting a process costs more than a
run, so all runs of a number of processes share their processes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from chatsmith.settings import from_mapping
from chatsmith.text.batches import Batch
from chatsmith.train.callbacks import Callback, Moment
from chatsmith.train.parallel import teams
from chatsmith.train.parallel.process import leave
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


class _Heap(ctypes.Structure):
    """What glibc says of its heap (`mallinfo2`)."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


@contextmanager
def allocations(path: Path) -> Iterator[None]:
    """Writes down the most bytes in use on the heap during the second step, beyond those before.

    Looked at every millisecond or so. PyTorch's own count misses what the threads of a process group let go.
    """
    ask = ctypes.CDLL("libc.so.6").mallinfo2
    ask.restype = _Heap
    gc.collect()
    before, most, steps, ends = ask(), 0, 0, threading.Event()

    def used(heap: _Heap) -> int:
        return int(heap.uordblks + heap.hblkhd)

    def look() -> None:
        nonlocal most
        while not ends.wait(0.001):
            if steps == 2:
                most = max(most, used(ask()) - used(before))

    def counted(gradients: Callable[[Any, Batch], float]) -> Callable[[Any, Batch], float]:
        def wrapped(self: Any, batch: Batch) -> float:
            nonlocal steps
            steps += 1
            return gradients(self, batch)

        return wrapped

    thread = threading.Thread(target=look)
    thread.start()
    try:
        with (
            patch.object(teams.Replicas, "gradients", counted(teams.Replicas.gradients)),
            patch.object(teams.Divided, "gradients", counted(teams.Divided.gradients)),
        ):
            yield
    finally:
        ends.set()
        thread.join()
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
    warnings.filterwarnings("error", message="FSDP2-wrapped module")  # what a user would see at every sharded run
    warnings.filterwarnings("error", message="`torch.distributed")
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
    leave(0)


if __name__ == "__main__":
    main()
