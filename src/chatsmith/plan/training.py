"""What a training run takes on given devices: time, money and energy, at a rate that says where it comes from.

The rate decides everything, and it is the figure that is most often wished rather than known. So it always carries its
origin: given by the person, or predicted from the shapes of the matrices for one device without links, or by a layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatsmith.counts import Shape
from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import PRECISIONS, Accelerator
from chatsmith.plan.formulas import Formula
from chatsmith.plan.prices import Price, PriceRange, price_range
from chatsmith.plan.quantities import (
    SECONDS_PER_DAY,
    SECONDS_PER_HOUR,
    SECONDS_PER_YEAR,
    duration_text,
    duration_unit,
    energy_text,
    flops_text,
    rate_text,
    short,
    usd_text,
)
from chatsmith.specs import ModelSpec
from chatsmith.specs_families import EncoderSpec
from chatsmith.tables import Column, Table

# Where nothing better is known: what well-kept runs reach of the dense 16-bit peak.
ASSUMED_SHARE = 0.40


@dataclass(frozen=True, slots=True)
class Rate:
    """TFLOP/s that one device achieves in training, the share of its peak, and where the figure comes from.

    `counts_attention` tells the convention: whether the FLOPs of attention are among those counted.
    """

    tflops: float
    share_of_peak: float
    origin: str
    counts_attention: bool


@dataclass(frozen=True, slots=True)
class Spending:
    """What so many FLOPs take: on one device, on all of them, in dollars and in energy of the devices alone."""

    flops: float
    device_years: float
    days: float
    usd: float | None
    kilowatt_hours: float | None


@dataclass(frozen=True, slots=True)
class Training:
    """A training run: tokens and compute, and where a device is named, what it takes on `count` of them.

    `by_6nd` is set where the rate was given: it then stands for whatever count one has in mind, and both are shown.
    """

    tokens: float
    tokens_origin: str
    context: int
    flops_6nd: float
    flops_with_attention: float
    accelerator: Accelerator | None = None
    count: int = 1
    rate: Rate | None = None
    price: Price | None = None
    prices: PriceRange | None = None
    with_attention: Spending | None = None
    by_6nd: Spending | None = None

    def table(self) -> Table:
        """The run as a table: a column for 6ND, and one with attention."""
        more = self.flops_with_attention / self.flops_6nd
        rows = [("compute", f"{flops_text(self.flops_6nd)} FLOPs", f"{flops_text(self.flops_with_attention)} FLOPs")]
        if self.accelerator is not None and self.with_attention is not None:
            spent = [_spending_cells(found, self.count) for found in (self.by_6nd, self.with_attention)]
            rows += [(name, spent[0].get(name, ""), cell) for name, cell in spent[1].items()]
        title = f"Training on {short(self.tokens)} tokens ({self.tokens_origin}), {self.context:,} at a time"
        columns = (Column("", "left"), Column("6 × parameters × tokens"), Column(f"with attention ({more:.2f} ×)"))
        return Table(title, columns, tuple(rows), note="\n".join(self.notes()))

    def notes(self) -> list[str]:
        """Where the rate and the price come from."""
        if self.accelerator is None or self.rate is None:
            return []
        rate, device = self.rate, self.accelerator
        precision = device.training_precision
        peak = f"{rate.share_of_peak:.0%} of its {precision} peak of {device.training_tflops:g}"
        found = [f"{device.name} at {rate_text(rate.tflops)}, {rate.origin}: {peak}"]
        if self.price is None:
            found.append(f"no price of {device.name} is known; give one with --price")
        else:
            said = f"price: {self.price.describe()}"
            if self.prices is not None and self.prices.listings > 1:
                low, high = self.prices.low_usd_per_hour, self.prices.high_usd_per_hour
                said += f", the middle of {self.prices.listings} listings from ${low:.2f} to ${high:.2f}"
            found.append(said)
        return found


def _spending_cells(spent: Spending | None, count: int) -> dict[str, str]:
    """What is shown of a spending, by name."""
    if spent is None:
        return {}
    cells = {"time on one device": duration_text(spent.device_years * SECONDS_PER_YEAR)}
    if count > 1:
        cells[f"time on {count:,}"] = duration_text(spent.days * SECONDS_PER_DAY)
    if spent.usd is not None:
        cells["cost"] = usd_text(spent.usd)
    if spent.kilowatt_hours is not None:
        cells["energy of the devices"] = energy_text(spent.kilowatt_hours)
    return cells


def given_rate(tflops: float, accelerator: Accelerator) -> Rate:
    """A rate that a person gave; `RequestError` where it lies above every peak of the device."""
    peaks = [peak for p in PRECISIONS if p != "int8" and (peak := accelerator.peak_tflops(p)) is not None]
    peaks = peaks or [accelerator.training_tflops]
    if tflops > max(peaks):
        raise RequestError(
            f"{tflops:g} TFLOP/s is more than the {accelerator.name} can do: its peak is {max(peaks):g} (dense)",
            f"large runs reach a third to a half of {accelerator.training_tflops:g}",
        )
    return Rate(tflops, tflops / accelerator.training_tflops, "as given", counts_attention=False)


def expected_rate(shape: Shape, accelerator: Accelerator, context: int | None = None) -> Rate:
    """The rate to expect of one device: predicted for a decoder, else a share of the peak that is assumed."""
    peak = accelerator.training_tflops
    if isinstance(shape, ModelSpec):
        from chatsmith.plan.efficiency import device_tflops  # with numpy, which most plans do without

        tflops = device_tflops(shape, accelerator, context)
        return Rate(tflops, tflops / peak, "predicted for one, without links", counts_attention=True)
    return Rate(ASSUMED_SHARE * peak, ASSUMED_SHARE, "assumed", counts_attention=True)


def chosen_price(accelerator: Accelerator, usd_per_hour: float | None) -> tuple[Price | None, PriceRange | None]:
    """The price that was given, else the middle of what is listed; both None where nothing is known."""
    if usd_per_hour is not None:
        return Price(accelerator.name, usd_per_hour, provider="as given"), None
    found = price_range(accelerator.name)
    return (None, None) if found is None else (found.middle, found)


def spend(flops: float, accelerator: Accelerator, count: int, tflops: float, usd_per_hour: float | None) -> Spending:
    """Time, money and energy of `flops` on `count` devices at `tflops` each."""
    seconds = flops / (tflops * 1e12)  # of one device
    hours = seconds / SECONDS_PER_HOUR
    return Spending(
        flops,
        seconds / SECONDS_PER_YEAR,
        seconds / count / SECONDS_PER_DAY,
        None if usd_per_hour is None else hours * usd_per_hour,
        None if accelerator.power_w is None else hours * accelerator.power_w / 1e3,
    )


def check_context(shape: Shape, context: int) -> None:
    """Raise `RequestError` where rows are longer than the positions that the model has learned reach."""
    learned = isinstance(shape, EncoderSpec) or (isinstance(shape, ModelSpec) and shape.positions == "learned")
    if learned and context > shape.context:
        raise RequestError(
            f"this model has positions for {shape.context:,} tokens, not {context:,}", f"--context {shape.context}"
        )


def plan_training(
    shape: Shape,
    tokens: float,
    tokens_origin: str,
    context: int,
    *,
    accelerator: Accelerator | None = None,
    count: int = 1,
    rate: Rate | None = None,
    usd_per_hour: float | None = None,
) -> Training:
    """The run of `shape` over `tokens`; with a device also what it takes there."""
    flops_6nd = 6.0 * shape.parameters * tokens
    exact = shape.training_flops_per_token(context) * tokens
    plain = Training(tokens, tokens_origin, context, flops_6nd, exact)
    if accelerator is None:
        return plain
    rate = rate or expected_rate(shape, accelerator, context)
    price, prices = chosen_price(accelerator, usd_per_hour)
    hourly = None if price is None else price.usd_per_hour
    return Training(
        tokens,
        tokens_origin,
        context,
        flops_6nd,
        exact,
        accelerator,
        count,
        rate,
        price,
        prices,
        spend(exact, accelerator, count, rate.tflops, hourly),
        None if rate.counts_attention else spend(flops_6nd, accelerator, count, rate.tflops, hourly),
    )


def spending_formulas(run: Training) -> tuple[Formula, ...]:
    """How time, money and energy follow from the compute."""
    if run.accelerator is None or run.rate is None or run.with_attention is None:
        return ()
    spent = run.by_6nd or run.with_attention
    seconds = spent.device_years * SECONDS_PER_YEAR
    unit, spent_hours = duration_unit(seconds), seconds / SECONDS_PER_HOUR
    hours = f"{spent_hours:,.0f}" if spent_hours >= 1000 else f"{spent_hours:.4g}"
    found = [
        Formula(
            "time on one device",
            "FLOPs / rate",
            f"{flops_text(spent.flops)} / {run.rate.tflops:.4g}e12 FLOP/s" + (f" / {unit:,.0f} s" if unit > 1 else ""),
            spent.device_years,
            "years",
            f"the rate is {run.rate.origin}",
            shown=duration_text(seconds),
        )
    ]
    if run.price is not None and spent.usd is not None:
        found.append(
            Formula(
                "cost",
                "device-hours × price",
                f"{hours} h × ${run.price.usd_per_hour:.2f}",
                spent.usd,
                "dollars",
                f"price: {run.price.describe()}",
                "devices alone: no storage, network, failures or trials",
                shown=usd_text(spent.usd),
            )
        )
    if spent.kilowatt_hours is not None and run.accelerator.power_w is not None:
        found.append(
            Formula(
                "energy",
                "device-hours × rated power",
                f"{hours} h × {run.accelerator.power_w:g} W",
                spent.kilowatt_hours,
                "kWh",
                "rated power from the data sheet",
                "an upper bound for the devices; hosts, network and cooling come on top",
                shown=energy_text(spent.kilowatt_hours),
            )
        )
    return tuple(found)
