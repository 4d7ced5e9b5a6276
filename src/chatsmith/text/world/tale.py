"""A story while it is being told: the cast so far, the sentences said, and what may be asked about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from chatsmith.text.world.cast import Actor, Casting
from chatsmith.text.world.dice import Dice
from chatsmith.text.world.phrasing import opening_capital, phrase, sentences


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask about a story, with its answer; whatever the answer's words, it must say `key`."""

    ask: str
    answer: str
    key: str


class Tale:
    """A story being told. A plot fills the cast, says sentences and notes questions as facts come to be true."""

    def __init__(self, dice: Dice, *, brief: bool = False, unseen: bool = False) -> None:
        self.dice = dice
        self.brief = brief
        self.casting = Casting(dice, unseen=unseen)
        self.cast: dict[str, object] = {}
        self.plot = ""
        self.title = ""
        self.wishes: list[str] = []
        self._lines: list[str] = []
        self._paragraphs: list[str] = []
        self._asked: list[tuple[str, str, str]] = []

    def set(self, **roles: object) -> None:
        """Fills roles of the cast, for use in the sentences to come."""
        self.cast.update(roles)

    def say(self, *choices: str) -> None:
        """One of these sentences (or groups of sentences)."""
        line = phrase(self.dice.pick(choices), self.dice, self.cast)
        if line:
            self._lines.append(opening_capital(line))

    def maybe(self, share: float, *choices: str) -> None:
        """One of these sentences, or nothing; in a brief story rarely."""
        if self.dice.random() < (share * 0.3 if self.brief else share):
            self.say(*choices)

    def end_paragraph(self) -> None:
        """Starts a new paragraph, where the story is long enough to have several."""
        if self._lines and not self.brief:
            self._paragraphs.append(" ".join(self._lines))
            self._lines = []

    def ask(self, question: str, answer: str, key: str) -> None:
        """Notes what can be asked now; `key` is what the right answer must say."""
        self._asked.append((question, answer, key))

    def about(self, *wishes: str) -> None:
        """What somebody would ask for to hear this story: 'a lost kite', 'a dog'."""
        self.wishes.extend(wishes)

    def feel(self, role: str, feeling: str) -> None:
        """Somebody's feeling changes; the last one is how they feel at the end."""
        actor = self.cast[role]
        assert isinstance(actor, Actor)
        actor.feeling = feeling

    @property
    def text(self) -> str:
        """The story."""
        return sentences("\n".join([*self._paragraphs, " ".join(self._lines)]).strip())

    def heading(self) -> str:
        """Its title."""
        return phrase(self.title, self.dice, self.cast)

    def wish(self) -> str:
        """One thing somebody might say to ask for this story."""
        return phrase(self.dice.pick(self.wishes), self.dice, self.cast)

    def questions(self) -> list[Question]:
        """Everything that was noted, in the order of the story, and how the hero felt at the end."""
        asked = list(self._asked)
        hero = self.cast.get("h")
        if isinstance(hero, Actor):
            if hero.feeling:
                asked.append(("How did {h} feel at the end?", "{h} felt {h.feeling}.", "{h.feeling}"))
            others = [role for role in self.cast.values() if isinstance(role, Actor) and role is not hero]
            if all(role.he != hero.he for role in others):
                asked = [self._with_pronouns(*question) for question in asked]
            asked += self._yes_or_no(asked)
        return [
            Question(
                sentences(phrase(question, self.dice, self.cast)),
                sentences(phrase(answer, self.dice, self.cast)),
                phrase(key, self.dice, self.cast),
            )
            for question, answer, key in asked
        ]

    def _with_pronouns(self, question: str, answer: str, key: str) -> tuple[str, str, str]:
        """Now and then 'he' for the hero's name, where nobody else could be meant."""
        if answer.startswith("{h} ") and key != "{h}" and self.dice.chance(0.4):
            answer = "{h.He} " + answer.removeprefix("{h} ")
            if self.dice.chance(0.5):
                question = question.replace("did {h} ", "did {h.he} ").replace("was {h}?", "was {h.he}?")
        return question, answer, key

    def _yes_or_no(self, asked: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """'Did Anna go to the park?', where the story says where she went."""
        for question, answer, _ in asked:
            if question in ("Where did {h} go?", "Where did {h.he} go?") and "{p.to}" in answer:
                rest = answer.replace("{h.He}", "{h.he}")
                if self.dice.chance(0.5):
                    return [("Did {h} go {p.to}?", f"Yes, {rest}", "yes")]
                self.cast["elsewhere"] = self.casting.place()
                return [("Did {h} go {elsewhere.to}?", f"No, {rest}", "no")]
        return []


Plot: TypeAlias = Callable[[Tale], None]

TRAITS = (
    "{h} [liked|loved] to ask questions.",
    "{h} was small, but {h.his} ideas were big.",
    "{h} was never bored.",
    "{h} [loved|liked] to sing [in the morning|all day long|when nobody was near].",
    "{h} had a [kind heart|loud laugh|good nose for adventure].",
    "everybody knew {h.him} by {h.his} [laugh|big smile|funny walk].",
    "{h} could never sit still.",
    "{h} always woke up [early|before the sun|with a smile].",
    "{h} was [a little shy|a bit shy] with people {h.he} did not know.",
)

WEATHER = (
    "it was a [warm|bright|sunny] [morning|day].",
    "the sun was [shining|warm] and the sky was blue.",
    "it was a cold [morning|day], and the wind was [strong|singing in the trees].",
    "a soft rain had fallen in the night, and everything smelled fresh.",
    "it was a grey day, but {h} did not mind.",
    "[little white|big soft] clouds were sailing across the sky.",
    "the leaves were falling, [red and yellow|one by one].",
    "the birds were singing as loudly as they could.",
)

OPENINGS = (
    "once upon a time there was {h.intro}.",
    "once there was {h.intro}.",
    "{h} was {h.little}.",
    "this is a story about {h.intro}.",
    "there once was {h.intro}.",
    "in a [small|little|quiet] [white|red|old] house lived {h.intro}.",
    "long ago there lived {h.intro}.",
    "have you heard about {h}? {h.He} was {h.little}.",
)

ENDINGS = (
    "that night {h} slept [very well|like a stone|with a smile].",
    "{h} smiled all the way home.",
    "it had been a [long|strange|big] day, and a good one.",
    "and {h} never forgot that day.",
    "what a day that was!",
    'before {h} fell asleep, {h.he} whispered, "[Today was a good day|I hope tomorrow is like today]."',
    "they still [laugh|talk] about it today.",
    "",
    "",
)


def open_tale(tale: Tale) -> None:
    """Introduces the hero, `h`, in one of many ways."""
    tale.say(*OPENINGS)
    tale.maybe(0.6, *TRAITS)
    tale.maybe(0.35, *WEATHER)


def close_tale(tale: Tale, *own: str) -> None:
    """The last sentence: one of the plot's own, or one that suits every good day."""
    tale.say(*own, *ENDINGS) if own and tale.dice.chance(0.5) else tale.say(*(own or ENDINGS))
