"""The third door for Python: `chatsmith.plan(...)` says what a model takes, before it is spent.

It reads what a model may be named by (a preset, a recipe, a config.json, a folder) and leaves the reckoning to `plan/`.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chatsmith.counts import Shape
from chatsmith.errors import RequestError, did_you_mean
from chatsmith.plan import budgeted, generation, published, training
from chatsmith.plan.accelerators import Accelerator, catalogue, find_accelerator, load_accelerators
from chatsmith.plan.compare import Comparison, compare
from chatsmith.plan.formulas import (
    Formula,
    body_parameters,
    explain_table,
    matmul_table,
    parameter_formulas,
    training_formulas,
)
from chatsmith.plan.quantities import bytes_text, duration_text, rate_text, read_count, read_number, short
from chatsmith.plan.scaling import DEFAULT_FIT, find_fit, optimal_tokens
from chatsmith.specs import PRESETS, ModelSpec
from chatsmith.specs_families import EncoderDecoderSpec, EncoderSpec, RecurrentSpec, shape, shape_names
from chatsmith.tables import Column, Report, Table

if TYPE_CHECKING:
    from chatsmith.plan.fits import FitsReport
    from chatsmith.plan.layout_plan import LayoutPlan
    from chatsmith.train.recipe import Recipe

_MAX_TOKENS, _MAX_DEVICES, _MAX_CONTEXT = 1e18, 10**7, 2**24


@dataclass(frozen=True, slots=True)
class Named:
    """A model as it was named: its shape, and what its recipe says of the run."""

    name: str
    shape: Shape
    tokens: float | None = None
    context: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Plan(Report):
    """What a model takes. Parts that were not asked for are None or empty; units are in the field names.

    It prints as tables, in a terminal and in a notebook.
    """

    model: str
    shape: Shape
    parameters: int
    parameter_terms: dict[str, int]
    weight_bytes: dict[str, float]
    training: training.Training
    expectations: tuple[budgeted.Expectation, ...] = ()
    budget: budgeted.Budget | None = None
    deadline: budgeted.Deadline | None = None
    printed: tuple[published.Printed, ...] = ()
    generation: generation.Generation | None = None
    layout: LayoutPlan | None = None
    comparison: Comparison | None = None
    formulas: tuple[Formula, ...] = ()

    def tables(self) -> list[Table]:
        """The parts that there are, in the order one asks: how large, how long and dear, how good, how it runs."""
        found = [self._size()]
        if self.generation is not None:
            found.append(self.generation.table())
        if self.shows_training:
            found.append(self._training())
        if self.printed:
            found.append(published.printed_table(self.printed))
        if self.expectations and self.shows_training:
            found.append(budgeted.expectation_table(self.expectations))
        if self.layout is not None:
            found += self.layout.tables()
        if self.comparison is not None:
            found.append(self.comparison.table())
        if self.formulas:
            found += [matmul_table(self.shape, self.training.context), explain_table(self.formulas)]
        return found

    @property
    def shows_training(self) -> bool:
        """Whether the run itself is drawn: not where hardware is compared, or generating alone was asked for."""
        other = self.generation is not None and self.training.tokens_origin != "as given" and self.budget is None
        return self.comparison is None and not other

    def _size(self) -> Table:
        columns = (Column("", "left"), *(Column(precision) for precision in self.weight_bytes))
        row = ("weights", *(bytes_text(count) for count in self.weight_bytes.values()))
        title = f"{self.model}: {self.parameters:,} parameters"
        return Table(title, columns, (row,), note=describe(self.shape))

    def _training(self) -> Table:
        table = self.training.table()
        if self.deadline is None:
            return table
        return replace(table, note=f"{_deadline_text(self.deadline)}\n{table.note}")


def plan(
    model: str | Path | Shape | Recipe | None = None,
    *,
    tokens: float | str | None = None,
    context: int | str | None = None,
    on: str | Accelerator | Sequence[str | Accelerator] = (),
    count: int | str | None = None,
    price: float | str | None = None,
    tflops: float | str | None = None,
    budget: float | str | None = None,
    days: float | str | None = None,
    fits: str | Sequence[str] = DEFAULT_FIT,
    run: bool = False,
    batch: int | str = 1,
    layout: bool = False,
    batch_tokens: float | str | None = None,
    node_size: int | str | None = None,
    network_gb_s: float | str | None = None,
    compare_devices: bool = False,
    devices: Path | str | None = None,
    explain: bool = False,
    plot: Path | str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Sizes, compute, memory, time and money of a model, reckoned before they are spent.

    `model` is a preset ("gpt3-175b"), a recipe, a config.json or its folder, a `ModelSpec`, or None with a `budget` in
    dollars or `days`: then the best size for it is found. `on` names accelerators (several are compared), `count` of
    them; `tflops` and `price` are per device, as achieved and per hour. `fits` are scaling laws. `run` plans generating
    `batch` sequences (on this machine, where no device is named), `layout` searches how to divide the training.
    `devices` is a TOML file with accelerators of one's own, `plot` an .svg to write; `note` is told of what takes
    seconds.

    Numbers may be text, as "300B". Raises `RequestError` in one line for what cannot be.
    """
    laws = (fits,) if isinstance(fits, str) else tuple(fits)
    for law in laws:
        find_fit(law)
    many = None if count is None else read_count(count, "count", _MAX_DEVICES, "--count 8")
    hourly = _number(price, "price", 1e-6, 1e6, "--price 2.50")
    reached = _number(tflops, "tflops", 1e-6, 1e6, "--tflops 140")
    dollars = _number(budget, "budget", 1e-2, 1e15, "--budget 10000")
    until = _number(days, "days", 1e-6, 1e6, "--days 30")
    wanted = _number(tokens, "tokens", 1, _MAX_TOKENS, "--tokens 300B")
    chosen = _accelerators(on, compare_devices, devices)
    device = chosen[0] if chosen and not compare_devices and len(chosen) == 1 else None
    rate = None
    if reached is not None:
        rate = training.given_rate(reached, _needed(device, "tflops is of a device"))
    spent = None
    if dollars is not None or (until is not None and wanted is None):
        one = _needed(device, "a budget is spent on a device")
        paid, _ = training.chosen_price(one, hourly)
        spent = budgeted.budget_of(dollars, until, many or 1, None if paid is None else paid.usd_per_hour)
        if wanted is not None:
            raise RequestError("tokens and a budget cannot both be given: one follows from the other", "keep one")
    if model is None:
        if spent is None:
            raise RequestError("no model was named", "for example chatsmith plan gpt3-175b, or a --budget with --on")
        found_shape, best, rate = budgeted.best_use(spent, _needed(device, ""), rate, laws[0])
        named = Named(f"a model of {short(best.parameters)}", found_shape)
    else:
        named = resolve(model)
    length = _context(context, named)
    if spent is not None:
        rate = rate or training.expected_rate(named.shape, _needed(device, ""), length)
        bought = spent.flops_6nd(named.shape, rate, length)
        wanted, origin = bought / 6 / named.shape.parameters, f"what {spent.bound_by} buys"
        if wanted < 1:
            raise RequestError("this budget buys less than one token", "give more, or name a smaller model")
    else:
        wanted, origin = _tokens(wanted, named, laws[0])
    if run and len(chosen) > 1 and not compare_devices:
        raise RequestError("generating is planned on one device", "keep one --on, or leave --run out")
    divided = None
    if layout:
        one, spec = _needed(device, "a layout is for a device"), _decoder(named, "layouts are searched")
        divided = _search(spec, one, many, length, batch_tokens, named.rows, node_size, network_gb_s)
        rate = rate or _layout_rate(divided, one)
    trained = training.plan_training(
        named.shape, wanted, origin, length, accelerator=device, count=many or 1, rate=rate, usd_per_hour=hourly
    )
    result = Plan(
        named.name,
        named.shape,
        named.shape.parameters,
        named.shape.parameter_terms,
        {precision: named.shape.parameters * bits / 8 for precision, bits in generation.BITS.items()},
        trained,
        budgeted.expectations(named.shape, wanted, laws) if isinstance(named.shape, ModelSpec) else (),
        spent,
        None if until is None or spent is not None else budgeted.deadline(trained, until, many),
        _printed(named.name, trained),
        _generation(named, context, batch, device, many or 1, note) if run else None,
        divided,
        compare(named.shape, wanted, length, chosen, count=many or 1, usd_per_hour=hourly)
        if compare_devices or len(chosen) > 1
        else None,
    )
    if explain:
        result = replace(result, formulas=_formulas(result))
    if plot is not None:
        _plot(Path(plot), result, laws)
    return result


def fits(model: str | Path | None = None, *, note: Callable[[str], None] = lambda text: None) -> FitsReport:
    """Which sizes train and run on this very machine: every preset, or the one that is named.

    The machine is measured where it was not yet, in a process of its own; `note` is told so.
    """
    from chatsmith import machine, machine_rates
    from chatsmith.plan.fits import fits_here

    named = None if model is None else resolve(model)
    specs = PRESETS if named is None else {named.name: _decoder(named, "this machine is planned")}
    return fits_here(machine.describe(), machine_rates.rates(note), specs)


def resolve(model: str | Path | Shape | Recipe) -> Named:
    """The shape that a model's name, file or object stands for; `RequestError` with the nearest names."""
    if not isinstance(model, (str, Path)):
        if hasattr(model, "schedule"):
            recipe = cast("Recipe", model)
            return _from_recipe(recipe, recipe.name or "the recipe")
        return Named("the model", model)
    path, name = Path(model), str(model)
    if name.lower() in shape_names():
        return Named(name.lower(), shape(name))
    if path.suffix == ".toml":
        from chatsmith.train.recipe import load_recipe

        return _from_recipe(load_recipe(path), path.stem)
    if path.suffix == ".json" or path.is_dir():
        from chatsmith.store.hf_families import read_shape

        return Named(path.resolve().parent.name if path.suffix == ".json" else path.resolve().name, read_shape(path))
    hint = did_you_mean(name.lower(), shape_names())
    raise RequestError(f"no model called {name!r}, and no recipe or config.json of that name", hint)


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
    if isinstance(name, str) and name.lower() in shape_names() and isinstance(spec := shape(name), ModelSpec):
        return spec.vocab_size
    raise RequestError(
        "the recipe's vocabulary is not there yet, so its size is unknown", "add vocab_size = … under [model]"
    )


def _number(value: float | str | None, what: str, low: float, high: float, example: str) -> float | None:
    return None if value is None else read_number(value, what, low, high, example)


def _accelerators(
    on: str | Accelerator | Sequence[str | Accelerator], compare_all: bool, file: Path | str | None
) -> tuple[Accelerator, ...]:
    own = () if file is None else load_accelerators(Path(file))
    asked = (on,) if isinstance(on, (str, Accelerator)) else tuple(on)
    found = tuple(item if isinstance(item, Accelerator) else find_accelerator(item, own) for item in asked)
    if compare_all and not found:
        return tuple({device.name: device for device in (*catalogue().values(), *own)}.values())
    return found


def _needed(device: Accelerator | None, why: str) -> Accelerator:
    if device is None:
        raise RequestError(f"{why}: name one", "for example --on h100")
    return device


def _decoder(named: Named, what: str) -> ModelSpec:
    if not isinstance(named.shape, ModelSpec):
        raise RequestError(f"{what} for decoders; {named.name} is none", "leave the option out")
    return named.shape


def _context(asked: int | str | None, named: Named) -> int:
    if asked is not None:
        return read_count(asked, "context", _MAX_CONTEXT, "--context 2048")
    longest: Any = getattr(named.shape, "context", 2048)
    return int(named.context or longest)


def _tokens(asked: float | None, named: Named, fit: str) -> tuple[float, str]:
    if asked is not None:
        return asked, "as given"
    if named.tokens is not None:
        return float(named.tokens), "as in the recipe"
    if named.name.startswith("gpt3-"):
        return published.GPT3_TOKENS, "as published"
    size = named.shape.parameters if find_fit(fit).counts_embeddings else body_parameters(named.shape)
    return optimal_tokens(size, fit), f"compute-optimal by {fit}"


def _search(
    spec: ModelSpec,
    device: Accelerator,
    count: int | None,
    context: int,
    batch_tokens: float | str | None,
    rows: int | None,
    node_size: int | str | None,
    network_gb_s: float | str | None,
) -> LayoutPlan:
    from chatsmith.plan.layout import search
    from chatsmith.plan.parallel import links_of

    if count is None:
        raise RequestError("a layout needs a number of devices", "for example --count 64")
    asked = _number(batch_tokens, "batch-tokens", 1, _MAX_TOKENS, "--batch-tokens 2M")
    links = links_of(device)
    if node_size is not None:
        links = replace(links, node=read_count(node_size, "node-size", _MAX_DEVICES, "--node-size 8"))
    network = _number(network_gb_s, "network", 1e-3, 1e6, "--network 50")
    if network is not None:
        links = replace(links, between=network * 1e9)
    step = rows if asked is None else max(1, round(asked / context))
    return search(spec, device, count, rows=step, context=context, links=links)


def _layout_rate(divided: LayoutPlan, device: Accelerator) -> training.Rate:
    tflops = divided.model_tflops_per_device
    return training.Rate(tflops, tflops / device.training_tflops, "predicted for the layout below", True)


def _generation(
    named: Named,
    context: int | str | None,
    batch: int | str,
    device: Accelerator | None,
    count: int,
    note: Callable[[str], None],
) -> generation.Generation:
    spec = _decoder(named, "generating is planned")
    sequences = read_count(batch, "batch", 10**6, "--batch 8")
    length = read_count(context, "context", _MAX_CONTEXT, "--context 2048") if context else min(spec.context, 2048)
    held = generation.device_of(device, count) if device is not None else _this_machine(note)
    return generation.plan_generation(spec, length, sequences, held)


def _this_machine(note: Callable[[str], None]) -> generation.Device:
    """What generation can be planned on where no device is named: this machine, as it was measured."""
    from chatsmith import machine, machine_rates
    from chatsmith.plan.fits import this_device

    return this_device(machine.describe(), machine_rates.rates(note))


def _printed(name: str, trained: training.Training) -> tuple[published.Printed, ...]:
    found = published.printed_sizes(name)
    if trained.accelerator is not None and trained.rate is not None:
        hourly = None if trained.price is None else trained.price.usd_per_hour
        found += published.printed_costs(name, trained.tokens, trained.accelerator, trained.rate.tflops, hourly)
    return found


def _formulas(result: Plan) -> tuple[Formula, ...]:
    trained = result.training
    found = parameter_formulas(result.shape) + training_formulas(result.shape, trained.tokens, trained.context)
    found += training.spending_formulas(trained)
    if result.generation is not None and isinstance(result.shape, ModelSpec):
        found += generation.generation_formulas(result.shape, result.generation)
    return found


def _plot(path: Path, result: Plan, laws: Sequence[str]) -> None:
    from chatsmith.plan.picture import RunPoint, write_plot

    trained, size = result.training, result.shape
    point = RunPoint(result.model, trained.flops_6nd, size.parameters, trained.tokens, body_parameters(size))
    offers = result.comparison or compare(size, trained.tokens, trained.context, catalogue().values())
    write_plot(path, [find_fit(law) for law in laws], point, offers)


def _deadline_text(found: budgeted.Deadline) -> str:
    span = duration_text(found.days * 86400)
    if found.count is None or found.tflops_needed is None:
        return f"done in {span} on {found.devices_needed:,} devices"
    return f"done in {span} on {found.count:,} devices if each reaches {rate_text(found.tflops_needed)}"
