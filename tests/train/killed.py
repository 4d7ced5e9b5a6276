"""A training process that can be killed: `python killed.py RECIPE OUT [resume] [kill NUMBER PLACE]`.

With "kill 2 tensors" the process kills itself while it writes the tensors of its second checkpoint, half way through
the file; "kill 2 rename" just before that checkpoint takes its name; "kill 2 model" while the model folder is written.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from chatsmith.store import folder, state
from chatsmith.train.recipe import load_recipe
from chatsmith.train.run import train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(number: int, place: str) -> None:
    """Arrange to die at the given place of the checkpoint with this number, counted from 1."""
    module: Any = folder if place == "model" else state
    write, seen = module.write_tensors, 0

    def half_written(path: Path, tensors: Any) -> None:
        nonlocal seen
        seen += 1
        write(path, tensors)
        if seen == number and place != "rename":
            os.truncate(path, path.stat().st_size // 2)
            die()

    def rename(source: Path, target: Path) -> None:
        if seen == number and place == "rename":
            die()
        os.replace(source, target)

    module.write_tensors = half_written
    if place == "rename":
        module.os = type("Files", (), {**vars(os), "rename": staticmethod(rename)})


def main() -> None:
    recipe, out, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    if "kill" in rest:
        at = rest.index("kill")
        kill_at(int(rest[at + 1]), rest[at + 2])
    train(load_recipe(Path(recipe)), Path(out), resume="resume" in rest)


if __name__ == "__main__":
    main()
