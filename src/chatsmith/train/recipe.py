"""A recipe: everything that decides a training run, as one TOML file read strictly.

    seed = 1
    [data]                     what is read, and how much of it is kept for measuring
    [[data.sources]]           documents, a folder of tokens, or the built-in "world"
    [model]                    a preset, a model folder to go on from, or a shape
    [batch]  [optimizer]  [schedule]  [precision]  [checkpoint]  [evaluation]  [samples]

Shares of the run (`warmup = 0.01`, `ramp_until`, `data.stages.until`) are fractions of its progress, which goes from
0 to 1 whether the run is measured in steps, tokens or minutes. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.settings import apply_overrides, dump_toml, from_mapping, load_toml, to_mapping
from chatsmith.specs import PRESETS, ModelSpec, modern, preset

Decay = Literal["linear", "cosine", "constant"]

_MAX_SOURCES = 1000
_MAX_COUNT = 10**15
_SPEC_FIELDS = tuple(item.name for item in dataclasses.fields(ModelSpec))
_MODERN = "modern"  # the family of Qwen3, without a size


def _require(condition: bool, message: str, hint: str | None = None) -> None:
    if not condition:
        raise RequestError(message, hint)


def _require_count(name: str, value: int, least: int = 1) -> None:
    _require(least <= value <= _MAX_COUNT, f"{name} must be a whole number from {least}, not {value}")


def _require_share(name: str, value: float) -> None:
    """A share of the run in [0, 1); a value of 1 or more is most often a number of steps."""
    _require(
        0.0 <= value < 1.0,
        f"{name} is a share of the run, from 0 to below 1, not {value:g}",
        f"for 100 of 2000 steps write {name} = 0.05",
    )


@dataclass(frozen=True, slots=True)
class Source:
    """One part of the mixture: a path (documents, or a folder of tokens) or "world", and its weight among the others.

    `tokens` bounds how much is read of it (0: all; the world is endless and then gives what the run needs). `part` is
    the part of the world: "all", "text" or "chat". `fields` name the columns of .jsonl, .csv or .parquet to read.
    """

    path: str
    weight: float = 1.0
    tokens: int = 0
    part: Literal["all", "text", "chat"] = "all"
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(self.path), "a source needs a path", 'for example path = "books/" or path = "world"')
        _require(0 <= self.weight <= 1e9, f"the weight of {self.path} must not be negative: {self.weight:g}")
        _require_count(f"tokens of {self.path}", self.tokens, 0)
        _require(
            self.part == "all" or self.is_world,
            f"part = {self.part!r} is for the built-in corpus, and {self.path} is not it",
            'write path = "world", or leave part out',
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
        _require(0 < self.until <= 1, f"until = {self.until:g} is not a share of the run above 0 and up to 1")
        _require(
            all(0 <= weight <= 1e9 for weight in self.weights) and sum(self.weights) > 0,
            f"the weights of a stage must not be negative, nor all 0: {list(self.weights)}",
        )


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on. The vocabulary is learned from the sources (`vocab_size`) or taken from `tokenizer`.

    `held_out` is the share of documents kept from training. With `mask_documents` attention does not cross from one
    document to the next within a row. `stages` change the mixture as the run goes on.
    """

    sources: tuple[Source, ...]
    held_out: float = 0.01
    vocab_size: int | None = None
    tokenizer: str | None = None
    mask_documents: bool = False
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        _require(0 < len(self.sources) <= _MAX_SOURCES, f"data.sources must name 1 to {_MAX_SOURCES} sources")
        _require(sum(s.weight for s in self.sources) > 0, "the weights of all sources are 0: nothing would be read")
        _require(0 <= self.held_out <= 0.5, f"held_out is a share from 0 to 0.5, not {self.held_out:g}")
        _require(
            self.vocab_size is None or self.tokenizer is None,
            "both data.vocab_size and data.tokenizer are given: a vocabulary is learned, or taken over",
            "leave one of them out",
        )
        _require(
            self.vocab_size is None or 261 <= self.vocab_size <= 2**20,
            f"data.vocab_size must lie between 261 (the 256 bytes and 5 marks) and {2**20}, not {self.vocab_size}",
        )
        for stage in self.stages:
            _require(
                len(stage.weights) == len(self.sources),
                f"a stage has {len(stage.weights)} weights for {len(self.sources)} sources",
            )
        ends = [stage.until for stage in self.stages]
        _require(ends == sorted(set(ends)), f"the stages must end one after another, not at {ends}")
        _require(not ends or ends[-1] == 1, f"the last stage must end at until = 1, not {ends[-1] if ends else 1:g}")


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
        _require_count("micro_batch", self.micro_batch)
        _require_count("accumulation", self.accumulation)
        _require_count("context", self.context, 0)
        _require(0 < self.ramp_start <= 1, f"ramp_start is a share of the full batch, not {self.ramp_start:g}")
        _require(
            0 <= self.ramp_until <= 1,
            f"the ramp would end beyond the run: ramp_until is a share of it, not {self.ramp_until:g}",
            "for the first 2 of 100 million tokens write ramp_until = 0.02",
        )
        _require(
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
            _require(0 < value <= 10, f"{name} must lie above 0 and up to 10, not {value:g}")
        _require(len(self.betas) == 2, f"betas are two numbers, not {len(self.betas)}")
        for name, value in (("a beta", max(self.betas)), ("a beta", min(self.betas)), ("momentum", self.momentum)):
            _require(0 <= value < 1, f"{name} must lie from 0 to below 1, not {value:g}")
        _require(0 < self.epsilon < 1, f"epsilon must lie between 0 and 1, not {self.epsilon:g}")
        _require(0 <= self.weight_decay < 10, f"weight_decay must lie from 0 to below 10, not {self.weight_decay:g}")
        _require(self.clip >= 0, f"clip must not be negative: {self.clip:g}")


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
        _require(len(given) > 0, "the schedule says nothing of how long to train", "add steps, tokens or minutes")
        _require(
            len(given) == 1, f"the schedule gives both {' and '.join(given)}: the run can have one length", "keep one"
        )
        for name in ("steps", "tokens"):
            if getattr(self, name) is not None:
                _require_count(name, getattr(self, name))
        if self.minutes is not None:
            _require(0 < self.minutes <= 1e7, f"minutes must be above 0, not {self.minutes:g}")
        _require_share("warmup", self.warmup)
        _require(0 <= self.final_fraction <= 1, f"final_fraction must lie from 0 to 1, not {self.final_fraction:g}")
        _require(0 < self.decay_until <= 1, f"decay_until is a share of the run, not {self.decay_until:g}")
        _require(
            self.warmup < self.decay_until,
            f"the warm-up ({self.warmup:g}) is longer than the run until decay_until ({self.decay_until:g})",
        )
        self._check_replans()

    def _check_replans(self) -> None:
        if not self.replans:
            return
        _require(self.minutes is not None, "replans belong to a run of minutes", "remove replans")
        _require(all(len(pair) == 2 for pair in self.replans), "each of replans is a pair [step, total]")
        at = [pair[0] for pair in self.replans]
        sound = at[0] == 0 and at == sorted(set(at)) and all(step < total for step, total in self.replans)
        _require(sound, "replans must begin at step 0 and go on in order, each with a total beyond its step")
        _require(max(total for _, total in self.replans) <= _MAX_COUNT, "replans name a total that is far too large")


@dataclass(frozen=True, slots=True)
class Precision:
    """`compute`: what the layers compute in (weights and optimizer are float32 always). "auto" measures this machine.

    `compile` runs the model through torch.compile ("auto": where the run is long enough to pay for it).
    `activation_checkpointing` recomputes each layer in the backward pass: less memory, about a third more time.
    """

    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    activation_checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Save what is needed to resume every `minutes`, or every `steps` where given; the newest `keep` stay."""

    minutes: float = 10.0
    steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        _require(self.minutes > 0, f"checkpoint minutes must be above 0, not {self.minutes:g}")
        _require(self.steps is None or self.steps > 0, f"checkpoint steps must be at least 1, not {self.steps}")
        _require(1 <= self.keep <= 1000, f"keep must lie from 1 to 1000, not {self.keep}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measure the held-out loss `times` times, evenly over the run (0: never), on up to `tokens` of each source."""

    times: int = 20
    tokens: int = 32768

    def __post_init__(self) -> None:
        _require(0 <= self.times <= 10**6, f"times must lie from 0 to a million, not {self.times}")
        _require_count("evaluation tokens", self.tokens)


@dataclass(frozen=True, slots=True)
class Samples:
    """Let the model continue these `prompts` `times` times over the run, to see it learn."""

    prompts: tuple[str, ...] = ()
    times: int = 5
    tokens: int = 48

    def __post_init__(self) -> None:
        _require(len(self.prompts) <= 100, f"at most 100 prompts for samples, not {len(self.prompts)}")
        _require(0 <= self.times <= 10**6, f"times must lie from 0 to a million, not {self.times}")
        _require(1 <= self.tokens <= 10**5, f"tokens of a sample must lie from 1 to 100000, not {self.tokens}")


@dataclass(frozen=True, slots=True)
class Record:
    """What a run adds to its recipe so that it can be repeated: versions, and fingerprints of what it read."""

    versions: dict[str, str] = field(default_factory=dict)
    tokenizer: str = ""
    corpora: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole training run. `threads` 0 means every core this process may use; a finished run records the number."""

    data: Data
    schedule: Schedule
    name: str = ""
    seed: int = 0
    threads: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    batch: Batch = field(default_factory=Batch)
    optimizer: Optimizer = field(default_factory=Optimizer)
    precision: Precision = field(default_factory=Precision)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluation: Evaluation = field(default_factory=Evaluation)
    samples: Samples = field(default_factory=Samples)
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, f"seed must lie from 0 to 2^63, not {self.seed}")
        _require(0 <= self.threads <= 4096, f"threads must lie from 0 to 4096, not {self.threads}")
        _require(
            self.evaluation.times == 0 or self.data.held_out > 0 or self._reads_tokens_only(),
            "held_out is 0 but evaluation.times is not: there would be nothing to measure on",
            "set evaluation.times = 0, or keep a share of the documents, for example held_out = 0.01",
        )
        if self.starts_from is not None:
            extra = [key for key in self.model if key != "start_from"]
            _require(
                not extra, f"model.{extra[0] if extra else ''} cannot change the shape of the model in start_from"
            )
            _require(
                self.data.vocab_size is None and self.data.tokenizer is None,
                "a model in start_from brings its own vocabulary",
                "leave out data.vocab_size and data.tokenizer",
            )
        else:
            # A recipe whose shape cannot be built fails now, not after the documents have been read.
            self.check_spec(self.spec(self.data.vocab_size or 512))

    def _reads_tokens_only(self) -> bool:
        return all((Path(source.path) / "manifest.json").is_file() for source in self.data.sources)

    @property
    def starts_from(self) -> str | None:
        """The model folder to go on from, if any."""
        chosen = self.model.get("start_from")
        _require(chosen is None or isinstance(chosen, str), f"model.start_from must be a path, not {chosen!r}")
        return chosen

    def spec(self, vocab_size: int) -> ModelSpec:
        """The model's shape over a vocabulary of `vocab_size` ids: a preset, "modern", or GPT-2's, with changes.

        A `vocab_size` under [model] leaves room beyond the tokenizer's ids; a smaller one is an error.
        """
        changes = dict(self.model)
        name = changes.pop("preset", None)
        changes.pop("start_from", None)
        _require(name is None or isinstance(name, str), f"model.preset must be a name, not {name!r}")
        for key in changes:
            _require(
                key in _SPEC_FIELDS,
                f"unknown key model.{key}",
                did_you_mean(key, ("preset", "start_from", *_SPEC_FIELDS)),
            )
        rows = changes.pop("vocab_size", vocab_size)
        _require(isinstance(rows, int) and not isinstance(rows, bool), f"model.vocab_size must be a number: {rows!r}")
        _require(
            rows >= vocab_size,
            f"model.vocab_size is {rows}, but the tokenizer has {vocab_size} ids",
            "leave model.vocab_size out: it follows the tokenizer",
        )
        if name is None or name.lower() == _MODERN:
            for key in ("width", "layers", "heads"):
                _require(key in changes, f"model.{key} is missing", f'give {key}, or a preset = "gpt2-124m"')
            changes.setdefault("context", 1024)
        base: dict[str, Any] = {}
        if name is not None and name.lower() == _MODERN:
            base = {**_modern_fields(), **changes}
        elif name is not None:
            _require(name.lower() in PRESETS, f"no preset called {name!r}", did_you_mean(name, (*PRESETS, _MODERN)))
            base = _resized(preset(name), changes)
        else:
            base = changes
        return from_mapping(ModelSpec, {**base, "vocab_size": rows}, "[model]")

    def context(self, spec: ModelSpec) -> int:
        """The length of a training row."""
        return self.batch.context or spec.context

    def check_spec(self, spec: ModelSpec) -> None:
        """Raise `RequestError` where the recipe asks for what this shape cannot do."""
        _require(
            self.batch.context <= spec.context,
            f"batch.context {self.batch.context} is longer than the model's context of {spec.context}",
            f"set batch.context to at most {spec.context}, or model.context to {self.batch.context}",
        )
        tokens, step = self.schedule.tokens, self.batch.rows * self.context(spec)
        if tokens is not None:
            first = int(step * self.batch.ramp_start)
            _require(
                tokens >= first, f"schedule.tokens {tokens} is less than one step's {first}", "train on more tokens"
            )

    def to_toml(self) -> str:
        """The recipe as a file that reads back to an equal recipe."""
        return dump_toml(to_mapping(self))


def _modern_fields() -> dict[str, Any]:
    """What "modern" fixes: Qwen3's choices, and no sizes."""
    sample = to_mapping(modern(512, 64, 64, 1, 1))
    return {key: sample[key] for key in sample if key not in _SIZES}


_SIZES = ("vocab_size", "context", "width", "layers", "heads", "kv_heads", "head_dim", "ffn_width")


def _resized(base: ModelSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with changes; sizes that follow from a changed one follow it again."""
    fields = to_mapping(base)
    if {"width", "heads"} & changes.keys():
        fields["head_dim"] = 0
    if "heads" in changes and base.kv_heads == base.heads:
        fields["kv_heads"] = 0
    if {"width", "activation"} & changes.keys():
        fields["ffn_width"] = 0
    return {**fields, **changes}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, or the recipe inside a model's chatsmith.toml, with `--set` overrides applied.

    Raises `RequestError` in one line for a missing file, an unknown key (with the nearest names), a wrong type, or
    settings that contradict each other.
    """
    mapping = load_toml(path)
    if isinstance(mapping.get("recipe"), Mapping):
        mapping = mapping["recipe"]
    return from_mapping(Recipe, apply_overrides(mapping, overrides), str(path))


def differences(first: Recipe, second: Recipe) -> list[str]:
    """The dotted keys in which two recipes differ, with both values."""
    return [f"{key}: {a!r} and {b!r}" for key, a, b in _differences(to_mapping(first), to_mapping(second), "")]


def _differences(first: Any, second: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = list(dict.fromkeys([*first, *second]))
        return [found for key in keys for found in _differences(first.get(key), second.get(key), f"{prefix}{key}.")]
    return [] if first == second else [(prefix.rstrip("."), first, second)]


# What a resumed run may change: nothing the weights so far depend on.
RESUMABLE = ("name", "checkpoint", "evaluation", "samples", "record", "schedule.replans")


def check_resumable(saved: Recipe, asked: Recipe) -> None:
    """Raise `RequestError` naming the first key in which `asked` is another run than the one that was `saved`.

    A longer schedule may be asked for in so many words (more steps, tokens or minutes); progress then goes on from
    where it stands, over what is now left.
    """
    for key, before, after in _differences(to_mapping(saved), to_mapping(asked), ""):
        longer = key in ("schedule.steps", "schedule.tokens", "schedule.minutes") and before and after
        if key.startswith(RESUMABLE) or (longer and after > before):
            continue
        raise RequestError(
            f"cannot resume: {key} is {_short(after)}, and the run so far had {_short(before)}",
            f"resume with {key} = {_short(before)}, or start a new run in another folder",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
