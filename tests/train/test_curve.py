"""Training curves: in the terminal, as SVG that is valid XML, and as PNG where matplotlib is."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from importlib import util
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import MissingExtra, RequestError
from chatsmith.train.curve import curve, read_curve, svg_picture, terminal_picture, write_picture


def records(steps: int) -> list[dict[str, Any]]:
    """A loss that falls from 5 to 1, measured on held-out text four times."""
    made: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 1 + 4 * math.exp(-5 * step / steps)
        record: dict[str, Any] = {"step": step, "loss": None if step == 2 else loss + 0.05 * (-1) ** step}
        if step % max(1, steps // 4) == 0:
            record |= {"held_out_loss": loss + 0.1, "bits_per_byte": (loss + 0.1) / math.log(2) / 3}
        made.append(record)
    return made


@pytest.mark.parametrize("steps", [1, 3, 100, 20_000])
def test_pictures_of_any_length(steps: int) -> None:
    drawn = curve("a <run> & more", records(steps))
    text = terminal_picture(drawn, width=60, height=12)
    assert len(text.splitlines()) == 12
    assert all(len(line) <= 60 for line in text.splitlines()[1:])
    picture = svg_picture(drawn)
    root = ElementTree.fromstring(picture)
    assert "a <run> & more" in (root.findtext("{*}title") or "")
    assert len(picture) < 60_000


def test_the_curve_falls_from_left_to_right() -> None:
    drawn = curve("run", records(400))
    lines = terminal_picture(drawn).splitlines()
    assert "(smoothed), held out 1.1" in lines[0]
    first, last = (
        next(row for row, line in enumerate(lines[1:-2]) if line[10:][column:].strip()) for column in (0, 55)
    )
    assert first == 0
    assert last > 8
    assert "○" in "".join(lines[1:])
    line = ElementTree.fromstring(svg_picture(drawn)).findall("{*}polyline")[1].get("points", "")
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert all(later > earlier - 1 for earlier, later in pairwise(heights))
    assert heights[-1] - heights[0] > 250


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_any_losses_can_be_drawn(losses: list[float]) -> None:
    drawn = curve("run", [{"step": step, "loss": loss} for step, loss in enumerate(losses)])
    assert terminal_picture(drawn)
    ElementTree.fromstring(svg_picture(drawn))


def test_files(tmp_path: Path) -> None:
    drawn = curve("run", records(50))
    write_picture(drawn, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")
    if util.find_spec("matplotlib"):
        write_picture(drawn, tmp_path / "curve.png")
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    else:
        with pytest.raises(MissingExtra, match="matplotlib"):
            write_picture(drawn, tmp_path / "curve.png")
    with pytest.raises(RequestError, match=r"curve\.pdf"):
        write_picture(drawn, tmp_path / "curve.pdf")


def test_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no log\.jsonl"):
        read_curve(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": null}\n')
    with pytest.raises(RequestError, match="no step with a loss"):
        read_curve(tmp_path)
