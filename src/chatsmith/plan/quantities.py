"""Numbers as people give them and as people read them: "300B" tokens, 3.14e23 FLOPs, 356 years, $4.68 million."""

from __future__ import annotations

import math
import re

from chatsmith.errors import RequestError

SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 86400.0
SECONDS_PER_YEAR = 365 * SECONDS_PER_DAY
PF_DAY = 1e15 * SECONDS_PER_DAY  # FLOPs of a petaFLOP/s for a day

_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(r"([+-]?[0-9][0-9_,]*(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|[+-]?inf|nan) ?([a-z]?)", re.IGNORECASE)


def read_number(value: float | int | str, what: str, low: float, high: float, example: str) -> float:
    """A number within bounds, given as one or as text with K, M, B or T behind it; `RequestError` in one line else.

    `example` is what to type instead, as in "--tokens 300B".
    """
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else math.inf * (1 if value > 0 else -1)
    elif isinstance(value, str) and len(value) < 100 and (found := _NUMBER.fullmatch(value.strip())):
        scale = _SCALES.get(found[2].lower())
        number = math.nan if scale is None else float(re.sub("[_,]", "", found[1])) * scale
    if not low <= number <= high:
        said = f"{value:g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
        shown = f"from {_plain(low)} to {_plain(high)}"
        raise RequestError(f"{what} must be a number {shown}, not {said[:40]}", f"for example {example}")
    return number


def read_count(value: float | int | str, what: str, high: float, example: str) -> int:
    """A whole number from 1 to `high`, given as one or as text."""
    number = read_number(value, what, 1, high, example)
    if number != int(number):
        raise RequestError(f"{what} must be a whole number, not {number:g}", f"for example {example}")
    return int(number)


def _plain(number: float) -> str:
    return f"{number:,.0f}" if 1 <= number < 1e9 else f"{number:g}".replace("e+", "e").replace("e-0", "e-")


def short(number: float, digits: int = 4) -> str:
    """A large count: 174.6 B, 1.316 B, 124.4 M, 930 K; below a thousand as it is."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= scale * (1 - 0.5 * 10**-digits):
            return f"{_rounded(number / scale, digits)} {letter}"
    return _rounded(number, digits)


def flops_text(flops: float) -> str:
    """FLOPs to four digits, in powers of ten: 3.143e23."""
    return f"{flops:.3e}".replace("e+", "e")


def usd_text(usd: float) -> str:
    """Money: $4.68 million, $12,340, $19.80, $0.04."""
    for scale, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if usd >= scale:
            return f"${_rounded(usd / scale, 3)} {word}"
    if usd >= 100:
        return f"${usd:,.0f}"
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.2g}"


def duration_text(seconds: float) -> str:
    """A duration in the unit one would say it in: 355.9 years, 33.8 days, 3.04 hours, 24 seconds."""
    unit = duration_unit(seconds)
    word = {SECONDS_PER_YEAR: "years", SECONDS_PER_DAY: "days", SECONDS_PER_HOUR: "hours", 60.0: "minutes"}.get(unit)
    return f"{_rounded(seconds / unit, 4)} {word}" if word else f"{_rounded(seconds, 3)} seconds"


def duration_unit(seconds: float) -> float:
    """The seconds of the unit one would say a duration in: two years, two days, an hour, a minute and more; else 1."""
    units = (SECONDS_PER_YEAR, SECONDS_PER_DAY, SECONDS_PER_HOUR, 60.0)
    return next((unit for unit in units if seconds >= (2 * unit if unit >= SECONDS_PER_DAY else unit)), 1.0)


def bytes_text(count: float) -> str:
    """A size in powers of ten, as memory is sold: 349.2 GB, 36.9 kB."""
    for scale, word in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{_rounded(count / scale, 4)} {word}"
    return f"{count:.0f} bytes"


def energy_text(kilowatt_hours: float) -> str:
    """Energy: 935 MWh, 12.4 kWh."""
    for scale, word in ((1e6, "GWh"), (1e3, "MWh")):
        if kilowatt_hours >= scale:
            return f"{_rounded(kilowatt_hours / scale, 3)} {word}"
    return f"{_rounded(kilowatt_hours, 3)} kWh"


def rate_text(tflops: float) -> str:
    """A rate given in TFLOP/s: 28.0 TFLOP/s, 141 GFLOP/s."""
    return f"{_rounded(tflops, 4)} TFLOP/s" if tflops >= 1 else f"{_rounded(tflops * 1e3, 4)} GFLOP/s"


def speed_text(tokens_per_second: float) -> str:
    """Tokens a second: 0.389, 74.7, 1,190."""
    return _rounded(tokens_per_second, 3) if tokens_per_second < 1000 else f"{tokens_per_second:,.0f}"


def _rounded(number: float, digits: int) -> str:
    """`number` to so many digits, without an exponent."""
    if number == 0:
        return "0"
    after = max(0, digits - 1 - math.floor(math.log10(abs(number)) + 1e-12))
    text = f"{number:,.{min(after, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
