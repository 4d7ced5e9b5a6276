"""The tables of a recipe: data, batch, optimizer, schedule, and the rest, each checked as soon as it is read.

Shares of the run (`warmup`, `ramp_until`, `until`) are fractions of its progress, which goes from 0 to 1 whether the
run is measured in steps, tokens or minutes. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from chatsmith.errors import RequestError

Decay = Literal["linear", "cosine", "constant"]

_MAX_SOURCES = 1000
_MAX_COUNT = 10**15


def require(condition: bool, message: str, hint: str | None = None) -> None:
    if not condition:
        raise RequestError(message, hint)


def require_count(name: str, value: int, least: int = 1) -> None:
    require(least <= value <= _MAX_COUNT, f"{name} must be a whole number from {least}, not {value}")


def require_share(name: str, value: float) -> None:
    """A share of the run in [0, 1); a value of 1 or more is most often a number of steps."""
    require(
        0.0 <= value < 1.0,
        f"{name} is a share of the run, from 0 to below 1, not {value:g}",
        f"for 100 of 2000 steps write {name} = 0.05",
    )


@dataclass(frozen=True, slots=True)
class GPT3Part:
    """A row of table 2.2 in Brown et al. 2020: tokens, weight in the mixture, and epochs in 300 billion tokens."""

    tokens: int
    weight: float
    epochs: float


# As printed. The weights add up to 1.01, and for WebText2 and Wikipedia they are not those that the epochs follow from.
GPT3_PARTS = {
    "common_crawl": GPT3Part(410 * 10**9, 0.60, 0.44),
    "webtext2": GPT3Part(19 * 10**9, 0.22, 2.9),
    "books1": GPT3Part(12 * 10**9, 0.08, 1.9),
    "books2": GPT3Part(55 * 10**9, 0.08, 0.43),
    "wikipedia": GPT3Part(3 * 10**9, 0.03, 3.4),
}


@dataclass(frozen=True, slots=True)
class Source:
    """One part of the mixture: a path (documents, or a folder of tokens) or "world", and its weight among the others.

    Instead of a weight, `epochs` says how often it is gone through where others are gone through once: its weight is
    then that many times its tokens. `name` says which part of a published mixture it is.

    `also` names more files and folders of documents that belong to the same part, so that duplicates among them go.
    `field` names the field of JSON, CSV or Parquet records that holds the text ("": found by itself). `duplicates`
    says which documents are kept apart: near-duplicates dropped, only exact ones, or all kept. For the world, `part`
    is "all", "text" or "chat", `mixture` gives the shares of its kinds, and `tokens` says how much of it is made
    (0: what the run needs, as far as that is known).
    """

    path: str
    also: tuple[str, ...] = ()
    weight: float = 1.0
    epochs: float = 0.0
    name: str = ""
    tokens: int = 0
    part: Literal["all", "text", "chat"] = "all"
    mixture: dict[str, float] = dataclasses.field(default_factory=dict)
    field: str = ""
    duplicates: Literal["near", "exact", "keep"] = "near"

    def __post_init__(self) -> None:
        require(bool(self.path), "a source needs a path", 'for example path = "books/" or path = "world"')
        require(0 <= self.weight <= 1e9, f"the weight of {self.path} must not be negative: {self.weight:g}")
        require(0 <= self.epochs <= 1e9, f"the epochs of {self.path} must not be negative: {self.epochs:g}")
        require(
            not self.epochs or self.weight == 1,
            f"{self.path} has both a weight and epochs",
            "keep one: a weight is a share of the run, epochs are how often the source is gone through",
        )
        require(
            not (self.epochs and self.is_world),
            "the built-in corpus is made as large as a run needs, and has no epochs",
            "give it a weight",
        )
        require_count(f"tokens of {self.path}", self.tokens, 0)
        given = {"part": self.part != "all", "mixture": bool(self.mixture), "tokens": bool(self.tokens)}
        for name in given:
            require(
                self.is_world or not given[name],
                f"{name} is for the built-in corpus, and {self.path} is not it",
                f'write path = "world", or leave {name} out',
            )

    @property
    def is_world(self) -> bool:
        """Whether this is the built-in corpus."""
        return self.path == "world"


@dataclass(frozen=True, slots=True)
class Stage:
    """The weights of the sources, in their order, while progress is below `until`."""

    until: float
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        require(0 < self.until <= 1, f"until = {self.until:g} is not a share of the run above 0 and up to 1")
        require(
            all(0 <= weight <= 1e9 for weight in self.weights) and sum(self.weights) > 0,
            f"the weights of a stage must not be negative, nor all 0: {list(self.weights)}",
        )


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on. The vocabulary is learned from the sources (`vocab_size`) or taken from `tokenizer`.

    `held_out` is the share of documents kept from training. Rows are cut from the "stream" of documents, or `pack`
    whole "documents". With `mask_documents` attention does not cross from one document to the next within a row.
    `stages` change the mixture as the run goes on. `mixture` "gpt3" gives each source, which must have the `name` of a
    part, its weight in table 2.2 of Brown et al. 2020, and "gpt3-epochs" as many epochs as are printed there. Text of
    tests in the files `clean_of` is cut out of all documents, as GPT-3's training text was cleaned (appendix C there).
    """

    sources: tuple[Source, ...]
    mixture: Literal["", "gpt3", "gpt3-epochs"] = ""
    held_out: float = 0.01
    clean_of: tuple[str, ...] = ()
    vocab_size: int | None = None
    tokenizer: str | None = None
    mask_documents: bool = False
    pack: Literal["stream", "documents"] = "stream"
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        require(0 < len(self.sources) <= _MAX_SOURCES, f"data.sources must name 1 to {_MAX_SOURCES} sources")
        require(sum(s.weight for s in self.sources) > 0, "the weights of all sources are 0: nothing would be read")
        self._check_mixture()
        require(0 <= self.held_out <= 0.5, f"held_out is a share from 0 to 0.5, not {self.held_out:g}")
        require(
            self.vocab_size is None or self.tokenizer is None,
            "both data.vocab_size and data.tokenizer are given: a vocabulary is learned, or taken over",
            "leave one of them out",
        )
        require(
            self.vocab_size is None or 261 <= self.vocab_size <= 2**20,
            f"data.vocab_size must lie between 261 (the 256 bytes and 5 marks) and {2**20}, not {self.vocab_size}",
        )
        for stage in self.stages:
            require(
                len(stage.weights) == len(self.sources),
                f"a stage has {len(stage.weights)} weights for {len(self.sources)} sources",
            )
        ends = [stage.until for stage in self.stages]
        require(ends == sorted(set(ends)), f"the stages must end one after another, not at {ends}")
        require(not ends or ends[-1] == 1, f"the last stage must end at until = 1, not {ends[-1] if ends else 1:g}")

    def _check_mixture(self) -> None:
        if not self.mixture:
            return
        names = [source.name for source in self.sources]
        known = ", ".join(GPT3_PARTS)
        for source in self.sources:
            require(
                source.name in GPT3_PARTS,
                f"{source.path} is no part of the mixture {self.mixture}: its name is {source.name!r}",
                f"give it one of the names {known}",
            )
            require(
                source.weight == 1 and not source.epochs,
                f"the mixture {self.mixture} says how much is read of {source.path}, and so does the source",
                "leave out its weight and epochs, or the mixture",
            )
        require(len(set(names)) == len(names), "two sources have the same name in the mixture", "join them with also")
        require(not self.stages, f"data.stages and the mixture {self.mixture} both give weights", "keep one of the two")


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
            require(0 < value <= 10, f"{name} must lie above 0 and up to 10, not {value:g}")
        require(len(self.betas) == 2, f"betas are two numbers, not {len(self.betas)}")
        for name, value in (("a beta", max(self.betas)), ("a beta", min(self.betas)), ("momentum", self.momentum)):
            require(0 <= value < 1, f"{name} must lie from 0 to below 1, not {value:g}")
        require(0 < self.epsilon < 1, f"epsilon must lie between 0 and 1, not {self.epsilon:g}")
        require(0 <= self.weight_decay < 10, f"weight_decay must lie from 0 to below 10, not {self.weight_decay:g}")
        require(self.clip >= 0, f"clip must not be negative: {self.clip:g}")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long the run is (one of `steps`, `tokens`, `minutes`) and how the learning rate goes over it.

    It rises linearly from 0 over `warmup`, a share of the run, then falls as `decay` says until `decay_until` to
    `final_fraction` of its peak, where it stays. A run of minutes measures its own speed and re-plans its number of
    steps; each plan (step, total) is written to `replans`, and a recipe that has them repeats that run without a clock.
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
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        require(len(given) > 0, "the schedule says nothing of how long to train", "add steps, tokens or minutes")
        require(
            len(given) == 1, f"the schedule gives both {' and '.join(given)}: the run can have one length", "keep one"
        )
        for name in ("steps", "tokens"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        if self.minutes is not None:
            require(0 < self.minutes <= 1e7, f"minutes must be above 0, not {self.minutes:g}")
        require_share("warmup", self.warmup)
        require(0 <= self.final_fraction <= 1, f"final_fraction must lie from 0 to 1, not {self.final_fraction:g}")
        require(0 < self.decay_until <= 1, f"decay_until is a share of the run, not {self.decay_until:g}")
        require(
            self.warmup < self.decay_until,
            f"the warm-up ({self.warmup:g}) is longer than the run until decay_until ({self.decay_until:g})",
        )
        self._check_replans()

    def _check_replans(self) -> None:
        if not self.replans:
            return
        require(self.minutes is not None, "replans belong to a run of minutes", "remove replans")
        require(all(len(pair) == 2 for pair in self.replans), "each of replans is a pair [step, total]")
        at = [pair[0] for pair in self.replans]
        sound = at[0] == 0 and at == sorted(set(at)) and all(step < total for step, total in self.replans)
        require(sound, "replans must begin at step 0 and go on in order, each with a total beyond its step")
        require(max(total for _, total in self.replans) <= _MAX_COUNT, "replans name a total that is far too large")


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
    """How a step is divided over the processes that torchrun starts; a single process does all of it, whatever is said.

    `replicate` copies of the model read different rows (0: as many as the processes make), each of them divided over
    `shard` processes that hold a part of every weight (FSDP), `tensor` that hold parts of every layer, `pipeline`
    stages of layers, and `context` parts of every row. The rows of a step are the recipe's, however they are divided,
    and `batch.micro_batch` is what one replica computes at a time.

    `sequence` divides norms and residuals over the tensor group, too (Korthikanti et al. 2022), and `loss` the logits.
    `schedule` orders the micro-batches of a pipeline; `interleave` is the number of stages of each process (0: two
    where the schedule wants several). `reshard` lets weights go between forward and backward (ZeRO stage 3, else 2).

    With `layout` "auto" all these numbers are chosen for the processes and devices at hand, as the planner does.

    A loss that is not finite stops the run, naming the process, or with `not_finite` = "skip" costs its step. Copies of
    weights are compared every `verify` steps (0: never), so that a machine that computes wrongly is named.
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
            require(least <= value <= 2**20, f"parallel.{name} must lie from {least} to {2**20}, not {value}")
            require(
                self.layout == "given" or value == least,
                f"parallel.layout is auto, and parallel.{name} is {value}",
                f"leave out parallel.{name}, which is chosen, or the layout",
            )
        require_count("parallel.verify", self.verify, 0)
        require(0 <= self.interleave <= 64, f"parallel.interleave must lie from 0 to 64, not {self.interleave}")
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
        require(1 <= self.keep <= 1000, f"keep must lie from 1 to 1000, not {self.keep}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measure the held-out loss `times` times, evenly over the run (0: never), on `tokens` shared among the sources."""

    times: int = 10
    tokens: int = 16384

    def __post_init__(self) -> None:
        require(0 <= self.times <= 10**6, f"times must lie from 0 to a million, not {self.times}")
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
        require(0 <= self.times <= 10**6, f"times must lie from 0 to a million, not {self.times}")
        require(1 <= self.tokens <= 10**5, f"tokens of a sample must lie from 1 to 100000, not {self.tokens}")
        require(0 <= self.temperature <= 2, f"temperature must lie from 0 to 2, not {self.temperature:g}")


@dataclass(frozen=True, slots=True)
class Record:
    """What a run adds to its recipe so that it can be repeated: versions, and fingerprints of what it read."""

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    tokenizer: str = ""
    corpora: tuple[str, ...] = ()
    model: str = ""
