"""What the page holds in memory while one talks for long."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

TURNS = 120


def held(browser: Any) -> dict[str, int]:
    """Nodes, listeners and bytes of the page that are in use."""
    driver = browser.driver
    driver.execute_cdp_cmd("Performance.enable", {})
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    found = {one["name"]: one["value"] for one in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    return {name: int(found[name]) for name in ("Nodes", "JSEventListeners", "JSHeapUsedSize")}


def long_conversation(path: Path) -> Path:
    """A file of so many turns, each reply with its tokens and their alternatives."""
    tokens = [[5 + at % 9, f" w{at}", -0.5, [[at, f" w{at}", -0.5] for at in range(8)]] for at in range(60)]
    messages = []
    for turn in range(TURNS):
        messages.append({"parent": len(messages) - 1 if turn else None, "role": "user", "content": f"Turn {turn}"})
        reply = {"role": "assistant", "content": "A **reply** with `code`.\n\n- one\n- two", "tokens": tokens}
        messages.append(reply | {"parent": len(messages) - 1})
    path.write_text(json.dumps({"format": "chatsmith conversation 1", "title": "Long", "messages": messages}))
    return path


def test_what_is_left_is_let_go(browser: Any, tmp_path: Path) -> None:
    browser.hand(long_conversation(tmp_path / "long.json"))
    browser.until(f"document.querySelectorAll('.message').length === {2 * TURNS}")
    place = browser.script("return location.hash")

    def press(css: str) -> None:
        """Not through the driver: it would keep hold of what it found."""
        browser.until(f"document.querySelector('{css}') !== null")
        browser.script("document.querySelector(arguments[0]).click()", css)

    def visit() -> None:
        browser.script("location.hash = arguments[0]", place)
        browser.until(f"document.querySelectorAll('.message').length === {2 * TURNS}")
        press(".tools [aria-pressed]")
        browser.until(f"document.querySelectorAll('.token').length === {60 * TURNS}")
        press(".token:nth-child(6)")
        browser.until("document.querySelector('.figure .curve')?.getAttribute('points')")
        press(".tools [aria-pressed]")
        browser.until("document.querySelectorAll('.token').length === 0")
        browser.script("location.hash = '#/chat'")
        browser.until("document.querySelector('.welcome') !== null")

    for _ in range(2):
        visit()
    before = held(browser)
    for _ in range(6):
        visit()
    after = held(browser)
    assert after["Nodes"] <= 1.02 * before["Nodes"] + 50
    assert after["JSEventListeners"] <= 1.02 * before["JSEventListeners"] + 5
    assert after["JSHeapUsedSize"] <= 1.05 * before["JSHeapUsedSize"] + 500_000


def test_every_turn_adds_the_same(browser: Any) -> None:
    browser.say("Turn")
    found = [held(browser)]
    for _ in range(2):
        for _ in range(8):
            browser.say("Turn")
        found.append(held(browser))
    for name in ("Nodes", "JSEventListeners"):
        first, second = (later[name] - earlier[name] for earlier, later in pairwise(found))
        assert second <= 1.1 * first + 20, name
    assert found[2]["Nodes"] - found[1]["Nodes"] < 8 * 150
    assert found[2]["JSHeapUsedSize"] - found[1]["JSHeapUsedSize"] < 8 * 200_000
