"""What the page does when something is in the way: no server, no key, no room; and that nothing of a talk is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.keys import Keys

from chatsmith.serve.conversations import FORMAT

# Answers that a server on one's own machine gives rarely are given in its name.
INSTEAD = """
    const [path, status, headers, body] = arguments;
    window.early ??= window.fetch;
    window.fetch = async (asked, options) => {
        if (!asked.startsWith(path)) return window.early(asked, options);
        if (status === 0) throw new TypeError("Failed to fetch");
        return new Response(JSON.stringify(body), {status, headers});
    };
"""
AGAIN = "window.fetch = window.early"

# What is shown for two seconds could be over before anybody asks for it: the page itself is to notice.
FIRST = """
    const [css] = arguments;
    window.first = null;
    new MutationObserver(() => {
        const found = document.querySelector(css);
        if (found) window.first ??= [found.textContent, found.disabled];
    }).observe(document.body, {childList: true, subtree: true});
"""

# The end of a turn, shown as the likeliest of what else could have stood there.
ENDS = """
    const [id] = arguments;
    const early = window.fetch;
    window.fetch = async (path, options) => {
        const answer = await early(path, options);
        if (path !== "/v1/next") return answer;
        const found = await answer.json();
        const end = {...found.candidates[0], id, token: "<|end|>"};
        found.candidates = [end, ...found.candidates.filter((other) => other.id !== id)];
        return new Response(JSON.stringify(found), {headers: {"Content-Type": "application/json"}});
    };
"""

# A reply that never comes to its end.
HELD = """
    const early = window.fetch;
    window.fetch = async (path, options) => {
        const answer = await early(path, options);
        if (!path.startsWith("/v1/chat")) return answer;
        let left = 12;
        const held = new TransformStream({async transform(part, out) {
            for (const line of new TextDecoder().decode(part).split(/(?<=\\n\\n)/)) {
                if (left-- <= 0) await new Promise(() => {});
                out.enqueue(new TextEncoder().encode(line));
            }
        }});
        return new Response(answer.body.pipeThrough(held), answer);
    };
"""

DONE = "document.querySelector('.made') && !document.querySelector('.caret')"


def _bring(browser: Any, tmp_path: Path, turns: list[tuple[str, str]]) -> None:
    """Import a conversation as a person does, by a file."""
    said = [
        {"parent": place - 1 if place else None, "role": role, "content": content, "tokens": [], "settings": {}}
        for place, (role, content) in enumerate(turns)
    ]
    told = {"format": FORMAT, "title": "From a file", "system": "", "settings": {"seed": 1}, "leaf": len(said) - 1}
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({**told, "messages": said}))
    browser.hand(file)
    browser.until(f"document.querySelectorAll('.message').length === {len(turns)}")


def test_a_server_that_is_gone_and_comes_back(browser: Any) -> None:
    browser.script(INSTEAD, "/conversations", 0, {}, None)
    browser.one("#say").send_keys("Is anybody there?", Keys.ENTER)
    assert "does not answer" in browser.one(".problem").text
    assert browser.one("#say").get_attribute("value") == "Is anybody there?", "what was typed is kept"
    browser.picture("gone-light")
    browser.script(AGAIN)
    browser.one(".problem button").click()
    browser.until(f"document.querySelectorAll('.message').length === 2 && {DONE}")
    assert browser.one("#say").get_attribute("value") == ""


def test_a_busy_server_is_waited_for(browser: Any) -> None:
    error = {"error": {"message": "too many requests", "code": "rate_limited"}}
    browser.script(INSTEAD, "/v1/chat", 429, {"Retry-After": "2"}, error)
    browser.script(FIRST, ".problem button")
    browser.one("#say").send_keys("Hello", Keys.ENTER)
    seen = browser.until("window.first")
    assert seen[0].startswith("Try again in")
    assert seen[1]
    browser.script(AGAIN)
    browser.until("document.querySelector('.problem button').textContent === 'Try again'")
    browser.one(".problem button").click()
    browser.until(f"document.querySelectorAll('.message').length === 2 && {DONE}")
    assert browser.all(".problem") == []


def test_too_long_a_message_is_given_back(browser: Any) -> None:
    browser.script("document.querySelector('#say').value = 'word '.repeat(250000)")
    browser.one(".composer")
    browser.script("document.querySelector('.composer').requestSubmit()")
    assert browser.one(".problem strong").text == "Too long"
    assert browser.script("return document.querySelector('#say').value.length") > 1_000_000
    assert all("413" in line for line in browser.complaints())


def test_a_key_is_asked_for_once(browser: Any, locked: tuple[str, str]) -> None:
    url, key = locked
    browser.driver.get(f"{url}/#/")
    browser.one("#key").send_keys("csk-wrong", Keys.ENTER)
    browser.until("document.querySelector('dialog')?.textContent.includes('does not know this key')")
    browser.picture("key-light")
    browser.one("#key").send_keys(key, Keys.ENTER)
    browser.until("document.documentElement.dataset.ready === 'yes'")
    assert browser.all("dialog") == []
    browser.say("Hello")
    assert all("401" in line for line in browser.complaints())


def test_the_oldest_turns_are_left_out(browser: Any, tmp_path: Path) -> None:
    long = "Once upon a time there was a fox. " * 12
    _bring(browser, tmp_path, [("user", long), ("assistant", long)] * 3)
    browser.say("And then?")
    assert "oldest messages did not fit" in browser.all(".made")[-1].text
    assert browser.all(".problem") == []
    browser.complaints()  # the browser notes each 400 with which the server says that a part is too long


def test_no_more_messages_than_the_server_takes(browser: Any, tmp_path: Path) -> None:
    browser.script(INSTEAD, "/v1/limits", 200, {"Content-Type": "application/json"}, {"messages": 4})
    _bring(browser, tmp_path, [("user", "a"), ("assistant", "b")] * 4)
    browser.say("c")
    assert "6 oldest messages did not fit" in browser.all(".made")[-1].text


def test_a_half_written_reply_is_kept_when_the_page_is_left(browser: Any) -> None:
    browser.script(HELD)
    browser.one("#say").send_keys("Never end", Keys.ENTER)
    browser.until("document.querySelector('.caret') && document.querySelector('.prose')?.textContent")
    there = browser.script("return location.hash.slice(2)")
    browser.driver.get("about:blank")
    browser.open(there)
    browser.until("document.querySelectorAll('.message').length === 2")
    assert browser.all(".message.assistant .body")[0].text
    assert "stopped" in browser.one(".made").text


def test_a_conversation_goes_to_a_file_and_comes_back(browser: Any, tmp_path: Path) -> None:
    _bring(browser, tmp_path, [("user", "Take me along"), ("assistant", "Gladly, with **all** I said.")])
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.until("document.querySelector('.list a[aria-current]')")
    browser.script("document.querySelector('.list li:has([aria-current]) [aria-label^=Export]').click()")
    saved = tmp_path / "From-a-file.json"
    browser.wait(lambda: saved.exists() and saved.read_text().endswith("}"))
    kept = json.loads(saved.read_text())
    assert [message["content"] for message in kept["messages"]] == ["Take me along", "Gladly, with **all** I said."]
    assert browser.one(".prose strong").text == "all"
    wrong = tmp_path / "wrong.json"
    wrong.write_text("no conversation")
    browser.hand(wrong)
    assert "not an exported conversation" in browser.one(".toast").text


def test_edit_and_again_make_branches(browser: Any) -> None:
    browser.say("First words")
    browser.script("document.querySelector('.user [title^=Say]').click()")
    box = browser.one(".editing textarea")
    box.clear()
    box.send_keys("Other words", Keys.ENTER)
    browser.until(f"document.querySelector('.user .siblings span')?.textContent === '2 / 2' && {DONE}")
    assert browser.one(".message.user .said").text == "Other words"
    browser.script("document.querySelector('.assistant [title^=Ask]').click()")
    browser.until(f"document.querySelector('.assistant .siblings span')?.textContent === '2 / 2' && {DONE}")
    browser.script("document.querySelector('.user [aria-label=\"Branch before\"]').click()")
    browser.until("document.querySelector('.said').textContent === 'First words'")


def test_a_branch_can_end_where_the_end_was_likely(browser: Any, folder: Path) -> None:
    end = json.loads((folder / "generation_config.json").read_text())["eos_token_id"][-1]
    browser.say("The fox")
    browser.script(ENDS, end)
    browser.one(".tools [aria-pressed]").click()
    browser.all(".token")[3].click()
    browser.until("document.querySelector('.bar code')?.textContent === '<|end|>'")
    browser.one("button.bar:not(.chosen)").click()
    browser.until("document.querySelectorAll('.token').length === 4 && !document.querySelector('.caret')")
    mark = browser.one(".token.ending")
    assert mark.text == "end"
    assert "end of the reply" in mark.get_attribute("aria-label")
    assert "<|end|>" not in browser.script("return document.querySelector('.assistant').textContent")
    browser.picture("end-light")


def test_streaming_touches_only_what_is_new(browser: Any) -> None:
    code = """
        const done = arguments[arguments.length - 1];
        const { MessageView } = await import("/page/message.js");
        const frame = () => new Promise((go) => requestAnimationFrame(go));
        const message = {role: "assistant", content: "", tokens: [], settings: {}};
        const view = new MessageView(message, {look: () => {}});
        document.querySelector(".log").append(view.element);
        const body = view.element.querySelector(".body");
        const counted = {prose: 0, tokens: 0};
        let kind = "prose";
        new MutationObserver((found) => found.forEach((one) => (counted[kind] += one.addedNodes.length)))
            .observe(body, {childList: true, subtree: true});
        const paragraphs = 200;
        let first = null;
        for (let at = 0; at < paragraphs; at += 1) {
            message.content += `Paragraph **${at}** of a long reply.\\n\\n`;
            message.tokens.push([at, ` word${at}`, -1, []]);
            view.grown();
            await frame();
            first ??= body.querySelector("p");
        }
        await frame();
        const kept = first.isConnected;
        const whole = body.querySelectorAll("p").length;
        view.show(true);
        await frame();
        kind = "tokens";
        for (let at = 0; at < paragraphs; at += 1) {
            message.tokens.push([at, " more", -1, []]);
            view.grown();
            await frame();
        }
        await frame();
        const spans = body.querySelectorAll(".token").length;
        view.element.remove();
        done({...counted, kept, whole, spans});
    """
    found = browser.driver.execute_async_script(f"(async (...arguments) => {{{code}}})(...arguments)")
    assert found["whole"] == 200
    assert found["spans"] == 400
    assert found["kept"], "the first paragraph is still the same node"
    assert found["prose"] <= 2 * 200, "a paragraph is drawn when it comes, not with each one after it"
    assert found["tokens"] <= 2 * 200
