"""What words mean to each other: opposites, colours, sizes, plurals, the past, and what is known about animals.

Held out: pairs of sizes that are never compared, and plurals that are never spelled out as such.
"""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.chat import Message
from chatsmith.text.world.dice import Dice, held_out, held_out_pair
from chatsmith.text.world.french import in_french
from chatsmith.text.world.lexicon import Noun, lexicon
from chatsmith.text.world.phrasing import capital, phrase, split, with_article

KIND_NAMES = {
    "animal": "an animal",
    "food": "something to eat or drink",
    "clothes": "something to wear",
    "vehicle": "something to travel in",
    "place": "a place",
    "person": "a person",
    "body": "a part of the body",
}
DAYS = split("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = split("January February March April May June July August September October November December")


def size_is_held_out(one: str, other: str) -> bool:
    """Whether these two are never compared."""
    return held_out_pair("size", one, other)


def plural_is_held_out(word: str) -> bool:
    """Whether the plural of this word is never asked for or listed (it stands in stories all the same)."""
    return held_out("plural", word)


@lru_cache(maxsize=1)
def sizes() -> dict[str, int]:
    """Everything that has a size, from 1 to 10."""
    return {animal.noun.word: animal.size for animal in lexicon().animals} | dict(lexicon().sizes)


@lru_cache(maxsize=2)
def size_pairs(unseen: bool) -> tuple[tuple[str, str], ...]:
    """Pairs (bigger, smaller), clearly different in size, that are held out, or are not."""
    known = sizes()
    return tuple(
        (big, small) for big in known for small in known if known[big] >= known[small] + 2
        and size_is_held_out(big, small) == unseen
    )  # fmt: skip


@lru_cache(maxsize=2)
def plurals(unseen: bool) -> tuple[Noun, ...]:
    """The nouns whose plural is held out, or is not."""
    return tuple(noun for noun in lexicon().nouns if noun.counted and plural_is_held_out(noun.word) == unseen)


@lru_cache(maxsize=1)
def opposites() -> tuple[tuple[str, str], ...]:
    """Pairs of opposites, both ways round."""
    return tuple(pair for one, other in lexicon().opposites for pair in ((one, other), (other, one)))


def colour_subject(word: str) -> str:
    """The word as the subject of 'is': 'grass', 'the sky', 'a banana'."""
    noun = lexicon().by_word.get(word)
    if noun is None or not noun.counted:
        return word
    return f"the {word}" if word in ("sky", "sun", "sea", "night") else with_article(word)


def _opposite(dice: Dice) -> str:
    one, other = dice.pick(opposites())
    if dice.chance(0.75):
        return f"The opposite of {one} is {other}."
    return f"{capital(one)} is the opposite of {other}." if dice.chance(0.7) else f"Not {one}, but {other}."


def _colour(dice: Dice) -> str:
    word, colour = dice.pick(lexicon().colours)
    subject = colour_subject(word)
    return phrase(
        f"[{capital(subject)} is {colour}.|{capital(subject)} is {colour}.|The colour of {subject} is {colour}.]", dice
    )


def _size(dice: Dice) -> str:
    big, small = dice.pick(size_pairs(False))
    if dice.chance(0.5):
        return f"{capital(with_article(big))} is bigger than {with_article(small)}."
    return f"{capital(with_article(small))} is smaller than {with_article(big)}."


def _plural(dice: Dice) -> str:
    noun = dice.pick(plurals(False))
    if dice.chance(0.7):
        return f"The plural of {noun.word} is {noun.plural}."
    return f"One {noun.word}, two {noun.plural}."


def _past(dice: Dice) -> str:
    verb = dice.pick(lexicon().verbs)
    if dice.chance(0.7):
        return f"The past of {verb.word} is {verb.past}."
    return f"Today I {verb.word}, yesterday I {verb.past}."


def animal_facts(word: str) -> list[tuple[str, str, str]]:
    """(question, answer, key word) for everything known about an animal."""
    facts = []
    animal = next(animal for animal in lexicon().animals if animal.noun.word == word)
    a = with_article(word)
    if animal.baby:
        facts.append(
            (f"What is a baby {word} called?", f"A baby {word} is called {with_article(animal.baby)}.", animal.baby)
        )
    if animal.sound:
        facts.append((f"What does {a} say?", f"{capital(a)} says {animal.sound}.", animal.sound))
    if animal.home:
        where = home_phrase(animal.home)
        facts.append((f"Where does {a} live?", f"{capital(a)} lives {where}.", animal.home))
    return facts


def home_phrase(home: str) -> str:
    """'in a hive', 'in the sea', 'in water'."""
    if home in ("sea", "desert", "jungle", "forest", "pond"):
        return f"in the {home}"
    return "in water" if home == "water" else f"in {with_article(home)}"


def _animal(dice: Dice) -> str:
    while True:
        facts = animal_facts(dice.pick(lexicon().animals).noun.word)
        if facts:
            return dice.pick(facts)[1]


def _kind(dice: Dice) -> str:
    noun = dice.pick(lexicon().of_kind(*KIND_NAMES))
    return f"{capital(noun.a)} is {KIND_NAMES[noun.kind]}."


def _calendar(dice: Dice) -> str:
    days = dice.chance(0.5)
    ring = DAYS if days else MONTHS
    i = dice.below(len(ring))
    one, other = ring[i], ring[(i + 1) % len(ring)]
    return f"After {one} comes {other}." if dice.chance(0.6) else f"Before {other} comes {one}."


def _letter(dice: Dice) -> str:
    noun = dice.pick(lexicon().nouns)
    return f"The word {noun.word} begins with {noun.word[0]}."


_TOPICS = (_opposite, _opposite, _colour, _size, _size, _plural, _past, _animal, _animal, _kind, _calendar, _letter)


def _card(dice: Dice) -> str:
    """Everything about one animal."""
    animal = dice.pick(lexicon().animals)
    noun = animal.noun
    lines = [f"{capital(noun.a)} is an animal."]
    lines += dice.shuffled([answer for _, answer, _ in animal_facts(noun.word)])
    lines.append(in_french(noun.word, noun.french))
    if not plural_is_held_out(noun.word):
        lines.append(f"One {noun.word}, two {noun.plural}.")
    colour = dict(lexicon().colours).get(noun.word)
    if colour:
        lines.append(f"{capital(noun.a)} is {colour}.")
    return " ".join(lines)


def words(dice: Dice) -> str:
    """A few sentences about words: of one sort, or of all sorts."""
    kind = dice.random()
    if kind < 0.15:
        return _card(dice)
    topic = dice.pick(_TOPICS)
    mixed = kind < 0.4
    return " ".join((dice.pick(_TOPICS) if mixed else topic)(dice) for _ in range(dice.between(3, 8)))


def word_question(dice: Dice) -> tuple[str, str]:
    """A question about words, and its answer."""
    kind = dice.below(7)
    if kind <= 1:
        one, other = dice.pick(opposites())
        return phrase(f"[What is the opposite of {one}?|Tell me the opposite of {one}.]", dice), (
            f"The opposite of {one} is {other}."
        )
    if kind == 2:
        word, colour = dice.pick(lexicon().colours)
        subject = colour_subject(word)
        return phrase(
            f"[What colour is {subject}?|Which colour is {subject}?]", dice
        ), f"{capital(subject)} is {colour}."
    if kind == 3:
        big, small = dice.pick(size_pairs(False))
        one, other = dice.shuffled((with_article(big), with_article(small)))
        if dice.chance(0.7):
            return f"Which is bigger, {one} or {other}?", f"{capital(with_article(big))} is bigger."
        return f"Which is smaller, {one} or {other}?", f"{capital(with_article(small))} is smaller."
    if kind == 4:
        noun = dice.pick(plurals(False))
        return f"What is the plural of {noun.word}?", f"The plural of {noun.word} is {noun.plural}."
    if kind == 5:
        verb = dice.pick(lexicon().verbs)
        return f"What is the past of {verb.word}?", f"The past of {verb.word} is {verb.past}."
    while True:
        facts = animal_facts(dice.pick(lexicon().animals).noun.word)
        if facts:
            question, answer, _ = dice.pick(facts)
            return question, answer


def word_talk(dice: Dice) -> tuple[Message, Message]:
    """A question about words and its answer, as a turn of talk."""
    question, answer = word_question(dice)
    return Message("user", question), Message("assistant", answer)
