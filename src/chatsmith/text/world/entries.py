"""Pages of a dictionary: a word as it stands at the beginning of a line, and some of what is known about it.

Lists of examples (`cheese => fromage`) hold no more than four words of five. What becomes of the others is told here,
in words and among other things, for every word alike. In a sentence a word has a space before it, which makes it
another token: a model that has met `cheese` at the beginning of a line in mappings alone knows nothing of it there.

A plural that is held out is not told here either.
"""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.world.dice import Dice
from chatsmith.text.world.french import back_dictionary, dictionary
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.phrasing import capital, with_article
from chatsmith.text.world.words import KIND_NAMES, home_phrase, opposites, plural_is_held_out

_SAID = {
    "kind": ("{}", "it is {}"),
    "French": ("in French {}", "French: {}", "the French is {}", "in French it is {}"),
    "English": ("in English {}", "English: {}", "the English is {}", "in English it is {}"),
    "opposite": ("opposite: {}", "the opposite is {}", "the opposite of {}"),
    "plural": ("plural: {}", "the plural is {}", "many {}"),
    "past": ("past: {}", "the past is {}", "yesterday: {}"),
    "colour": ("colour: {}", "the colour is {}", "it is {}"),
    "baby": ("baby: {}", "the baby is called {}", "its baby is {}"),
    "sound": ("sound: {}", "it says {}", "it goes {}"),
    "home": ("home: {}", "it lives {}"),
    "capital letter": ("with a capital letter: {}", "capital: {}", "written with a capital {}"),
    "first letter": ("first letter: {}", "it begins with {}", "letter {}"),
}


@lru_cache(maxsize=1)
def known() -> dict[str, tuple[tuple[str, str], ...]]:
    """Every word, English or French, with what is known about it: (what, the answer)."""
    found: dict[str, list[tuple[str, str]]] = {}

    def add(word: str, what: str, answer: str) -> None:
        found.setdefault(word, []).append((what, answer))

    words = lexicon()
    for english, french in dictionary():
        add(english, "French", french)
    for french, english in back_dictionary():
        add(french, "English", english)
    for noun in words.nouns:
        if noun.kind in KIND_NAMES:
            add(noun.word, "kind", KIND_NAMES[noun.kind])
        if noun.counted and not plural_is_held_out(noun.word):
            add(noun.word, "plural", noun.plural)
        add(noun.word, "first letter", noun.word[0])
        add(noun.word, "capital letter", capital(noun.word))
    for one, other in opposites():
        add(one, "opposite", other)
    for verb in words.verbs:
        add(verb.word, "past", verb.past)
    for word, colour in words.colours:
        add(word, "colour", colour)
    for animal in words.animals:
        for what, answer in (
            ("baby", animal.baby and with_article(animal.baby)),
            ("sound", animal.sound),
            ("home", animal.home and home_phrase(animal.home)),
        ):
            if answer:
                add(animal.noun.word, what, answer)
    return {word: tuple(told) for word, told in found.items()}


@lru_cache(maxsize=1)
def _words() -> tuple[str, ...]:
    return tuple(known())


def entries(dice: Dice) -> str:
    """Some words, one a line, each with some of what is known about it."""
    mark = dice.pick((":", ",", " -", "."))
    gap = dice.pick((", ", "; "))
    lines = []
    for word in dice.sample(_words(), dice.between(4, 9)):
        told = dice.shuffled(known()[word])[: dice.between(1, 4)]
        lines.append(f"{word}{mark} " + gap.join(dice.pick(_SAID[what]).format(answer) for what, answer in told) + ".")
    return "\n".join(lines)
