"""The plot is an SVG that other programs read."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import catalogue
from chatsmith.plan.compare import compare
from chatsmith.plan.picture import RunPoint, draw, write_plot
from chatsmith.plan.scaling import FITS
from chatsmith.specs import PRESETS

SPEC = PRESETS["gpt2-124m"]
POINT = RunPoint("<gpt2>", 6.0 * SPEC.parameters * 10e9, SPEC.parameters, 10e9, 85e6)


def test_it_has_a_curve_for_each_fit_and_a_bar_for_each_price() -> None:
    offers = compare(SPEC, 10e9, 1024, catalogue().values())
    root = ElementTree.fromstring(draw(list(FITS.values()), POINT, offers))
    found = [element.tag.split("}")[1] for element in root.iter()]
    assert found.count("polyline") == 2 * len(FITS)
    assert found.count("circle") == len(FITS)
    priced = sum(offer.usd is not None for offer in offers.offers)
    assert found.count("rect") == min(priced, 16)
    words = " ".join(element.text or "" for element in root.iter())
    assert "<gpt2>" in words
    assert "H100-SXM5-80GB" in words
    # everything lies within the picture
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        assert 0 <= float(element.attrib.get("x", 0)) <= width
        assert 0 <= float(element.attrib.get("y", 0)) <= height


def test_without_hardware_there_is_one_panel() -> None:
    assert "cost of the run" not in draw([FITS["besiroglu"]], POINT, None)


def test_only_svg_is_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot draw plan\.png"):
        write_plot(tmp_path / "plan.png", [FITS["besiroglu"]], POINT, None)
    write_plot(tmp_path / "plan.svg", [FITS["besiroglu"]], POINT, None)
    assert (tmp_path / "plan.svg").read_text(encoding="utf-8").endswith("</svg>\n")
