"""The whole path in one call: documents → vocabulary → tokens → a model for the minutes given → training → a report.

    chatsmith.new(["notes/"], minutes=5, out="my-model")

Without documents it makes the built-in model from the small world.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatsmith import arguments
from chatsmith.errors import RequestError
from chatsmith.evaluate.compressors import Compressors
from chatsmith.generate.sampling import MAX_SEED
from chatsmith.language_model import LanguageModel
from chatsmith.new_report import NewReport
from chatsmith.plan import budget
from chatsmith.plan.quantities import bytes_text
from chatsmith.specs import ModelSpec
from chatsmith.store.folder import load_decoder
from chatsmith.text import world
from chatsmith.text.documents import read_documents
from chatsmith.text.formats import format_of
from chatsmith.text.report import ReadReport
from chatsmith.text.walk import existing, walk
from chatsmith.train.beginning import beginning, check_free
from chatsmith.train.callbacks import Callback
from chatsmith.train.data import Corpus, prepare
from chatsmith.train.recipe import (
    Batch,
    Checkpoint,
    Data,
    Evaluation,
    Optimizer,
    Parallel,
    Recipe,
    Samples,
    Schedule,
    Source,
    Stage,
)
from chatsmith.train.recipe_data import check_vocab_size
from chatsmith.train.run import train
from chatsmith.train.speed import TrainingSpeed, matrix_rate

if TYPE_CHECKING:
    from chatsmith.models.decoder import Decoder
    from chatsmith.text.tokenizer import Tokenizer

# Shares of the built-in conversations beside a person's own text: a few all along, more towards the end, so that the
# model can talk and still speaks the text's language.
_CHAT_EARLY, _CHAT_LATE, _LATE_FROM = 0.10, 0.35, 0.75
# What the end of a run takes: the last checkpoint, the model folder, the comparison with compressors. A machine that is
# slow for the time being needs longer for these too, so a share of the budget is added.
_CLOSING_SECONDS, _CLOSING_SHARE = 3.0, 0.02
_LEAST_SHARE = 0.3  # of the time is for training, however long reading took
# Less text than the first is less than a window of the smallest model; files of the second in all are hardly ever.
_LEAST_TEXT, _SURELY_ENOUGH = 2000, 2**16
# With so many tokens nearly every word of the small world is one token at the beginning of a line, which lists and
# mappings need; with 2,048 two thirds of them are two or more.
_WORLD_VOCABULARY = 3072
_PACKED = {
    ".zip": 3,
    ".tgz": 4,
    ".gz": 4,
    ".bz2": 4,
    ".xz": 4,
    ".zst": 4,
    ".parquet": 3,
    ".pdf": 0.1,
    ".docx": 1,
    ".epub": 2,
}

_WORLD_PROMPTS = ("Once upon a time", "3 + 4 =", "dog => chien\ncheese =>")
_TEXT_PROMPTS = ("", "The ")
"""What the model continues on the way, so that one sees it learn; the empty one begins a document."""
_WORLD_TEMPERATURE = 0.4
# With these rates of AdamW and Muon, with heads that begin by looking back and with smaller steps in the beginning, the
# built-in model reads from its context sooner than with what suits documents: docs/explanation.md has what was tried.
_WORLD_RATES = (0.01, 0.01)
_WORLD_INDUCTION = 2  # such heads; fewer where a layer has no other
_WORLD_RAMP = (0.4, 0.6)  # from this share of the full batch, until this share of the run


def new(
    paths: Sequence[str | Path] = (),
    *,
    minutes: float = 5.0,
    out: str | Path,
    field: str | None = None,
    vocab_size: int | None = None,
    clean_of: Sequence[str | Path] = (),
    seed: int = 1337,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> NewReport:
    """Make a model that talks from the documents at `paths` in about `minutes`, reading included, into folder `out`.

    Reads the documents, drops duplicates, learns a vocabulary, measures this machine for a few seconds, chooses a model
    and a number of threads for what is left of the time, trains it and writes the model folder.

    Args:
        paths: Files and folders; without any, the built-in small world.
        minutes: How long it may take in all.
        out: The model folder to make.
        field: The field of JSON, CSV or Parquet records that holds the text; by default it is found.
        vocab_size: The size of the vocabulary; by default it follows the text.
        clean_of: Files of tests whose text is cut out of the documents.
        seed: Another seed gives another model.
        overwrite: Replace a model that `out` already holds.
        callbacks: Are told of every step (`chatsmith.train.callbacks.Callback`).

    Raises `RequestError` where there is nothing to read, the budget is no time, or `out` already holds a model (unless
    `overwrite`). Ctrl-C ends training after its step; the model folder is then whole, and the report says so.
    """
    began = time.perf_counter()
    out = arguments.path("out", out)
    minutes = arguments.number("minutes", minutes, 0, budget.MAX_MINUTES, "for example --minutes 5", above=True)
    seed = arguments.whole("seed", seed, 0, MAX_SEED)
    if field is not None:
        arguments.text("field", field)
    if vocab_size is not None:
        check_vocab_size("vocab_size", vocab_size)
    paths = [arguments.path("each of paths", given) for given in arguments.several("paths", paths, "files and folders")]
    clean_of = [arguments.path("each of clean_of", given) for given in arguments.several("clean_of", clean_of, "files")]
    check_free(out, overwrite)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        for callback in callbacks:
            callback.on_note(text)

    if clean_of:
        existing(clean_of)
    size = _rough_size(paths, out) if paths else 0
    if paths and size < _SURELY_ENOUGH:  # little, or nothing that can be read: say so before anything is measured
        _check_enough(paths, field, out)
    peak = matrix_rate()
    seconds = minutes * 60
    note(f"this machine multiplies matrices at {peak / 1e9:,.0f} GFLOP/s")
    by_text = budget.vocabulary_size(size, seconds, peak) if paths else _WORLD_VOCABULARY
    vocabulary = vocab_size or by_text
    speed = TrainingSpeed()
    # The vocabulary of documents is not known yet, so their shape is measured later.
    likely = budget.choose(seconds, budget.estimated(peak) if paths else speed, vocabulary, math.inf)
    if paths:
        data = replace(_documents(paths, field, vocabulary, seconds), clean_of=tuple(map(str, clean_of)))
    else:
        data = _small_world(vocabulary, likely.tokens)
    # Nobody watches such a run: a step that comes to nothing costs itself, not all of it.
    patient = Parallel(not_finite="skip")
    shape = _shape(likely.spec)
    base = Recipe(data, Schedule(minutes=minutes), out.resolve().name, seed, model=shape, parallel=patient)
    with beginning(out) as place:
        corpus = prepare(base, out, into=place, note=note)
        for report in corpus.reports:
            note(report.summary())
        left = _time_to_train(seconds, time.perf_counter() - began, note)
        choice = _chosen(corpus, left, speed, built_in=not paths)
        recipe = _with_choice(base, choice, left / 60, built_in=not paths)
        note(
            f"chose a model of {choice.spec.parameters:,} parameters for about {choice.tokens / 1e6:.1f} million tokens"
        )
        if (threads := speed.threads(choice.spec)) < speed.cores:
            recipe = replace(recipe, threads=threads)
            note(f"training with {threads} of {speed.cores} threads: just now that is faster than with all of them")
        compare = Compressors(corpus.folders[0 if paths else -1], corpus.tokenizer)
        outcome = train(
            recipe,
            out,
            overwrite=overwrite,
            corpus=corpus,
            sampler=continuations,
            comparer=lambda tokens, tokenizer: compare,
            callbacks=callbacks,
            peak_flops=peak,
        )
    # A run that was stopped early is compared for the report alone.
    compared = compare.found or compare(load_decoder(out, verify="never"))
    return NewReport(
        folder=out,
        outcome=outcome,
        read=corpus.reports,
        bits_per_byte=compared.bits_per_byte if compared else None,
        gzip=compared.gzip_bits_per_byte if compared else None,
        xz=compared.xz_bits_per_byte if compared else None,
        seconds=time.perf_counter() - began,
        minutes=minutes,
        parameters=choice.spec.parameters,
        epochs=outcome.tokens / corpus.tokens[0] if paths else 0.0,
        built_in=not paths,
        notes=tuple(notes),
    )


def continuations(
    model: Decoder, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int, temperature: float
) -> list[str]:
    """Samples on the way: the same chance each time, so that what changes is what was learned."""
    return LanguageModel(model, tokenizer).complete(prompts, tokens, temperature=temperature, seed=1)


def _small_world(vocab_size: int, tokens: float) -> Data:
    """The built-in corpus in the stages of its curriculum, each as long as `tokens` of training are likely to read."""
    starts = (0.0, *(until for until, _ in world.CURRICULUM))
    sources = tuple(
        # A fifth more than is likely: a machine that turns out faster then reads little twice.
        Source(path="world", mixture=dict(mixture), tokens=int(max(1e5, 1.2 * tokens * (until - start))))
        for start, (until, mixture) in zip(starts, world.CURRICULUM, strict=False)
    )
    stages = tuple(
        Stage(until, tuple(float(index == turn) for index in range(len(sources))))
        for turn, (until, _) in enumerate(world.CURRICULUM)
    )
    return Data(sources=sources, vocab_size=vocab_size, stages=stages)


def _documents(paths: Sequence[str | Path], text_field: str | None, vocab_size: int, seconds: float) -> Data:
    """A person's documents, and some of the small world's conversations beside them."""
    first, *others = (str(path) for path in paths)
    return Data(
        sources=(
            Source(path=first, also=tuple(others), field=text_field or ""),
            Source(path="world", part="chat", tokens=int(min(4e6, max(3e5, seconds * 3000)))),
        ),
        vocab_size=vocab_size,
        held_out=0.02,
        stages=(
            Stage(_LATE_FROM, (1 - _CHAT_EARLY, _CHAT_EARLY)),
            Stage(1.0, (1 - _CHAT_LATE, _CHAT_LATE)),
        ),
    )


def _check_enough(paths: Sequence[str | Path], text_field: str | None, out: Path) -> None:
    """Raise `RequestError` where the documents hold less text than a model can be made of."""
    found = 0
    for document in read_documents(paths, report=ReadReport(), field=text_field, leave_out=out):
        found += sum(len(text.encode()) for text in document.texts)
        if found >= _LEAST_TEXT:
            return
    raise _too_little(found, _LEAST_TEXT)


def _too_little(found: int, wanted: float) -> RequestError:
    return RequestError(
        f"too little text: {bytes_text(found)}, and about {bytes_text(math.ceil(wanted / 1000) * 1000)} are needed",
        "name more files or folders",
    )


def _rough_size(paths: Sequence[str | Path], out: Path) -> int:
    """About how many bytes of text the files hold, from their sizes alone."""
    total = 0.0
    for path in walk(existing(paths), ReadReport(), hidden=False, leave_out=out):
        if format_of(path.name) is not None:
            total += path.stat().st_size * _PACKED.get(path.suffix.lower(), 1)
    return int(total)


def _time_to_train(seconds: float, gone: float, note: Callable[[str], None]) -> float:
    """The seconds of a budget that training gets when some of them are gone: what the end of the run does not need."""
    left = seconds - gone - _CLOSING_SECONDS - _CLOSING_SHARE * seconds
    if left < _LEAST_SHARE * seconds:
        left = _LEAST_SHARE * seconds
        note(f"reading took most of the time; training gets {left:.0f} seconds")
    return left


def _shape(spec: ModelSpec) -> dict[str, Any]:
    """The shape as a recipe says it."""
    names = ("context", "width", "layers", "heads", "dropout")
    return {"preset": "modern"} | {name: getattr(spec, name) for name in names}


def _chosen(corpus: Corpus, seconds: float, speed: TrainingSpeed, *, built_in: bool) -> budget.Choice:
    """The model for the tokens that there are; raises `RequestError` where they do not fill one row of it."""
    tokens = math.inf if built_in else corpus.tokens[0]
    choice = budget.choose(seconds, speed, corpus.tokenizer.vocab_size, tokens)
    if tokens <= choice.spec.context:
        text = corpus.folders[0].manifest.bytes
        raise _too_little(text, 1.1 * text * choice.spec.context / tokens)
    return choice


def _with_choice(recipe: Recipe, choice: budget.Choice, minutes: float, *, built_in: bool) -> Recipe:
    """The recipe completed by what was chosen."""
    rates = _WORLD_RATES if built_in else (choice.learning_rate, choice.muon_learning_rate)
    start, until = _WORLD_RAMP if built_in else (1.0, 0.0)
    begins = {"induction_heads": min(_WORLD_INDUCTION, choice.spec.heads - 1)} if built_in else {}
    return replace(
        recipe,
        model=_shape(choice.spec) | begins,
        batch=Batch(micro_batch=choice.rows, context=choice.spec.context, ramp_start=start, ramp_until=until),
        optimizer=Optimizer(learning_rate=rates[0], muon_learning_rate=rates[1]),
        schedule=Schedule(minutes=minutes),
        checkpoint=Checkpoint(minutes=max(1.0, min(10.0, minutes / 3))),
        evaluation=Evaluation(times=8, tokens=20_000 if minutes < 10 else 100_000),
        samples=Samples(
            prompts=_WORLD_PROMPTS if built_in else _TEXT_PROMPTS,
            times=5,
            tokens=40,
            temperature=_WORLD_TEMPERATURE if built_in else Samples().temperature,
        ),
    )
