"""The text that an HTML page shows, with its paragraphs.

Markup is first replaced by marks, a character each, and then these by line ends and blanks: few passes over the whole
page, each in compiled code. The pattern for markup needs time in proportion to the page for any input. (The standard
library's `html.parser` takes 40 seconds for 60 kB of "<a <a <a …".)
"""

from __future__ import annotations

import html
import re
from typing import Final

# Marks. None of them can come out of a page: they are taken out of it first, and no character reference gives them.
_MARKS: Final = "\x01\x02\x03\x04\x05\x06\x07\x08\x0e"
_LINE, _PARAGRAPH, _CELL, _INLINE, _VERBATIM, _END_VERBATIM, _SPACE, _BREAK, _TAB = _MARKS

# A quoted value may hold < and >. No part can be matched in two ways, and groups give nothing back once matched.
_ATTRIBUTES: Final = r"""(?:[^<>"']++|"[^"]*+"|'[^']*+')*+>"""
_MARKUP = re.compile(
    rf"""
    # elements whose content is no markup and is not shown
    <(?P<raw>(?i:script|style|title|textarea|xmp|iframe|noembed|noframes|noscript|template))(?=[\s/>]){_ATTRIBUTES}
        (?:[^<]++|<(?!/(?i:(?P=raw))[\s/>]))*+
    | <(?P<tag>/?[a-zA-Z][^\s/<>]*+){_ATTRIBUTES}
    | <!--(?:[^-]++|-(?!->))*+(?:-->|\Z)
    | <[!?/][^<>]*+(?:>|(?=<)|\Z)
    """,
    re.VERBOSE,
)
_REST = {  # what parts an element from what is around it
    _PARAGRAPH: """
        p h1 h2 h3 h4 h5 h6 blockquote ul ol dl table article section figure header footer nav aside main form
    """,
    _LINE: "br div li dt dd tr hr figcaption caption address option summary details body html head",
}
_MARK_OF = {end + name: mark for mark, names in _REST.items() for name in names.split() for end in ("", "/")}
_MARK_OF |= {"/td": _CELL, "/th": _CELL, "pre": _PARAGRAPH + _VERBATIM, "/pre": _PARAGRAPH + _END_VERBATIM}
_BLANKS = re.compile("  +")
_RESTS = re.compile(f"[{_LINE}{_PARAGRAPH}{_CELL}]+")
_PRE = re.compile(f"{_VERBATIM}([^{_VERBATIM}{_END_VERBATIM}]*)")


def page_text(page: str) -> str:
    """The visible text of a page: character references resolved, white space as a browser shows it, no scripts."""
    for mark in _MARKS:
        page = page.replace(mark, "")
    page = page.replace("\r\n", "\n").replace("\r", "\n")
    text = _MARKUP.sub(_mark, page)
    if "&" in text:
        text = html.unescape(text)
    text = text.replace(_INLINE, "")
    text = _PRE.sub(_protected, text).replace(_END_VERBATIM, "")
    for blank in "\t\n\f":
        text = text.replace(blank, " ")
    text = _BLANKS.sub(" ", text)
    for mark in (_LINE, _PARAGRAPH, _CELL):
        text = text.replace(" " + mark, mark).replace(mark + " ", mark)
    text = _RESTS.sub(_rest, text).strip(" \t\n")
    return text.replace(_SPACE, " ").replace(_BREAK, "\n").replace(_TAB, "\t").strip("\n")


def _mark(markup: re.Match[str]) -> str:
    tag = markup["tag"]
    return _MARK_OF.get(tag) or (_MARK_OF.get(tag.lower()) if tag else None) or _INLINE


def _protected(section: re.Match[str]) -> str:
    """What stands in a <pre> keeps its spaces and line ends."""
    return section[1].replace(" ", _SPACE).replace("\n", _BREAK).replace("\t", _TAB)


def _rest(marks: re.Match[str]) -> str:
    """What several marks in a row come to."""
    found = marks[0]
    return "\n\n" if _PARAGRAPH in found else "\n" if _LINE in found else "\t"
