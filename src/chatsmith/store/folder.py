"""The model folder: save it whole or not at all, and load it only when every part is what it claims to be.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json
    README.md (the card)  chatsmith.toml (recipe, provenance, checksums)  log.jsonl  state/

A save is prepared in `.saving`, which becomes `.ready` in one rename; its files then move to their places. A process
killed before the rename changed nothing; one killed after it left a whole model in `.ready`, and the next load or
save finishes the moves. So a reader never sees the weights of one model beside the config of another.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from chatsmith.errors import RequestError, WorkError
from chatsmith.models.decoder import Decoder
from chatsmith.paths import atomic_write, sync_dir
from chatsmith.settings import dump_toml, load_toml
from chatsmith.specs import ModelSpec
from chatsmith.store.hf import CONFIG, config_to_spec, family, load_json, spec_to_config
from chatsmith.store.layouts import layout, read_parameters
from chatsmith.store.weights import (
    INDEX,
    Weights,
    disk_error,
    file_sha256,
    find_weights,
    plan_shards,
    write_tensors,
)
from chatsmith.text.tokenizer import Tokenizer

PROVENANCE = "chatsmith.toml"
GENERATION = "generation_config.json"
CARD = "README.md"
SHARD_BYTES = 5 * 10**9
# Loads stay quick: weights above this are hashed only on request; sizes and headers are checked always.
AUTO_VERIFY_BYTES = 256 * 2**20
_SAVING, _READY = ".saving", ".ready"
_DTYPE_NAMES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}

Verify = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model folder in memory: the model in evaluation mode, its tokenizer, and what was written about it."""

    model: Decoder
    tokenizer: Tokenizer
    spec: ModelSpec
    generation: dict[str, Any]
    provenance: dict[str, Any]
    folder: Path


def holds_model(folder: Path) -> bool:
    """Whether a folder already holds a model, or part of one."""
    return (folder / CONFIG).exists() or (folder / _READY).exists() or any(folder.glob("*.safetensors"))


def save_model(
    folder: Path,
    model: Decoder,
    tokenizer: Tokenizer | None,
    *,
    provenance: Mapping[str, Any],
    card: str | None = None,
    generation: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a model folder that chatsmith, Transformers and others load; returns the folder.

    The shapes of GPT-2, Llama and Qwen3 are stored exactly as those families are; others as model type "chatsmith".
    `provenance` becomes chatsmith.toml, with the checksums of the files added; `generation` is added to
    generation_config.json. `dtype` casts the weights on their way out; weights beyond `shard_bytes` are split.

    Raises `RequestError` when the folder already holds a model (unless `overwrite`) or the tokenizer has more ids
    than the model has rows, and `WorkError` when the disk is full; what was there before is then untouched.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file, not a folder", "choose another folder to save to")
    if folder.exists() and holds_model(folder) and not overwrite:
        raise RequestError(f"{folder} already holds a model", "choose another folder, or ask to overwrite this one")
    _check_vocabulary(folder, tokenizer, model.spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finish_save(folder)
        staging = folder / _SAVING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            names = _write_weights(staging, model, dtype, shard_bytes)
            if tokenizer is not None:
                tokenizer.save(staging)
                names.append("tokenizer.json")
            _write_texts(staging, model, tokenizer, generation or {}, dtype, card)
            files = {n: {"bytes": (staging / n).stat().st_size, "sha256": file_sha256(staging / n)} for n in names}
            _write_text(staging / PROVENANCE, dump_toml({**provenance, "files": files}))
            os.rename(staging, folder / _READY)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync_dir(folder)
        finish_save(folder)
    except OSError as error:
        raise disk_error(folder, error) from error
    return folder


def finish_save(folder: Path) -> None:
    """Move a prepared model to its place, if a save was interrupted between the two; else do nothing."""
    ready = folder / _READY
    if not ready.is_dir():
        return
    if (ready / PROVENANCE).exists():
        # The list of files moves last, so that a second interruption still knows what belongs to this model.
        kept = set(_read_toml(ready)["files"])
        for path in sorted(ready.iterdir()):
            if path.name != PROVENANCE:
                os.replace(path, folder / path.name)
        for path in [*folder.glob("model*.safetensors"), folder / INDEX]:
            if path.name not in kept:
                path.unlink(missing_ok=True)
        sync_dir(folder)
        os.replace(ready / PROVENANCE, folder / PROVENANCE)
    ready.rmdir()
    sync_dir(folder)


def _write_weights(staging: Path, model: Decoder, dtype: torch.dtype | None, shard_bytes: int) -> list[str]:
    """Write the weights, a shard at a time; returns the names of the files."""
    parameters = model.state_dict()
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    stored = {entry.name: entry for entry in layout(family(model.spec), shapes)}
    sizes = {
        name: sum(parameters[p].numel() * (dtype or parameters[p].dtype).itemsize for p in entry.parameters)
        for name, entry in stored.items()
    }
    shards = plan_shards(sizes, shard_bytes)
    for file, names in shards.items():
        write_tensors(staging / file, {name: stored[name].pack(parameters).to(dtype=dtype) for name in names})
    if len(shards) == 1:
        return list(shards)
    index = {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    _write_json(staging / INDEX, index)
    return [*shards, INDEX]


def _write_texts(
    staging: Path,
    model: Decoder,
    tokenizer: Tokenizer | None,
    generation: Mapping[str, Any],
    dtype: torch.dtype | None,
    card: str | None,
) -> None:
    """Write config.json, generation_config.json and the card."""
    ids: dict[str, Any] = {}
    if tokenizer is not None:
        stops = sorted(tokenizer.stop_ids)
        begin = tokenizer.end_of_text if tokenizer.begin_of_text is None else tokenizer.begin_of_text
        ids = {"bos_token_id": begin, "eos_token_id": stops[0] if len(stops) == 1 else stops}
    settings = ids | dict(generation)
    config = spec_to_config(model.spec) | {"dtype": _DTYPE_NAMES[dtype or model.embed.weight.dtype]}
    config |= {key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in settings}
    _write_json(staging / CONFIG, config)
    _write_json(staging / GENERATION, settings)
    if card is not None:
        _write_text(staging / CARD, card)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    verify: Verify = "auto",
) -> LoadedModel:
    """Load a model folder, ours or a published one in Hugging Face layout.

    `dtype` None keeps the stored one. `verify` compares the weights with the checksums in chatsmith.toml, where there
    are any: their sizes always, their SHA-256 when "always", or when "auto" and they are at most 256 MiB.

    Raises `RequestError` when a part is missing or of a kind we do not read, `WorkError` when one is damaged.
    """
    folder = Path(folder)
    model = load_decoder(folder, dtype=dtype, device=device, verify=verify)
    tokenizer = Tokenizer.load(folder)
    _check_vocabulary(folder, tokenizer, model.spec)
    return LoadedModel(model, tokenizer, model.spec, _read_generation(folder), read_provenance(folder), folder)


def load_decoder(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    verify: Verify = "auto",
) -> Decoder:
    """Load the model of a folder without its tokenizer; see `load_model`.

    The weights are mapped from the file: on the CPU and in their own dtype they take memory only as they are used.
    """
    folder = Path(folder)
    if folder.is_dir():
        try:
            finish_save(folder)
        except OSError as error:
            raise WorkError(
                f"{folder} holds a model whose save was interrupted, and it cannot be finished: {error.strerror}",
                "make the folder writable and load it again",
            ) from None
    config = load_json(folder / CONFIG)
    spec = config_to_spec(config, str(folder / CONFIG))
    weights = Weights(find_weights(folder))
    _check_files(folder, verify, weights.nbytes)
    model = Decoder(spec, device="meta")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    parameters = read_parameters(weights, config["model_type"], shapes, folder, dtype)
    model.load_state_dict({name: tensor.to(device) for name, tensor in parameters}, assign=True)
    return model.eval()


def read_provenance(folder: Path) -> dict[str, Any]:
    """What chatsmith.toml says of how the model was made, without the checksums; empty where there is none."""
    provenance = _read_toml(Path(folder))
    del provenance["files"]
    return provenance


def _read_toml(folder: Path) -> dict[str, Any]:
    """chatsmith.toml with its table of files, which is empty where there is none."""
    path = folder / PROVENANCE
    hint = f"copy the folder again, or delete {PROVENANCE}: the model loads without it"
    try:
        content = load_toml(path) if path.exists() else {}
    except RequestError as error:
        raise RequestError(error.message, hint) from None
    files = content.setdefault("files", {})
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise RequestError(f"{path}: [files] is not a table of files", hint)
    for name in files:
        if name != Path(name).name:
            raise RequestError(f"{path}: {name!r} under [files] is not a file of this folder", hint)
    return content


def _read_generation(folder: Path) -> dict[str, Any]:
    if (folder / GENERATION).exists():
        return load_json(folder / GENERATION)
    config = load_json(folder / CONFIG)
    return {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}


def _check_vocabulary(folder: Path, tokenizer: Tokenizer | None, spec: ModelSpec) -> None:
    if tokenizer is not None and tokenizer.vocab_size > spec.vocab_size:
        raise RequestError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model knows {spec.vocab_size}",
            "use the tokenizer that the model was trained with",
        )


def _check_files(folder: Path, verify: Verify, nbytes: int) -> None:
    """Compare files with the sizes and checksums in chatsmith.toml, where it has any."""
    hashed = verify == "always" or (verify == "auto" and nbytes <= AUTO_VERIFY_BYTES)
    for name, entry in _read_toml(folder)["files"].items() if verify != "never" else ():
        file = folder / name
        if not file.is_file():
            raise RequestError(f"{name} is missing in {folder}, and {PROVENANCE} lists it", "copy the folder again")
        if file.stat().st_size != entry.get("bytes") or (hashed and file_sha256(file) != entry.get("sha256")):
            raise WorkError(
                f"{file} is not the file that was saved: its checksum differs from the one in {PROVENANCE}",
                f"copy the folder again; if you changed the file on purpose, delete its entry in {PROVENANCE}",
            )
