"""What an hour of an accelerator costs, by provider and date: rows of data, none of them a promise.

The same chip is listed at prices three to five times apart, and they change within months. So a price is always shown
with its provider and date, and `--price` sets another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from chatsmith.plan.accelerators import read_data

_YEARS_CURRENT = 2  # listings this much older than the newest of a device no longer decide


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for an hour of one device. `checked` says how well: in the "source", at "second hand", or "no"."""

    accelerator: str
    usd_per_hour: float
    provider: str = ""
    as_of: str = ""
    spot_usd_per_hour: float | None = None
    instance: str = ""
    devices: int = 1
    kind: str = "listed"
    source: str = ""
    checked: str = ""
    note: str = ""

    def describe(self) -> str:
        """The price with its origin: "$2.95 an hour (Nebius, 2025)"."""
        origin = ", ".join(word for word in (self.provider, self.as_of) if word)
        doubt = ", unchecked" if self.checked == "no" else ""
        return f"${self.usd_per_hour:.2f} an hour" + (f" ({origin}{doubt})" if origin else "")


@dataclass(frozen=True, slots=True)
class PriceRange:
    """The listings that decide: the middle one, the lowest and the highest, and how many there are."""

    middle: Price
    low_usd_per_hour: float
    high_usd_per_hour: float
    listings: int


@cache
def all_prices() -> tuple[Price, ...]:
    """Every row of the data file."""
    return tuple(
        Price(
            accelerator=row["accelerator"],
            usd_per_hour=float(row["usd_per_hour"]),
            provider=row["provider"],
            as_of=row["as_of"],
            spot_usd_per_hour=float(row["spot_usd_per_hour"]) if row["spot_usd_per_hour"] else None,
            instance=row["instance"],
            devices=int(row["devices"]),
            kind=row["kind"],
            source=row["source"],
            checked=row["checked"],
            note=row["note"],
        )
        for row in read_data("prices.csv")
    )


def prices_of(accelerator: str) -> tuple[Price, ...]:
    """The prices of one device, newest first."""
    rows = [price for price in all_prices() if price.accelerator == accelerator]
    return tuple(sorted(rows, key=lambda price: price.as_of, reverse=True))


def price_range(accelerator: str) -> PriceRange | None:
    """What a device is listed at: the middle of its newest two years; None where no price is known.

    Prices that a paper merely assumed count only where nobody lists the device.
    """
    rows = prices_of(accelerator)
    listed = [price for price in rows if price.kind == "listed"] or list(rows)
    if not listed:
        return None
    oldest = max(int(price.as_of[:4]) for price in listed) - _YEARS_CURRENT + 1
    return _spread([price for price in listed if int(price.as_of[:4]) >= oldest])


def _spread(rows: Sequence[Price]) -> PriceRange:
    ordered = sorted(rows, key=lambda price: price.usd_per_hour)
    return PriceRange(ordered[(len(ordered) - 1) // 2], ordered[0].usd_per_hour, ordered[-1].usd_per_hour, len(ordered))
