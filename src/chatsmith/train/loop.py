"""The one training loop: draw, forward, backward, clip, update; and between steps measure, sample, log, save.

Everything a step does is a function of the recipe, the step's number and the state that checkpoints hold, so a run
that was killed and resumed ends with the same bits as one that was not (on the CPU, with the same number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from chatsmith.errors import WorkError
from chatsmith.models.decoder import Decoder
from chatsmith.store.pieces import Under
from chatsmith.store.state import TrainingState
from chatsmith.text.batches import Batch
from chatsmith.train.callbacks import Callback, Moment, Outcome
from chatsmith.train.counters import Counters
from chatsmith.train.interrupts import StopSignals
from chatsmith.train.metrics import LogWriter, NoLog, StepRecord, peak_memory
from chatsmith.train.objectives import HeldOut, HeldOutLoss, Objective, held_out_loss, with_noise
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.pace import Pacer
from chatsmith.train.precision import attention_kernels
from chatsmith.train.recipe import Recipe
from chatsmith.train.schedules import Milestones, Timeline, first_plan, learning_rate_factor, rows_at, stage_at
from chatsmith.train.team import Alone

_RANDOM = "random/torch"
MAX_SKIPPED = 8
"""Steps in a row whose loss or gradient is not finite before the run gives up."""


class Trainer:
    """A run in progress: build it, `restore` a checkpoint if there is one, and `run`.

    `save_folder` writes the model folder; it is called with every checkpoint where `save_often`, and at the end.
    `sample` gives the samples' texts. `clock` counts seconds; it is read to report, to know when to checkpoint, and, in
    a run of minutes without plans written down, to plan.
    """

    def __init__(
        self,
        model: Decoder,
        optimizer: TrainingOptimizer,
        objective: Objective,
        recipe: Recipe,
        folder: Path,
        *,
        meta: dict[str, Any],
        save_folder: Callable[[Trainer], None],
        save_often: bool,
        team: Alone,
        held_out: Sequence[HeldOut] = (),
        sample: Callable[[Decoder], Sequence[tuple[str, str]]] | None = None,
        callbacks: Sequence[Callback] = (),
        peak_flops: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model, self.optimizer, self.objective, self.team = model, optimizer, objective, team
        self.recipe, self.folder = recipe, folder
        self.counters = Counters()
        self.context = recipe.context(model.spec)
        # A run whose plans are written down repeats them without looking at the clock.
        replans = [(step, total) for step, total in recipe.schedule.replans]
        minutes = None if replans else recipe.schedule.minutes
        self.timeline = Timeline(replans or first_plan(recipe.schedule))
        self._meta, self._save_folder, self._save_often = meta, save_folder, save_often
        self._held_out, self._sample = held_out, sample
        self._callbacks = callbacks if self.team.leads else ()
        self._peak, self._clock = peak_flops, partial(self.team.clock, clock)
        self._writer = self.team.writer(folder, recipe.checkpoint.keep)
        self._flops = model.spec.training_flops_per_token(self.context)
        self._evaluations = Milestones(recipe.evaluation.times if held_out else 0)
        self._samplings = Milestones(recipe.samples.times if sample and recipe.samples.prompts else 0)
        self._stage: int | None = None
        self._pace = Pacer(minutes * 60 if minutes else None, recipe.batch, self._clock)
        self._log: LogWriter | NoLog = NoLog()
        self._began = 0.0
        self._checkpointed = (0, 0.0)
        self._folder_of = -1  # the step that the model folder stands for, as far as this process knows

    # ---- the state that checkpoints hold -------------------------------------------------------------------------

    def snapshot(self) -> Decoder:
        """The model as it stands, in float32 and in evaluation mode: what is saved and sampled from.

        Of several processes only the one that leads gets it whole, but all must ask. In one process it shares its
        weights' memory with the optimizer, and nothing with the model in training: tables that inference
        builds must not end up in a backward pass.
        """
        model, masters = Decoder(self.model.spec, device="meta"), self.optimizer.masters()
        if self.team.leads:
            model.load_state_dict(masters, assign=True)
        return model.requires_grad_(False).eval()

    def save_checkpoint(self) -> None:
        """Make the run's state durable."""
        self._log.flush(sync=True)
        # The optimizer holds the float32 weights; the model's own are rounded from them.
        tensors = {f"optimizer/{name}": tensor for name, tensor in self.optimizer.state_tensors().items()}
        tensors[_RANDOM] = torch.get_rng_state()
        meta = {
            **self._meta,
            "counters": self.counters.state(),
            "plans": self.timeline.plans,
            "pace": self._pace.state(),
            "data": self.objective.state(),
            "stage": self._stage,
        }
        pieces = {f"optimizer/{name}": piece for name, piece in self.team.pieces(self.optimizer).items()}
        background = self.recipe.checkpoint.background
        durable: list[Path] = []
        self._writer.save(self.counters.step, tensors, pieces, meta, background=background, then=durable.append)
        if self._save_often:
            self._write_folder()
        self._checkpointed = (self.counters.step, self._seconds())
        for path in durable:
            for callback in self._callbacks:
                callback.on_checkpoint(path)

    def _write_folder(self) -> None:
        self._save_folder(self)
        self._folder_of = self.counters.step

    def restore(self, state: TrainingState) -> None:
        """Go on from a checkpoint of the same run; a longer schedule is planned from where it stands."""
        torch.set_rng_state(state.tensors[_RANDOM])
        self.optimizer.load_state_tensors(Under(state.tensors, "optimizer/"))
        self.counters = Counters.restored(state.meta["counters"])
        self.objective.restore(state.meta["data"])
        self._stage = state.meta["stage"]
        self._pace.restore(state.meta["pace"])
        self._checkpointed = (self.counters.step, self.counters.seconds)
        asked = first_plan(self.recipe.schedule)
        self.timeline = Timeline([(at, total) for at, total in state.meta["plans"]])
        if asked and asked[0][1] > self.timeline.total:
            self.timeline.replan(self.counters.position, asked[0][1])
        elif self.ended and self._is_longer(state.meta["recipe"]["schedule"]):
            step, seconds = self.counters.step, self.counters.seconds
            self.timeline.replan(step, self._pace.plan(step, 0.0, seconds, 0.0))

    def _is_longer(self, schedule: Mapping[str, Any]) -> bool:
        """Whether this run of minutes has more of them than `schedule`, and than it took."""
        budget, before = self._pace.budget, schedule.get("minutes")
        return bool(budget and before and budget > max(before * 60, self.counters.seconds))

    # ---- the loop --------------------------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """Steps in all, as planned now (with a schedule in tokens: at the full batch from here on)."""
        left = self.timeline.total - self.counters.position
        return self.counters.step + -(-left // self._unit(self.recipe.batch.rows))

    @property
    def progress(self) -> float:
        """How far the run is, from 0 to 1."""
        return self.timeline.progress(self.counters.position)

    @property
    def ended(self) -> bool:
        """Whether the last step planned so far is done."""
        return self.counters.position >= self.timeline.total

    def run(self, on_ready: Callable[[], None] | None = None) -> str | None:
        """Train to the end, or until a signal asks to stop; returns the signal's name, or None.

        Either way the checkpoint and the model folder are whole when this returns. Raises `WorkError` when the loss
        stops being a number, or the disk is full.
        """
        self._began = self._clock() - self.counters.seconds
        if self.team.leads:
            self._log = LogWriter(self.folder, keep_steps=self.counters.step)
        self.model.train()
        stop_for: str | None = None
        try:
            with StopSignals() as stop, attention_kernels(self.model.device):
                if not self.timeline.plans:
                    self._first_plan()
                if on_ready is not None:
                    on_ready()
                while not self.ended:
                    if stop_for := self.team.agreed(stop.asked):
                        break
                    self._one_step()
                self.counters.seconds = self._seconds()
                if self._checkpointed[0] != self.counters.step or self.counters.step == 0 or not self._save_often:
                    self.save_checkpoint()
                # A run that was killed between its last checkpoint and its model folder still owes the folder.
                if self._folder_of != self.counters.step:
                    self._write_folder()
                self._writer.wait()
        finally:
            self._log.close()
        return None if self.ended else stop_for

    def _one_step(self) -> None:
        began = self._clock()
        before = self.progress
        rows = rows_at(before, self.recipe.batch)
        self._follow_stage(before)
        size = self._unit(rows)
        factor = learning_rate_factor(self.timeline.progress(self.counters.position + size / 2), self.recipe.schedule)
        loss, norm, sound = self._update(rows, factor)
        ended = self._clock()
        self._pace.observe(ended - began, rows)

        counters = self.counters
        counters.step += 1
        counters.tokens += rows * self.context
        counters.position += size
        counters.loss = loss
        counters.seconds = ended - self._began
        self._count_skipped(sound)
        self._writer.check()
        self.team.watch(counters.step)
        rate = rows * self.context / max(ended - began, 1e-9)
        record = StepRecord(
            step=counters.step,
            loss=loss,
            learning_rate=factor * self.recipe.optimizer.learning_rate,
            gradient_norm=norm,
            tokens=counters.tokens,
            tokens_per_second=rate,
            memory=peak_memory(self.model.device),
            seconds=counters.seconds,
            progress=self.progress,
            rows=rows,
            share_of_peak=rate * self._flops / self._peak if self._peak else None,
            skipped=not sound,
        )
        self._between_steps(before, record)

    def _update(self, rows: int, factor: float) -> tuple[float, float, bool]:
        """One step of the weights; returns loss per token, gradient norm, and whether both were finite."""
        total = self.team.gradients(self._draw(rows))
        if not math.isfinite(total):
            self.optimizer.zero_grad()
            return total, math.nan, False
        norm = self.optimizer.step(factor)
        return total, norm, math.isfinite(norm)

    def _draw(self, rows: int) -> Batch:
        """The rows of this step, with noise for dropout where the model has it."""
        batch = self.objective.draw(rows)
        return with_noise(batch, self.recipe.seed, self.counters.step) if self.model.spec.dropout else batch

    def _between_steps(self, before: float, record: StepRecord) -> None:
        after = self.progress
        evaluated = self._evaluations.passed(before, after)
        if evaluated:
            self._pace.timed("evaluation", lambda: self._evaluate(record))
        if self._samplings.passed(before, after):
            self._pace.timed("sample", self._show_samples)
        self._log.write(record)
        self._replan()
        moment = Moment(record, self.total_steps, self.seconds_left())
        if evaluated:
            self._tell(lambda callback: callback.on_evaluation(moment))
        self._tell(lambda callback: callback.on_step(moment))
        if self._checkpoint_due():
            self.counters.seconds = self._seconds()
            self._pace.timed("checkpoint", self.save_checkpoint)

    def _count_skipped(self, sound: bool) -> None:
        counters = self.counters
        if not sound and self.recipe.parallel.not_finite == "stop":
            raise WorkError(
                f"step {counters.step}: the loss or its gradient is not finite{self.team.blamed()}",
                'resume with --set parallel.not_finite="skip", which leaves such steps out, or begin again with a '
                "lower optimizer.learning_rate",
            )
        counters.skipped += not sound
        counters.skipped_in_a_row = 0 if sound else counters.skipped_in_a_row + 1
        if counters.skipped_in_a_row >= MAX_SKIPPED:
            raise WorkError(
                f"the loss or its gradient was not finite for {MAX_SKIPPED} steps in a row, up to step {counters.step}",
                "train again with half the optimizer.learning_rate, a longer schedule.warmup, "
                'or precision.compute = "float32"',
            )

    def _follow_stage(self, progress: float) -> None:
        stage = stage_at(progress, self.recipe.data.stages)
        if stage is not None and stage != self._stage:
            self.objective.reweight(self.recipe.data.stages[stage].weights)
            self._stage = stage

    def _unit(self, rows: int) -> int:
        """How far a step of so many rows moves along the timeline."""
        return rows * self.context if self.recipe.schedule.tokens is not None else 1

    # ---- time ------------------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return self._clock() - self._began

    def seconds_left(self) -> float:
        """What is left of the budget, or of the run at the speed so far."""
        if self._pace.budget is not None:
            return max(0.0, self._pace.budget - self._seconds())
        steps = self.total_steps - self.counters.step
        return self._pace.seconds_left(self.progress, steps, self._reserve())

    def _reserve(self) -> float:
        """Seconds that evaluations, samples and saving will still take."""
        progress = self.progress
        moments = {
            "evaluation": self._evaluations.left(progress) if self._evaluations.times else 0,
            "sample": self._samplings.left(progress) if self._samplings.times else 0,
            "checkpoint": 1,
        }
        return sum(count * self._pace.cost(name) for name, count in moments.items())

    def _first_plan(self) -> None:
        """Time the gradient of a batch, without a step, to know how many steps the budget holds."""
        rows = rows_at(0.0, self.recipe.batch)
        state = self.objective.state()
        with torch.random.fork_rng(devices=[]):
            for _ in range(2):  # the first one loads kernels, and compiles where it should
                batch = self._draw(rows)
                began = self._clock()
                self.team.gradients(batch)
                took = self._clock() - began
                self.optimizer.zero_grad()
        self.objective.restore(state)
        self._pace.observe(took, rows)
        self.timeline.replan(0, self._pace.plan(0, 0.0, self._seconds(), 0.0))

    def _replan(self) -> None:
        if not self.ended and self._pace.due(self._seconds()):
            step = self.counters.step
            self.timeline.replan(step, self._pace.plan(step, self.progress, self._seconds(), self._reserve()))

    def _checkpoint_due(self) -> bool:
        settings, (step, seconds) = self.recipe.checkpoint, self._checkpointed
        if settings.steps is not None:
            return self.counters.step - step >= settings.steps
        return self._seconds() - seconds >= settings.minutes * 60

    # ---- looking at the model ------------------------------------------------------------------------------------

    def _evaluate(self, record: StepRecord) -> None:
        measured = {part.name: held_out_loss(self.model, part.batches(), self.team.held_out) for part in self._held_out}
        found = {name: part for name, part in measured.items() if part.tokens}
        if not found:
            return
        total = sum(found.values(), HeldOutLoss(0.0, 0, 0))
        record.held_out_loss, counters = total.loss, self.counters
        record.bits_per_byte = total.bits_per_byte if total.bytes else None
        record.held_out = {name: part.loss for name, part in found.items()} if len(found) > 1 else {}
        counters.held_out_loss, counters.bits_per_byte = record.held_out_loss, record.bits_per_byte

    def _show_samples(self) -> None:
        assert self._sample is not None
        # A sampler may draw from the global generator; training must not notice.
        with torch.random.fork_rng(devices=[]):
            samples = self._sample(self.snapshot())
        self._tell(lambda callback: callback.on_sample(self.counters.step, samples))

    def _tell(self, call: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            call(callback)

    def outcome(self, recipe: Recipe, stopped: str | None) -> Outcome:
        """The end of the run in figures; `recipe` is the one that repeats it."""
        counters = self.counters
        return Outcome(
            folder=self.folder,
            recipe=recipe,
            steps=counters.step,
            tokens=counters.tokens,
            seconds=counters.seconds,
            loss=counters.loss,
            held_out_loss=counters.held_out_loss,
            bits_per_byte=counters.bits_per_byte,
            skipped_steps=counters.skipped,
            stopped=stopped,
        )
