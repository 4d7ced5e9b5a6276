"""The text that an HTML page shows, with its paragraphs.

The pattern below needs time in proportion to the page for any input. (The standard library's `html.parser` takes 40
seconds for 60 kB of "<a <a <a …", and on ordinary pages a sixth of this speed.)
"""

from __future__ import annotations

import html
import re

# A quoted value may hold < and >. No part can be matched in two ways, and groups give nothing back once matched.
_MARKUP = re.compile(
    r"""
    <!--.*?(?:-->|\Z)
    | <(?P<end>/?)(?P<name>[a-zA-Z][^\s/<>]*+)(?:[^<>"']++|"[^"]*+"|'[^']*+')*+>
    | <[!?/][^<>]*+(?:>|(?=<)|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLANKS = re.compile(r" *[\t\n\f\r][ \t\n\f\r]*|  +")  # all but single spaces, which stay
_RAW = {  # elements whose content is no markup and is not shown
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in ("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes")
}
_REST = {  # how many line ends part an element from what is around it
    2: "p h1 h2 h3 h4 h5 h6 blockquote pre ul ol dl table article section figure header footer nav aside main form",
    1: "br div li dt dd tr hr figcaption caption address option summary details body html head",
}
_RESTS = {name: breaks for breaks, names in _REST.items() for name in names.split()}
_CELLS = frozenset(("td", "th"))


def page_text(page: str) -> str:
    """The visible text of a page: character references resolved, white space as a browser shows it, no scripts."""
    writer = _Writer()
    at = 0
    while markup := _MARKUP.search(page, at):
        writer.write(page[at : markup.start()])
        at = markup.end()
        name = (markup["name"] or "").lower()
        if name in _RESTS:
            writer.rest(_RESTS[name])
        elif name in _CELLS and markup["end"]:
            writer.cell()
        if name == "pre":
            writer.verbatim = not markup["end"]
        if name in _RAW and not markup["end"]:
            close = _RAW[name].search(page, at)
            at = close.start() if close else len(page)
    writer.write(page[at:])
    return writer.text()


class _Writer:
    """Puts words, lines and paragraphs together, with one blank at most between words."""

    def __init__(self) -> None:
        self.verbatim = False
        self._parts: list[str] = []
        self._breaks = 0
        self._blank = ""

    def write(self, source: str) -> None:
        """Text as it stands between two tags."""
        if not source:
            return
        words = html.unescape(source) if "&" in source else source
        if not self.verbatim:
            words = _BLANKS.sub(" ", words)
            if words[0] == " ":
                self._blank = self._blank or " "
                words = words[1:]
            if not words:
                return
        if self._parts:
            self._parts.append("\n" * self._breaks if self._breaks else self._blank)
        self._breaks, self._blank = 0, ""
        if not self.verbatim and words[-1] == " ":
            words, self._blank = words[:-1], " "
        self._parts.append(words)

    def rest(self, breaks: int) -> None:
        """End the line (1) or the paragraph (2)."""
        self._breaks = max(self._breaks, breaks)
        self._blank = ""

    def cell(self) -> None:
        """Go on to the next cell of a table row."""
        self._blank = "\t"

    def text(self) -> str:
        return "".join(self._parts).strip("\n")
