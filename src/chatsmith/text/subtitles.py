"""What is said in subtitles (SubRip's .srt and the web's .vtt), without the times at which it is shown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from chatsmith.text.report import Unreadable

_TIMES = re.compile(r"\s*(?:\d+:)?\d+:\d\d[.,]\d+\s*-->\s*(?:\d+:)?\d+:\d\d[.,]\d+")
_SPEAKER = re.compile(r"<v(?:\.[^\s>]*)? ([^>]+)>")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # of the web and SubRip, and where on the screen a line stands


def subtitle_text(lines: Iterator[str], size: int) -> Iterator[str]:
    """The words of subtitles, a line for each of theirs, in pieces of about `size` characters.

    Only lines below a time are words; numbers and notes above it are not. A line that a caption repeats from the one
    before it, as those do that scroll, is said once.
    """
    held: list[str] = []
    length = 0
    before = ""
    shown = False
    damage: Unreadable | None = None
    try:
        for line in lines:
            if _TIMES.match(line):
                shown = True
            elif not line.strip("\r\n"):
                shown = False  # a line of blanks alone does not end a caption
            elif shown:
                said = html.unescape(_TAG.sub("", _SPEAKER.sub(r"\1: ", line))).strip()
                if said and said != before:
                    held.append(said + "\n")
                    length += len(said) + 1
                    before = said
            if length > size:
                yield "".join(held)
                held, length = [], 0
    except Unreadable as error:  # what came before counts
        damage = error
    yield "".join(held)
    if damage is not None:
        raise damage
