"""Reviews with a label: what somebody thought of a film, a soup or a trip, and whether they liked it.

Held out: a fifth of the pairs of a subject and a judgement never come together.
"""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.chat import Message
from chatsmith.text.world.dice import Dice, held_out
from chatsmith.text.world.phrasing import phrase, sentences

SUBJECTS = {
    "film": "story", "book": "story", "song": "story", "show": "story", "game": "story",
    "soup": "food", "cake": "food", "bread": "food", "dinner": "food", "pie": "food", "salad": "food",
    "hotel": "place", "room": "place", "shop": "place", "park": "place", "beach": "place",
    "toy": "thing", "lamp": "thing", "bag": "thing", "coat": "thing", "bike": "thing", "clock": "thing",
}  # fmt: skip
GOOD = {
    "any": ("wonderful", "great", "very good", "lovely", "perfect", "fantastic"),
    "story": ("funny", "exciting", "beautiful", "clever"),
    "food": ("delicious", "fresh", "warm and tasty", "sweet and soft"),
    "place": ("clean", "quiet and safe", "bright and friendly", "beautiful"),
    "thing": ("strong", "beautiful", "easy to use", "well made"),
}
BAD = {
    "any": ("terrible", "bad", "awful", "very poor", "horrible"),
    "story": ("boring", "too long", "dull", "silly and slow"),
    "food": ("cold", "too salty", "dry and old", "burnt"),
    "place": ("dirty", "too loud", "dark and cold", "ugly"),
    "thing": ("broken", "weak", "ugly", "badly made"),
}
GOOD_ENDINGS = (
    "I [loved|liked|enjoyed] it.",
    "I want [more|it again].",
    "I was very happy.",
    "everybody should try it.",
    "I will come back [soon|again].",
    "[thank you!|it made my day.|I smiled all day.]",
    "",
)
BAD_ENDINGS = (
    "I [hated|did not like|did not enjoy] it.",
    "I want my money back.",
    "I was very sad.",
    "nobody should try it.",
    "I will never come back.",
    "[never again!|it ruined my day.|what a waste!]",
    "",
)


def judgement_is_held_out(subject: str, judgement: str) -> bool:
    """Whether this is never said of this subject."""
    return held_out("judgement", subject, judgement)


@lru_cache(maxsize=4)
def judgements(good: bool, unseen: bool) -> tuple[tuple[str, str], ...]:
    """Subjects with what may be said of them, that are held out, or are not."""
    table = GOOD if good else BAD
    return tuple(
        (subject, word)
        for subject, kind in SUBJECTS.items()
        for word in (*table["any"], *table[kind])
        if judgement_is_held_out(subject, word) == unseen
    )


def review(dice: Dice, *, unseen: bool = False) -> tuple[str, str]:
    """A review and its label, 'positive' or 'negative'."""
    good = dice.chance(0.5)
    subject, word = dice.pick(judgements(good, unseen))
    opposite = dice.pick([w for s, w in judgements(not good, False) if s == subject])
    more = dice.pick([w for s, w in judgements(good, unseen) if s == subject])
    parts = [
        f"the {subject} was {word}.",
        f"this {subject} is {word}.",
        f"what a {subject}! it [is|was] {word}.",
        f"I thought the {subject} was {word}.",
    ]
    if more != word:
        parts.append(f"the {subject} was {word}, and it was {more} too.")
    parts.append(f"the {subject} was not {opposite}. it was {word}.")
    parts.append(f"my friend said the {subject} was {opposite}, but it was {word}.")
    ending = dice.pick(GOOD_ENDINGS if good else BAD_ENDINGS)
    text = f"{dice.pick(parts)} {ending}".strip()
    return sentences(phrase(text, dice)), "positive" if good else "negative"


def sentiment(dice: Dice) -> str:
    """Some reviews with their labels."""
    lines = []
    for _ in range(dice.between(1, 4)):
        text, label = review(dice)
        lines.append(f"Review: {text}\nSentiment: {label}")
    return "\n".join(lines)


def sentiment_talk(dice: Dice) -> tuple[Message, Message]:
    """A review to be judged, and the judgement."""
    text, label = review(dice)
    question = dice.pick(
        (
            f'Is this review positive or negative? "{text}"',
            f"Review: {text}\nIs it positive or negative?",
            f'Positive or negative? "{text}"',
        )
    )
    return Message("user", question), Message("assistant", f"This review is {label}.")
