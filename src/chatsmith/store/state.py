"""Training checkpoints that survive a kill, a full disk and a flipped bit.

    state/step-00001234/tensors.safetensors   weights, optimizer state, random states: bit for bit
                        meta.json             step, counters, data position: whatever JSON holds
                        SHA256SUMS            of all, in the form that `sha256sum --check` reads

A run of several processes writes one file of tensors each, in pieces (`state_writer`); `meta.json` says which.

A checkpoint is written under a name beginning with a dot, synced, and renamed when it is whole; older ones go only
when the new one is durable. So at every moment there is a newest whole one, and reading finds it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.paths import atomic_write, sync_dir
from chatsmith.store.pieces import Piece, PiecedTensors
from chatsmith.store.tensors import disk_error, file_sha256
from chatsmith.store.weights import write_tensors

STATE = "state"
TENSORS, META, SUMS = "tensors.safetensors", "meta.json", "SHA256SUMS"
_MAX_META_BYTES = 256 * 2**20
_MAX_SUMS_BYTES = 16 * 2**20
_PART = re.compile(r"tensors-\d{5,8}\.safetensors")
_STEP = re.compile(r"step-(\d{8,12})")
# Work in progress begins with a dot: being written, being deleted, set aside for another of the same step.
_WRITING, _DELETING, _ASIDE = ".writing-", ".deleting-", ".aside-"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """A checkpoint as read: what was saved, where it lay, and which newer ones were damaged and why."""

    step: int
    tensors: PiecedTensors
    meta: dict[str, Any]
    path: Path
    skipped: list[str]


def save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint of `step` under `folder`/state and keep the newest `keep`; returns its path once durable.

    `meta` is anything JSON holds (tuples come back as lists). Tensors of any dtype come back bit for bit; those that
    share memory come back apart. Raises `WorkError` when the disk is full; the older checkpoints are then untouched.
    """
    if not 0 <= step < 10**12 or keep < 1:
        raise RequestError(f"a checkpoint needs a step from 0 and keep of at least 1, not step {step}, keep {keep}")
    root = Path(folder) / STATE
    name = f"step-{step:08d}"
    staging, final = root / (_WRITING + name), root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        _tidy(root)
        staging.mkdir()
        try:
            write_tensors(staging / TENSORS, tensors)
            seal(staging, {TENSORS: file_sha256(staging / TENSORS)}, {"step": step, "meta": meta})
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        put_in_place(staging, final, keep)
    except OSError as error:
        raise disk_error(final, error) from error
    return final


def seal(staging: Path, sums: Mapping[str, str], meta: Mapping[str, Any]) -> None:
    """Write what makes the files of tensors with these checksums a checkpoint."""
    _write_text(staging / META, json.dumps(meta) + "\n")
    everything = {**sums, META: file_sha256(staging / META)}
    _write_text(staging / SUMS, "".join(f"{digest}  {name}\n" for name, digest in everything.items()))
    sync_dir(staging)


def put_in_place(staging: Path, final: Path, keep: int) -> None:
    """Give a sealed checkpoint its name, and let those go that are no longer kept."""
    root = final.parent
    if final.exists():
        os.rename(final, root / (_ASIDE + final.name))
    os.rename(staging, final)
    sync_dir(root)
    sync_dir(root.parent)
    _tidy(root)
    # Later steps than this one are damaged, or of a run that was left behind: reading never prefers them again.
    present = checkpoints(root.parent)
    here = present.index(final)
    for path in present[:here] + present[here + keep :]:
        _delete(path)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`/state, newest step first, intact or not."""
    root = Path(folder) / STATE
    found = [path for path in root.iterdir() if _STEP.fullmatch(path.name)] if root.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def staging_path(folder: Path, step: int) -> tuple[Path, Path]:
    """Where a checkpoint is written, and where it is when it is whole."""
    root, name = Path(folder) / STATE, f"step-{step:08d}"
    return root / (_WRITING + name), root / name


def load_state(folder: Path, *, tidy: bool = True) -> TrainingState:
    """The newest intact checkpoint under `folder`/state; damaged newer ones are named in `skipped`.

    With `tidy` what an interrupted write left is cleared first. Raises `RequestError` when there is none, `WorkError`
    when all are damaged.
    """
    root = Path(folder) / STATE
    if tidy and root.is_dir() and os.access(root, os.W_OK):
        _tidy(root)
    skipped: list[str] = []
    for path in checkpoints(folder):
        try:
            tensors, step, meta = _read(path)
        except ChatsmithError as error:
            skipped.append(error.message)
            continue
        return TrainingState(step, tensors, meta, path, skipped)
    if skipped:
        raise WorkError(
            f"every checkpoint in {root} is damaged: " + "; ".join(skipped),
            "train again from the start, without --resume",
        )
    raise RequestError(f"no checkpoint in {root} to resume from", "start the training without --resume")


def _read(path: Path) -> tuple[PiecedTensors, int, dict[str, Any]]:
    """Read one checkpoint, or raise an error that names the damaged file."""
    try:
        if (path / SUMS).stat().st_size > _MAX_SUMS_BYTES or (path / META).stat().st_size > _MAX_META_BYTES:
            raise WorkError(f"{path} is damaged: {SUMS} or {META} is far too long")
        lines = (path / SUMS).read_text(encoding="ascii").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        parts = sorted(name for name in sums if _PART.fullmatch(name)) or [TENSORS]
        for name in (*parts, META):
            if file_sha256(path / name) != sums.get(name):
                raise WorkError(f"{path / name} is damaged: its checksum is not the one in {SUMS}")
        written = json.loads((path / META).read_text(encoding="utf-8"))
        described = {
            part: {name: Piece.read(value) for name, value in written.get("pieces", {}).get(part, {}).items()}
            for part in parts
        }
        return PiecedTensors([path / part for part in parts], described), int(written["step"]), written["meta"]
    except OSError as error:
        raise WorkError(f"{error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkError(f"{path} is damaged: {error}") from None


def _tidy(root: Path) -> None:
    """Clear what an interrupted write left: put a checkpoint that was set aside back in place, delete the rest."""
    for path in root.glob(_ASIDE + "step-*"):
        final = root / path.name.removeprefix(_ASIDE)
        if final.exists():
            _delete(path)
        else:
            os.rename(path, final)
    for prefix in (_WRITING, _DELETING):
        for path in root.glob(prefix + "*"):
            shutil.rmtree(path)


def _delete(path: Path) -> None:
    """Delete a checkpoint; a kill in the middle leaves no half of one under a checkpoint's name."""
    doomed = path.with_name(_DELETING + path.name.lstrip("."))
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)
