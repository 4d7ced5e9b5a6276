"""The third door for Python: `chatsmith.plan(...)` says what a model takes, before it is spent.

It puts together what `plan/` reckons; `named` reads what a model may be named by. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chatsmith.counts import Shape
from chatsmith.errors import RequestError
from chatsmith.named import Named, decoder, describe, resolve
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
from chatsmith.tables import Column, Report, Table

if TYPE_CHECKING:
    from chatsmith.plan.fits import FitsReport
    from chatsmith.plan.layout_plan import LayoutPlan
    from chatsmith.plan.parallel import Links
    from chatsmith.train.recipe import Recipe

_MAX_TOKENS, _MAX_DEVICES, _MAX_CONTEXT = 1e18, 10**7, 2**24
_GENERATED_CONTEXT = 2048  # tokens of a sequence where nothing else was asked, and the model reaches so far


@dataclass(frozen=True, slots=True, repr=False)
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

    @property
    def headline(self) -> str:
        """The model and its size."""
        return f"{self.model}: {self.parameters:,} parameters"

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
        return Table(self.headline, columns, (row,), note=describe(self.shape))

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

    Args:
        model: A preset ("gpt3-175b"), a recipe, a config.json or its folder, a `ModelSpec`; None: best for a budget.
        tokens, context: How much is trained on, and in rows of what length.
        on, count: Accelerators by name (several are compared), and how many of them.
        price, tflops: Of each of them: dollars an hour, and TFLOP/s as achieved.
        budget, days: Dollars and days to spend.
        fits: Scaling laws by name.
        run, batch: Plan generating so many sequences at a time (on this machine, where no device is named).
        layout, batch_tokens, node_size, network_gb_s: Search how to divide the training; GB/s between nodes, one way.
        compare_devices, devices: Rank hardware by money and time; a TOML file with accelerators of one's own.
        explain, plot, note: Show each formula with its numbers; an .svg to draw into; is told of what takes seconds.

    Numbers may be text, as "300B". Raises `RequestError` in one line for what cannot be.
    """
    asked = _Asked(
        laws=(fits,) if isinstance(fits, str) else tuple(fits),
        tokens=_number(tokens, "tokens", 1, _MAX_TOKENS, "--tokens 300B"),
        context=None if context is None else read_count(context, "context", _MAX_CONTEXT, "--context 2048"),
        count=None if count is None else read_count(count, "count", _MAX_DEVICES, "--count 8"),
        usd_per_hour=_number(price, "price", 1e-6, 1e6, "--price 2.50"),
        tflops=_number(tflops, "tflops", 1e-6, 1e6, "--tflops 140"),
        usd=_number(budget, "budget", 1e-2, 1e15, "--budget 10000"),
        days=_number(days, "days", 1e-6, 1e6, "--days 30"),
        devices=_accelerators(on, compare_devices, devices),
        compares=compare_devices,
    )
    rate, spent = asked.rate(), asked.budget()
    if model is None:
        if spent is None:
            raise RequestError("no model was named", "for example chatsmith plan gpt3-175b, or a --budget with --on")
        found, best = budgeted.best_use(spent, asked.needed("a budget"), rate, asked.laws[0])
        named = Named(f"a model of {short(best.parameters)}", found)
    else:
        named = resolve(model)
    length = asked.context or named.context or named.shape.context
    training.check_context(named.shape, length)
    divided = None
    if layout:
        links = _links(asked.needed("a layout"), node_size, network_gb_s)
        divided = _search(
            asked, decoder(named, "layouts are searched"), length, _rows(batch_tokens, length, named), links
        )
        rate = rate or _layout_rate(divided, asked.needed("a layout"))
    amount, origin = _tokens(asked, spent, named, length, rate)
    trained = training.plan_training(
        named.shape,
        amount,
        origin,
        length,
        accelerator=asked.device,
        count=asked.count or 1,
        rate=rate,
        usd_per_hour=asked.usd_per_hour,
    )
    is_decoder, compared = isinstance(named.shape, ModelSpec), compare_devices or len(asked.devices) > 1
    result = Plan(
        named.name,
        named.shape,
        named.shape.parameters,
        named.shape.parameter_terms,
        {precision: named.shape.parameters * bits / 8 for precision, bits in generation.BITS.items()},
        trained,
        expectations=budgeted.expectations(named.shape, amount, asked.laws) if is_decoder else (),
        budget=spent,
        deadline=None if asked.days is None or spent else budgeted.deadline(trained, asked.days, asked.count),
        printed=_printed(named.name, trained),
        generation=_generation(asked, named, batch, note) if run else None,
        layout=divided,
        comparison=_compare(asked, named, amount, length) if compared else None,
    )
    if explain:
        result = replace(result, formulas=_formulas(result))
    if plot is not None:
        _plot(Path(plot), result, asked.laws)
    return result


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for, read and within bounds."""

    laws: tuple[str, ...]
    tokens: float | None
    context: int | None
    count: int | None
    usd_per_hour: float | None
    tflops: float | None
    usd: float | None
    days: float | None
    devices: tuple[Accelerator, ...]
    compares: bool

    def __post_init__(self) -> None:
        for law in self.laws:
            find_fit(law)
        if self.usd is not None and self.tokens is not None:
            raise RequestError("tokens and a budget cannot both be given: one follows from the other", "keep one")

    @property
    def device(self) -> Accelerator | None:
        """The one device that was named; None where none was, or several are compared."""
        return self.devices[0] if len(self.devices) == 1 and not self.compares else None

    def needed(self, what: str) -> Accelerator:
        """The one device; `RequestError` where `what` has none to stand on."""
        if self.device is None:
            raise RequestError(f"{what} is for one kind of device: name it", "for example --on h100")
        return self.device

    def rate(self) -> training.Rate | None:
        """The rate that was given."""
        return None if self.tflops is None else training.given_rate(self.tflops, self.needed("a rate"))

    def budget(self) -> budgeted.Budget | None:
        """What there is to spend: money, or days where they are no deadline for given tokens."""
        if self.usd is None and (self.days is None or self.tokens is not None):
            return None
        price, _ = training.chosen_price(self.needed("a budget"), self.usd_per_hour)
        hourly = None if price is None else price.usd_per_hour
        return budgeted.budget_of(self.usd, self.days, self.count or 1, hourly)


def fits(model: str | Path | None = None, *, note: Callable[[str], None] = lambda text: None) -> FitsReport:
    """Which sizes train and run on this very machine: every preset, or the one that is named.

    The machine is measured where it was not yet, in a process of its own; `note` is told so.
    """
    from chatsmith import machine, machine_rates
    from chatsmith.plan.fits import fits_here

    named = None if model is None else resolve(model)
    specs = PRESETS if named is None else {named.name: decoder(named, "this machine is planned")}
    return fits_here(machine.describe(), machine_rates.rates(note), specs)


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


def _tokens(
    asked: _Asked, spent: budgeted.Budget | None, named: Named, context: int, rate: training.Rate | None
) -> tuple[float, str]:
    """Tokens to train on, and why so many."""
    if spent is not None:
        rate = rate or training.expected_rate(named.shape, asked.needed("a budget"), context)
        bought = spent.flops_6nd(named.shape, rate, context) / 6 / named.shape.parameters
        if bought < 1:
            raise RequestError("this budget buys less than one token", "give more, or name a smaller model")
        return bought, f"what {spent.bound_by} buys"
    if asked.tokens is not None:
        return asked.tokens, "as given"
    if named.tokens is not None:
        return float(named.tokens), "as in the recipe"
    told = published.published_tokens(named.name)
    if told is not None:
        return told, "as in Table D.1 of Brown et al. 2020"
    fit = asked.laws[0]
    size = named.shape.parameters if find_fit(fit).counts_embeddings else body_parameters(named.shape)
    return optimal_tokens(size, fit), f"compute-optimal by {fit}"


def _rows(batch_tokens: float | str | None, context: int, named: Named) -> int | None:
    """Rows of a step: about as asked, else as in the recipe, else left to the search.

    A batch in tokens is a round figure; its rows are rounded, by an eighth at most, to a number that divides well: of
    2,048 tokens 256 for 0.5M, 1,024 for 2M, and 1,536 for GPT-3's 3.2M.
    """
    asked = _number(batch_tokens, "batch-tokens", 1, _MAX_TOKENS, "--batch-tokens 2M")
    if asked is None:
        return named.rows
    rows = max(1, round(asked / context))
    unit = 2 ** max(0, math.floor(math.log2(rows)) - 2)
    return max(1, round(rows / unit)) * unit


def _links(device: Accelerator, node_size: int | str | None, network_gb_s: float | str | None) -> Links:
    from chatsmith.plan.parallel import links_of

    links = links_of(device)
    if node_size is not None:
        links = replace(links, node=read_count(node_size, "node-size", _MAX_DEVICES, "--node-size 8"))
    network = _number(network_gb_s, "network", 1e-3, 1e6, "--network 50")
    return links if network is None else replace(links, between=network * 1e9)


def _search(asked: _Asked, spec: ModelSpec, context: int, rows: int | None, links: Links) -> LayoutPlan:
    from chatsmith.plan.layout import search

    if asked.count is None:
        raise RequestError("a layout needs a number of devices", "for example --count 64")
    return search(spec, asked.needed("a layout"), asked.count, rows=rows, context=context, links=links)


def _layout_rate(divided: LayoutPlan, device: Accelerator) -> training.Rate:
    tflops = divided.model_tflops_per_device
    return training.Rate(tflops, tflops / device.training_tflops, "predicted for the layout below", True)


def _generation(asked: _Asked, named: Named, batch: int | str, note: Callable[[str], None]) -> generation.Generation:
    spec = decoder(named, "generating is planned")
    if asked.devices:
        held = generation.device_of(asked.needed("generating"), asked.count or 1)
    else:
        held = _this_machine(note)
    context = asked.context or min(spec.context, _GENERATED_CONTEXT)
    return generation.plan_generation(spec, context, read_count(batch, "batch", 10**6, "--batch 8"), held)


def _compare(asked: _Asked, named: Named, tokens: float, context: int) -> Comparison:
    count, hourly = asked.count or 1, asked.usd_per_hour
    return compare(named.shape, tokens, context, asked.devices, count=count, usd_per_hour=hourly)


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
    found = (*parameter_formulas(result.shape), generation.weight_formula(result.parameters))
    found += training_formulas(result.shape, trained.tokens, trained.context) + training.spending_formulas(trained)
    found += budgeted.loss_formulas(result.shape, trained.tokens, result.expectations)
    if result.layout is not None:
        from chatsmith.plan.layout_formulas import layout_formulas

        found += layout_formulas(result.layout)
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
