"""A whole run: from a recipe to a model folder, begun or gone on with.

out/recipe.toml          the recipe as it was asked for, and as it was last gone on with
out/tokens/              the vocabulary and the tokens
out/state/  log.jsonl    what a resumed run needs
out/config.json …        the model folder, from the first checkpoint on
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch

from chatsmith.errors import DiskFull, RequestError
from chatsmith.models.decoder import Decoder
from chatsmith.settings import from_mapping, to_mapping
from chatsmith.store.folder import load_decoder
from chatsmith.store.state import STATE, TrainingState, checkpoints, load_state
from chatsmith.text.batches import Batch, evaluation_batches
from chatsmith.text.shards import TokenSplit
from chatsmith.train.beginning import (
    BEGINNING,
    RECIPE,
    alone_in,
    beginning,
    begun_by,
    check_free,
    finish,
    give_up,
    prepare_launch,
    take_over,
    write_recipe,
)
from chatsmith.train.callbacks import Callback, Compared, Comparer, Outcome, RunStart, Sampler
from chatsmith.train.data import Corpus, prepare
from chatsmith.train.float8 import check_device
from chatsmith.train.loop import Trainer
from chatsmith.train.mixtures import weights
from chatsmith.train.model_folder import write_model_folder
from chatsmith.train.objectives import HeldOut, NextToken
from chatsmith.train.parallel.process import Process, all_there, from_environment, in_turn, launched_as, met, of_first
from chatsmith.train.parallel.shared_folder import check_shared
from chatsmith.train.precision import keep_memory
from chatsmith.train.recipe import Recipe, check_resumable, load_recipe
from chatsmith.train.settle import check_layout, record_of, settle, spec_of
from chatsmith.train.staged_batches import StagedBatches
from chatsmith.train.team import team_of

# A model folder is written with every checkpoint while that takes a moment; larger models are saved at the end.
_SAVE_OFTEN_PARAMETERS = 20_000_000


def train(
    recipe: Recipe | None,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    corpus: Corpus | None = None,
    sampler: Sampler | None = None,
    comparer: Comparer | None = None,
    callbacks: Sequence[Callback] = (),
    peak_flops: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train by `recipe` into the folder `out`, and return how it ended; the model folder is then whole.

    With `resume` the run in `out` goes on from its newest intact checkpoint (`recipe` may be None, or the same one);
    on the CPU with the same threads the weights end bit for bit as without the interruption. A new run takes `out` over
    when its model and its tokens stand; until then nothing there is touched. `corpus` takes tokens that exist already
    instead of reading the recipe's sources; those in `beginning(out)` become the run's own. `sampler` continues
    the recipe's prompts as training goes on, and `comparer` puts the finished model beside compressors, where the run
    did not begin without. `peak_flops` is the measured FLOP/s that `share_of_peak` is a share of. Processes that
    torchrun started in place of dead ones go on with the run, whatever was asked.

    SIGINT or SIGTERM ends the run after its step, with checkpoint and model folder. Raises `RequestError` where `out`
    holds another run or model (unless `overwrite`) or the recipe cannot be met, and `WorkError` where the disk is full
    or the loss stops being a number.
    """
    out = Path(out)
    onlookers = _Onlookers(callbacks, sampler, comparer, peak_flops, clock)
    note = onlookers.note
    process = from_environment()
    if recipe is not None:
        check_layout(recipe, process.size)  # one that does not fit is refused before anything is read or written
        if recipe.precision.float8:
            check_device(process.device)
    place = out / BEGINNING
    with met(process) as again, ExitStack() as preparing:
        check_shared(process, out)
        # What a launch file saw there, or this process sees, may differ from machine to machine.
        going = of_first(process, resume or (again and begun_by(out, launched_as())))

        def first() -> tuple[Recipe, TrainingState | None, Corpus]:
            if going:
                preparing.enter_context(alone_in(out))
                finish(out)
                give_up(out)
                asked, state = _resumed(recipe, out, note)
                return asked, state, corpus or prepare(asked, out, reuse=True, note=note)
            if recipe is None:
                raise RequestError("no recipe to train by", "name one, or resume the run in a folder")
            check_free(out, overwrite, recipe.starts_from)
            if corpus is None or not corpus.lies_in(place):
                preparing.enter_context(beginning(out))
            preparing.enter_context(alone_in(out))
            finish(out)
            prepare_launch(out, launched_as())
            write_recipe(place, recipe)
            return recipe, None, corpus or prepare(recipe, out, into=place, note=note)

        def others() -> tuple[Recipe, TrainingState | None, Corpus]:
            # The folder is as the first process left it: tokens written, and what was half written cleared.
            saved = going and not _fresh(out)
            asked, state = _resumed(recipe, out, note, tidy=False) if saved else (_asked(recipe, out), None)
            into = out if going else place
            return asked, state, corpus or prepare(asked, out, into=into, reuse=True, verify=False, note=note)

        asked, state, corpus = in_turn(process, first, others)
        return _train(process, going, asked, state, corpus, out, onlookers)


@dataclass(frozen=True, slots=True)
class _Onlookers:
    """What a caller brings to look on while a run goes on; see `train`."""

    callbacks: Sequence[Callback]
    sampler: Sampler | None
    comparer: Comparer | None
    peak_flops: float | None
    clock: Callable[[], float]

    def note(self, text: str) -> None:
        """Tell the callbacks something worth a line."""
        for callback in self.callbacks:
            callback.on_note(text)


def _train(
    process: Process,
    going: bool,
    asked: Recipe,
    state: TrainingState | None,
    corpus: Corpus,
    out: Path,
    onlookers: _Onlookers,
) -> Outcome:
    """Train as one of the processes, which have met."""
    settled = settle(asked, state, process, corpus, onlookers.note)
    torch.set_num_threads(settled.threads)
    keep_memory()
    torch.manual_seed(settled.seed)
    model = _model(asked, corpus, process.device)
    asked.check_spec(model.spec)
    settled = replace(settled, record=record_of(corpus))
    if state is not None and state.meta["tokenizer"] != corpus.tokenizer.fingerprint:
        raise RequestError(
            "cannot resume: the vocabulary is not the one that the run began with", "start a new run in another folder"
        )
    compares = onlookers.comparer is not None and (state is None or state.meta.get("compares", False))
    run = _Run(asked, settled, out, corpus, model, process, onlookers, compares)
    trainer = run.trainer()
    callbacks = onlookers.callbacks if trainer.team.leads else ()
    if state is not None:
        trainer.restore(state)
    first_step = trainer.counters.step

    def ready() -> None:
        start = RunStart(
            recipe=settled,
            spec=model.spec,
            folder=out,
            first_step=first_step,
            total_steps=trainer.total_steps,
            total_estimated=settled.schedule.minutes is not None and not settled.schedule.replans,
            peak_flops=onlookers.peak_flops,
        )
        for callback in callbacks:
            callback.on_start(start)

    all_there(process)
    in_turn(process, lambda: write_recipe(out, asked) if going else take_over(out), lambda: None)
    corpus.moved(out / BEGINNING, out)
    try:
        stopped = trainer.run(on_ready=ready)
    except DiskFull as error:
        raise DiskFull(error.message, f"free some space and go on: chatsmith train --resume {out}") from error
    talks = any(folder.split("train").has_loss for folder in corpus.folders)
    outcome = replace(trainer.outcome(run.repeatable(trainer), stopped), talks=talks)
    for callback in callbacks:
        callback.on_end(outcome)
    return outcome


def _asked(recipe: Recipe | None, out: Path) -> Recipe:
    """The recipe of a run that begins, for a process that does not lead."""
    return recipe or load_recipe(out / RECIPE)


def _fresh(out: Path) -> bool:
    """Whether the run in `out` has no checkpoint yet."""
    return not checkpoints(out) and (out / RECIPE).is_file()


def _resumed(
    recipe: Recipe | None, out: Path, note: Callable[[str], None], *, tidy: bool = True
) -> tuple[Recipe, TrainingState | None]:
    """The recipe and the newest intact checkpoint of the run in `out`; no checkpoint where it was killed before one."""
    if _fresh(out):
        shutil.rmtree(out / STATE, ignore_errors=True)  # what a process that was killed left half written
        saved = load_recipe(out / RECIPE)
        if recipe is not None:
            check_resumable(saved, recipe)
        note(f"{out} holds no checkpoint yet: training begins at the first step")
        return recipe or saved, None
    state = load_state(out, tidy=tidy)
    for damaged in state.skipped:
        note(f"passed over a damaged checkpoint: {damaged}; going on from step {state.step}")
    saved = from_mapping(Recipe, state.meta["recipe"], str(state.path))
    if recipe is None:
        return saved, state
    settled = from_mapping(Recipe, state.meta["settled"], str(state.path))
    # The recipe that chatsmith.toml records is this run, too: what was left to the machine is said in it.
    same = replace(settled, record=saved.record) == replace(recipe, record=saved.record, schedule=settled.schedule)
    check_resumable(settled if same else saved, recipe)
    return recipe, state


def _model(recipe: Recipe, corpus: Corpus, device: torch.device) -> Decoder:
    """The model with its first weights, float32."""
    if recipe.starts_from is not None:
        return load_decoder(Path(recipe.starts_from), dtype=torch.float32, device=device)
    model = Decoder(spec_of(recipe, corpus), device=device, dtype=torch.float32)
    model.init_weights(recipe.seed, recipe.induction_heads)
    return model


@dataclass(frozen=True, slots=True)
class _Run:
    """What belongs together in one run: recipes as asked and as settled, where it goes, what it reads and trains."""

    asked: Recipe
    settled: Recipe
    out: Path
    corpus: Corpus
    model: Decoder
    process: Process
    onlookers: _Onlookers
    compares: bool

    def trainer(self) -> Trainer:
        """The loop over this run's model and data, at its beginning."""
        recipe, model, onlookers = self.settled, self.model, self.onlookers
        data = recipe.data
        batches = StagedBatches(
            [folder.split("train") for folder in self.corpus.folders],
            weights(data, self.corpus.tokens),
            context=recipe.context(model.spec),
            seed=recipe.seed,
            mask_documents=data.mask_documents,
            pack=data.pack,
        )
        meta = {
            "recipe": to_mapping(self.asked),
            "settled": to_mapping(self.settled),
            "tokenizer": self.corpus.tokenizer.fingerprint,
            "compares": self.compares,
        }
        objective = NextToken(batches, self.process.device)
        team, optimizer = team_of(model, objective, recipe, self.process)
        return Trainer(
            model,
            optimizer,
            objective,
            recipe,
            self.out,
            meta=meta,
            save_folder=self.save,
            save_often=model.spec.parameters <= _SAVE_OFTEN_PARAMETERS,
            held_out=self._held_out(),
            sample=partial(_samples, recipe, self.corpus, onlookers.sampler) if onlookers.sampler else None,
            callbacks=onlookers.callbacks,
            peak_flops=onlookers.peak_flops,
            clock=onlookers.clock,
            team=team,
        )

    def repeatable(self, trainer: Trainer) -> Recipe:
        """The recipe that repeats this run: settled, with the plans that minutes, or being made longer, led to."""
        recipe = self.settled
        plans = trainer.timeline.plans
        if recipe.schedule.minutes is None and len(plans) == 1:
            return recipe
        return replace(recipe, schedule=replace(recipe.schedule, replans=plans))

    def save(self, trainer: Trainer) -> None:
        """Write the model folder as it stands, in float32, with where it came from."""
        snapshot = trainer.snapshot()
        if not trainer.team.leads:
            return
        finished = trainer.progress >= 1.0
        compared = self._compared(snapshot) if finished else None
        outcome = trainer.outcome(self.repeatable(trainer), None)
        write_model_folder(snapshot, self.corpus, outcome, finished=finished, compared=compared)

    def _compared(self, model: Decoder) -> Compared | None:
        """The model beside compressors, on text of the first source, or of the built-in corpus' last part."""
        if not self.compares or self.onlookers.comparer is None:
            return None
        tokens = self.corpus.folders[-1 if self.settled.data.sources[0].is_world else 0]
        return self.onlookers.comparer(tokens, self.corpus.tokenizer)(model)

    def _held_out(self) -> list[HeldOut]:
        """Held-out batches of each source that keeps some and that the run ends with, read once and kept."""
        recipe, names, found = self.settled, Counter[str](), list[HeldOut]()
        data = recipe.data
        last = data.stages[-1].weights if data.stages else tuple(source.weight for source in data.sources)
        parts = zip(data.sources, self.corpus.folders, last, strict=True)
        kept = [(source, folder) for source, folder, weight in parts if weight and "held_out" in folder.splits]
        for source, folder in kept:
            name = f"{source.path}/{source.part}" if source.is_world else source.path
            names[name] += 1
            name = name if names[name] == 1 else f"{name} {names[name]}"
            share = recipe.evaluation.tokens // len(kept)
            found.append(HeldOut(name, cache(partial(self._batches, folder.split("held_out"), share))))
        return found

    def _batches(self, split: TokenSplit, tokens: int) -> Sequence[Batch]:
        recipe = self.settled
        context, rows = recipe.context(self.model.spec), recipe.batch.micro_batch
        masks, pack = recipe.data.mask_documents, recipe.data.pack
        return list(evaluation_batches(split, context, rows, tokens, mask_documents=masks, pack=pack))


def _samples(recipe: Recipe, corpus: Corpus, sampler: Sampler, model: Decoder) -> list[tuple[str, str]]:
    if next(model.parameters()).is_meta:
        return []  # the process that leads has the whole model, and samples
    asked = recipe.samples
    texts = sampler(model, corpus.tokenizer, asked.prompts, asked.tokens, asked.temperature)
    return list(zip(asked.prompts, texts, strict=True))
