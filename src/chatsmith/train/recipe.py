"""A recipe: everything that decides a training run, as one TOML file read strictly.

    seed = 1
    [data]                     what is read, and how much of it is kept for measuring
    [[data.sources]]           documents, a folder of tokens, or the built-in "world"
    [model]                    a preset, a model folder to go on from, or a shape
    [batch]  [optimizer]  [schedule]  [precision]  [checkpoint]  [evaluation]  [samples]
    [parallel]                 how a step is divided over processes

The tables are in `recipe_data` and `recipe_tables`. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.settings import apply_overrides, dump_toml, from_mapping, in_toml, load_toml, override_key, to_mapping
from chatsmith.specs import PRESETS, ModelSpec, modern, preset, preset_name
from chatsmith.train.recipe_checks import require
from chatsmith.train.recipe_data import Data, Source, Stage
from chatsmith.train.recipe_tables import (
    LENGTHS,
    Batch,
    Checkpoint,
    Evaluation,
    Optimizer,
    Parallel,
    Precision,
    Record,
    Samples,
    Schedule,
)

__all__ = [
    "Batch",
    "Checkpoint",
    "Data",
    "Evaluation",
    "Optimizer",
    "Parallel",
    "Precision",
    "Recipe",
    "Record",
    "Samples",
    "Schedule",
    "Source",
    "Stage",
    "check_resumable",
    "differences",
    "load_recipe",
]

_SIZES = ("vocab_size", "context", "width", "layers", "heads", "kv_heads", "head_dim", "ffn_width")
_SPEC_FIELDS = tuple(item.name for item in dataclasses.fields(ModelSpec))
_NOT_SHAPE = ("start_from", "induction_heads")  # keys of [model] that say how its weights begin
_MODERN = "modern"  # the family of Qwen3, without a size


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
    parallel: Parallel = field(default_factory=Parallel)
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, f"seed must be from 0 to 2^63, not {self.seed}")
        require(0 <= self.threads <= 4096, f"threads must be from 0 to 4096, not {self.threads}")
        require(
            self.evaluation.times == 0
            or self.data.held_out > 0
            or all(source.holds_tokens for source in self.data.sources),
            "held_out is 0 but evaluation.times is not: there would be nothing to measure on",
            "set evaluation.times = 0, or keep a share of the documents, for example held_out = 0.01",
        )
        require(
            not (self.precision.float8 and self.parallel.tensor > 1),
            f"precision.float8 does not go with parallel.tensor = {self.parallel.tensor}",
            "divide the model with parallel.shard instead",
        )
        if self.starts_from is not None:
            for key in self.model:
                require(key == "start_from", f"model.{key} cannot change the model in start_from")
            require(
                self.data.vocab_size is None and self.data.tokenizer is None,
                "a model in start_from brings its own vocabulary",
                "leave out data.vocab_size and data.tokenizer",
            )
        else:
            # A recipe whose shape cannot be built fails now, not after the documents have been read.
            self.check_spec(self.spec(self.data.vocab_size or 512))

    @property
    def starts_from(self) -> str | None:
        """The model folder to go on from, if any."""
        chosen = self.model.get("start_from")
        require(chosen is None or isinstance(chosen, str), f"model.start_from must be a path, not {in_toml(chosen)}")
        return chosen

    @property
    def induction_heads(self) -> int:
        """How many heads begin as ones that look back for what followed the present token."""
        count = self.model.get("induction_heads", 0)
        require(
            isinstance(count, int) and not isinstance(count, bool),
            f"model.induction_heads must be a whole number, not {in_toml(count)}",
        )
        return int(count)

    def spec(self, vocab_size: int) -> ModelSpec:
        """The model's shape over a vocabulary of `vocab_size` ids: a preset, "modern", or GPT-2's, with changes.

        A `vocab_size` under [model] leaves room beyond the tokenizer's ids; a smaller one is an error.
        """
        changes = dict(self.model)
        name = changes.pop("preset", None)
        for key in _NOT_SHAPE:
            changes.pop(key, None)
        require(name is None or isinstance(name, str), f"model.preset must be a name, not {in_toml(name)}")
        for key in changes:
            require(
                key in _SPEC_FIELDS,
                f"unknown key model.{key}",
                did_you_mean(key, ("preset", *_NOT_SHAPE, *_SPEC_FIELDS)),
            )
        rows = changes.pop("vocab_size", vocab_size)
        require(
            isinstance(rows, int) and not isinstance(rows, bool),
            f"model.vocab_size must be a whole number, not {in_toml(rows)}",
        )
        require(
            rows >= vocab_size,
            f"model.vocab_size is {rows}, but the tokenizer has {vocab_size} ids",
            "leave model.vocab_size out: it follows the tokenizer",
        )
        if name is None or name.lower() == _MODERN:
            for key in ("width", "layers", "heads"):
                require(key in changes, f"model.{key} is missing", f'give {key}, or a preset = "gpt2-124m"')
            changes.setdefault("context", 1024)
        base: dict[str, Any] = {}
        if name is not None and name.lower() == _MODERN:
            base = {**_modern_fields(), **changes}
        elif name is not None:
            require(preset_name(name) in PRESETS, f"no preset called {name!r}", did_you_mean(name, (*PRESETS, _MODERN)))
            base = _resized(preset(name), changes)
        else:
            base = changes
        return from_mapping(ModelSpec, {**base, "vocab_size": rows}, "[model]")

    def context(self, spec: ModelSpec) -> int:
        """The length of a training row."""
        return self.batch.context or spec.context

    def check_spec(self, spec: ModelSpec) -> None:
        """Raise `RequestError` where the recipe asks for what this shape cannot do."""
        spec.check_induction_heads(self.induction_heads)
        longer = "" if self.starts_from is not None else f", or model.context to {self.batch.context}"
        require(
            self.batch.context <= spec.context,
            f"batch.context {self.batch.context} is longer than the model's context of {spec.context}",
            f"set batch.context to at most {spec.context}{longer}",
        )
        tokens, step = self.schedule.tokens, self.batch.rows * self.context(spec)
        if tokens is not None:
            first = int(step * self.batch.ramp_start)
            require(
                tokens >= first, f"schedule.tokens {tokens} is less than one step's {first}", "train on more tokens"
            )

    def to_toml(self) -> str:
        """The recipe as a file that reads back to an equal recipe."""
        return dump_toml(to_mapping(self))


def _modern_fields() -> dict[str, Any]:
    """What "modern" fixes: Qwen3's choices, and no sizes."""
    sample = to_mapping(modern(512, 64, 64, 1, 1))
    return {key: sample[key] for key in sample if key not in _SIZES}


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
    settings that contradict each other. An override that gives one length of the run replaces the file's other ones.
    """
    mapping = load_toml(path)
    if isinstance(mapping.get("recipe"), Mapping):
        mapping = mapping["recipe"]
    try:
        return _overridden(mapping, overrides, path)
    except RequestError as error:
        if not error.message.startswith(f"{path}: "):
            raise  # an override that is none
        place = _to_blame(mapping, overrides, path, error.message)
        raise RequestError(f"{place}{error.message.removeprefix(str(path))}", error.hint) from None


def _overridden(mapping: Mapping[str, Any], overrides: Sequence[str], path: Path) -> Recipe:
    changed = apply_overrides(mapping, overrides)
    keys = set(map(override_key, overrides))
    lengths = keys & {f"schedule.{name}" for name in LENGTHS}
    if lengths and isinstance(schedule := changed["schedule"], dict):
        # The plans of a run of minutes belong to its length.
        for name in (*LENGTHS, "replans"):
            if f"schedule.{name}" not in keys:
                schedule.pop(name, None)
    return from_mapping(Recipe, changed, str(path))


def _to_blame(mapping: Mapping[str, Any], overrides: Sequence[str], path: Path, message: str) -> str:
    """Where a recipe is wrong: in the overrides without which it would not be wrong in this way, else in the file."""

    def otherwise(kept: Sequence[str]) -> bool:
        try:
            _overridden(mapping, kept, path)
        except RequestError as error:
            return error.message != message
        return True

    found = [one for n, one in enumerate(overrides) if otherwise([*overrides[:n], *overrides[n + 1 :]])]
    if not found and otherwise(()):
        found = list(overrides)
    return ", ".join(f"--set {one:.60}" for one in found) or str(path)


def differences(first: Recipe, second: Recipe) -> list[str]:
    """The dotted keys in which two recipes differ, with both values."""
    return [
        f"{key}: {in_toml(a)} and {in_toml(b)}" for key, a, b in _differences(to_mapping(first), to_mapping(second), "")
    ]


def _differences(first: Any, second: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = list(dict.fromkeys([*first, *second]))
        return [found for key in keys for found in _differences(first.get(key), second.get(key), f"{prefix}{key}.")]
    return [] if first == second else [(prefix.rstrip("."), first, second)]


# What a resumed run may change: nothing the weights so far depend on.
RESUMABLE = ("name", "checkpoint", "evaluation", "samples", "parallel", "record", "schedule.replans")


def check_resumable(saved: Recipe, asked: Recipe) -> None:
    """Raise `RequestError` naming the first key in which `asked` is another run than the one that was `saved`.

    A longer schedule may be asked for in so many words (more steps, tokens or minutes); progress then goes on from
    where it stands, over what is now left.
    """
    for key, before, after in _differences(to_mapping(saved), to_mapping(asked), ""):
        longer = key in [f"schedule.{name}" for name in LENGTHS] and before and after
        if key.startswith(RESUMABLE) or (longer and after > before):
            continue
        same = f"without {key}" if before is None else f"with {key} = {in_toml(before)}"
        raise RequestError(
            f"cannot resume: {key} is {in_toml(after)}, and the run so far had {in_toml(before)}",
            f"resume {same}, or start a new run in another folder",
        )
