"""How much of each kind the small world tells, and the endless stream of its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.text.chat import Message
from chatsmith.text.documents import Document
from chatsmith.text.world import talk
from chatsmith.text.world.dice import Dice, Weighted
from chatsmith.text.world.entries import entries
from chatsmith.text.world.facts import fact_page, fact_talk
from chatsmith.text.world.french import french, french_talk
from chatsmith.text.world.incontext import classes, echo, in_context_talk, known_rule, lookup
from chatsmith.text.world.numbers import number_talk, numbers
from chatsmith.text.world.sentiment import sentiment, sentiment_talk
from chatsmith.text.world.stories import story
from chatsmith.text.world.words import word_talk, words

Stage: TypeAlias = Literal["text", "chat", "all"]


@dataclass(frozen=True)
class Kind:
    """A kind of document: the share of the characters it gets, what it is, and how one is made."""

    share: float
    stage: str
    about: str
    write: Callable[[Dice], str | list[Message]]


SYSTEM = (
    "You are a small and friendly model.",
    "You are a helpful assistant.",
    "You are a very small language model made by chatsmith.",
    "Answer in a few words.",
    "Be kind.",
)
"""What programs put before a conversation; some conversations begin with one, so that the model is used to them."""


def _turns(one: Callable[[Dice], tuple[Message, ...]], most: int = 4) -> Callable[[Dice], list[Message]]:
    """A conversation of one to `most` questions of a sort."""
    return lambda dice: [message for _ in range(dice.between(1, most)) for message in one(dice)]


KINDS: dict[str, Kind] = {
    "stories": Kind(23.5, "text", "short stories, some with questions and answers", story),
    "numbers": Kind(8, "text", "counting, sums, differences, comparing", numbers),
    "words": Kind(5, "text", "opposites, colours, sizes, plurals, animals", words),
    "dictionary": Kind(8, "text", "entries of a dictionary: a word and some of what is known about it", entries),
    "french": Kind(7, "text", "words and short phrases in English and French", french),
    "known rules": Kind(7, "text", "examples of a known rule: translate, opposite, plural …", known_rule),
    "lookups": Kind(3, "text", "random pairs of words, to be read off the examples", lookup),
    "classes": Kind(3, "text", "kinds of words with labels, to be read off the examples", classes),
    "echoes": Kind(1, "text", "lists of random words that come again", echo),
    "reviews": Kind(2, "text", "reviews labelled positive or negative", sentiment),
    "facts": Kind(4, "text", "things said about people, and questions that only these answer", fact_page),
    "story talk": Kind(12, "chat", "a story asked for, told, and asked about", talk.story_talk),
    "small talk": Kind(4, "chat", "greetings, who are you, feelings, what I told you before", talk.small_talk),
    "remembering": Kind(2, "chat", "what I told you about myself, asked for again", talk.remembering),
    "fact talk": Kind(2, "chat", "things said about people, and asked", fact_talk),
    "number talk": Kind(3, "chat", "questions about numbers", _turns(number_talk)),
    "word talk": Kind(3.5, "chat", "questions about words", _turns(word_talk)),
    "french talk": Kind(3.5, "chat", "how do you say this in French?", _turns(french_talk)),
    "in-context talk": Kind(1.5, "chat", "examples in a message, the answer in the reply", _turns(in_context_talk, 2)),
    "review talk": Kind(0.5, "chat", "is this review positive or negative?", _turns(sentiment_talk, 3)),
}

MIXTURE: dict[str, float] = {name: kind.share for name, kind in KINDS.items()}
"""The default share of the characters for each kind, in per cent of all stages together."""


_FIRST: dict[str, float] = {"echoes": 1, "lookups": 3, "classes": 1, "facts": 1}
"""What must be read off a text: lists that come again, mappings, kinds, things said about people."""


def _lean(chat: float, more: float = 0.0) -> dict[str, float]:
    """The default mixture with the factor `chat` on all that is talk; `more` of the whole is what comes first."""
    shares = {name: share * (chat if KINDS[name].stage == "chat" else 1) for name, share in MIXTURE.items()}
    first = sum(shares.values()) * more / (1 - more) / sum(_FIRST.values())
    return {name: share + first * _FIRST.get(name, 0) for name, share in shares.items()}


CURRICULUM: tuple[tuple[float, dict[str, float]], ...] = (
    (0.12, _FIRST),
    (0.5, _lean(0.7, more=0.1)),
    (0.7, _lean(0.7)),
    (1.0, _lean(2.0)),
)
"""A good order of things: (until this share of the run, with this mixture).

What must be read off a text is first, and nothing else. All that rests on it, names in a story as much as examples in a
prompt, then comes sooner. It stays a tenth of the text until half of the steps: dropped at once, what was learned of it
goes again. Steps of the built-in model are small in the beginning: 12% of them read 6% of the text.
"""


@lru_cache(maxsize=64)
def _mean_length(name: str) -> float:
    """Characters of a usual document of this kind."""
    dice = Dice(1)
    return sum(_size(KINDS[name].write(dice)) for _ in range(150)) / 150


def _size(made: str | list[Message]) -> int:
    return len(made) if isinstance(made, str) else sum(len(message.content) for message in made)


def documents(seed: int, *, mixture: Mapping[str, float] | None = None, stage: Stage = "all") -> Iterator[Document]:
    """The small world's documents, without end, the same for the same arguments on every machine.

    `mixture` gives the share of the characters for each kind (`MIXTURE` otherwise; kinds it leaves out are left out);
    `stage` keeps only texts to read, or only conversations. Raises `RequestError` for a kind that does not exist, a
    negative share, or nothing to write at all.
    """
    shares = dict(MIXTURE if mixture is None else mixture)
    for name, share in shares.items():
        if name not in KINDS:
            raise RequestError(f"the small world has no kind {name!r}", did_you_mean(name, KINDS))
        if not 0 <= share < float("inf"):
            raise RequestError(f"the share of {name!r} must be 0 or more, not {share}")
    if stage not in ("text", "chat", "all"):
        raise RequestError(f"there is no stage {stage!r}", did_you_mean(stage, ("text", "chat", "all")))
    chosen = {name: share for name, share in shares.items() if share > 0 and stage in ("all", KINDS[name].stage)}
    if not chosen:
        raise RequestError(
            "the mixture leaves nothing to write", "give at least one kind of this stage a share above 0"
        )
    return _endless(seed, chosen)


def _endless(seed: int, shares: Mapping[str, float]) -> Iterator[Document]:
    dice = Dice(seed)
    weights = Weighted({name: share / _mean_length(name) for name, share in shares.items()})
    while True:
        name = weights.draw(dice)
        made = KINDS[name].write(dice)
        source = f"small world/{name}"
        if isinstance(made, str):
            yield Document(text=made, source=source)
        else:
            system = [Message("system", dice.pick(SYSTEM))] if dice.chance(0.05) else []
            yield Document(source=source, messages=(*system, *made))
