"""A recipe with everything decided that it leaves to the machine: threads, precision, compilation, layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from chatsmith import machine
from chatsmith.kernels import build, native
from chatsmith.settings import from_mapping
from chatsmith.specs import ModelSpec
from chatsmith.store.hf import read_config
from chatsmith.store.state import TrainingState
from chatsmith.train.data import Corpus
from chatsmith.train.parallel.layouts import check, fill
from chatsmith.train.parallel.process import Process
from chatsmith.train.precision import compute_dtype
from chatsmith.train.recipe import Recipe, Record

_COMPILE_PAYS_MINUTES = 15


def settle(
    asked: Recipe, state: TrainingState | None, process: Process, corpus: Corpus, note: Callable[[str], None]
) -> Recipe:
    """The recipe with threads, precision, compilation and layout decided, as a resumed run had them.

    The layout is as asked, and threads are those of each process: another layout resumes a run as well.
    """
    layout = fill(asked.parallel, process.size)  # one process, too, must not pass over a layout that is for more
    here = asked.threads or max(1, machine.usable_cores() // process.local_size)
    dtype = compute_dtype(asked.precision.compute, process.device)
    if process.size > 1 and layout.layout == "auto":
        from chatsmith.train.parallel import automatic

        asked, chosen = automatic.choose(asked, spec_of(asked, corpus), automatic.at_hand(process), dtype, here)
        note(chosen)
    elif process.size > 1:
        asked = replace(asked, parallel=layout)
    if state is not None:
        before = from_mapping(Recipe, state.meta["settled"], str(state.path))
        same = before.parallel == asked.parallel
        if same and before.threads > machine.usable_cores():
            note(f"the run so far had {before.threads} threads; this machine has {machine.usable_cores()} cores")
        if before.record.versions != versions():
            note("versions differ from those the run began with: the weights may differ in their last bits")
        recomputes = asked.precision.activation_checkpointing
        precision = replace(before.precision, activation_checkpointing=recomputes)
        return replace(asked, threads=before.threads if same else here, precision=precision)
    precision = replace(
        asked.precision,
        compute="bfloat16" if dtype == torch.bfloat16 else "float32",
        compile="on" if _compiles(asked, dtype, process.device) else "off",
    )
    return replace(asked, threads=here, precision=precision)


def _compiles(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether to run the layers through torch.compile: it costs about a minute, and gains a tenth to a third.

    Where our own kernels serve they are faster than what it makes, and take its place.
    """
    if recipe.precision.compile != "auto":
        return recipe.precision.compile == "on"
    minutes = recipe.schedule.minutes
    if minutes is not None and minutes < _COMPILE_PAYS_MINUTES:
        return False
    if device.type == "cuda":
        return True
    kernels_serve = native.ready(torch.empty(1, dtype=dtype))
    return minutes is not None and not kernels_serve and machine.compiler() is not None


def versions() -> dict[str, str]:
    """Versions of all that the weights' last bits depend on."""
    kernels = build.library()
    # The library's name holds a digest of its source, compiler and processor.
    return machine.versions() | {"kernels": Path(kernels._name).stem if kernels else build.status()}


def check_layout(recipe: Recipe, size: int) -> None:
    """Raise `RequestError` where `size` processes, or the model, are not divided as the recipe says.

    Before anything is read: no layout depends on the size of a vocabulary.
    """
    parallel = fill(recipe.parallel, size)
    if parallel.layout == "given":
        spec = _shape(recipe, recipe.data.vocab_size or 512)
        check(parallel, spec, recipe.context(spec))


def spec_of(recipe: Recipe, corpus: Corpus) -> ModelSpec:
    """The shape of the model."""
    return _shape(recipe, corpus.tokenizer.vocab_size)


def _shape(recipe: Recipe, vocab_size: int) -> ModelSpec:
    return read_config(Path(recipe.starts_from)) if recipe.starts_from is not None else recipe.spec(vocab_size)


def record_of(corpus: Corpus) -> Record:
    """What a run of this machine over `corpus` adds to its recipe, so that it can be repeated."""
    return Record(versions(), corpus.tokenizer.fingerprint, corpus.fingerprints)
