"""What a model folder holds beside its weights, and whether its files are what they claim to be. No torch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import sync_dir
from chatsmith.settings import load_toml
from chatsmith.specs import ModelSpec
from chatsmith.store.hf import CONFIG, load_json
from chatsmith.store.tensors import INDEX, file_sha256, find_weights
from chatsmith.text.tokenizer import Tokenizer

PROVENANCE = "chatsmith.toml"
GENERATION = "generation_config.json"
CARD = "README.md"
PACKED = "packed.safetensors"
VOCABULARY = ("tokenizer.json", "tokenizer_config.json")
_MOST_CARD = 2**20
SAVING, READY = ".saving", ".ready"
# Loads stay quick: weights above this are hashed only on request; sizes and headers are checked always.
AUTO_VERIFY_BYTES = 256 * 2**20

Verify = Literal["auto", "always", "never"]


def finish_save(folder: Path) -> None:
    """Move a prepared model to its place, if a save was interrupted between the two; else do nothing."""
    ready = folder / READY
    if not ready.is_dir():
        return
    if (ready / PROVENANCE).exists():
        # The list of files moves last, so that a second interruption still knows what belongs to this model.
        kept = set(_read_toml(ready)["files"])
        for path in sorted(ready.iterdir()):
            if path.name != PROVENANCE:
                os.replace(path, folder / path.name)
        for path in [*folder.glob("model*.safetensors"), folder / INDEX, folder / PACKED]:
            if path.name not in kept:
                path.unlink(missing_ok=True)
        sync_dir(folder)
        os.replace(ready / PROVENANCE, folder / PROVENANCE)
    ready.rmdir()
    sync_dir(folder)


def finish_interrupted(folder: Path) -> None:
    """`finish_save` before a load: a folder that cannot be written to is named."""
    if not folder.is_dir():
        return
    try:
        finish_save(folder)
    except OSError as error:
        raise WorkError(
            f"{folder} holds a model whose save was interrupted, and it cannot be finished: {error.strerror}",
            "make the folder writable and load it again",
        ) from None


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


def read_generation(folder: Path) -> dict[str, Any]:
    """generation_config.json, else what config.json says of special tokens."""
    if (folder / GENERATION).exists():
        return load_json(folder / GENERATION)
    config = load_json(folder / CONFIG)
    return {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}


def weights_fingerprint(folder: Path, spec: ModelSpec, tokenizer: Tokenizer) -> str:
    """SHA-256 of a model folder's shape, vocabulary and files of weights: equal for equal folders. Loads no torch."""
    digest = hashlib.sha256(f"{spec!r}\n{tokenizer.fingerprint}\n".encode())
    for path in weight_files(folder):
        digest.update(f"{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder that hold its weights, packed or not."""
    packed = folder / PACKED
    return [packed] if packed.exists() else find_weights(folder)


def read_card(folder: Path) -> str | None:
    """The model's card; None where there is none that can be read."""
    try:
        with open(Path(folder) / CARD, encoding="utf-8") as file:
            return file.read(_MOST_CARD)
    except (OSError, UnicodeDecodeError):
        return None


def check_vocabulary(folder: Path, tokenizer: Tokenizer | None, spec: ModelSpec) -> None:
    """Refuse a tokenizer that knows more ids than the model."""
    if tokenizer is not None and tokenizer.vocab_size > spec.vocab_size:
        raise RequestError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model knows {spec.vocab_size}",
            "use the tokenizer that the model was trained with",
        )


def check_files(folder: Path, verify: Verify, nbytes: int, auto: int | None = None) -> None:
    """Compare files with the sizes and checksums in chatsmith.toml, where it has any."""
    hashed = verify == "always" or (verify == "auto" and nbytes <= (AUTO_VERIFY_BYTES if auto is None else auto))
    for name, entry in _read_toml(folder)["files"].items() if verify != "never" else ():
        file = folder / name
        if not file.is_file():
            raise RequestError(f"{name} is missing in {folder}, and {PROVENANCE} lists it", "copy the folder again")
        if file.stat().st_size != entry.get("bytes") or (hashed and file_sha256(file) != entry.get("sha256")):
            raise WorkError(
                f"{file} is not the file that was saved: its checksum differs from the one in {PROVENANCE}",
                f"copy the folder again; if you changed the file on purpose, delete its entry in {PROVENANCE}",
            )
