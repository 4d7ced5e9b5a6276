"""One training run on many devices, ranked by money and by time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chatsmith.counts import Shape
from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.prices import Price
from chatsmith.plan.quantities import SECONDS_PER_DAY, duration_text, short, usd_text
from chatsmith.plan.training import Training, plan_training
from chatsmith.tables import Column, Table


@dataclass(frozen=True, slots=True)
class Offer:
    """One device for a run: its rate, and what the run takes on `count` of them; ranks count from 1, the best.

    `devices_to_hold` is the least number whose memory holds 16 bytes a parameter: weights, gradients and AdamW's state.
    """

    accelerator: str
    vendor: str
    tflops: float
    share_of_peak: float
    days: float
    usd: float | None
    price: Price | None
    kilowatt_hours: float | None
    rank_by_money: int | None
    rank_by_time: int
    devices_to_hold: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same run on many devices, cheapest first, those without a known price last."""

    tokens: float
    count: int
    offers: tuple[Offer, ...]

    def table(self) -> Table:
        """The offers, a row each."""
        rows = tuple(
            (
                "–" if offer.rank_by_money is None else str(offer.rank_by_money),
                offer.accelerator,
                "–" if offer.usd is None else usd_text(offer.usd),
                duration_text(offer.days * SECONDS_PER_DAY),
                str(offer.rank_by_time),
                f"{offer.tflops:,.0f} {offer.share_of_peak:.0%}",
                f"{offer.devices_to_hold:,}",
                *_price_cells(offer.price),
            )
            for offer in self.offers
        )
        on = "one" if self.count == 1 else f"{self.count:,}"
        columns = (
            Column("#"),
            Column("device", "left"),
            Column("cost"),
            Column(f"time on {on}"),
            Column("#"),
            Column("TFLOP/s"),
            Column("hold it"),
            Column("$/h"),
            Column("listed by", "left", wrap=True),
        )
        note = (
            "#: rank by money and by time. TFLOP/s: predicted for one device without links, and the share of its peak. "
            "hold it: how many it takes for weights, gradients and AdamW's state, before any activations. ?: unchecked "
            "or assumed."
        )
        return Table(f"{short(self.tokens)} tokens on each device, cheapest first", columns, rows, note=note)


def _price_cells(price: Price | None) -> tuple[str, str]:
    """Dollars an hour, and who lists it in which year; a price that is unchecked or was only assumed is marked."""
    if price is None:
        return "–", "no price known"
    doubtful = price.checked == "no" or price.kind == "cited"
    return f"{price.usd_per_hour:.2f}", f"{price.provider} {price.as_of[:4]}{' ?' * doubtful}"


def compare(
    shape: Shape,
    tokens: float,
    context: int,
    accelerators: Iterable[Accelerator],
    *,
    count: int = 1,
    usd_per_hour: float | None = None,
) -> Comparison:
    """The run on each of these devices, ranked by money and by time."""
    runs: list[Training] = [
        plan_training(shape, tokens, "", context, accelerator=device, count=count, usd_per_hour=usd_per_hour)
        for device in accelerators
    ]
    dollars = sorted(
        run.with_attention.usd for run in runs if run.with_attention and run.with_attention.usd is not None
    )
    days = sorted(run.with_attention.days for run in runs if run.with_attention)
    offers = [_offer(run, dollars, days, 16 * shape.parameters) for run in runs]
    offers.sort(key=lambda offer: (offer.usd is None, offer.usd, offer.days))
    return Comparison(tokens, count, tuple(offers))


def _offer(run: Training, dollars: Sequence[float], days: Sequence[float], state_bytes: int) -> Offer:
    spent = run.with_attention
    assert spent is not None
    assert run.accelerator is not None
    assert run.rate is not None
    return Offer(
        run.accelerator.name,
        run.accelerator.vendor,
        run.rate.tflops,
        run.rate.share_of_peak,
        spent.days,
        spent.usd,
        run.price,
        spent.kilowatt_hours,
        None if spent.usd is None else dollars.index(spent.usd) + 1,
        days.index(spent.days) + 1,
        math.ceil(state_bytes / (run.accelerator.memory_gb * 1e9)),
    )
