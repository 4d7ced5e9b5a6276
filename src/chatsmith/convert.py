"""`chatsmith.convert`: the same model in fewer bits, with what that costs measured before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, WorkError
from chatsmith.evaluate.faithful import Faithfulness, compare, own_words
from chatsmith.evaluate.speeds import decoding_speeds
from chatsmith.generate.backend import CacheKind
from chatsmith.generate.backends import backend_of
from chatsmith.kernels.infer.matrix import KINDS, Kind, Matrix, as_floats
from chatsmith.kernels.infer.session import Part
from chatsmith.plan.generation import cache_bytes
from chatsmith.plan.quantities import bytes_text
from chatsmith.specs import ModelSpec
from chatsmith.store.card import converted_card
from chatsmith.store.contents import PACKED, read_card, read_generation, read_provenance
from chatsmith.store.gguf_model import (
    FILE_FORMATS,
    as_written,
    check_file,
    formats_of,
    model_values,
    open_model,
    write_model,
)
from chatsmith.store.hf import read_config
from chatsmith.store.packed import save_packed
from chatsmith.store.packing import Entry, Format, Read, entries, packed_parts, parameter_shapes, unpacked
from chatsmith.store.parts import open_parameters
from chatsmith.store.saving import check_target
from chatsmith.store.tensors import find_weights
from chatsmith.tables import Column, Table
from chatsmith.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.console import RenderableType

BOUNDS: dict[str, float] = {"f32": 0.0005, "f16": 0.001, "bf16": 0.005, "int8": 0.005, "int4": 0.03}
"""The most that perplexity may grow, as a part of what it was, before a conversion is refused: by the weights' format,
and beside it by what keys and values are kept in."""
_MEASURED_TOKENS = 4096
_CALIBRATION_TOKENS = 2**15
_CALIBRATION_WORDS = 2**13  # of its own, which take time to write
_CACHE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion cost: bytes of the files of weights before and after, faithfulness, and tokens per second.

    `text` says what was read to find out: a file, or what the model itself wrote. The speeds are of one stream, by
    `computed_by` on this machine; for a GGUF file, which other programs compute, they are None. `cache_bytes` is what
    the planner reckons for keys and values of the whole `context` in 16 bits, which no format of the weights changes.
    """

    source: str
    target: str
    format: str
    bytes_before: int
    bytes_after: int
    text: str
    faithful: Faithfulness
    computed_by: str
    speed_before: float | None
    speed_after: float | None
    context: int
    cache_bytes: float

    def to_mapping(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self)

    def table(self) -> Table:
        """Before and after, a row per measure."""
        found, smaller = self.faithful, self.bytes_after / self.bytes_before
        perplexity = f"{found.change:+.2%} ± {found.change_error:.2%}"
        rows = [
            ("weights on disk", _size(self.bytes_before), _size(self.bytes_after), f"{smaller:.0%}"),
            ("perplexity", f"{found.perplexity:.3f}", f"{found.perplexity_after:.3f}", perplexity),
            ("divergence (nats)", "", f"{found.divergence:.5f}", ""),
            ("same likeliest token", "", f"{found.agreement:.1%}", ""),
        ]
        note = f"{found.tokens:,} tokens of {self.text}"
        if self.speed_before is not None and self.speed_after is not None:
            faster = f"{self.speed_after / self.speed_before:.1f}×"
            rows.append(("tokens per second", f"{self.speed_before:,.0f}", f"{self.speed_after:,.0f}", faster))
            note += f"; speed of one stream here, {self.computed_by}"
        note += f"\nto run it, add {bytes_text(self.cache_bytes)} for keys and values of {self.context:,} tokens"
        columns = (Column("", "left"), Column("before"), Column("after"), Column("change"))
        return Table(f"{self.target}: {self.format}", columns, tuple(rows), note=note)

    def __rich__(self) -> RenderableType:
        return self.table().rich()


def convert(
    source: Path,
    target: Path,
    *,
    to: Kind,
    group: int | None = None,
    symmetric: bool = True,
    head: Kind | None = None,
    calibrate: Path | Literal["own"] | None = None,
    text: Path | None = None,
    cache: CacheKind | None = None,
    force: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Conversion:
    """Write `source`, a model folder or a GGUF file, as `target` in another format, and report what it cost.

    A target that ends in .gguf is one such file for llama.cpp (int8 as Q8_0, int4 as Q4_0 with embedding and head in
    Q8_0), measured by the weights that it holds; any other is a model folder. `to` int8 and int4 give packed folders
    for the native backend, the others ordinary ones.

    `group` is the number of weights that share a scale (int8 128, int4 32), `symmetric` False gives int4 a zero per
    group, `head` is the kind of the embedding and output head (int8 for int4). With `calibrate`, a text like those the
    model will see, or "own" for what it writes itself, the matrices of the layers are rounded by what they read in it
    (`Calibration`). Perplexity is measured on `text`, which must be another, else on what the model writes; with keys
    and values in `cache`, if it is meant to be used so.

    Raises `RequestError`, before anything is measured, where a size or name is wrong or the target is taken, and
    `WorkError`, with nothing written, when format or `cache` make perplexity grow beyond `BOUNDS` and `force` is not
    set.
    """
    source, target = Path(source), Path(target)
    gguf = target.suffix == ".gguf"
    form = _format(to, group, symmetric, head, cache, gguf, calibrate is not None)
    if isinstance(calibrate, Path) and text is not None and calibrate.resolve() == text.resolve():
        raise RequestError(
            f"{text.name} would both guide the rounding and measure its loss, which flatters",
            "give --text another text, or leave it out",
        )
    (check_file if gguf else check_target)(target, overwrite)
    spec, tokenizer, read, stored, generation = _open(source)
    if gguf:
        model_values(spec, tokenizer, source.stem, _stops(generation))
    ids = None if text is None else _read_text(text, tokenizer, _MEASURED_TOKENS)
    sample = _read_text(calibrate, tokenizer, _CALIBRATION_TOKENS) if isinstance(calibrate, Path) else None
    size, described = _file_bytes(source), formats_of(spec, to) if gguf else _describe(form, cache)

    progress("reading the weights")
    before = backend_of(spec, dict(packed_parts(spec, read, Format(stored))), cache_bytes=_CACHE_BYTES)
    rounded = None
    if calibrate is not None:
        if sample is None:
            progress("the model writes a text of its own to be calibrated on")
            sample = own_words(before, tokenizer, _CALIBRATION_WORDS, after=_MEASURED_TOKENS)
        of = f" of {calibrate.name}" if isinstance(calibrate, Path) else " of its own"
        described += f"; calibrated on {len(sample):,} tokens{of}"
        rounded = _calibrated(spec, read, sample, form, progress)
    progress("rounding them")
    if gguf and rounded is not None:
        read = _replaced(spec, read, form, rounded)
    if gguf:
        parts = dict(packed_parts(spec, as_written(spec, read, to), Format("f32")))
    else:
        parts = dict(packed_parts(spec, read, form, rounded))
    after = backend_of(spec, parts, cache_bytes=_CACHE_BYTES)
    if ids is None:
        progress("the model writes a text of its own to be measured on")
        ids = own_words(before, tokenizer, _MEASURED_TOKENS)
    words = "what the model itself wrote" if text is None else text.name
    progress(f"measuring on {len(ids):,} tokens")
    found = compare(before, after, ids, tokenizer.vocab_size)
    if not force:
        _check_bound(to, to, found.change, words, _advice(form, gguf, calibrate is not None))
        _check_noise(to, found, words)
    if cache is not None:
        after = backend_of(spec, parts, cache=cache, cache_bytes=_CACHE_BYTES)
        by_weights, found = found, compare(before, after, ids, tokenizer.vocab_size)
        if not force:
            grown = found.perplexity_after / by_weights.perplexity_after - 1
            _check_bound(f"--cache {cache}", cache, grown, words, "leave --cache out")
    speeds = (None, None) if gguf else decoding_speeds((before, after))

    progress("writing")
    if gguf:
        write_model(target, spec, read, tokenizer, to, source.stem, _stops(generation))
    else:
        about = {"from": source.name, "to": described, "text": words, **asdict(found)}
        _save(
            target,
            spec,
            parts if form.kind in ("int8", "int4") else read,
            form,
            tokenizer,
            card=_card(source, target, spec, described, form, words, found),
            generation=generation,
            provenance=(read_provenance(source) if source.is_dir() else {}) | {"converted": about},
            overwrite=overwrite,
        )
    return Conversion(
        source=str(source),
        target=str(target),
        format=described,
        bytes_before=size,
        bytes_after=_file_bytes(target),
        text=words,
        faithful=found,
        computed_by=after.name.partition(" in ")[0],
        speed_before=speeds[0],
        speed_after=speeds[1],
        context=spec.context,
        cache_bytes=cache_bytes(spec, spec.context),
    )


def _calibrated(
    spec: ModelSpec, read: Read, ids: list[int], form: Format, progress: Callable[[str], None]
) -> Callable[[Entry, NDArray[Any]], Matrix]:
    from chatsmith.store.calibration import Calibration  # which reads with torch

    return Calibration(spec, read, ids, form, progress=progress).rounded


def _replaced(spec: ModelSpec, read: Read, form: Format, rounded: Callable[[Entry, NDArray[Any]], Matrix]) -> Read:
    """How to read the parameters with the matrices of the layers rounded already."""
    layers = dict(unpacked(spec, dict(packed_parts(spec, read, replace(form, head="f32"), rounded))))
    known = {name for entry in entries(spec) if entry.role == "layer" for name in entry.sources}
    return lambda name: layers[name] if name in known else read(name)


def _format(
    to: Kind,
    group: int | None,
    symmetric: bool,
    head: Kind | None,
    cache: str | None,
    gguf: bool,
    calibrated: bool,
) -> Format:
    """How the weights of a folder are kept, after checking that what was asked for has a meaning there."""
    if to not in KINDS:
        raise RequestError(f"there is no format {to!r}", "choose one of " + ", ".join(KINDS))
    chosen = [name for name, given in (("group", group), ("zeros", not symmetric), ("head", head)) if given]
    chosen += ["cache"] if cache and gguf else []
    if calibrated and gguf and to == "int8":
        raise RequestError("int8 in a GGUF file is not calibrated", "leave it out: Q8_0 loses next to nothing without")
    chosen += ["calibration"] if calibrated and not (gguf and to == "int4") else []
    if chosen and gguf:
        raise RequestError(f"a GGUF file has no choice of {chosen[0]}", f"leave it out: {to} is {FILE_FORMATS[to]}")
    if chosen and to not in ("int8", "int4"):
        raise RequestError(f"{to} has no choice of {chosen[0]}", "leave it out, or choose int8 or int4")
    if to == "int8" and not symmetric:
        raise RequestError("int8 has no zeros", "leave them out, or choose int4")
    return Format(to, group or (32 if to == "int4" else 128), symmetric, head, blocks=gguf)


def _open(source: Path) -> tuple[ModelSpec, Tokenizer, Read, Kind, dict[str, Any]]:
    """A model folder or a GGUF file: its shape, vocabulary, parameters, the kind that keeps them as they are, and
    generation_config.json."""
    if source.suffix == ".gguf":
        spec, read, tokenizer, generation = open_model(source)
        return spec, tokenizer, read, "f32", generation
    read, stored = open_parameters(source)
    return read_config(source), Tokenizer.load(source), read, stored, read_generation(source)


def _stops(generation: Mapping[str, Any]) -> set[int]:
    """The ids that generation_config.json says end a text."""
    ends = generation.get("eos_token_id")
    return {end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int}


def _save(
    target: Path, spec: ModelSpec, weights: Mapping[str, Part] | Read, form: Format, tokenizer: Tokenizer, **rest: Any
) -> None:
    """A folder with packed parts; or, of parameters that are read, an ordinary one, for every program."""
    if isinstance(weights, Mapping):
        save_packed(target, spec, weights.items(), form, tokenizer, **rest)
        return
    import torch

    from chatsmith.store.folder import decoder_of, save_model

    known = ((name, np.array(as_floats(weights(name)))) for name in parameter_shapes(spec))
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[form.kind]
    save_model(target, decoder_of(spec, known), tokenizer, dtype=dtype, **rest)


def _card(
    source: Path, target: Path, spec: ModelSpec, described: str, form: Format, words: str, found: Faithfulness
) -> str:
    """The card of the source, with what was measured."""
    rows = (
        ("perplexity before", f"{found.perplexity:.3f}"),
        ("perplexity after", f"{found.perplexity_after:.3f} ({found.change:+.2%} ± {found.change_error:.2%})"),
        ("divergence", f"{found.divergence:.5f} nats per token"),
        ("same likeliest token", f"{found.agreement:.1%}"),
    )
    about = (
        f"{source.name} in {described}, written by `chatsmith convert`. What that changed, on {found.tokens:,} "
        f"tokens of {words}:"
    )
    card = read_card(source) if source.is_dir() else None
    return converted_card(card, target.name, spec, about, rows, packed=form.kind in ("int8", "int4"))


def _describe(form: Format, cache: CacheKind | None) -> str:
    used = "" if cache is None else f"; measured with keys and values in {cache}"
    if form.kind in ("f32", "f16", "bf16"):
        return form.kind + used
    shape = "" if form.symmetric else ", with zeros"
    return f"{form.kind} in groups of {form.group}{shape}, embedding and head in {form.head_kind}{used}"


def _check_noise(kind: str, found: Faithfulness, words: str) -> None:
    if found.change_error > BOUNDS[kind]:
        raise WorkError(
            f"nothing was written: {found.tokens:,} tokens of {words} tell the change of perplexity only to within "
            f"{100 * found.change_error:.2g}%, and the bound is {100 * BOUNDS[kind]:g}%",
            "give --text a longer one, or add --force to write it all the same",
        )


def _check_bound(what: str, kind: str, change: float, words: str, advice: str) -> None:
    if change > BOUNDS[kind]:
        raise WorkError(
            f"nothing was written: {what} changes perplexity by {change:+.2%} on {words}, "
            f"beyond the bound of {100 * BOUNDS[kind]:g}%",
            f"{advice}{', or ' if advice else 'add '}--force to keep it as it is",
        )


def _advice(form: Format, gguf: bool, calibrated: bool) -> str:
    if form.kind == "int8":
        return "try --to bf16" if gguf else "try --group 64, or --head bf16"
    if form.kind == "int4":
        finer = [] if calibrated else ["--calibrate FILE"]
        finer += ["--zeros"] if form.symmetric and not gguf else []
        return "try " + ", ".join(finer) + ", or --to int8" if finer else "try --to int8"
    return "" if form.kind == "f32" else "try --to f32"


def _file_bytes(model: Path) -> int:
    """Bytes of the files that hold a model's weights."""
    if model.is_file():
        return model.stat().st_size
    files = [model / PACKED] if (model / PACKED).exists() else find_weights(model)
    return sum(file.stat().st_size for file in files)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _read_text(path: Path, tokenizer: Tokenizer, most: int) -> list[int]:
    """The first tokens of a text file, at most so many."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            words = file.read(16 * most)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    ids = list(tokenizer.encode(words)[:most])
    if len(ids) < 2:
        raise RequestError(f"{path} holds no text to read", "give a longer one")
    return ids
