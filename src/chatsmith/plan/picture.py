"""Two pictures as one SVG: the loss that a fit expects against compute, and the cost of a run against hardware."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from chatsmith.errors import RequestError
from chatsmith.paths import atomic_write
from chatsmith.plan.compare import Comparison
from chatsmith.plan.quantities import flops_text, usd_text
from chatsmith.plan.scaling import Fit

_COLOURS = ("#3b6ea8", "#c2571a", "#4d8a4d", "#8a5aa8")
_GREY = "#777"
_WIDTH, _PANEL = 900, 340  # of the whole picture, and the height of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 46, 46
_BARS = 16


@dataclass(frozen=True, slots=True)
class RunPoint:
    """The run that is planned: the N and D that each fit takes, and its 6ND."""

    name: str
    flops: float
    parameters: float
    tokens: float
    body_parameters: float


def write_plot(path: Path, fits: Sequence[Fit], point: RunPoint, comparison: Comparison | None) -> None:
    """Write the picture to an .svg file; another ending raises `RequestError`."""
    if path.suffix != ".svg":
        raise RequestError(f"cannot draw {path.name}", "name a picture that ends in .svg, as in --plot plan.svg")
    text = draw(fits, point, comparison)
    with atomic_write(path, "w") as file:
        file.write(text)


def draw(fits: Sequence[Fit], point: RunPoint, comparison: Comparison | None) -> str:
    """The picture as SVG text, readable on white and on dark pages."""
    priced = [] if comparison is None else [offer for offer in comparison.offers if offer.usd is not None][:_BARS]
    height = _PANEL + (60 + 22 * len(priced) if priced else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(point.name)}: loss against compute, and cost against hardware</title>",
        *_losses(fits, point),
    ]
    if comparison is not None and priced:
        bars = [
            (offer.accelerator, offer.usd or 0.0, offer.price.describe() if offer.price else "") for offer in priced
        ]
        parts += _bars(bars, _PANEL + 24)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _losses(fits: Sequence[Fit], point: RunPoint) -> list[str]:
    """Expected loss over compute: for each fit the optimum, this size over more and less text, and the run itself."""
    low, high = math.log10(point.flops) - 3, math.log10(point.flops) + 2
    steps = [low + (high - low) * turn / 80 for turn in range(81)]
    curves = []
    for fit in fits:
        size = point.parameters if fit.counts_embeddings else point.body_parameters
        best = [(x, fit.loss(*fit.optimum(10**x))) for x in steps]
        same = [(x, fit.loss(size, 10**x / 6 / point.parameters)) for x in steps]
        curves.append((fit, best, same, fit.loss(size, point.tokens)))
    top = max(y for _, best, _, here in curves for y in (here, *(value for _, value in best))) * 1.03
    bottom = min(y for _, best, _, _ in curves for _, y in best) * 0.97

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
        return across, _PANEL - _BOTTOM - (y - bottom) / (top - bottom) * (_PANEL - _TOP - _BOTTOM)

    def line(points: Sequence[tuple[float, float]], style: str) -> str:
        shown = [place(x, y) for x, y in points if bottom <= y <= top]
        return f'<polyline fill="none" {style} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in shown)}"/>'

    parts = [_text(_LEFT, 24, f"{point.name}: expected loss, nats per token", size=14)]
    for value in _round_steps(bottom, top):
        y = place(low, value)[1]
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#999" stroke-opacity=".3"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value:g}", anchor="end"))
    for power in range(math.ceil(low), math.floor(high) + 1):
        parts.append(_text(place(power, bottom)[0], _PANEL - _BOTTOM + 18, f"1e{power}", anchor="middle"))
    parts.append(_text((_WIDTH + _LEFT) / 2, _PANEL - 8, "FLOPs (6 × parameters × tokens)", anchor="middle"))
    for turn, (fit, best, same, here) in enumerate(curves):
        colour = _COLOURS[turn % len(_COLOURS)]
        parts.append(line(best, f'stroke="{colour}" stroke-width="2"'))
        parts.append(line(same, f'stroke="{colour}" stroke-width="1.5" stroke-dasharray="5 4"'))
        x, y = place(math.log10(point.flops), here)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        y = _TOP + 14 + 18 * turn
        parts.append(f'<path d="M{_WIDTH - 320} {y - 4}h24" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(_WIDTH - 290, y, f"{fit.name}: {here:.3f} for this run"))
    words = f"line: the best size; dashed: this size; dot: this run, {flops_text(point.flops)} FLOPs"
    parts.append(_text(_WIDTH - _RIGHT, 24, words, anchor="end"))
    return parts


def _bars(rows: Sequence[tuple[str, float, str]], top: int) -> list[str]:
    """Cost of the run on each device, as bars on one scale."""
    most = max(usd for _, usd, _ in rows)
    parts = [_text(_LEFT, top + 4, "cost of the run on each device, at the price beside it", size=14)]
    for turn, (name, usd, price) in enumerate(rows):
        y = top + 18 + 22 * turn
        width = 330 * usd / most
        parts.append(_text(176, y + 13, name, anchor="end"))
        parts.append(f'<rect x="184" y="{y}" width="{max(width, 1):.1f}" height="16" rx="2" fill="{_COLOURS[0]}"/>')
        parts.append(_text(192 + width, y + 13, f"{usd_text(usd)} at {price}"))
    return parts


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="{_GREY}">{escape(words)}</text>'


def _round_steps(low: float, high: float) -> list[float]:
    """Round numbers within a range, five or so."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if (high - low) / s <= 7)
    return [round(turn * step, 6) for turn in range(math.ceil(low / step), math.floor(high / step) + 1)]
