"""A model folder as the native backend wants it: packed weights mapped, others laid out now. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from chatsmith.errors import WorkError
from chatsmith.kernels.infer.matrix import Kind
from chatsmith.kernels.infer.session import Part
from chatsmith.specs import ModelSpec
from chatsmith.store.contents import (
    Verify,
    check_files,
    check_vocabulary,
    finish_interrupted,
    read_generation,
    read_provenance,
)
from chatsmith.store.hf import CONFIG, config_to_spec, load_json
from chatsmith.store.layouts import Stored, find_parameters
from chatsmith.store.packed import holds_packed, read_packed
from chatsmith.store.packing import Format, Read, check_layers, packed_parts, parameter_shapes, unpacked
from chatsmith.store.tensors import Arrays, find_weights
from chatsmith.text.tokenizer import Tokenizer

_KINDS: dict[str, Kind] = {"F32": "f32", "F64": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """A model folder in memory: its parts, its tokenizer, and what was written about it."""

    parts: dict[str, Part]
    tokenizer: Tokenizer
    spec: ModelSpec
    generation: dict[str, Any]
    provenance: dict[str, Any]
    folder: Path


def load_parts(folder: Path, *, verify: Verify = "auto") -> LoadedParts:
    """Load a model folder, packed or not, ours or a published one in Hugging Face layout.

    Weights that are not packed keep the numbers they are stored in. Raises `RequestError` when a part is missing or of
    a kind we do not read, `WorkError` when one is damaged.
    """
    folder = Path(folder)
    finish_interrupted(folder)
    config = load_json(folder / CONFIG)
    spec = config_to_spec(config, str(folder / CONFIG))
    if holds_packed(config):
        parts = read_packed(folder, spec, verify)
    else:
        read, stored = open_parameters(folder, verify)
        parts = dict(packed_parts(spec, read, Format(stored)))
    tokenizer = Tokenizer.load(folder)
    check_vocabulary(folder, tokenizer, spec)
    return LoadedParts(parts, tokenizer, spec, read_generation(folder), read_provenance(folder), folder)


def open_parameters(folder: Path, verify: Verify = "auto") -> tuple[Read, Kind]:
    """How to read the parameters of a folder by name (bfloat16 as uint16), and the kind they are stored in."""
    config = load_json(folder / CONFIG)
    spec = config_to_spec(config, str(folder / CONFIG))
    if holds_packed(config):
        known = dict(unpacked(spec, read_packed(folder, spec, verify)))
        return known.__getitem__, "f32"
    arrays = Arrays(find_weights(folder))
    check_files(folder, verify, arrays.nbytes)
    check_layers(spec, len(arrays.tensors), folder)
    shapes = parameter_shapes(spec)
    holds = {
        parameter: (found, stored)
        for found, stored in find_parameters(arrays, config["model_type"], shapes, folder).items()
        for parameter in stored.parameters
    }
    dtype = arrays.tensors[holds["embed.weight"][0]].dtype
    if dtype not in _KINDS:
        raise WorkError(f"{folder}: weights stored as {dtype} are not read")
    return partial(_read, arrays, holds, shapes), _KINDS[dtype]


def _read(
    arrays: Arrays, holds: dict[str, tuple[str, Stored]], shapes: dict[str, tuple[int, ...]], name: str
) -> NDArray[Any]:
    found, stored = holds[name]
    parameter: NDArray[Any] = dict(stored.unpack(arrays.read(found), shapes))[name]
    return parameter
