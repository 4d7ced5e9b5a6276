"""Tasks that only the examples in the prompt explain.

Of the first kind, the examples tell which known rule is meant (the French, the opposite, the plural, the number
after …). Of the second kind, they give a mapping that was never seen before: words paired at random, or kinds of
things with made-up labels, which must be read off them. Echoes, where a list of random words comes again, are the
simplest of that kind and what a small model learns first.

Held out: for each rule a fifth of its words never stands in an example; and a fifth of all pairs (word, label) is never
made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from chatsmith.text.chat import Message
from chatsmith.text.world.cast import NAMES
from chatsmith.text.world.dice import Dice, Weighted, held_out
from chatsmith.text.world.french import back_dictionary, dictionary
from chatsmith.text.world.lexicon import COLOURS, NONSENSE, lexicon
from chatsmith.text.world.phrasing import capital
from chatsmith.text.world.words import opposites


@dataclass(frozen=True)
class Rule:
    """A known rule: what may be said to ask for it, and every word with what becomes of it."""

    name: str
    tasks: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    def trained(self) -> tuple[tuple[str, str], ...]:
        """The pairs that stand in examples."""
        return _split(self)[0]

    def unseen(self) -> tuple[tuple[str, str], ...]:
        """The pairs that never do."""
        return _split(self)[1]


@lru_cache(maxsize=64)
def _split(rule: Rule) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    trained = tuple(pair for pair in rule.pairs if not held_out(rule.name, pair[0]))
    return trained, tuple(pair for pair in rule.pairs if held_out(rule.name, pair[0]))


@lru_cache(maxsize=1)
def rules() -> dict[str, Rule]:
    """Every rule by name."""
    words = lexicon()
    counted = [noun for noun in words.nouns if noun.counted]
    animals = words.animals
    table = (
        Rule("to French", ("Translate English to French:", "English to French:"), dictionary()),
        Rule("to English", ("Translate French to English:", "French to English:"), back_dictionary()),
        Rule("opposite", ("Say the opposite:", "Opposites:"), opposites()),
        Rule("plural", ("Say the plural:", "One and many:"), tuple((noun.word, noun.plural) for noun in counted)),
        Rule("past", ("Say it in the past:", "Today and yesterday:"), tuple((v.word, v.past) for v in words.verbs)),
        Rule("next number", ("Say the next number:",), tuple((str(n), str(n + 1)) for n in range(99))),
        Rule("double", ("Say the double:",), tuple((str(n), str(2 * n)) for n in range(21))),
        Rule("baby", ("Name the baby animal:",), tuple((a.noun.word, a.baby) for a in animals if a.baby)),
        Rule("sound", ("What does it say?",), tuple((a.noun.word, a.sound) for a in animals if a.sound)),
        Rule("colour", ("Name the colour:",), words.colours),
        Rule("capital letter", ("Write a capital letter:",), tuple((n.word, capital(n.word)) for n in words.nouns)),
        Rule("first letter", ("Name the first letter:",), tuple((n.word, n.word[0]) for n in words.nouns)),
    )
    return {rule.name: rule for rule in table}


@lru_cache(maxsize=1)
def _rule_weights() -> Weighted[str]:
    return Weighted({name: min(len(rule.pairs), 80) ** 0.5 for name, rule in rules().items()})


@dataclass(frozen=True)
class Style:
    """How examples are written: between a word and its answer, and between examples."""

    arrow: str
    gap: str

    def line(self, word: str, answer: str) -> str:
        return f"{word}{self.arrow} {answer}"


STYLES = (
    *(Style(" =>", "\n"),) * 6,
    Style(" ->", "\n"),
    Style(":", "\n"),
    Style(" =", "\n"),
    Style(" =>", ", "),
    Style(":", "; "),
    Style(" ->", "; "),
)

BARE = (Style("", "\n"), Style("", ", "))
"""Nothing between a word and its answer: the simplest way to stand together."""


def known_rule(dice: Dice) -> str:
    """Examples of one rule, with or without a line that names it."""
    rule = rules()[_rule_weights().draw(dice)]
    style = dice.pick(STYLES)
    pairs = dice.sample(rule.trained(), dice.between(2, 10))
    head = f"{dice.pick(rule.tasks)}\n" if dice.chance(0.35) else ""
    return head + style.gap.join(style.line(*pair) for pair in pairs)


def pair_is_held_out(word: str, label: str) -> bool:
    """Whether this word is never given this label in a mapping."""
    return held_out("mapping", word, label)


@lru_cache(maxsize=1)
def _known_pairs() -> frozenset[tuple[str, str]]:
    return frozenset(pair for rule in rules().values() for pair in rule.pairs)


def may_stand(word: str, label: str) -> bool:
    """Whether a mapping in a training text may give this word this label: the pair is new, and not held out."""
    return word != label and not pair_is_held_out(word, label) and (word, label) not in _known_pairs()


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """The words that mappings and echoes are made of."""
    words = lexicon()
    return (*(noun.word for noun in words.nouns), *(adjective.word for adjective in words.adjectives), *NAMES)


@lru_cache(maxsize=1)
def labels() -> tuple[str, ...]:
    """What words are mapped to: words again, numbers, colours, letters, and made-up words."""
    return (*vocabulary(), *map(str, range(10)), *COLOURS, *NONSENSE, *NONSENSE, *"ABCDEFGH")


CLASSES = ("animal", "food", "clothes", "place", "body", "person", "thing", "nature")


@lru_cache(maxsize=1)
def members() -> dict[str, tuple[str, ...]]:
    """The kinds of words that a mapping by kind may use, with their words."""
    kinds = {kind: tuple(noun.word for noun in lexicon().of_kind(kind)) for kind in CLASSES}
    kinds["name"] = NAMES
    kinds["number"] = tuple(map(str, range(100)))
    kinds["colour"] = COLOURS
    return kinds


def random_pairs(dice: Dice, count: int) -> list[tuple[str, str]]:
    """Different words with different labels, no pair of them held out."""
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        word, label = dice.pick(vocabulary()), dice.pick(labels())
        if word not in pairs and label not in pairs.values() and may_stand(word, label):
            pairs[word] = label
    return list(pairs.items())


def lookup(dice: Dice) -> str:
    """Words paired at random, and then the same words again in any order."""
    pairs = random_pairs(dice, dice.pick((1, 2, 2, 3, 3, 4, 4, 5, 6)))
    style = dice.pick(STYLES if dice.chance(0.8) else BARE)
    lines = list(pairs)
    while len(lines) < 3 * len(pairs) + 2:
        lines += dice.shuffled(pairs)
    return style.gap.join(style.line(*pair) for pair in lines)


def class_labels(dice: Dice, count: int) -> dict[str, str]:
    """Some kinds of words, each with a label."""
    pool = NONSENSE if dice.chance(0.5) else labels()
    names = list(dict.fromkeys(dice.sample(pool, count * 3)))
    return dict(zip(dice.sample(tuple(members()), count), names, strict=False))


def classes(dice: Dice) -> str:
    """Kinds of things with labels: animals are zup, foods are mip; which is a goose?"""
    chosen = class_labels(dice, dice.pick((2, 2, 2, 3)))
    style = dice.pick(STYLES)
    kinds = tuple(chosen)
    lines: list[str] = []
    for _ in range(dice.between(4, 16)):
        kind = dice.pick(kinds)
        word = dice.pick(members()[kind])
        if may_stand(word, chosen[kind]):
            lines.append(style.line(word, chosen[kind]))
    return style.gap.join(lines)


def echo(dice: Dice) -> str:
    """A list of random words that comes again, whole or in part."""
    words = dice.sample(vocabulary() if dice.chance(0.8) else labels(), dice.between(3, 12))
    gap = dice.pick((" ", " ", ", ", "\n"))
    text = gap.join(words)
    times = dice.between(2, 4)
    return (". " if gap == ", " else "\n").join([text] * times)


def in_context_talk(dice: Dice) -> tuple[Message, Message]:
    """A task with its examples in one message, and the answer in the other."""
    kind = dice.random()
    if kind < 0.5:
        rule = rules()[_rule_weights().draw(dice)]
        pairs = dice.sample(rule.trained(), dice.between(2, 7))
    elif kind < 0.8:
        pairs = random_pairs(dice, dice.between(2, 5))
        pairs.append(dice.pick(pairs))
    else:
        chosen = class_labels(dice, 2)
        pairs = []
        for kind_of in (*chosen, *chosen, dice.pick(tuple(chosen))):
            word = dice.pick(members()[kind_of])
            while not may_stand(word, chosen[kind_of]):
                word = dice.pick(members()[kind_of])
            pairs.append((word, chosen[kind_of]))
        pairs = [*dice.shuffled(pairs[:-1]), pairs[-1]]
    *shown, (word, answer) = pairs
    style = dice.pick(STYLES)
    question = style.gap.join([*(style.line(*pair) for pair in shown), word + style.arrow])
    return Message("user", question), Message("assistant", answer)
