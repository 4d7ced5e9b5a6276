"""What a sum of money or of days buys: the compute, the size to train with it, and the loss that a fit expects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chatsmith.counts import Shape
from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.formulas import Formula, body_parameters
from chatsmith.plan.quantities import (
    SECONDS_PER_DAY,
    SECONDS_PER_HOUR,
    duration_text,
    flops_text,
    rate_text,
    short,
    usd_text,
)
from chatsmith.plan.scaling import CAVEAT, Optimum, find_fit, optimum
from chatsmith.plan.training import Rate, Training, expected_rate
from chatsmith.specs import ModelSpec, modern
from chatsmith.tables import Column, Table

EXAMPLE_VOCABULARY, EXAMPLE_CONTEXT = 50304, 2048


@dataclass(frozen=True, slots=True)
class Budget:
    """Device-seconds to spend, and what bounds them: the money, or the days on all devices."""

    device_seconds: float
    bound_by: str

    def flops_6nd(self, shape: Shape, rate: Rate, context: int) -> float:
        """What it buys, as 6ND of `shape`: a rate that counts attention spends a part of itself on it."""
        flops = self.device_seconds * rate.tflops * 1e12
        return (
            flops * 6 * shape.parameters / shape.training_flops_per_token(context) if rate.counts_attention else flops
        )


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a fit expects of the planned run (None without one), and the best it knows for the same compute."""

    fit: str
    source: str
    loss_nats_per_token: float | None
    best: Optimum


@dataclass(frozen=True, slots=True)
class Deadline:
    """What it takes to be done in `days`: devices at the expected rate, and the rate that `count` of them need."""

    days: float
    devices_needed: int
    count: int | None
    tflops_needed: float | None


def budget_of(usd: float | None, days: float | None, count: int, usd_per_hour: float | None) -> Budget:
    """The device-seconds that money and days allow, whichever ends first; `RequestError` where no price is known."""
    found = []
    if usd is not None:
        if usd_per_hour is None:
            raise RequestError("a budget in dollars needs a price, and none is known", "add --price 2.50")
        found.append(Budget(usd / usd_per_hour * SECONDS_PER_HOUR, f"{usd_text(usd)} at ${usd_per_hour:.2f} an hour"))
    if days is not None:
        many = f"{count:,} devices" if count > 1 else "one device"
        found.append(Budget(days * count * SECONDS_PER_DAY, f"{duration_text(days * SECONDS_PER_DAY)} on {many}"))
    return min(found, key=lambda budget: budget.device_seconds)


def example_shape(parameters: float) -> ModelSpec:
    """A shape of about so many parameters, as `chatsmith` trains them: 64 to 128 times as wide as it has layers, like
    the published sizes, with heads of 64 or 128 whose number divides well where many devices will share them."""
    step = 64 if parameters < 3e8 else 256 if parameters < 1e10 else 1024
    head = min(step, 128)
    wanted = min(max(64.0, 64.0 * (parameters / 1.25e8) ** 0.1), 128.0)
    best: tuple[float, ModelSpec] | None = None
    for layers in range(2, 257):
        for width in {step * max(1, round(wanted * layers * turn / step)) for turn in (0.75, 1.0, 1.25)}:
            spec = modern(EXAMPLE_VOCABULARY, EXAMPLE_CONTEXT, width, layers, width // head)
            miss = abs(math.log(spec.parameters / parameters)) + 0.1 * abs(math.log(width / layers / wanted))
            if best is None or miss < best[0]:
                best = miss, spec
        if best is not None and spec.parameters > 4 * parameters:
            break
    assert best is not None
    if not 1 / 3 < best[1].parameters / parameters < 3:
        raise RequestError(f"no sensible shape has {short(parameters)} parameters", "choose another budget")
    return best[1]


def best_use(budget: Budget, accelerator: Accelerator, rate: Rate | None, fit: str) -> tuple[ModelSpec, Optimum]:
    """A shape of the compute-optimal size for a budget, and that size.

    The rate depends on the shape and the shape on the compute, so they are settled together in a few rounds.
    """
    spec = example_shape(1e9)
    for _ in range(4):
        reached = rate or expected_rate(spec, accelerator, EXAMPLE_CONTEXT)
        best = optimum(budget.flops_6nd(spec, reached, EXAMPLE_CONTEXT), fit)
        spec = example_shape(best.parameters)
    return spec, best


def expectations(shape: Shape, tokens: float, fits: Sequence[str]) -> tuple[Expectation, ...]:
    """What each fit expects of `shape` trained on `tokens`, and its optimum for the same 6ND."""
    found = []
    for name in fits:
        law = find_fit(name)
        size = shape.parameters if law.counts_embeddings else body_parameters(shape)
        best = optimum(6.0 * shape.parameters * tokens, name)
        found.append(Expectation(law.name, law.source, law.loss(size, tokens), best))
    return tuple(found)


def loss_formulas(shape: Shape, tokens: float, rows: Sequence[Expectation]) -> tuple[Formula, ...]:
    """How each fit comes to the loss that it expects, and to its best size."""
    found = []
    for row in rows:
        law, best = find_fit(row.fit), row.best
        size = shape.parameters if law.counts_embeddings else body_parameters(shape)
        for name, n, d, loss in (
            (f"loss by {row.fit}", size, tokens, row.loss_nats_per_token),
            ("loss of its best size", best.parameters, best.tokens, best.loss_nats_per_token),
        ):
            if loss is not None:
                symbols, numbers = law.written(n, d)
                shown = f"{loss:.3f} nats"
                found.append(Formula(name, symbols, numbers, loss, "nats per token", row.source, law.text, shown))
    return tuple(found)


def expectation_table(rows: Sequence[Expectation]) -> Table:
    """The expectations, a row for each fit."""
    with_run = any(row.loss_nats_per_token is not None for row in rows)
    cells = []
    for row in rows:
        here = [] if not with_run else [f"{row.loss_nats_per_token:.3f}" if row.loss_nats_per_token else "–"]
        best = row.best
        loss = f"{best.loss_nats_per_token:.3f}"
        ratio = f"{best.tokens_per_parameter:.3g}"
        cells.append((row.fit, *here, short(best.parameters), short(best.tokens), ratio, loss))
    columns = (
        Column("fit", "left"),
        *([Column("this run")] if with_run else []),
        Column("best size"),
        Column("tokens"),
        Column("a parameter"),
        Column("its loss"),
    )
    title = f"Expected loss in nats per token, and the best use of {flops_text(rows[0].best.flops)} FLOPs"
    return Table(title, columns, tuple(cells), note="\n".join([*(f"{r.fit}: {r.source}" for r in rows), CAVEAT]))


def deadline(run: Training, days: float, count: int | None) -> Deadline:
    """What it takes to end `run` in `days`; raises `RequestError` where `count` devices cannot, whatever they reach."""
    spent = run.by_6nd or run.with_attention
    if run.accelerator is None or run.rate is None or spent is None:
        raise RequestError("days are counted on a device: name one", "for example --on h100")
    device_seconds = spent.flops / (run.rate.tflops * 1e12)
    seconds = days * SECONDS_PER_DAY
    if count is None:
        return Deadline(days, math.ceil(device_seconds / seconds), None, None)
    needed = run.flops_6nd / seconds / count / 1e12
    peak = run.accelerator.training_tflops
    if needed > peak:
        raise RequestError(
            f"{short(run.tokens)} tokens in {duration_text(seconds)} on {count:,} × {run.accelerator.name} would take "
            f"{rate_text(needed)} of each, even without attention: above its peak of {rate_text(peak)}",
            f"--count {math.ceil(device_seconds / seconds):,} would do at {rate_text(run.rate.tflops)} of each",
        )
    return Deadline(days, math.ceil(device_seconds / seconds), count, spent.flops / seconds / count / 1e12)
