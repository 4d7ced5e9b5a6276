"""A model by any of its names: a preset, a recipe, a config.json, the folder it lies in, or the shape itself.

Nothing here imports torch, nor reads a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from chatsmith import arguments
from chatsmith.counts import Shape
from chatsmith.errors import RequestError, did_you_mean
from chatsmith.specs import ModelSpec, preset_name
from chatsmith.specs_families import EncoderDecoderSpec, EncoderSpec, RecurrentSpec, shape, shape_names

if TYPE_CHECKING:
    from chatsmith.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Named:
    """A model as it was named: its shape, and what its recipe says of the run."""

    name: str
    shape: Shape
    tokens: float | None = None
    context: int | None = None
    rows: int | None = None


def resolve(model: str | Path | Shape | Recipe) -> Named:
    """The shape that a model's name, file or object stands for; `RequestError` with the nearest names."""
    if not isinstance(model, (str, Path)):
        if hasattr(model, "schedule"):
            recipe = cast("Recipe", model)
            return _from_recipe(recipe, recipe.name or "the recipe")
        if not hasattr(model, "context"):
            raise RequestError(f"model must be a name, a path or a shape, not {arguments.short(model)}")
        return Named("the model", model)
    path, name = Path(model), str(model)
    if preset_name(name) in shape_names():
        return Named(preset_name(name), shape(name))
    if path.suffix == ".toml":
        from chatsmith.train.recipe import load_recipe

        return _from_recipe(load_recipe(path), path.stem)
    if name and (path.suffix == ".json" or path.is_dir()):
        from chatsmith.store.hf_families import read_shape

        return Named(path.resolve().parent.name if path.suffix == ".json" else path.resolve().name, read_shape(path))
    hint = did_you_mean(name.lower(), shape_names())
    raise RequestError(f"no model called {name!r}, and no recipe or config.json of that name", hint)


def decoder(named: Named, what: str) -> ModelSpec:
    """The spec of a decoder; `RequestError` where the model is of another family and `what` is for decoders."""
    if not isinstance(named.shape, ModelSpec):
        raise RequestError(f"{what} for decoders; {named.name} is not one", "leave the option out")
    return named.shape


def describe(found: Shape) -> str:
    """A shape in words."""
    if isinstance(found, ModelSpec):
        heads = f"{found.heads} heads"
        heads += f" ({found.kv_heads} for keys and values)" if found.kv_heads != found.heads else ""
        kind = f"decoder, {found.layers} layers, {found.width:,} wide, {heads}"
    elif isinstance(found, EncoderSpec):
        kind = f"encoder, {found.layers} layers, {found.width:,} wide, {found.heads} heads"
    elif isinstance(found, EncoderDecoderSpec):
        stacks = f"{found.encoder_layers} + {found.decoder_layers} layers"
        kind = f"encoder and decoder, {stacks}, {found.width:,} wide, {found.heads} heads"
    elif isinstance(found, RecurrentSpec):
        kind = f"recurrent decoder, {found.layers} layers, {found.width:,} wide, memory of {found.memory:,} tokens"
    else:
        return ""
    return f"{kind}, context {found.context:,}, vocabulary {found.vocab_size:,}"


def _from_recipe(recipe: Recipe, name: str) -> Named:
    if recipe.starts_from is not None:
        from chatsmith.store.hf_families import read_shape

        spec: Shape = read_shape(Path(recipe.starts_from))
    else:
        spec = recipe.spec(_vocabulary(recipe))
    context = recipe.context(spec) if isinstance(spec, ModelSpec) else None
    tokens = recipe.schedule.tokens
    if tokens is None and recipe.schedule.steps is not None and context is not None:
        tokens = recipe.schedule.steps * recipe.batch.rows * context
    return Named(name, spec, tokens, context, recipe.batch.rows)


def _vocabulary(recipe: Recipe) -> int:
    """The ids that a recipe's vocabulary will have: as it says, as its tokenizer has, or as its preset has."""
    if recipe.data.vocab_size is not None:
        return recipe.data.vocab_size
    if recipe.data.tokenizer is not None and Path(recipe.data.tokenizer).exists():
        from chatsmith.text.tokenizer import Tokenizer

        return Tokenizer.load(Path(recipe.data.tokenizer)).vocab_size
    asked = recipe.model.get("vocab_size")
    if isinstance(asked, int):
        return asked
    name = recipe.model.get("preset")
    if isinstance(name, str) and preset_name(name) in shape_names() and isinstance(spec := shape(name), ModelSpec):
        return spec.vocab_size
    raise RequestError(
        "the recipe's vocabulary is not there yet, so its size is unknown", "add vocab_size = … under [model]"
    )
