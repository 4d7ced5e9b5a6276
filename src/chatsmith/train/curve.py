"""The training curve of a run, from its log: in the terminal as braille dots, as SVG by hand, as PNG by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from chatsmith.errors import MissingExtra, RequestError
from chatsmith.paths import atomic_write
from chatsmith.train.metrics import read_log

Point = tuple[float, float]

_POINTS = 600  # more than a picture can show; so a file stays small whatever the run's length
_TRAINING, _HELD_OUT = "#4c72b0", "#c44e52"


@dataclass(frozen=True, slots=True)
class Curve:
    """Loss in nats per token against steps: as it was in training, smoothed, and on held-out text."""

    name: str
    training: tuple[Point, ...]
    smooth: tuple[Point, ...]
    held_out: tuple[Point, ...]
    bits_per_byte: float | None

    @property
    def x_range(self) -> tuple[float, float]:
        """First and last step."""
        return self.smooth[0][0], max(self.smooth[-1][0], self.smooth[0][0] + 1)

    @property
    def y_range(self) -> tuple[float, float]:
        """From just below the lowest to just above the highest smoothed or held-out loss."""
        values = [y for _, y in self.smooth + self.held_out]
        margin = max(0.05 * (max(values) - min(values)), 1e-3)
        return min(values) - margin, max(values) + margin


def read_curve(folder: Path) -> Curve:
    """The curve of the run in `folder`; `RequestError` where its log has no step with a loss."""
    return curve(Path(folder).resolve().name, read_log(folder))


def curve(name: str, records: Sequence[Mapping[str, Any]]) -> Curve:
    """A curve from log records."""
    training = [(float(r["step"]), float(r["loss"])) for r in records if r.get("loss") is not None]
    if not training:
        raise RequestError(f"the log of {name} has no step with a loss yet", "let it train for a moment")
    held_out = [(float(r["step"]), float(r["held_out_loss"])) for r in records if r.get("held_out_loss") is not None]
    bits = [float(r["bits_per_byte"]) for r in records if r.get("bits_per_byte") is not None]
    smooth = _thinned(_smoothed(training), _POINTS)
    return Curve(name, _thinned(training, _POINTS), smooth, _thinned(held_out, _POINTS), bits[-1] if bits else None)


def _smoothed(points: Sequence[Point]) -> list[Point]:
    """A running mean that looks back over about a fiftieth of the run, and begins without a bias."""
    keep = 1.0 - 1.0 / max(1.0, len(points) / 50)
    total = weight = 0.0
    smooth = []
    for x, y in points:
        total, weight = total * keep + y, weight * keep + 1.0
        smooth.append((x, total / weight))
    return smooth


def _thinned(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """At most `most` points: means of equal runs, and always the last point itself."""
    if len(points) <= most:
        return tuple(points)
    edges = [len(points) * index // most for index in range(most + 1)]
    groups = [points[a:b] for a, b in pairwise(edges)]
    means = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    return (*means[:-1], points[-1])


# ---- the terminal ----------------------------------------------------------------------------------------------------

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille dots by column and row of a cell


def terminal_picture(drawn: Curve, width: int = 72, height: int = 16) -> str:
    """The curve as text of `width` by `height` characters: the training loss as a line, held-out losses as circles."""
    label = 8
    columns, rows = max(10, width - label - 2), max(4, height - 3)
    cells = [[0] * columns for _ in range(rows)]
    marks: dict[tuple[int, int], str] = {}
    (left, right), (low, high) = drawn.x_range, drawn.y_range

    def place(point: Point) -> tuple[int, int]:
        x = round((point[0] - left) / (right - left) * (2 * columns - 1))
        y = round((high - point[1]) / (high - low) * (4 * rows - 1))
        return x, min(max(y, 0), 4 * rows - 1)

    for start, end in pairwise(drawn.smooth if len(drawn.smooth) > 1 else drawn.smooth * 2):
        for x, y in _line(place(start), place(end)):
            cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    for point in drawn.held_out:
        x, y = place(point)
        marks[y // 4, x // 2] = "○"
    lines = [_heading(drawn)]
    for row, cell in enumerate(cells):
        value = high - (high - low) * (row + 0.5) / rows
        text = "".join(marks.get((row, i), chr(0x2800 + dots) if dots else " ") for i, dots in enumerate(cell))
        lines.append(f"{value:{label}.3f} │{text}".rstrip())
    lines.append(" " * label + " └" + "─" * columns)
    first, last = f"{left:,.0f}", f"{right:,.0f}"
    lines.append(" " * (label + 2) + first + "steps".center(columns - len(first) - len(last)) + last)
    return "\n".join(lines)


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterable[tuple[int, int]]:
    """The dots between two, both included."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        yield (
            round(start[0] + (end[0] - start[0]) * step / steps),
            round(start[1] + (end[1] - start[1]) * step / steps),
        )


def _heading(drawn: Curve) -> str:
    text = f"{drawn.name}: training loss {drawn.smooth[-1][1]:.3f} (smoothed)"
    if drawn.held_out:
        text += f", held out {drawn.held_out[-1][1]:.3f} (○)"
    if drawn.bits_per_byte is not None:
        text += f", {drawn.bits_per_byte:.3f} bits per byte"
    return text


# ---- pictures --------------------------------------------------------------------------------------------------------


def svg_picture(drawn: Curve, width: int = 760, height: int = 420) -> str:
    """The curve as an SVG that reads on white and on dark pages."""
    left, top, right, bottom = 62, 44, width - 18, height - 44
    (x0, x1), (y0, y1) = drawn.x_range, drawn.y_range

    def path(points: Sequence[Point]) -> str:
        return " ".join(
            f"{left + (x - x0) / (x1 - x0) * (right - left):.1f},{bottom - (y - y0) / (y1 - y0) * (bottom - top):.1f}"
            for x, y in points
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(_heading(drawn))}</title>",
        f'<text x="{left}" y="24" font-size="14" fill="#777">{escape(_heading(drawn))}</text>',
        f'<clipPath id="inside"><rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/></clipPath>',
    ]
    for value in _ticks(y0, y1):
        y = bottom - (value - y0) / (y1 - y0) * (bottom - top)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#999" stroke-opacity=".3"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#777">{value:g}</text>')
    for value in _ticks(x0, x1):
        x = left + (value - x0) / (x1 - x0) * (right - left)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" fill="#777">{value:,.0f}</text>')
    line = '<polyline clip-path="url(#inside)" fill="none" stroke-linejoin="round" '
    parts += [
        f'{line}stroke="{_TRAINING}" stroke-opacity=".25" points="{path(drawn.training)}"/>',
        f'{line}stroke="{_TRAINING}" stroke-width="2" points="{path(drawn.smooth)}"/>',
    ]
    if drawn.held_out:
        parts.append(f'{line}stroke="{_HELD_OUT}" stroke-width="2" points="{path(drawn.held_out)}"/>')
        dots = (point.split(",") for point in path(drawn.held_out).split())
        parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{_HELD_OUT}"/>' for x, y in dots]
    for row, (label, colour) in enumerate(
        [("training", _TRAINING), ("held out", _HELD_OUT)][: 1 + bool(drawn.held_out)]
    ):
        y = top + 14 + 18 * row
        parts.append(f'<path d="M{right - 92} {y - 4}h20" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right - 66}" y="{y}" fill="#777">{label}</text>')
    middle = (left + right) // 2
    parts.append(f'<text x="{middle}" y="{height - 8}" text-anchor="middle" fill="#777">steps</text>')
    parts.append(
        f'<text transform="rotate(-90)" x="{-(top + bottom) // 2}" y="16" text-anchor="middle" fill="#777">'
        "loss (nats per token)</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    """Five or so round numbers within a range."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def write_picture(drawn: Curve, path: Path) -> None:
    """Write the curve as .svg, or as .png through matplotlib (extra "plot")."""
    path = Path(path)
    if path.suffix == ".svg":
        with atomic_write(path, "w") as file:
            file.write(svg_picture(drawn))
    elif path.suffix == ".png":
        _write_png(drawn, path)
    else:
        raise RequestError(f"cannot draw {path.name}", "name a picture that ends in .svg or .png")


def _write_png(drawn: Curve, path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plot", "drawing a .png") from None
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*drawn.training, strict=True), color=_TRAINING, alpha=0.25, linewidth=0.8)
    axes.plot(*zip(*drawn.smooth, strict=True), color=_TRAINING, label="training")
    if drawn.held_out:
        axes.plot(*zip(*drawn.held_out, strict=True), color=_HELD_OUT, marker="o", markersize=3, label="held out")
    axes.set(xlabel="steps", ylabel="loss (nats per token)", title=_heading(drawn), ylim=drawn.y_range)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
