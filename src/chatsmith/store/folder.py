"""The model folder: save it whole or not at all, and load it only when every part is what it claims to be.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json
    README.md (the card)  chatsmith.toml (recipe, provenance, checksums)  log.jsonl  state/

How a save stays whole is told in `saving`. A folder may hold packed weights instead (`packed`): they are then read as
what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec
from chatsmith.store.contents import (
    Verify,
    check_files,
    check_vocabulary,
    finish_interrupted,
    read_generation,
    read_provenance,
)
from chatsmith.store.hf import CONFIG, config_to_spec, family, load_json
from chatsmith.store.layouts import find_parameters, layout
from chatsmith.store.packed import holds_packed, read_packed
from chatsmith.store.packing import unpacked
from chatsmith.store.saving import save_folder, write_json
from chatsmith.store.tensors import INDEX, find_weights
from chatsmith.store.weights import Weights, plan_shards, write_tensors
from chatsmith.text.tokenizer import Tokenizer

SHARD_BYTES = 5 * 10**9
_DTYPE_NAMES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model folder in memory: the model in evaluation mode, its tokenizer, and what was written about it."""

    model: Decoder
    tokenizer: Tokenizer
    spec: ModelSpec
    generation: dict[str, Any]
    provenance: dict[str, Any]
    folder: Path


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
    dtype_name = _DTYPE_NAMES[dtype or model.embed.weight.dtype]
    return save_folder(
        folder,
        model.spec,
        tokenizer,
        lambda staging: _write_weights(staging, model, dtype, shard_bytes),
        config={"dtype": dtype_name},
        provenance=provenance,
        card=card,
        generation=generation,
        overwrite=overwrite,
    )


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
    write_json(staging / INDEX, index)
    return [*shards, INDEX]


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
    check_vocabulary(folder, tokenizer, model.spec)
    return LoadedModel(model, tokenizer, model.spec, read_generation(folder), read_provenance(folder), folder)


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
    finish_interrupted(folder)
    config = load_json(folder / CONFIG)
    spec = config_to_spec(config, str(folder / CONFIG))
    if holds_packed(config):
        return _dequantised(folder, spec, dtype or torch.float32, device, verify)
    weights = Weights(find_weights(folder))
    check_files(folder, verify, weights.nbytes)
    model = Decoder(spec, device="meta")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    parameters = {
        name: tensor.contiguous().to(device=device, dtype=dtype)
        for found, stored in find_parameters(weights, config["model_type"], shapes, folder).items()
        for name, tensor in stored.unpack(weights.read(found), shapes)
    }
    model.load_state_dict(parameters, assign=True)
    return model.eval()


def _dequantised(
    folder: Path, spec: ModelSpec, dtype: torch.dtype, device: torch.device | str | None, verify: Verify
) -> Decoder:
    """The decoder that packed weights stand for, in full."""
    return decoder_of(spec, unpacked(spec, read_packed(folder, spec, verify)), dtype, device)


def decoder_of(
    spec: ModelSpec,
    parameters: Iterable[tuple[str, NDArray[Any]]],
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Decoder:
    """A decoder made of its parameters by name, which become its own; `dtype` None keeps theirs."""
    model = Decoder(spec, device="meta")
    known = {name: torch.from_numpy(array).to(device=device, dtype=dtype) for name, array in parameters}
    model.load_state_dict(known, assign=True)
    return model.eval()
