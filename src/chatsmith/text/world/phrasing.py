"""Sentences with choices in them, and the small grammar of English that the world needs.

A template is plain text with two marks. `[walked|ran|went]` is a choice, which may be nested; `{hero.he}` is a
field of somebody or something in the cast. `"{hero} [walked|ran] to {place}."` may say "Anna ran to the park."
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TypeAlias

from chatsmith.text.world.dice import Dice

Part: TypeAlias = "str | tuple[str, str | None] | list[Parts]"
Parts: TypeAlias = "list[Part]"

_MARKS = re.compile(r"[\[\]|{}]")
_SENTENCE = re.compile(r'(^"?|[.!?] "?|: "|\n"?)([a-zéàçêâô])')
_VOWELS = frozenset("aeiouAEIOU")
_SOUNDS = {"hour": "an", "honest": "an", "unicorn": "a", "one": "a", "useful": "a", "uncle": "an"}


def split(words: str) -> tuple[str, ...]:
    """The words of a list that is written as text."""
    return tuple(words.split())


NUMBER_WORDS = split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)


@cache
def _parse(template: str) -> Parts:
    parts, end = _sequence(template, 0)
    if end != len(template):
        raise ValueError(f"a bracket is closed that was not opened: {template!r}")
    return parts


def _sequence(text: str, at: int) -> tuple[Parts, int]:
    """Literal text, fields and choices up to the `|` or `]` that ends them, or the end of the text."""
    parts: Parts = []
    while at < len(text):
        mark = _MARKS.search(text, at)
        stop = mark.start() if mark else len(text)
        if stop > at:
            parts.append(text[at:stop])
        if not mark or mark.group() in "|]":
            return parts, stop
        if mark.group() == "{":
            close = text.index("}", stop)
            name, _, field = text[stop + 1 : close].partition(".")
            parts.append((name, field or None))
            at = close + 1
        else:
            choices: list[Parts] = []
            at = stop
            while text[at] != "]":
                choice, at = _sequence(text, at + 1)
                if at >= len(text):
                    raise ValueError(f"a choice is not closed: {text!r}")
                choices.append(choice)
            parts.append(choices)
            at += 1
    return parts, at


def _write(parts: Parts, dice: Dice, cast: Mapping[str, object], out: list[str]) -> None:
    for part in parts:
        if type(part) is str:
            out.append(part)
        elif type(part) is tuple:
            value = cast[part[0]]
            out.append(str(value) if part[1] is None else str(getattr(value, part[1])))
        else:
            _write(part[int(dice.random() * len(part))], dice, cast, out)  # type: ignore[arg-type]


def phrase(template: str, dice: Dice, cast: Mapping[str, object] | None = None) -> str:
    """The template with its choices made and its fields filled in."""
    out: list[str] = []
    _write(_parse(template), dice, cast or {}, out)
    text = "".join(out)
    return text.replace("  ", " ") if "  " in text else text  # a choice that fell on nothing leaves two spaces


def variants(template: str, cast: Mapping[str, object] | None = None) -> list[str]:
    """Every text that the template can say, in order."""

    def spell(parts: Parts) -> list[str]:
        texts = [""]
        for part in parts:
            if isinstance(part, str):
                tails = [part]
            elif isinstance(part, tuple):
                value = (cast or {})[part[0]]
                tails = [str(value) if part[1] is None else str(getattr(value, part[1]))]
            else:
                tails = [text for choice in part for text in spell(choice)]
            texts = [head + tail for head in texts for tail in tails]
        return texts

    return spell(_parse(template))


def sentences(text: str) -> str:
    """The text with a capital at the start of every sentence and of every quotation."""
    return _SENTENCE.sub(lambda match: match.group(1) + match.group(2).upper(), text)


def capital(text: str) -> str:
    """The text with its first letter a capital."""
    return text[:1].upper() + text[1:]


def opening_capital(text: str) -> str:
    """The text with a capital where its first sentence, or the quotation it opens with, begins."""
    return text[0] + capital(text[1:]) if text.startswith('"') else capital(text)


def article(word: str) -> str:
    """`a` or `an`, as the word sounds."""
    first = word.split(" ", 1)[0]
    return _SOUNDS.get(first) or ("an" if first[0] in _VOWELS else "a")


def with_article(word: str) -> str:
    """'an apple', 'a dog'."""
    return f"{article(word)} {word}"


def regular_plural(word: str) -> str:
    """The plural by the rules of spelling: dogs, boxes, cherries."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def number_word(number: int) -> str:
    """0 to 20 in words; larger ones in figures."""
    return NUMBER_WORDS[number] if 0 <= number < len(NUMBER_WORDS) else str(number)
