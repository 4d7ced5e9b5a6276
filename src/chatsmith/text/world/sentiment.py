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
GOOD_ENDINGS = {
    "any": (
        "I [loved|liked|enjoyed] it.",
        "I was very happy.",
        "It made my day.",
        "I smiled all day.",
        "thank you!",
        "",
    ),
    "story": ("it was over too soon.", "I laughed a lot.", "I will tell all my friends."),
    "food": ("I want more.", "I ate everything.", "everybody should try it."),
    "place": ("I will come back [soon|again].", "I want to stay here.", "everybody should go there."),
    "thing": ("I use it every day.", "I will buy another one.", "everybody should have one."),
}
BAD_ENDINGS = {
    "any": ("I [hated|did not like|did not enjoy] it.", "I was very sad.", "never again!", "what a waste!", ""),
    "story": ("I fell asleep.", "I did not finish it.", "I will not tell my friends."),
    "food": ("I left it on the plate.", "nobody should try it.", "even the dog did not want it."),
    "place": ("I will never come back.", "I went home early.", "nobody should go there."),
    "thing": ("I want my money back.", "it broke after a day.", "nobody should buy it."),
}


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
    endings = GOOD_ENDINGS if good else BAD_ENDINGS
    ending = dice.pick((*endings["any"], *endings[SUBJECTS[subject]]))
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
