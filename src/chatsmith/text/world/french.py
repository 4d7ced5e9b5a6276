"""English and French: words, phrases put together from them, and how to ask.

A word is told in sentences, in lists and in talk. Two things are held out: some words never stand in a list of the
form `cheese => fromage` (they are known from sentences, from entries of a dictionary and from talk), and some pairs of
a noun and an adjective are never put together, so that 'a red apple' must be made from 'apple' and 'red'.
"""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.chat import Message
from chatsmith.text.world.dice import Dice, held_out
from chatsmith.text.world.lexicon import Adjective, Noun, lexicon
from chatsmith.text.world.phrasing import capital, sentences, with_article

BEFORE = ("big", "small")
"""The adjectives that stand before the noun in French, among those we put to nouns."""

AFTER = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey", "pink", "purple")

FRAMES = (
    ("I see {a}", "je vois {un}"),
    ("I have {a}", "j'ai {un}"),
    ("here is {a}", "voici {un}"),
    ("I want {a}", "je veux {un}"),
    ("where is {the}?", "où est {le} ?"),
    ("I like {the}", "j'aime {le}"),
)


def list_is_held_out(english: str) -> bool:
    """Whether this word never stands in a list from English to French."""
    return held_out("to French", english)


def phrase_is_held_out(noun: str, adjective: str) -> bool:
    """Whether this noun and this adjective are never put together in French."""
    return held_out("noun and adjective", noun, adjective)


@lru_cache(maxsize=1)
def dictionary() -> tuple[tuple[str, str], ...]:
    """Every English word or phrase of the lexicon with its French."""
    return tuple(lexicon().french.items())


@lru_cache(maxsize=1)
def back_dictionary() -> tuple[tuple[str, str], ...]:
    """Every French word or phrase that means one thing only, with its English."""
    english: dict[str, list[str]] = {}
    for one, other in dictionary():
        english.setdefault(other, []).append(one)
    return tuple((french, words[0]) for french, words in english.items() if len(words) == 1)


@lru_cache(maxsize=2)
def noun_phrases(unseen: bool) -> tuple[tuple[Noun, Adjective], ...]:
    """The nouns with the adjectives that may be put to them and are held out, or are not."""
    fitting = [adjective for adjective in lexicon().adjectives if adjective.word in (*BEFORE, *AFTER)]
    return tuple(
        (noun, adjective)
        for noun in lexicon().of_kind("animal", "food", "thing", "clothes", "vehicle")
        if noun.counted
        for adjective in fitting
        if phrase_is_held_out(noun.word, adjective.word) == unseen
    )


def noun_phrase(noun: Noun, adjective: Adjective) -> tuple[str, str]:
    """'a red apple' and 'une pomme rouge'."""
    quality = adjective.french(noun.feminine)
    un = "une" if noun.feminine else "un"
    french = f"{un} {quality} {noun.french}" if adjective.word in BEFORE else f"{un} {noun.french} {quality}"
    return with_article(f"{adjective.word} {noun.word}"), french


def framed(noun: Noun, dice: Dice) -> tuple[str, str]:
    """A noun in a short sentence, in both languages."""
    english, french = dice.pick(FRAMES)
    return (
        english.format(a=noun.a, the=noun.the),
        french.format(un=noun.french_a, le=noun.french_the),
    )


def spoken(english: str, word: str | None = None) -> str:
    """A word as it stands in a sentence about it; what is a sentence itself stands in quotation marks.

    `word` is what to write, where it is not the English itself but its French.
    """
    whole = english.endswith("?") or english.startswith(("I ", "it is ", "my ", "where ", "here "))
    word = word or english
    return f'"{word}"' if whole else word


def in_french(english: str, french: str) -> str:
    """'In French, cheese is fromage.'"""
    return f"In French, {spoken(english)} is {spoken(english, french)}."


def in_english(french: str, english: str) -> str:
    """'In English, fromage is cheese.'"""
    return f"In English, {spoken(english, french)} is {spoken(english)}."


def _told(english: str, french: str, dice: Dice) -> str:
    chance = dice.random()
    if chance < 0.5:
        return in_french(english, french)
    if chance < 0.65 or spoken(english) != english:
        return in_english(french, english)
    return dice.pick(
        (
            f"The French word for {english} is {french}.",
            f"The French for {english} is {french}.",
            f"{capital(english)} is {french} in French.",
            f"{capital(french)} is French for {english}.",
        )
    )


def _sentences(dice: Dice) -> str:
    return " ".join(_told(*dice.pick(dictionary()), dice) for _ in range(dice.between(2, 6)))


def _list(dice: Dice) -> str:
    pairs = [pair for pair in dice.sample(dictionary(), dice.between(5, 14)) if not list_is_held_out(pair[0])]
    head = dice.pick(("English => French\n", "Translate English to French:\n", "English to French\n", ""))
    return head + "\n".join(f"{english} => {french}" for english, french in pairs)


def _phrases(dice: Dice) -> str:
    lines = []
    for _ in range(dice.between(3, 8)):
        if dice.chance(0.6):
            lines.append(noun_phrase(*dice.pick(noun_phrases(False))))
        else:
            lines.append(framed(dice.pick(lexicon().of_kind("animal", "food", "thing", "clothes", "vehicle")), dice))
    head = dice.pick(("English => French\n", "Translate English to French:\n", ""))
    return head + "\n".join(f"{english} => {french}" for english, french in lines)


def _articles(dice: Dice) -> str:
    nouns = dice.sample(lexicon().nouns, dice.between(3, 7))
    return " ".join(
        f"{capital(noun.the)}: {noun.french_the}." if dice.chance(0.5) else f"{capital(noun.a)}: {noun.french_a}."
        for noun in nouns
    )


def french(dice: Dice) -> str:
    """A page of English and French."""
    return dice.pick((_sentences, _sentences, _list, _list, _phrases, _articles))(dice)


TO_FRENCH = (
    "How do you say {} in French?",
    "What is {} in French?",
    "What is the French word for {}?",
    "Translate {} into French.",
    "{} in French?",
)
TO_ENGLISH = ("What does {} mean?", "What is {} in English?", "Translate {} into English.")


def french_talk(dice: Dice) -> tuple[Message, Message]:
    """A question about a word or a phrase, and its answer."""
    kind = dice.random()
    if kind < 0.65:
        english, french = dice.pick(dictionary())
    elif kind < 0.8:
        french, english = dice.pick(back_dictionary())
        question = dice.pick(TO_ENGLISH).format(spoken(english, french))
        return Message("user", sentences(question)), Message("assistant", in_english(french, english))
    elif kind < 0.93:
        english, french = noun_phrase(*dice.pick(noun_phrases(False)))
    else:
        english, french = framed(dice.pick(lexicon().of_kind("animal", "food", "thing", "clothes", "vehicle")), dice)
    question = dice.pick(TO_FRENCH).format(spoken(english))
    return Message("user", sentences(question)), Message("assistant", in_french(english, french))
