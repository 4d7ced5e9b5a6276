"""What an HTML page shows."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.webpage import page_text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("<div>One</div>\n<div>Two</div>", "One\nTwo"),
        ("<p>a <b>b</b><i> c</i> <u>d</u>e</p>", "a b c de"),
        ("  one\n   two\t three  ", "one two three"),
        ("<ul><li>One<li>Two</ul>After", "One\nTwo\n\nAfter"),
        ("<pre>  a\n    b</pre>c  d", "  a\n    b\n\nc d"),
        ("<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>", "A\tB\n1\t2"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("&lt;b&gt; &amp; &eacute;&#233;&#x1F9A6; &nosuch;", "<b> & éé🦦 &nosuch;"),
        ("<!doctype html><!-- no <p>no</p> -->yes<?php no ?>", "yes"),
        ('<a title="a > b <c>">in</a>', "in"),
        ("<SCRIPT>if (a<b) '</p>'</Script >x<style>p{}</style>y", "xy"),
        ("<noscript>Turn it on!</noscript><template><p>no</p></template>yes", "yes"),
        ("<script>never closed <p>no", ""),
        ("<title>no</title><h1>Head</h1>text", "Head\n\ntext"),
        ("2 < 3 and 5 > 4, I <3 you", "2 < 3 and 5 > 4, I <3 you"),
        ("cut <a href='off", "cut <a href='off"),
        ("<p>one<p>two<!-- never closed", "one\n\ntwo"),
        ("a\u00a0\u00a0b", "a\u00a0\u00a0b"),
        ("", ""),
    ],
)
def test_pages(page: str, text: str) -> None:
    assert page_text(page) == text


@pytest.mark.parametrize(
    "unit", ["<a ", "<!--", "<![CDATA[", "<a href='", '<a href="', "</a", "<script>", "<a \"'", "&#", "<", "<a x='\"' "]
)
def test_no_page_takes_long(unit: str) -> None:
    """Sixteen times the page may take sixteen times as long, and not 256 times."""

    def seconds(count: int) -> float:
        started = time.process_time()
        page_text(unit * count)
        return time.process_time() - started

    seconds(1000)
    assert seconds(160_000) < 16 * 5 * max(seconds(10_000), 0.002)


@given(st.text(alphabet=st.sampled_from("ab<>/!-\"'= &;p")))
def test_any_text_is_taken(page: str) -> None:
    page_text(page)


@given(st.text(alphabet="abc é漢"))
def test_words_without_markup_are_kept(text: str) -> None:
    assert page_text(text).split() == text.split()
