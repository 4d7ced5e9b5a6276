"""The tables of a recipe: batch, optimizer, schedule, and the rest but data, each checked as soon as it is read.

Shares of the run (`warmup`, `ramp_until`, `until`) are fractions of its progress, which goes from 0 to 1 whether the
run is measured in steps, tokens or minutes: it counts tokens where they are given, steps otherwise. Nothing here
imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from chatsmith.train.recipe_checks import MAX_COUNT, require, require_count, require_share

LENGTHS = ("steps", "tokens", "minutes")
"""The keys of [schedule] of which one says how long the run is."""
Decay = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, slots=True)
class Batch:
    """A step's data: `micro_batch` rows at a time, `accumulation` times, each of `context` tokens (0: the model's).

    With `ramp_until` > 0 a step starts at `ramp_start` of the full rows and grows linearly until that share of the
    run, as in GPT-3 (Brown et al. 2020, appendix B: from 32k tokens over the first 4 to 12 billion).
    """

    micro_batch: int = 16
    accumulation: int = 1
    context: int = 0
    ramp_start: float = 1.0
    ramp_until: float = 0.0

    def __post_init__(self) -> None:
        require_count("micro_batch", self.micro_batch)
        require_count("accumulation", self.accumulation)
        require_count("context", self.context, 0)
        require(0 < self.ramp_start <= 1, f"ramp_start is a share of the full batch, not {self.ramp_start:g}")
        require(
            0 <= self.ramp_until <= 1,
            f"the ramp would end beyond the run: ramp_until is a share of it, not {self.ramp_until:g}",
            "for the first 2 of 100 million tokens write ramp_until = 0.02",
        )
        require(
            self.ramp_until > 0 or self.ramp_start == 1,
            f"ramp_start = {self.ramp_start:g} without ramp_until: the batch would never grow",
            "say where the ramp ends, for example ramp_until = 0.1",
        )

    @property
    def rows(self) -> int:
        """Rows of a full step."""
        return self.micro_batch * self.accumulation


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Muon for the matrices inside the layers and AdamW for the rest, or AdamW for all.

    `learning_rate` is AdamW's, `muon_learning_rate` that of Muon. `betas`, `epsilon` and `weight_decay` are AdamW's
    (decay on matrices only); `momentum` is Muon's. `clip` bounds the global norm of the gradient (0: no bound).
    """

    name: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 3e-3
    muon_learning_rate: float = 0.02
    betas: tuple[float, ...] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.95
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "muon_learning_rate"):
            value = getattr(self, name)
            require(0 < value <= 10, f"{name} must be above 0 and at most 10, not {value:g}")
        require(len(self.betas) == 2, f"betas are two numbers, not {len(self.betas)}")
        for name, value in (("a beta", max(self.betas)), ("a beta", min(self.betas)), ("momentum", self.momentum)):
            require(0 <= value < 1, f"{name} must be at least 0 and below 1, not {value:g}")
        require(0 < self.epsilon < 1, f"epsilon must be between 0 and 1, not {self.epsilon:g}")
        require(0 <= self.weight_decay < 10, f"weight_decay must be at least 0 and below 10, not {self.weight_decay:g}")
        require(self.clip >= 0, f"clip must not be negative: {self.clip:g}")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long the run is (one of `steps`, `tokens`, `minutes`) and how the learning rate goes over it.

    It rises linearly from 0 over `warmup`, a share of the run, then falls as `decay` says until `decay_until` to
    `final_fraction` of its peak, where it stays. A run of minutes measures its own speed and re-plans its number of
    steps; each plan (step, total) is written to `replans`, and a recipe that has them repeats that run without a clock.
    So are those of a run that was made longer.

    Shares of a run are shares of its steps, or of its tokens where these say how long it is. With a ramp the first
    steps are small: a tenth of them then reads less than a tenth of the text.
    """

    steps: int | None = None
    tokens: int | None = None
    minutes: float | None = None
    warmup: float = 0.02
    decay: Decay = "linear"
    decay_until: float = 1.0
    final_fraction: float = 0.0
    replans: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        require(len(given) > 0, "the schedule does not say how long to train", "add steps, tokens or minutes")
        require(len(given) == 1, f"the schedule gives {' and '.join(given)}: a run has one length", "keep one")
        for name in ("steps", "tokens"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        if self.minutes is not None:
            require(0 < self.minutes <= 1e7, f"minutes must be above 0, not {self.minutes:g}")
        require_share("warmup", self.warmup)
        require(0 <= self.final_fraction <= 1, f"final_fraction must be from 0 to 1, not {self.final_fraction:g}")
        require(0 < self.decay_until <= 1, f"decay_until is a share of the run, not {self.decay_until:g}")
        require(
            self.warmup < self.decay_until,
            f"the warm-up ({self.warmup:g}) is longer than the run until decay_until ({self.decay_until:g})",
        )
        self._check_replans()

    def _check_replans(self) -> None:
        if not self.replans:
            return
        require(all(len(pair) == 2 for pair in self.replans), "each of replans is a pair [step, total]")
        ends = self.minutes is not None or (self.steps or self.tokens) == self.replans[-1][1]
        require(
            ends, "replans belong to a run of minutes, or to one that ends as the last of them says", "remove replans"
        )
        at = [pair[0] for pair in self.replans]
        sound = at[0] == 0 and at == sorted(set(at)) and all(step < total for step, total in self.replans)
        require(sound, "replans must begin at step 0 and go on in order, each with a total beyond its step")
        require(max(total for _, total in self.replans) <= MAX_COUNT, "replans name a total that is far too large")


@dataclass(frozen=True, slots=True)
class Precision:
    """`compute`: what the layers compute in ("auto": bfloat16 where this machine is fast at it). The weights that are
    trained and saved, and the optimizer's averages, are float32 always.

    `compile` runs the layers through torch.compile ("auto": where our own kernels do not serve and the run is long
    enough to pay for it).
    `activation_checkpointing` recomputes each layer in the backward pass: less memory, about a third more time.
    `float8` multiplies the matrices of the layers in 8 bits, on GPUs that can, through the extra "float8": less
    memory, and from about a billion parameters on a little faster.
    """

    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    activation_checkpointing: bool = False
    float8: bool = False

    def __post_init__(self) -> None:
        require(
            not (self.float8 and self.compute == "float32"),
            'precision.float8 goes with compute = "bfloat16", not "float32"',
            "leave out precision.compute",
        )


PipelineSchedule = Literal["gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v"]


@dataclass(frozen=True, slots=True)
class Parallel:
    """How a step is divided over the processes that torchrun or --processes starts, as many as the numbers here make.

    `replicate` copies of the model read different rows (0: as many as the processes make), each of them divided over
    `shard` processes that hold a part of every weight (FSDP), `tensor` that hold parts of every layer, `pipeline`
    stages of layers, and `context` parts of every row. The rows of a step are the recipe's, however they are divided,
    and `batch.micro_batch` is what one replica computes at a time.

    `sequence` divides norms and residuals over the tensor group, too (Korthikanti et al. 2022), and `loss` the logits.
    `schedule` orders the micro-batches of a pipeline; `interleave` is the number of stages of each process (0: two
    where the schedule wants several). `reshard` lets weights go between forward and backward (ZeRO stage 3, else 2).

    With `layout` "auto" all these numbers are chosen for the processes and devices at hand, as the planner does.

    A loss that is not finite stops the run, of one process, too, and names the process; with `not_finite` = "skip" it
    costs its step, up to eight in a row. Copies of weights are compared every `verify` steps (0: never), so that a
    machine that computes wrongly is named.
    """

    layout: Literal["given", "auto"] = "given"
    replicate: int = 0
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    schedule: PipelineSchedule = "1f1b"
    interleave: int = 0
    sequence: bool = True
    loss: bool = True
    reshard: bool = True
    not_finite: Literal["stop", "skip"] = "stop"
    verify: int = 100

    def __post_init__(self) -> None:
        for name, least in (("replicate", 0), ("shard", 1), ("tensor", 1), ("pipeline", 1), ("context", 1)):
            value = getattr(self, name)
            require(least <= value <= 2**20, f"parallel.{name} must be from {least} to {2**20}, not {value}")
            require(
                self.layout == "given" or value == least,
                f"parallel.layout is auto, and parallel.{name} is {value}",
                f"leave out parallel.{name}, which is chosen, or the layout",
            )
        require_count("parallel.verify", self.verify, 0)
        require(0 <= self.interleave <= 64, f"parallel.interleave must be from 0 to 64, not {self.interleave}")
        several = self.schedule in ("interleaved", "zero-bubble", "zero-bubble-v")
        require(
            several or self.interleave <= 1,
            f"the schedule {self.schedule} has one stage per process, not {self.interleave}",
            'write parallel.schedule = "interleaved"',
        )
        require(
            self.schedule != "zero-bubble-v" or self.interleave in (0, 2),
            f"zero-bubble-v has two stages per process, not {self.interleave}",
        )

    @property
    def stages(self) -> int:
        """Stages of the pipeline that each process holds."""
        if self.pipeline == 1:
            return 1
        return self.interleave or (1 if self.schedule in ("gpipe", "1f1b") else 2)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Save what is needed to resume every `minutes`, or every `steps` where given; the newest `keep` stay.

    In the `background` a checkpoint is copied and then written while training goes on; a crash while it is written
    costs one checkpoint more. The last one of a run is waited for.
    """

    minutes: float = 10.0
    steps: int | None = None
    keep: int = 2
    background: bool = False

    def __post_init__(self) -> None:
        require(self.minutes > 0, f"checkpoint minutes must be above 0, not {self.minutes:g}")
        require(self.steps is None or self.steps > 0, f"checkpoint steps must be at least 1, not {self.steps}")
        require(1 <= self.keep <= 1000, f"keep must be from 1 to 1000, not {self.keep}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measure the held-out loss `times` times, evenly over the run (0: never), on `tokens` shared among the sources."""

    times: int = 10
    tokens: int = 16384

    def __post_init__(self) -> None:
        require(0 <= self.times <= 10**6, f"times must be from 0 to a million, not {self.times}")
        require_count("evaluation tokens", self.tokens)


@dataclass(frozen=True, slots=True)
class Samples:
    """Let the model continue these `prompts` `times` times over the run, to see it learn.

    The finished model publishes `temperature` as the one to talk at: a model of few parameters spreads its chance too
    wide, and keeps to its thread below 0.5.
    """

    prompts: tuple[str, ...] = ()
    times: int = 5
    tokens: int = 48
    temperature: float = 0.7

    def __post_init__(self) -> None:
        require(len(self.prompts) <= 100, f"at most 100 prompts for samples, not {len(self.prompts)}")
        require(0 <= self.times <= 10**6, f"times must be from 0 to a million, not {self.times}")
        require(1 <= self.tokens <= 10**5, f"tokens of a sample must be from 1 to 100000, not {self.tokens}")
        require(0 <= self.temperature <= 2, f"temperature must be from 0 to 2, not {self.temperature:g}")


@dataclass(frozen=True, slots=True)
class Record:
    """What a run adds to its recipe so that it can be repeated: versions, and fingerprints of what it read."""

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    tokenizer: str = ""
    corpora: tuple[str, ...] = ()
    model: str = ""
