"""What is read stands out from what it stands on: WCAG 2.2, 1.4.3 and 1.4.11, for both themes, from the style sheet."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

_GROUNDS = ("paper", "side", "raised", "sunk", "accent-wash")
TEXT = (  # 4.5:1
    *((ink, ground) for ground in _GROUNDS for ink in ("ink", "soft", "accent")),
    *(("ink", f"s{step}") for step in range(1, 7)),
    ("accent-ink", "accent"),
    ("danger-ink", "danger"),
    ("danger", "danger-wash"),
    ("danger", "raised"),
    ("danger", "side"),
    ("ink", "danger-wash"),
    ("paper", "ink"),
)
EDGES = (("edge", "paper"), ("edge", "raised"), ("edge", "side"), ("accent", "paper"), ("accent", "sunk"))  # 3:1


def _colours() -> dict[str, tuple[str, str]]:
    """The custom properties that hold a colour for light and one for dark."""
    sheet = files("chatsmith.serve").joinpath("page", "base.css").read_text()
    found = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", sheet)
    return {name: (light, dark) for name, light, dark in found}


def _luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2, definition)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_edges_are_seen(theme: int) -> None:
    colours = _colours()
    wanted = [(pair, 4.5) for pair in TEXT] + [(pair, 3.0) for pair in EDGES]
    found = {pair: (_contrast(colours[pair[0]][theme], colours[pair[1]][theme]), least) for pair, least in wanted}
    assert {pair: round(got, 2) for pair, (got, least) in found.items() if got < least} == {}
