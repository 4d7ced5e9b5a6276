"""Writing a model folder whole or not at all, whatever its weights are. No torch.

A save is prepared in `.saving`, which becomes `.ready` in one rename; its files then move to their places. A process
killed before the rename changed nothing; one killed after it left a whole model in `.ready`, and the next load or
save finishes the moves. So a reader never sees the weights of one model beside the config of another.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError
from chatsmith.paths import atomic_write, sync_dir
from chatsmith.settings import dump_toml
from chatsmith.specs import ModelSpec
from chatsmith.store.contents import (
    CARD,
    GENERATION,
    PROVENANCE,
    READY,
    SAVING,
    VOCABULARY,
    check_vocabulary,
    finish_save,
)
from chatsmith.store.hf import CONFIG, spec_to_config
from chatsmith.store.tensors import disk_error, file_sha256
from chatsmith.text.tokenizer import Tokenizer


def holds_model(folder: Path) -> bool:
    """Whether a folder already holds a model, or part of one."""
    return (folder / CONFIG).exists() or (folder / READY).exists() or any(folder.glob("*.safetensors"))


def check_others(folder: Path) -> None:
    """Raises `RequestError` where a folder without a model holds a file of somebody's that a model's would replace."""
    for name in (CARD, PROVENANCE, GENERATION, *VOCABULARY):
        if (folder / name).exists():
            raise RequestError(
                f"{folder} holds a {name} of yours, which the model's own would replace", "choose another folder"
            )


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises `RequestError` where no model can be saved: the folder holds one already, or other files that it would
    replace (unless `overwrite`), or it, or what it would lie in, is a file."""
    check_parents(folder)
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file, not a folder", "choose another folder to save to")
    if folder.exists() and holds_model(folder) and not overwrite:
        raise RequestError(f"{folder} already holds a model", "choose another folder, or add --overwrite")
    if not overwrite:
        check_others(folder)


def check_parents(path: Path) -> None:
    """Raises `RequestError` where the folders that `path` lies in cannot be made."""
    nearest = next((parent for parent in path.absolute().parents if parent.exists()), path)
    if not nearest.is_dir():
        raise RequestError(f"{path} cannot be made: {nearest} is a file", "choose another place")


def save_folder(
    folder: Path,
    spec: ModelSpec,
    tokenizer: Tokenizer | None,
    write_weights: Callable[[Path], list[str]],
    *,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    card: str | None = None,
    generation: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model folder; returns it.

    `write_weights` writes the weights into the folder it is given and returns the names of its files; `config` is added
    to config.json, `generation` to generation_config.json; `provenance` becomes chatsmith.toml, with the checksums of
    the files added.

    Raises `RequestError` when the folder already holds a model (unless `overwrite`) or the tokenizer has more ids
    than the model has rows, and `WorkError` when the disk is full; what was there before is then untouched.
    """
    folder = Path(folder)
    check_target(folder, overwrite)
    check_vocabulary(folder, tokenizer, spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finish_save(folder)
        staging = folder / SAVING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            names = write_weights(staging)
            if tokenizer is not None:
                tokenizer.save(staging)
                names.append("tokenizer.json")
            _write_texts(staging, spec, tokenizer, generation or {}, config, card)
            files = {n: {"bytes": (staging / n).stat().st_size, "sha256": file_sha256(staging / n)} for n in names}
            _write_text(staging / PROVENANCE, dump_toml({**provenance, "files": files}))
            os.rename(staging, folder / READY)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync_dir(folder)
        finish_save(folder)
    except OSError as error:
        raise disk_error(folder, error) from error
    return folder


def _write_texts(
    staging: Path,
    spec: ModelSpec,
    tokenizer: Tokenizer | None,
    generation: Mapping[str, Any],
    more: Mapping[str, Any],
    card: str | None,
) -> None:
    """Write config.json, generation_config.json and the card."""
    ids: dict[str, Any] = {}
    if tokenizer is not None:
        stops = sorted(tokenizer.stop_ids)
        begin = tokenizer.end_of_text if tokenizer.begin_of_text is None else tokenizer.begin_of_text
        ids = {"bos_token_id": begin, "eos_token_id": stops[0] if len(stops) == 1 else stops}
    settings = ids | dict(generation)
    config = spec_to_config(spec) | dict(more)
    config |= {key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in settings}
    write_json(staging / CONFIG, config)
    write_json(staging / GENERATION, settings)
    if card is not None:
        _write_text(staging / CARD, card)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object for people to read."""
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)
