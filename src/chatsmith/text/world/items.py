"""Questions that measure what a model learned: every skill, on what it was trained on and on what was held out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.text.chat import Message
from chatsmith.text.world import facts, french, incontext, numbers, sentiment, smalltalk, stories, talk, words
from chatsmith.text.world.cast import Actor, Place, never_together
from chatsmith.text.world.dice import Dice
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.phrasing import phrase, sentences, with_article

Split: TypeAlias = Literal["trained", "held_out"]
Match: TypeAlias = Literal["line", "number", "mention"]
SPLITS: tuple[Split, ...] = ("trained", "held_out")


@dataclass(frozen=True, slots=True)
class SkillItem:
    """One question with the answers that count.

    Exactly one of `prompt` (a text to continue) and `messages` (a conversation whose next turn is the answer) is set.
    `match` says how the first line of the reply is judged: 'line', it or its first sentence equals an answer, apart
    from capitals and the mark at its end; 'number', its last number is the answer; 'mention', it says an answer as a
    whole word, and none of the `rivals`.
    """

    skill: str
    split: Split
    shots: int
    answers: tuple[str, ...]
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    match: Match = "line"
    rivals: tuple[str, ...] = ()
    capitals: bool = False

    def correct(self, reply: str) -> bool:
        """Whether this reply is right."""
        line = reply.strip().split("\n", 1)[0]
        if self.match == "number":
            found = re.findall(r"\d+", line)
            return bool(found) and found[-1] in self.answers
        if self.match == "mention":
            return any(_says(line, answer) for answer in self.answers) and not any(
                _says(line, rival) for rival in self.rivals
            )
        # A text goes on behind its answer: "weeks. The plural of …" is right.
        said = {_plain(part, self.capitals) for part in (line, line.split(". ", 1)[0])}
        return any(_plain(answer, self.capitals) in said for answer in self.answers)


def _plain(text: str, capitals: bool) -> str:
    text = " ".join(text.split()).strip(' ."!')
    return text if capitals else text.casefold()


def _says(line: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", line.casefold()) is not None


@dataclass(frozen=True)
class Skill:
    """Something to measure: what it is, how often guessing is right, and which splits and shots make sense."""

    about: str
    chance: float
    make: Callable[[Dice, int, bool], SkillItem]
    splits: tuple[Split, ...] = SPLITS
    shots: tuple[int, ...] | None = None

    @property
    def talks(self) -> bool:
        """Whether it is asked in conversations: any of its questions tells."""
        return bool(self.make(Dice(0), 0, False).messages)


def _item(**fields: object) -> SkillItem:
    return SkillItem(skill="", split="trained", shots=0, **fields)  # type: ignore[arg-type]


def _lines(dice: Dice, shots: int, pairs: Sequence[tuple[str, str]], asked: tuple[str, str], mark: str = "") -> str:
    """A prompt: `shots` solved lines from `pairs`, none of them the one asked, and the question."""
    others = [pair for pair in dice.sample(pairs, shots + 1) if pair[0] != asked[0]][:shots]
    return "\n".join([*(f"{question} {answer}{mark}" for question, answer in others), asked[0]])


def _sums(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    return _sum(dice, shots, numbers.sums(False), numbers.sums(unseen))


def _long_sums(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    return _sum(dice, shots, numbers.long_sums(False), numbers.long_sums(unseen))


def _sum(dice: Dice, shots: int, known: Sequence[tuple[int, int]], asked: Sequence[tuple[int, int]]) -> SkillItem:
    def pair(a: int, b: int) -> tuple[str, str]:
        return f"{a} + {b} =", str(a + b)

    question = pair(*dice.pick(asked))
    return _item(prompt=_lines(dice, shots, [pair(*ab) for ab in known], question), answers=(question[1],))


def _differences(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    return _difference(dice, shots, numbers.differences(False), numbers.differences(unseen))


def _long_differences(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    return _difference(dice, shots, numbers.long_differences(False), numbers.long_differences(unseen))


def _difference(
    dice: Dice, shots: int, known: Sequence[tuple[int, int]], asked: Sequence[tuple[int, int]]
) -> SkillItem:
    def pair(a: int, b: int) -> tuple[str, str]:
        return f"{a} - {b} =", str(a - b)

    question = pair(*dice.pick(asked))
    return _item(prompt=_lines(dice, shots, [pair(*ab) for ab in known], question), answers=(question[1],))


def _comparison(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def pair(a: int, b: int) -> tuple[str, str]:
        return f"Which is bigger, {a} or {b}?", str(max(a, b))

    asked = pair(*dice.pick(numbers.comparisons(unseen)))
    known = [pair(*ab) for ab in dice.sample(numbers.comparisons(False), shots + 1)]
    return _item(prompt=_lines(dice, shots, known, asked), answers=(asked[1],))


def _plurals(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    known = [(f"The plural of {noun.word} is", noun.plural) for noun in words.plurals(False)]
    noun = dice.pick(words.plurals(unseen))
    asked = (f"The plural of {noun.word} is", noun.plural)
    return _item(prompt=_lines(dice, shots, known, asked, "."), answers=(noun.plural,))


def _translation(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    lists = [(f"{one} =>", other) for one, other in french.dictionary() if not french.list_is_held_out(one)]
    held = [(f"{one} =>", other) for one, other in french.dictionary() if french.list_is_held_out(one)]
    asked = dice.pick(held if unseen else lists)
    return _item(prompt="Translate English to French:\n" + _lines(dice, shots, lists, asked), answers=(asked[1],))


def _phrases(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def pair(noun: object, adjective: object) -> tuple[str, str]:
        english, other = french.noun_phrase(noun, adjective)  # type: ignore[arg-type]
        return f"{english} =>", other

    asked = pair(*dice.pick(french.noun_phrases(unseen)))
    known = [pair(*both) for both in dice.sample(french.noun_phrases(False), shots + 1)]
    return _item(prompt="Translate English to French:\n" + _lines(dice, shots, known, asked), answers=(asked[1],))


def _sentiment(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    shown = [sentiment.review(dice) for _ in range(shots)]
    text, label = sentiment.review(dice, unseen=unseen)
    head = "".join(f"Review: {one}\nSentiment: {other}\n" for one, other in shown)
    return _item(prompt=f"{head}Review: {text}\nSentiment:", answers=(label,))


def _rule(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    while True:
        rule = dice.pick(tuple(incontext.rules().values()))
        if unseen and not rule.unseen():
            continue
        word, answer = dice.pick(rule.unseen() if unseen else rule.trained())
        known = [(f"{one} =>", other) for one, other in rule.trained() if one != word]
        answers = tuple(other for one, other in rule.pairs if one == word)
        return _item(
            prompt=_lines(dice, shots, known, (f"{word} =>", answer)),
            answers=answers,
            capitals=rule.name in ("capital letter", "first letter"),
        )


def _mapping_words(dice: Dice, unseen: bool) -> tuple[str, str]:
    """A word and a label that are, or are never, put together."""
    while True:
        word, label = dice.pick(incontext.vocabulary()), dice.pick(incontext.labels())
        if word != label and incontext.pair_is_held_out(word, label) == unseen:
            return word, label


def _lookup(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    word, label = _mapping_words(dice, unseen)
    while True:
        shown = incontext.random_pairs(dice, max(shots - 1, 1))[: max(shots - 1, 0)]
        if all(one != word and other != label for one, other in shown):
            break
    shown = dice.shuffled([*shown, (word, label)]) if shots else []
    prompt = "".join(f"{one} => {other}\n" for one, other in shown) + f"{word} =>"
    return _item(prompt=prompt, answers=(label,), capitals=True)


def _classes(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    members = incontext.members()
    while True:
        chosen = incontext.class_labels(dice, 2)
        kinds = list(chosen)
        asked = dice.pick(kinds)
        word = dice.pick(members[asked])
        if word not in chosen.values() and incontext.pair_is_held_out(word, chosen[asked]) == unseen:
            break
    shown: list[tuple[str, str]] = []
    order = dice.shuffled(kinds)
    for i in range(shots):
        kind = order[i % 2]
        used = {word, *(one for one, _ in shown)}
        free = [w for w in members[kind] if w not in used and incontext.may_stand(w, chosen[kind])]
        shown.append((dice.pick(free), chosen[kind]))
    prompt = "".join(f"{one} => {other}\n" for one, other in dice.shuffled(shown)) + f"{word} =>"
    return _item(prompt=prompt, answers=(chosen[asked],), capitals=True)


def _chat(dice: Dice, shots: int, pairs: Callable[[], tuple[str, str]], question: str, **fields: object) -> SkillItem:
    turns: list[Message] = []
    while len(turns) < 2 * shots:
        said, answer = pairs()
        if said != question:
            turns += talk.turn(said, answer)
    return _item(messages=(*turns, Message("user", question)), **fields)


def _chat_sums(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def known() -> tuple[str, str]:
        a, b = dice.pick(numbers.sums(False))
        return f"What is {a} + {b}?", f"{a} + {b} = {a + b}."

    a, b = dice.pick(numbers.sums(unseen))
    return _chat(dice, shots, known, f"What is {a} + {b}?", answers=(str(a + b),), match="number")


def _chat_opposites(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def known() -> tuple[str, str]:
        one, other = dice.pick(words.opposites())
        return f"What is the opposite of {one}?", f"The opposite of {one} is {other}."

    one, other = dice.pick(words.opposites())
    return _chat(dice, shots, known, f"What is the opposite of {one}?", answers=(other,), match="mention")


def _chat_colours(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def fact() -> tuple[str, str]:
        word, colour = dice.pick(lexicon().colours)
        subject = words.colour_subject(word)
        return f"What colour is {subject}?", f"{sentences(subject)} is {colour}."

    question, answer = fact()
    return _chat(dice, shots, fact, question, answers=(answer.rsplit(" ", 1)[1].strip("."),), match="mention")


def _chat_animals(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    facts = [fact for animal in lexicon().animals for fact in words.animal_facts(animal.noun.word)]
    question, _, key = dice.pick(facts)
    return _chat(dice, shots, lambda: dice.pick(facts)[:2], question, answers=(key,), match="mention")


def _chat_sizes(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def fact(big: str, small: str) -> tuple[str, str]:
        one, other = dice.shuffled((with_article(big), with_article(small)))
        return f"Which is bigger, {one} or {other}?", sentences(f"{with_article(big)} is bigger.")

    big, small = dice.pick(words.size_pairs(unseen))
    question, _ = fact(big, small)
    known = words.size_pairs(False)
    fields = {"answers": (big,), "rivals": (small,), "match": "mention"}
    return _chat(dice, shots, lambda: fact(*dice.pick(known)), question, **fields)


def _chat_translation(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    def fact() -> tuple[str, str]:
        english, other = dice.pick(french.dictionary())
        question = sentences(french.TO_FRENCH[0].format(french.spoken(english)))
        return question, french.in_french(english, other)

    question, answer = fact()
    word = answer.removesuffix(".").rsplit(" is ", 1)[1].strip('"')
    return _chat(dice, shots, fact, question, answers=(word,), match="mention")


def _story_questions(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    while True:
        tale = stories.tell(dice, brief=True, unseen=unseen)
        hero = tale.cast.get("h")
        places = [role for role in tale.cast.values() if isinstance(role, Place)]
        asked = dice.shuffled(tale.questions())
        new = isinstance(hero, Actor) and any(never_together(hero.name, place.word) for place in places)
        if new == unseen and len(asked) > shots:
            break
    turns = talk.turn(sentences(f"tell me a story about {tale.wish()}."), tale.text)
    for question in asked[:shots]:
        turns += talk.turn(question.ask, question.answer)
    last = asked[shots]
    rivals = tuple(
        sorted({q.key for q in asked if q.key not in last.answer and last.key not in q.key and q.key not in last.ask})
    )
    return _item(messages=(*turns, Message("user", last.ask)), answers=(last.key,), rivals=rivals, match="mention")


def _facts(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    found = facts.facts(dice, 3, unseen=2 if unseen else -1)
    last = found[2]
    turns: list[Message] = []
    said = facts.told(dice.shuffled(found), dice) + " "
    for fact in dice.sample(found[:2], shots):
        question, answer = facts.question(fact, dice)
        turns += talk.turn(said + question, answer)
        said = ""
    rivals = tuple([value for _, _, value in found[:2]])
    asked = Message("user", said + facts.question(last, dice)[0])
    return _item(messages=(*turns, asked), answers=(last[2],), rivals=rivals, match="mention")


def _about_me(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    told, asked, word = talk.about_me(dice, dice.pick(("name", "colour", "food", "animal", "pet")), unseen=unseen)
    between = talk.turn("How are you?", "I am well, thank you.") if dice.chance(0.5) else []
    return _item(messages=(*told, *between, asked[0]), answers=(word,), match="mention")


def _itself(dice: Dice, shots: int, unseen: bool) -> SkillItem:
    user, _ = dice.pick(smalltalk.tables()["self"][:4])
    question = sentences(phrase(user, dice))
    return _item(messages=(Message("user", question),), answers=("model", "chatsmith"), match="mention")


_TRAINED: tuple[Split, ...] = ("trained",)

SKILLS: dict[str, Skill] = {
    "sums": Skill("3 + 4 = 7, one digit each", 1 / 19, _sums),
    "long sums": Skill("27 + 5 = 32, two digits and one", 0.0, _long_sums),
    "differences": Skill("7 - 3 = 4, one digit each", 1 / 10, _differences),
    "long differences": Skill("32 - 5 = 27, two digits and one", 0.0, _long_differences),
    "comparison": Skill("which of two numbers to 20 is bigger", 0.5, _comparison),
    "plurals": Skill("the plural of mouse is mice", 0.0, _plurals),
    "translation": Skill("cheese => fromage; held out of lists, known from elsewhere", 0.0, _translation),
    "phrases": Skill("a red apple => une pomme rouge; pairs never put together", 0.0, _phrases),
    "sentiment": Skill("is a review positive or negative", 0.5, _sentiment),
    "known rule": Skill("the examples tell which of twelve rules is meant", 0.0, _rule),
    "lookup": Skill("random pairs of words; the answer stands among the examples", 0.0, _lookup),
    "classes": Skill("two kinds of things with labels; a new thing of one kind", 0.5, _classes),
    "chat sums": Skill("What is 3 + 4?", 1 / 19, _chat_sums),
    "chat translation": Skill("How do you say cheese in French?", 0.0, _chat_translation, splits=_TRAINED),
    "chat opposites": Skill("What is the opposite of hot?", 0.0, _chat_opposites, splits=_TRAINED),
    "chat colours": Skill("What colour is grass?", 1 / 11, _chat_colours, splits=_TRAINED),
    "chat animals": Skill("What does a cow say? its baby, its home", 0.0, _chat_animals, splits=_TRAINED),
    "chat sizes": Skill("Which is bigger, a cow or a mouse?", 0.5, _chat_sizes),
    "story questions": Skill("who, where and what in a story just told; shots are earlier questions", 0.0,
                             _story_questions, shots=(0, 1)),
    "facts": Skill("what three sentences just said of three people", 1 / 3, _facts, shots=(0, 1)),
    "about me": Skill("what I told you about myself", 0.0, _about_me, shots=(0,)),
    "itself": Skill("Who are you?", 0.0, _itself, splits=_TRAINED, shots=(0,)),
}  # fmt: skip
"""Every skill by name. `chance` is how often a guess between the possible answers is right; 0 where they are many."""


def skill_items(skill: str, *, seed: int, count: int, shots: int = 0, split: Split = "held_out") -> list[SkillItem]:
    """`count` different questions of a skill (fewer where there are not so many), with `shots` solved examples each.

    The examples are always of what is trained on; the question is of the split asked for. Raises `RequestError` for an
    unknown skill or split, and for a split or a number of shots that the skill does not have.
    """
    if skill not in SKILLS:
        raise RequestError(f"there is no skill {skill!r}", did_you_mean(skill, SKILLS))
    chosen = SKILLS[skill]
    if split not in chosen.splits:
        raise RequestError(f"{skill!r} has no split {split!r}", did_you_mean(split, chosen.splits))
    if shots < 0 or shots > 32 or (chosen.shots is not None and shots not in chosen.shots):
        allowed = ", ".join(map(str, chosen.shots)) if chosen.shots else "0 to 32"
        raise RequestError(f"{skill!r} cannot be asked with {shots} examples", f"possible: {allowed}")
    dice = Dice(seed)
    found: dict[tuple[str, tuple[Message, ...]], SkillItem] = {}
    for _ in range(20 * count):
        if len(found) >= count:
            break
        item = replace(chosen.make(dice, shots, split == "held_out"), skill=skill, split=split, shots=shots)
        found.setdefault((item.prompt, item.messages), item)
    return list(found.values())
