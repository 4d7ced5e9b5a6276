"""The page as a person meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.keys import Keys

from .conftest import serving

INJECTIONS = (
    "<script>window.hit=1</script>",
    "<img src=x onerror='window.hit=1'>",
    "<svg onload=window.hit=1>",
    "[a](javascript:window.hit=1)",
    "[a](data:text/html,<script>window.hit=1</script>)",
    "![a](https://example.org/spy.png)",
    '![a](x" onerror="window.hit=1)',
    "<a href='javascript:window.hit=1'>a</a>",
    "[a]( java\nscript:window.hit=1)",
    "[a](vbscript:window.hit=1)",
    "```html\n<script>window.hit=1</script>\n```",
    "`<b onmouseover=window.hit=1>`",
    "|a|b|\n|-|-|\n|<img src=x onerror=window.hit=1>|b|",
    "> # <iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<style>@import 'https://example.org'</style><base href=https://example.org>",
    "[a](//example.org/x) [b](/v1/models) [c](https://user@example.org)",
    "*" * 3000 + "[" * 3000 + "`" * 3001 + "_a" * 3000,
)

# The tiny model is done before anybody could stop it: its events are let through one by one.
SLOWLY = """
    const early = window.fetch;
    window.fetch = async (path, options) => {
        const answer = await early(path, options);
        if (!path.startsWith("/v1/chat")) return answer;
        const slow = new TransformStream({async transform(part, out) {
            for (const line of new TextDecoder().decode(part).split(/(?<=\\n\\n)/)) {
                await new Promise((go) => setTimeout(go, 150));
                out.enqueue(new TextEncoder().encode(line));
            }
        }});
        return new Response(answer.body.pipeThrough(slow), answer);
    };
"""


def test_a_conversation_is_kept_over_a_reload(browser: Any) -> None:
    reply = browser.say("Once upon a time")
    browser.picture("chat-light")
    browser.driver.refresh()
    browser.until("document.querySelectorAll('.message').length === 2")
    assert browser.all(".message.user .body")[0].text == "Once upon a time"
    assert browser.all(".message.assistant .body")[0].text == reply
    assert browser.one(".list a").text == "Once upon a time"


def test_a_reply_can_be_stopped(browser: Any) -> None:
    browser.script(SLOWLY)
    browser.one("#say").send_keys("Never end", Keys.ENTER)
    browser.one(".caret")
    browser.keys(Keys.ESCAPE)
    browser.until("!document.querySelector('.caret') && document.querySelector('.send').ariaLabel === 'Send'")


def test_a_token_shows_what_else_could_have_stood_there_and_branches(browser: Any) -> None:
    browser.say("The fox")
    browser.one(".tools [aria-pressed]").click()
    tokens = browser.all(".token")
    assert len(tokens) > 3
    tokens[2].click()
    browser.one(".figure .curve")
    browser.until("document.querySelector('.slope').textContent.startsWith('slope')")
    browser.picture("word-light")
    before = [bar.text for bar in browser.all("button.bar")]
    calls = browser.script("return performance.getEntriesByType('resource').length")
    browser.script(
        "const s = arguments[0]; s.value = 0.2; s.dispatchEvent(new Event('input'))", browser.one("#reshape")
    )
    assert [bar.text for bar in browser.all("button.bar")] != before
    shares = browser.script("return [...document.querySelectorAll('.share')].map((e) => parseFloat(e.textContent))")
    assert shares == sorted(shares, reverse=True)
    assert browser.script("return performance.getEntriesByType('resource').length") == calls, "no request for a reshape"
    browser.one("button.bar:not(.chosen)").click()
    assert browser.one(".siblings span").text == "2 / 2"
    browser.until("!document.querySelector('.caret')")
    browser.one("#tab-branches").click()
    assert len(browser.all(".node")) == 3
    browser.picture("branches-light")
    browser.all(".node")[1].click()
    browser.until("document.querySelector('.siblings span').textContent === '1 / 2'")


def test_the_distribution_is_the_servers_own_at_any_temperature(browser: Any) -> None:
    code = """
        const done = arguments[arguments.length - 1];
        const { decodeLogits, Distribution } = await import("/page/distribution.js");
        const ask = (body) => fetch("/v1/next", {method: "POST", headers: {"Content-Type": "application/json"},
            body: JSON.stringify({text: "The fox", ...body})}).then((r) => r.json());
        const whole = await ask({logits: true});
        const found = new Distribution(decodeLogits(whole.logits_base64));
        const off = [];
        for (const temperature of [0.3, 1, 1.7]) {
            const told = await ask({temperature, top_p: 1, top_k: 0, min_p: 0});
            const at = found.at(temperature);
            off.push(...told.candidates.map((c) => Math.abs(at(c.logit) - c.tempered)));
            off.push(Math.abs(found.entropy(temperature) - told.entropy_bits.tempered));
        }
        done(Math.max(...off));
    """
    assert browser.driver.execute_async_script(f"(async (...arguments) => {{{code}}})(...arguments)") < 1e-5


def test_settings_begin_with_those_of_the_model(browser: Any) -> None:
    code = """
        const done = arguments[arguments.length - 1];
        const { data } = await fetch("/v1/models").then((r) => r.json());
        const told = data[0].card.sampling;
        const { remembered, suiting } = await import("/page/settings.js");
        const kept = localStorage.getItem("chatsmith-settings");
        localStorage.removeItem("chatsmith-settings");
        const first = remembered();
        suiting({ sampling: { temperature: 0.35 } });
        const other = remembered();
        localStorage.setItem("chatsmith-settings", JSON.stringify({ temperature: 1.2 }));
        const chosen = remembered();
        suiting({ sampling: told });
        localStorage.removeItem("chatsmith-settings");
        if (kept !== null) localStorage.setItem("chatsmith-settings", kept);
        done([told, first, other.temperature, chosen.temperature]);
    """
    told, first, other, chosen = browser.driver.execute_async_script(
        f"(async (...arguments) => {{{code}}})(...arguments)"
    )
    assert told == {name: first[name] for name in ("temperature", "top_p")}
    assert (other, chosen) == (0.35, 1.2)


def test_examples_side_by_side(browser: Any) -> None:
    browser.open("lab")
    browser.one("#lab-1").click()
    browser.one(".lab-body .primary").click()
    browser.until("document.querySelectorAll('.shot .answer').length === 3")
    assert [found.text for found in browser.all(".shot h2")] == ["No example", "One example", "3 examples"]
    assert all("%" in found.text for found in browser.all(".chance"))
    browser.picture("examples-light")


def test_a_text_is_continued(browser: Any) -> None:
    browser.open("lab")
    browser.one("#text").send_keys("There was a fox")
    browser.one(".lab-body .primary").click()
    browser.one(".written .plain").click()
    browser.until("document.querySelector('#text').value.length > 'There was a fox'.length")


def test_the_model_card(browser: Any) -> None:
    browser.open("model")
    assert browser.one(".hero h2").text
    assert "layers" in browser.one(".cards").text
    browser.picture("model-light")


def test_a_model_that_does_not_talk_has_no_message_box(browser: Any, folder: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(folder, tmp_path / "plain")
    for name in ("tokenizer_config.json", "chatsmith.toml"):
        (plain / name).unlink()
    with serving(plain, tmp_path / "data") as url:
        browser.url = url
        browser.open()
        assert "continues texts" in browser.one(".welcome").text
        assert not any(box.is_displayed() for box in browser.all("#say, .send"))
        browser.one(".welcome a.button").click()
        browser.one("textarea")
        assert browser.complaints() == []


def test_by_keyboard_alone(browser: Any) -> None:
    browser.until("document.activeElement.id === 'say'")
    browser.keys("Hello", Keys.ENTER)
    browser.until("document.querySelector('.made') && !document.querySelector('.caret')")
    browser.keys(Keys.CONTROL, ".", Keys.NULL)
    browser.one(".token")
    browser.script("document.querySelector('.token').focus()")
    browser.keys(Keys.ARROW_RIGHT)
    browser.until("document.activeElement.dataset.place === '1'")
    browser.keys(Keys.ENTER)
    browser.until("document.activeElement.classList.contains('bar')")
    browser.keys(Keys.ESCAPE)
    browser.until("document.activeElement.dataset.place === '1'")
    browser.keys(Keys.CONTROL, "k", Keys.NULL)
    browser.until("document.activeElement.id === 'search'")


def test_dark_and_narrow(browser: Any) -> None:
    browser.say("A fox " + "x" * 300)
    browser.prefer(color_scheme="dark")
    browser.picture("chat-dark")
    paper = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, paper[4:-1].split(","))) < 150
    here = browser.script("return location.hash.slice(2)")
    for room in (here, "lab", "model"):
        browser.size(390, 844)
        browser.open(room)
        assert browser.script("return document.documentElement.scrollWidth") <= 390, room
        browser.picture(f"{room.split('/')[0]}-narrow-dark")


def test_conversations_are_renamed_searched_deleted_and_brought_back(browser: Any) -> None:
    browser.say("zebra crossing")
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "deny"})
    item = browser.one(".list li:has([aria-current])")
    browser.script("arguments[0].querySelector('[aria-label^=Rename]').click()", item)
    field = browser.one("#new-title")
    field.clear()
    field.send_keys("Stripes", Keys.ENTER)
    browser.until("document.querySelector('.list [aria-current]')?.textContent === 'Stripes'")
    browser.one("#search").send_keys("ZEBRA")
    browser.until("document.querySelectorAll('.list li').length === 1")
    browser.script("document.querySelector('.list [aria-label^=Delete]').click()")
    browser.until("document.querySelectorAll('.list li').length === 0")
    browser.one(".toast button").click()
    browser.until("document.querySelector('.list li')?.textContent.includes('Stripes')")


def test_nothing_in_a_message_runs(browser: Any) -> None:
    code = """
        const done = arguments[arguments.length - 1];
        const { markdown } = await import("/page/markdown.js");
        const place = document.createElement("div");
        document.body.append(place);
        const began = performance.now();
        for (const text of arguments[0]) place.append(markdown(text));
        const spent = performance.now() - began;
        await new Promise((go) => setTimeout(go, 200));
        const bad = [...place.querySelectorAll("script,img,svg,iframe,style,base,object,[onerror],[style]")]
            .filter((e) => !e.matches("svg.icon")).map((e) => e.outerHTML);
        const links = [...place.querySelectorAll("a")].map((a) => [a.protocol, a.rel]);
        place.remove();
        done({hit: window.hit ?? 0, bad, links, spent});
    """
    run = f"(async (...arguments) => {{{code}}})(...arguments)"
    found = browser.driver.execute_async_script(run, list(INJECTIONS))
    assert found["hit"] == 0
    assert found["bad"] == []
    assert all(kind in ("http:", "https:", "mailto:") and rel == "noopener noreferrer" for kind, rel in found["links"])
    for text in INJECTIONS[:6]:
        browser.open()
        browser.say(text)
    assert browser.script("return window.hit ?? 0") == 0
    assert (
        json.dumps(browser.script("return performance.getEntriesByType('resource').map((e) => e.name)")).count(
            "example.org"
        )
        == 0
    )
