"""Checkpoints of several processes, and those written while training goes on.

Each process writes its own file of tensors into one staging folder, on a file system that all share. The first one
waits for the others' parts, seals the checkpoint and gives it its name; so it is whole or it is not there. What is
written in the background is copied first, and the processes talk only through files while training talks elsewhere.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from chatsmith.errors import WorkError
from chatsmith.paths import appears, atomic_write
from chatsmith.store.pieces import Piece
from chatsmith.store.state import put_in_place, save_state, seal, staging_path
from chatsmith.store.tensors import disk_error, file_sha256
from chatsmith.store.weights import write_tensors

_PATIENCE = 600.0
_DELAY = 60.0  # seconds after which a network file system shows everywhere what was written, at the latest
_DONE = "part-{:05d}.json"


class StateWriter:
    """Writes the checkpoints of a run into `folder`/state, as process `rank` of `size`.

    `meet` returns when all processes have called it; they wait for each other at most `patience` seconds. Errors of the
    background are raised by the next call of `wait` or `check`.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        *,
        rank: int = 0,
        size: int = 1,
        meet: Callable[[], None] = lambda: None,
        patience: float = _PATIENCE,
    ) -> None:
        self._folder, self._keep, self._rank, self._size, self._meet = Path(folder), keep, rank, size, meet
        self._patience = patience
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        pieces: Mapping[str, Piece],
        meta: Mapping[str, Any],
        *,
        background: bool = False,
        then: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """Write a checkpoint of `step`: this process' tensors, those in `pieces` parts of larger ones.

        `then` is called in the first process when it is durable. Collective; `meta` counts in the first process.
        """
        self.wait()
        self._meet()  # the first process has put the one before in place, and nobody writes into its staging folder
        if not background:
            self._write(step, tensors, pieces, meta, then, background)
            return
        own = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

        def work() -> None:
            try:
                self._write(step, own, pieces, meta, then, background)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=work, name=f"checkpoint {step}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when what was begun is durable."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the background, if anything did."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        pieces: Mapping[str, Piece],
        meta: Mapping[str, Any],
        then: Callable[[Path], None],
        background: bool,
    ) -> None:
        if self._size == 1:
            then(save_state(self._folder, step, tensors, meta, self._keep))
            return
        staging, final = staging_path(self._folder, step)
        try:
            staging.mkdir(parents=True, exist_ok=True)
            name = f"tensors-{self._rank:05d}.safetensors"
            write_tensors(staging / name, tensors)
            described = {key: [list(piece.whole), list(piece.at)] for key, piece in pieces.items() if key in tensors}
            done = {"name": name, "sha256": file_sha256(staging / name), "pieces": described}
            with atomic_write(staging / _DONE.format(self._rank), "w") as file:
                json.dump(done, file)
            if not background:
                self._meet()  # rather than wait for a file of someone who may have died
            if self._rank > 0:
                return
            # Where all have met their parts are written: what is not seen soon is in another folder. The others wait
            # for this process meanwhile, so it gives up before them.
            patience = self._patience if background else min(_DELAY, self._patience / 2)
            parts = [_part(staging / _DONE.format(rank), patience) for rank in range(self._size)]
            for rank in range(self._size):
                (staging / _DONE.format(rank)).unlink()
            sums = {part["name"]: part["sha256"] for part in parts}
            seal(staging, sums, {"step": step, "meta": meta, "pieces": {p["name"]: p["pieces"] for p in parts}})
            put_in_place(staging, final, self._keep)
        except OSError as error:
            raise disk_error(final, error) from error
        then(final)


def _part(path: Path, patience: float) -> dict[str, Any]:
    """What another process says of its part, once it is there."""
    if not appears(path, patience):
        raise WorkError(
            f"{path} did not appear: a process has not written its part of the checkpoint",
            "train into a folder that all machines share",
        )
    try:
        part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkError(f"{path} is damaged: {error}") from None
    return part
