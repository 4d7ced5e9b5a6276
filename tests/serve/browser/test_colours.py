"""What is read stands out from what it stands on: WCAG 2.2, 1.4.3 and 1.4.11, for both themes.

From the style sheet: every text colour on every ground that words may stand on. In the browser: every text as it is
shown, over the grounds that really lie under it.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

GROUNDS = ("paper", "side", "raised", "sunk", "accent-wash", "danger-wash", "fill", "fill-cut")
INKS = ("ink", "soft", "accent", "danger")
TINTS = tuple(f"s{step}" for step in range(1, 7))  # tokens stand on these, in ink
TEXT = (  # 4.5:1
    *((ink, ground) for ink in INKS for ground in GROUNDS),
    *(("ink", tint) for tint in TINTS),
    ("accent-ink", "accent"),
    ("danger-ink", "danger"),
    ("paper", "ink"),
)
EDGES = (  # 3:1: what one types in, what is chosen or focused, and the line of a drawing
    *(("edge", ground) for ground in ("paper", "raised", "side")),
    *(("accent", ground) for ground in GROUNDS),
    *(("accent", tint) for tint in TINTS),
    ("fit", "raised"),
)
DECORATION = {"line"}  # of no meaning: it parts what space parts already

# How many texts are shown, and of each whose colour is too close to what lies under it: ratio, least, text, colours.
SEEN = """
    const number = (text) => text.match(/[\\d.]+(e-\\d+)?/g).map(Number);
    const read = (colour) => {
        const [r, g, b, a = 1] = number(colour.replace("srgb", ""));
        return colour.startsWith("color(") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], under) => [r, g, b].map((part, at) => part * a + under[at] * (1 - a));
    const ground = (element) => {
        if (!element) return [255, 255, 255];
        const colour = read(getComputedStyle(element).backgroundColor);
        return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(element.parentElement));
    };
    const light = (rgb) => {
        const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb.map((part) => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    let count = 0;
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const element = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || element.closest(":disabled, .unseen, noscript")) continue;
        if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const style = getComputedStyle(element);
        const under = ground(element);
        const colour = over(read(element.closest("svg") ? style.fill : style.color), under);
        const [low, high] = [light(colour), light(under)].sort((one, other) => one - other);
        const ratio = (high + 0.05) / (low + 0.05);
        const size = parseFloat(style.fontSize);
        const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
        count += 1;
        if (ratio < least) found.push([ratio, least, walk.currentNode.data.slice(0, 40), colour, under]);
    }
    return [count, found];
"""


def _sheet(name: str) -> str:
    return files("chatsmith.serve").joinpath("page", name).read_text()


def _colours() -> dict[str, tuple[str, str]]:
    """The custom properties that hold a colour for light and one for dark."""
    found = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", _sheet("base.css"))
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


def test_every_colour_has_a_name_and_is_looked_at() -> None:
    assert set(_colours()) == {name for pair in (*TEXT, *EDGES) for name in pair} | DECORATION
    sheets = [path.name for path in files("chatsmith.serve").joinpath("page").iterdir() if path.name.endswith(".css")]
    named = re.search(r":root \{.*?\}", _sheet("base.css"), re.DOTALL)
    assert named is not None
    rules = "".join(_sheet(name).replace(named[0], "") for name in sheets)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_that_is_shown_can_be_read(browser: Any, theme: str) -> None:
    browser.prefer(color_scheme=theme)
    failed: dict[str, Any] = {}
    texts = 0

    def look(view: str) -> None:
        nonlocal texts
        count, found = browser.script(SEEN)
        texts += count
        if found:
            failed[view] = found

    look("welcome")
    browser.say("Once upon a time")
    look("chat")
    browser.one(".tools [aria-pressed]").click()
    browser.all(".token")[2].click()
    browser.one(".figure .curve")
    look("word")
    for tab in ("branches", "settings"):
        browser.one(f"#tab-{tab}").click()
        look(tab)
    browser.open("lab")
    look("lab")
    browser.one("#lab-1").click()
    browser.one(".lab-body .primary").click()
    browser.until("document.querySelectorAll('.shot .answer').length === 3")
    look("examples")
    browser.open("model")
    look("model")
    browser.script("document.activeElement.blur()")
    browser.keys("?")
    browser.one("dialog")
    look("keys")
    assert failed == {}
    assert texts > 150
