"""A few things said about a few people, and questions that only these can answer.

A mapping in prose: what stands between a name and its answer differs from line to line, and which of several people is
asked about decides. It is the same knack as reading off a list of examples, in the form that stories need.

What is said next of somebody just named says "he" or "she", and so do some answers: who that is must be kept in mind,
in stories as well, and which of the two a name takes.

Held out: a fifth of all pairs of a name and what is said of it are never told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chatsmith.text.chat import Message
from chatsmith.text.world.cast import (
    BOYS,
    COLOURS,
    GIRLS,
    HE_ANIMALS,
    PETS,
    PLACES,
    SHE_ANIMALS,
    THINGS,
    never_together,
)
from chatsmith.text.world.dice import Dice, held_out
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.phrasing import article, phrase, sentences

PEOPLE = (*GIRLS, *BOYS)
FAMILY = ("mother", "father", "grandmother", "grandfather", "sister", "brother")
FEELINGS = ("happy", "sad", "tired", "angry", "hungry", "thirsty", "proud", "sleepy", "afraid", "cold")


@dataclass(frozen=True)
class Relation:
    """One thing to say of somebody, how it is asked, and the answer; `{n}` is who, `{his}` the pronoun, `{v}` what."""

    name: str
    tell: str
    ask: str
    answer: str
    who: str
    """The question the other way round; its answer is `answer` too."""
    value: Callable[[Dice], str]


def _thing(dice: Dice) -> str:
    colour = dice.pick(COLOURS)
    return f"{article(colour)} {colour} {dice.pick(THINGS)}"


def _pet(dice: Dice) -> str:
    return f"a {dice.pick(PETS)} {dice.pick(('called', 'named'))} {dice.pick((*SHE_ANIMALS, *HE_ANIMALS))}"


def _food(dice: Dice) -> str:
    noun = dice.pick(lexicon().of_kind("food"))
    return noun.plural if noun.counted else noun.word


RELATIONS = (
    Relation("has", "{n} [has|has|found|bought] {v}.", "What does {n} have?", "{n} has {v}.", "Who has {v}?", _thing),
    Relation(
        "place", "{n} [is|is|went to play|waits] {v}.", "Where is {n}?", "{n} is {v}.", "Who is {v}?",
        lambda dice: dice.pick(PLACES).at,
    ),
    Relation(
        "likes", "{n} [likes|likes|loves] {v}.", "What does {n} like?", "{n} likes {v}.", "Who likes {v}?", _food
    ),
    Relation(
        "feels", "{n} [is|feels] {v}.", "How does {n} feel?", "{n} feels {v}.", "Who feels {v}?",
        lambda dice: dice.pick(FEELINGS),
    ),
    Relation(
        "animal", "{n} [saw|saw|drew] {v}.", "What did {n} see?", "{n} saw {v}.", "Who saw {v}?",
        lambda dice: dice.pick([noun for noun in lexicon().of_kind("animal") if noun.counted]).a,
    ),
    Relation(
        "colour", "the colour {n} likes best is {v}.", "Which colour does {n} like best?", "{n} likes {v} best.",
        "Who likes {v} best?", lambda dice: dice.pick(COLOURS),
    ),
    Relation(
        "friend", "{n} [plays with|plays with|waits for] {v}.", "Who does {n} play with?", "{n} plays with {v}.",
        "Who plays with {v}?", lambda dice: dice.pick(PEOPLE),
    ),
    Relation("pet", "{n} has {v}.", "Which pet does {n} have?", "{n} has {v}.", "Who has {v}?", _pet),
    Relation(
        "family", "{n} is out with {his} {v}.", "Who is {n} out with?", "{n} is out with {his} {v}.",
        "Who is out with a {v}?", lambda dice: dice.pick(FAMILY),
    ),
)  # fmt: skip


def fact_is_held_out(name: str, value: str) -> bool:
    """Whether this is never said of this person."""
    place = next((place.word for place in PLACES if place.at == value), "")
    return held_out("fact", name, value) or bool(place and never_together(name, place))


Fact = tuple[Relation, str, str]


def facts(dice: Dice, count: int, unseen: int = -1, more: float = 0.0) -> list[Fact]:
    """`count` facts about different people with different values; that of number `unseen` is held out.

    After each, with the probability `more`, stands another one about the same person.
    """
    relations = [dice.pick(RELATIONS)] * count if dice.chance(0.6) else [dice.pick(RELATIONS) for _ in range(count)]
    people: list[str] = []
    found: list[Fact] = []
    while len(people) < count:
        relation, name = relations[len(people)], dice.pick(PEOPLE)
        if all(name not in (other, value) for _, other, value in found) and _add(
            found, dice, relation, name, held_out=len(people) == unseen
        ):
            people.append(name)
            if dice.chance(more) and _may_follow(other := dice.pick(RELATIONS), relation):
                _add(found, dice, other, name)
    return found


def _may_follow(other: Relation, said: Relation) -> bool:
    """Whether 'he' can only be who was meant, as nobody else was named, and no question asks about both."""
    others = ("friend", "pet", "family")
    return said.name not in others and other is not said and {said.name, other.name} != {"has", "pet"}


def _add(found: list[Fact], dice: Dice, relation: Relation, name: str, *, held_out: bool = False) -> bool:
    """Whether something new could be said of somebody, held out or not as wished."""
    value = relation.value(dice)
    new = all(value not in (other, said) for _, other, said in found) and value != name
    if new and fact_is_held_out(name, value) == held_out:
        found.append((relation, name, value))
        return True
    return False


def _fill(template: str, fact: Fact, dice: Dice, pronoun: bool = False) -> str:
    _, name, value = fact
    he, his = ("she", "her") if name in GIRLS else ("he", "his")
    return sentences(phrase(template, dice, {"n": he if pronoun else name, "his": his, "v": value}))


def told(found: list[Fact], dice: Dice) -> str:
    """The facts as sentences; one about the person of the sentence before it begins with 'he' or 'she'."""
    before = ["", *(name for _, name, _ in found)]
    return " ".join(
        _fill(fact[0].tell, fact, dice, pronoun=fact[1] == last) for fact, last in zip(found, before, strict=False)
    )


def question(fact: Fact, dice: Dice, who: bool = False) -> tuple[str, str]:
    """What may be asked about a fact, or whom it is about, and the answer."""
    ask = _fill(fact[0].who if who else fact[0].ask, fact, dice)
    return ask, _fill(fact[0].answer, fact, dice, pronoun=not who and dice.chance(0.4))


def _asked(found: list[Fact], dice: Dice) -> list[tuple[str, str]]:
    order = dice.shuffled(found) if dice.chance(0.5) else [dice.pick(found) for _ in range(len(found) + 1)]
    return [question(fact, dice, dice.chance(0.25)) for fact in order]


def fact_page(dice: Dice) -> str:
    """Facts and questions with their answers, a few times over with other people."""
    pages = []
    for _ in range(dice.between(1, 3)):
        found = facts(dice, dice.pick((2, 2, 3, 3, 4, 5)), more=0.4)
        gap = dice.pick((" ", "\n"))
        pages.append("\n".join([told(found, dice), *(f"{ask}{gap}{answer}" for ask, answer in _asked(found, dice))]))
    return "\n\n".join(pages)


def fact_talk(dice: Dice) -> list[Message]:
    """Somebody says a few things about people, and asks."""
    found = facts(dice, dice.pick((1, 2, 2, 3, 3, 4)), more=0.4)
    first, *more = _asked(found, dice)
    turns = [Message("user", f"{told(found, dice)} {first[0]}"), Message("assistant", first[1])]
    for ask, answer in more:
        turns += [Message("user", ask), Message("assistant", answer)]
    return turns
