"""Packed weights: one safetensors file in the order in which the native backend reads it. No torch.

    packed.safetensors   the parts of `packing.entries` by name: a matrix in panels (kernels/infer/infer.h), with
                         NAME.scale (bfloat16) and, of int4, NAME.factor or NAME.zero beside it; vectors in float32
    config.json          as the family writes it, with {"quantization_config": {"quant_method": "chatsmith", …}}

The file is mapped, not read: every tensor begins at a multiple of 64 bytes, matrices lie in the order of a step, and
all instruction sets read the same order, so that nothing is laid out anew at load.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import WorkError
from chatsmith.kernels.infer.matrix import DEPTH, DTYPES, LARGEST_FACTOR, PANEL, SPAN, Kind, Matrix
from chatsmith.kernels.infer.session import Part
from chatsmith.paths import atomic_write
from chatsmith.specs import ModelSpec
from chatsmith.store.contents import PACKED, Verify, check_files
from chatsmith.store.packing import Entry, Format, check_layers, entries
from chatsmith.store.quantise import GROUPS
from chatsmith.store.saving import save_folder
from chatsmith.store.tensors import AGAIN, Arrays
from chatsmith.text.tokenizer import Tokenizer

METHOD = "chatsmith"
AUTO_VERIFY_PACKED = 64 * 2**20
"""Bytes up to which every load checks the file's SHA-256: a larger one would be felt before the first word."""
_ALIGN = 64
_FOREIGN = "the file does not belong to this config.json"
_NAMES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "I8", "int4": "U8"}
_KINDS: dict[tuple[str, int], Kind] = {
    ("F32", 3): "f32", ("F16", 3): "f16", ("BF16", 4): "bf16", ("I8", 4): "int8", ("U8", 4): "int4",
}  # fmt: skip


def holds_packed(config: Mapping[str, Any]) -> bool:
    """Whether a config.json says that its weights are packed by us."""
    quantised = config.get("quantization_config")
    return isinstance(quantised, dict) and quantised.get("quant_method") == METHOD


def save_packed(
    folder: Path,
    spec: ModelSpec,
    parts: Iterable[tuple[str, Part]],
    form: Format,
    tokenizer: Tokenizer | None,
    *,
    provenance: Mapping[str, Any],
    card: str | None = None,
    generation: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model folder with packed weights; see `saving.save_folder` for the rest and for what it raises."""

    def write(staging: Path) -> list[str]:
        write_packed(staging / PACKED, dict(parts))
        return [PACKED]

    about = {key: value for key, value in asdict(form).items() if value is not None}
    config = {"dtype": "float32", "quantization_config": {"quant_method": METHOD} | about}
    return save_folder(
        folder,
        spec,
        tokenizer,
        write,
        config=config,
        provenance=provenance,
        card=card,
        generation=generation,
        overwrite=overwrite,
    )


def write_packed(path: Path, parts: Mapping[str, Part]) -> None:
    """Write the parts to a file, matrices first; no half of one is ever seen under its name."""
    matrices = {name: part for name, part in parts.items() if isinstance(part, Matrix)}
    arrays = {name: (_NAMES[part.kind], part.weight) for name, part in matrices.items()}
    arrays |= {f"{name}.scale": ("BF16", part.scale) for name, part in matrices.items() if part.scale is not None}
    arrays |= {f"{name}.zero": ("U8", part.zero) for name, part in matrices.items() if part.zero is not None}
    arrays |= {f"{name}.factor": ("I8", part.factor) for name, part in matrices.items() if part.factor is not None}
    arrays |= {
        name: ("F32", np.ascontiguousarray(part, np.float32))
        for name, part in parts.items()
        if not isinstance(part, Matrix)
    }
    header: dict[str, Any] = {"__metadata__": {"format": METHOD}}
    at = 0
    for name, (dtype, array) in arrays.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in arrays.values():
            file.write(np.ascontiguousarray(array).data)


def read_packed(folder: Path, spec: ModelSpec, verify: Verify = "auto") -> dict[str, Part]:
    """The parts of a packed folder, mapped, after checking that they are exactly what the spec asks for."""
    arrays = Arrays([folder / PACKED])
    check_files(folder, verify, arrays.nbytes, AUTO_VERIFY_PACKED)
    check_layers(spec, len(arrays.tensors), folder / PACKED)
    parts: dict[str, Part] = {}
    spare = set(arrays.tensors)
    for entry in entries(spec):
        if entry.name not in arrays.tensors:
            raise WorkError(f"{folder / PACKED}: {entry.name} is missing", _FOREIGN)
        parts[entry.name] = _vector(arrays, entry) if entry.role == "vector" else _matrix(arrays, entry)
        spare -= {entry.name, *(f"{entry.name}.{table}" for table in ("scale", "zero", "factor"))}
    if spare:
        raise WorkError(f"{folder / PACKED}: unexpected tensor {min(spare)} ({len(spare)} in all)", _FOREIGN)
    return parts


def _vector(arrays: Arrays, entry: Entry) -> NDArray[np.float32]:
    info = arrays.tensors[entry.name]
    if info.dtype != "F32" or info.shape != entry.shape:
        raise _unlike(arrays, entry.name, f"F32 {list(entry.shape)}")
    found: NDArray[np.float32] = arrays.read(entry.name)
    return found


def _matrix(arrays: Arrays, entry: Entry) -> Matrix:
    """A matrix whose every size follows from the spec, but for its kind and group, which its tensors show."""
    name, (outputs, inputs) = entry.name, entry.shape
    info = arrays.tensors[name]
    kind = _KINDS.get((info.dtype, len(info.shape)))
    if kind is None:
        raise _unlike(arrays, name, "a matrix in panels")
    panels = -(-outputs // PANEL)
    wanted: tuple[int, ...] = (panels, -(-inputs // DEPTH) * DEPTH, PANEL)
    scale: NDArray[np.uint16] | None = None
    zero: NDArray[np.uint8] | None = None
    factor: NDArray[np.int8] | None = None
    if kind in ("int8", "int4"):
        table = arrays.tensors.get(f"{name}.scale")
        groups = table.shape[1] if table is not None and len(table.shape) == 3 else 0
        fitting = [g for g in GROUPS if -(-inputs // max(g, DEPTH)) * max(g, DEPTH) == groups * g]
        if table is None or table.dtype != "BF16" or table.shape != (panels, groups, PANEL) or not fitting:
            raise _unlike(arrays, f"{name}.scale", f"BF16 [{panels}, groups, {PANEL}]")
        scale = arrays.read(f"{name}.scale")
        wanted = (panels, groups * fitting[0], PANEL)
        if kind == "int4" and f"{name}.zero" in arrays.tensors:
            zero = arrays.read(f"{name}.zero")
            if zero.shape != scale.shape or zero.dtype != np.uint8:
                raise _unlike(arrays, f"{name}.zero", f"U8 {list(scale.shape)}")
        if kind == "int4" and f"{name}.factor" in arrays.tensors:
            factor = arrays.read(f"{name}.factor")
            spans = (panels, wanted[1] // SPAN, PANEL)
            if zero is not None or factor.shape != spans or factor.dtype != np.int8:
                raise _unlike(arrays, f"{name}.factor", f"I8 {list(spans)}, and no zero beside it")
            if max(int(factor.max()), -int(factor.min())) > LARGEST_FACTOR:
                raise WorkError(f"{arrays.files[0]}: {name} has factors beyond {LARGEST_FACTOR}", AGAIN)
    side = {"bf16": 2, "int8": 4, "int4": 4}.get(kind)
    if side is not None:
        wanted = (panels, wanted[1] // (8 if kind == "int4" else side), PANEL, side)
    if info.shape != wanted:
        raise _unlike(arrays, name, f"{info.dtype} {list(wanted)}")
    weight: NDArray[Any] = arrays.read(name)
    assert weight.dtype == DTYPES[kind]
    return Matrix(kind, outputs, inputs, weight, scale, zero, factor)


def _unlike(arrays: Arrays, name: str, wanted: str) -> WorkError:
    found = arrays.tensors.get(name)
    have = "is missing" if found is None else f"is {found.dtype} {list(found.shape)}"
    return WorkError(f"{arrays.files[0]}: {name} {have}; config.json asks for {wanted}", AGAIN)
