"""How the tables of a recipe are checked: what does not hold is a wrong request, in one line. No torch."""

from __future__ import annotations

from chatsmith.errors import RequestError

MAX_COUNT = 10**15


def require(condition: bool, message: str, hint: str | None = None) -> None:
    if not condition:
        raise RequestError(message, hint)


def require_count(name: str, value: int, least: int = 1) -> None:
    require(least <= value <= MAX_COUNT, f"{name} must be a whole number from {least}, not {value}")


def require_share(name: str, value: float) -> None:
    """A share of the run in [0, 1); a value of 1 or more is most often a number of steps."""
    require(
        0.0 <= value < 1.0,
        f"{name} is a share of the run, from 0 to below 1, not {value:g}",
        f"for 100 of 2000 steps write {name} = 0.05",
    )
