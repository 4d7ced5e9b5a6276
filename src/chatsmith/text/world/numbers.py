"""Counting and arithmetic: sums and differences of one digit and of two, what comes next, what is bigger.

Held out everywhere: a fifth of the pairs of digits to add (3 + 4 together with 4 + 3, in figures and in words), of the
longer sums, of the differences of digits and of longer ones, and of the pairs of numbers to compare. The digits of what
is held out do meet in longer numbers: where 7 + 2 is held out, 17 + 2 = 19 may be told. To answer 9, a model must have
learned what the places of a number mean. So most of the sums told are longer ones: those of two digits are few enough
to be learned by heart, which leaves no reason to learn more.
"""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.chat import Message
from chatsmith.text.world.dice import Dice, held_out, held_out_pair
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.phrasing import capital, number_word, phrase


def sum_is_held_out(a: int, b: int) -> bool:
    """Whether the sum of these two digits is never told."""
    return held_out_pair("sum", a, b)


def long_sum_is_held_out(a: int, b: int) -> bool:
    """Whether the sum of this two-digit number and the other is never told."""
    return held_out("long sum", a, b)


def difference_is_held_out(a: int, b: int) -> bool:
    """Whether a - b (digits, a not below b) is never told."""
    return held_out("difference", a, b)


def long_difference_is_held_out(a: int, b: int) -> bool:
    """Whether the difference of this two-digit number and the other is never told."""
    return held_out("long difference", a, b)


def comparison_is_held_out(a: int, b: int) -> bool:
    """Whether these two numbers are never compared."""
    return held_out_pair("comparison", a, b)


@lru_cache(maxsize=2)
def sums(unseen: bool) -> tuple[tuple[int, int], ...]:
    """The ordered pairs of digits whose sum is held out, or is not."""
    return tuple((a, b) for a in range(10) for b in range(10) if sum_is_held_out(a, b) == unseen)


@lru_cache(maxsize=2)
def differences(unseen: bool) -> tuple[tuple[int, int], ...]:
    """The pairs of digits a, b with a not below b whose difference is held out, or is not."""
    return tuple((a, b) for a in range(10) for b in range(a + 1) if difference_is_held_out(a, b) == unseen)


@lru_cache(maxsize=2)
def long_differences(unseen: bool) -> tuple[tuple[int, int], ...]:
    """The differences of a two-digit number and a digit, or of two tens, that are held out, or are not."""
    digits = ((a, b) for a in range(10, 100) for b in range(10))
    tens = ((a, b) for a in range(10, 100, 10) for b in range(10, a + 1, 10))
    return tuple(pair for pair in (*digits, *tens) if long_difference_is_held_out(*pair) == unseen)


@lru_cache(maxsize=2)
def comparisons(unseen: bool) -> tuple[tuple[int, int], ...]:
    """The ordered pairs of different numbers to 20 that are held out from comparing, or are not."""
    return tuple((a, b) for a in range(21) for b in range(21) if a != b and comparison_is_held_out(a, b) == unseen)


@lru_cache(maxsize=2)
def long_sums(unseen: bool) -> tuple[tuple[int, int], ...]:
    """The sums of a two-digit number and a digit, or of two tens, up to 99 that are held out, or are not."""
    digits = ((a, b) for a in range(10, 100) for b in range(10) if a + b < 100)
    tens = ((a, b) for a in range(10, 100, 10) for b in range(10, 100 - a, 10))
    return tuple(pair for pair in (*digits, *tens) if long_sum_is_held_out(*pair) == unseen)


def sum_line(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b}"


def difference_line(a: int, b: int) -> str:
    return f"{a} - {b} = {a - b}"


def _sums(dice: Dice) -> str:
    return "\n".join(sum_line(*dice.pick(sums(False))) for _ in range(dice.between(3, 12)))


def _differences(dice: Dice) -> str:
    return "\n".join(difference_line(*dice.pick(differences(False))) for _ in range(dice.between(3, 12)))


def _families(dice: Dice) -> str:
    """Sums with the differences that undo them, as far as each may be told."""
    lines = []
    for _ in range(dice.between(2, 4)):
        a, b = dice.pick(sums(False))
        lines += [sum_line(a, b), sum_line(b, a)][: 1 + (a != b)]
        for part in dict.fromkeys((a, b)):
            if a + b < 10 and not difference_is_held_out(a + b, part):
                lines.append(difference_line(a + b, part))
    return "\n".join(lines)


def _long_sums(dice: Dice) -> str:
    return "\n".join(sum_line(*dice.pick(long_sums(False))) for _ in range(dice.between(3, 8)))


def _long_differences(dice: Dice) -> str:
    return "\n".join(difference_line(*dice.pick(long_differences(False))) for _ in range(dice.between(3, 8)))


def _in_words(dice: Dice) -> str:
    lines = []
    for _ in range(dice.between(2, 6)):
        if dice.chance(0.6):
            a, b = dice.pick(sums(False))
            lines.append(f"{capital(number_word(a))} plus {number_word(b)} is {number_word(a + b)}.")
        else:
            a, b = dice.pick(differences(False))
            lines.append(f"{capital(number_word(a))} minus {number_word(b)} is {number_word(a - b)}.")
    return " ".join(lines)


def _counting(dice: Dice) -> str:
    kind = dice.below(6)
    if kind == 0:
        start = dice.between(0, 90)
        return " ".join(map(str, range(start, start + dice.between(6, 20))))
    if kind == 1:
        start, length = dice.between(0, 12), dice.between(4, 9)
        end = min(start + length, 20)
        return f"Count from {start} to {end}: {', '.join(map(str, range(start, end + 1)))}."
    if kind == 2:
        start = dice.between(5, 20)
        return f"Count back from {start}: {', '.join(map(str, range(start, max(start - 10, -1), -1)))}."
    if kind == 3:
        start, step = dice.between(0, 10), dice.pick((2, 5, 10))
        return f"Count by {number_word(step)}s: {', '.join(str(start + step * i) for i in range(dice.between(5, 9)))}."
    if kind == 4:
        start = dice.between(0, 10)
        return capital(", ".join(number_word(n) for n in range(start, start + dice.between(5, 10)))) + "."
    lines = []
    for _ in range(dice.between(2, 5)):
        noun, count = dice.pick(lexicon().of_kind("animal", "food", "thing")), dice.between(1, 9)
        if noun.counted:
            lines.append(f"{' '.join([noun.word] * count)}: {count} {noun.word if count == 1 else noun.plural}")
    return "\n".join(lines) or "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def _neighbours(dice: Dice) -> str:
    lines = []
    for _ in range(dice.between(3, 8)):
        n = dice.between(0, 20) if dice.chance(0.6) else dice.between(0, 98)
        lines.append(
            phrase(
                dice.pick(
                    (
                        f"[After {n} comes {n + 1}.|The number after {n} is {n + 1}.|{n + 1} comes after {n}.]",
                        f"[Before {n + 1} comes {n}.|The number before {n + 1} is {n}.]",
                        f"[One more than {n} is {n + 1}.|One less than {n + 1} is {n}.]",
                    )
                ),
                dice,
            )
        )
    return " ".join(lines)


def _comparing(dice: Dice) -> str:
    lines = []
    for _ in range(dice.between(3, 8)):
        a, b = dice.pick(comparisons(False))
        big, small = max(a, b), min(a, b)
        lines.append(
            dice.pick(
                (
                    f"{big} is bigger than {small}.",
                    f"{small} is smaller than {big}.",
                    f"Which is bigger, {a} or {b}? {big}",
                    f"Which is bigger, {a} or {b}? {big}",
                )
            )
        )
    return "\n".join(lines)


def _problem(dice: Dice) -> tuple[str, str, str]:
    """A little problem with things to count: the story, the question, and the answer."""
    noun = dice.pick([noun for noun in lexicon().of_kind("food", "thing", "animal") if noun.counted])
    name, she = dice.pick(
        (("Anna", True), ("Tom", False), ("Mia", True), ("Ben", False), ("Lily", True), ("Sam", False))
    )
    he = "she" if she else "he"
    if dice.chance(0.6):
        a, b = dice.pick(sums(False))
        said = f"{name} has {_count(a, noun)}. {capital(he)} gets {b} more."
        total = a + b
    else:
        a, b = dice.pick(differences(False))
        said = f"{name} has {_count(a, noun)}. {capital(he)} gives {b} away."
        total = a - b
    return said, f"How many {noun.plural} does {name} have now?", f"{name} has {_count(total, noun)}."


def _count(number: int, noun: object) -> str:
    return f"{number} {getattr(noun, 'word' if number == 1 else 'plural')}"


def _problems(dice: Dice) -> str:
    said, question, answer = _problem(dice)
    if dice.chance(0.5):
        return f"{said} {question} {answer}"
    return f"{said} Now {answer}"


_WRITERS = (
    _sums,
    _differences,
    *(_counting,) * 2,
    *(_long_sums,) * 7,
    *(_long_differences,) * 3,
    *(_families, _in_words, _neighbours, _comparing, _problems),
)


def numbers(dice: Dice) -> str:
    """A page about numbers."""
    return dice.pick(_WRITERS)(dice)


SUM_QUESTIONS = ("What is {} + {}?", "How much is {} + {}?", "{} + {}?", "What is {} plus {}?", "{} + {} = ?")
DIFFERENCE_QUESTIONS = ("What is {} - {}?", "How much is {} - {}?", "{} - {}?", "What is {} minus {}?")


def number_talk(dice: Dice) -> tuple[Message, Message]:
    """A question about numbers, and its answer."""
    kind = dice.random()
    if kind < 0.4:
        a, b = dice.pick(long_sums(False) if dice.chance(0.5) else sums(False))
        question, answer = dice.pick(SUM_QUESTIONS).format(a, b), f"{sum_line(a, b)}."
    elif kind < 0.6:
        a, b = dice.pick(long_differences(False) if dice.chance(0.5) else differences(False))
        question, answer = dice.pick(DIFFERENCE_QUESTIONS).format(a, b), f"{difference_line(a, b)}."
    elif kind < 0.68:
        n = dice.between(0, 50)
        question = phrase(f"[What comes after {n}?|Which number comes after {n}?|What number is next after {n}?]", dice)
        answer = f"After {n} comes {n + 1}."
    elif kind < 0.76:
        a, b = dice.pick(comparisons(False))
        question = phrase(f"[Which is bigger, {a} or {b}?|Which number is bigger, {a} or {b}?]", dice)
        answer = f"{max(a, b)} is bigger than {min(a, b)}."
    elif kind < 0.86:
        start, end = dice.between(0, 4), dice.between(6, 12)
        question = phrase(f"[Count from {start} to {end}.|Can you count from {start} to {end}?]", dice)
        answer = ", ".join(map(str, range(start, end + 1))) + "."
    else:
        said, asked, answer = _problem(dice)
        question = f"{said} {asked}"
    return Message("user", question), Message("assistant", answer)
