"""Conversations: small talk, what somebody has just said about themselves, and talk about a story just told.

Held out: a fifth of the names never introduce themselves, and a fifth of the favourite things are never anybody's.
"""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.chat import Message
from chatsmith.text.world import smalltalk
from chatsmith.text.world.cast import BOYS, COLOURS, GIRLS, HE_ANIMALS, PETS, SHE_ANIMALS
from chatsmith.text.world.dice import Dice, Weighted, held_out
from chatsmith.text.world.french import french_talk
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.numbers import number_talk
from chatsmith.text.world.phrasing import capital, phrase, sentences
from chatsmith.text.world.stories import tell
from chatsmith.text.world.tale import Question
from chatsmith.text.world.words import word_talk

Turns = list[Message]

REQUESTS = (
    "[tell me|can you tell me|please tell me|could you tell me] a story about {wish}",
    "[tell me|can you tell me|please tell me] a [short|little|] story about {wish}",
    "[I would like|I want] [a story|to hear a story] about {wish}",
    "a story about {wish}, please",
    "do you know a story about {wish}",
    "write a [short|] story about {wish}",
)
OPEN_REQUESTS = (
    "[tell me|can you tell me|please tell me] a story",
    "I [want|would like] to hear a story",
    "a story, please",
    "another story, please",
    "tell me something nice",
)
INTRODUCTIONS = ("", "", "", "Of course. ", "Here is a story. ", "Yes! ", "I know one. ")
PRAISE = (
    (
        "[I like this story|what a nice story|that was a nice story|nice story][.|!|]",
        "[I am glad you like it.|Thank you!]",
    ),
    ("[thank you|thanks][!|.|]", "You are welcome[!|.]"),
    ("[that was funny|I liked it|that was good][.|!|]", "[I am glad.|Thank you! Do you want another one?]"),
)


def turn(user: str, assistant: str) -> Turns:
    """One thing said by each."""
    return [Message("user", user), Message("assistant", assistant)]


def typed(text: str, dice: Dice) -> str:
    """As people type: most often with capitals and marks, sometimes without."""
    if dice.chance(0.75):
        return sentences(text)
    text = text.rstrip(".?!")
    return text if dice.chance(0.5) else text.lower()


def _say(topic: str, dice: Dice) -> Turns:
    """A turn of small talk on a topic."""
    user, assistant = dice.pick(smalltalk.tables()[topic])
    cast = {"land": dice.pick(smalltalk.LANDS)}
    said = typed(phrase(user, dice, cast), dice)
    return turn(said or "hello", sentences(phrase(assistant, dice, cast)).strip().replace("Chatsmith", "chatsmith"))


_SMALL_TALK = Weighted(
    {
        "self": 30,
        "moods": 10,
        "feelings": 10,
        "courtesy": 14,
        "likes": 18,
        "jokes": 8,
        "unknown": 10,
    }
)


def introduction_is_held_out(word: str) -> bool:
    """Whether nobody ever says this name, or this favourite thing, of themselves."""
    return held_out("about me", word)


@lru_cache(maxsize=8)
def said_of_oneself(topic: str, unseen: bool) -> tuple[str, ...]:
    """What people say about themselves (name, colour, food, animal, pet), held out or not."""
    foods = [noun.plural if noun.counted else noun.word for noun in lexicon().of_kind("food")]
    words = {
        "name": (*GIRLS, *BOYS),
        "colour": COLOURS,
        "food": tuple(foods),
        "animal": tuple(noun.plural for noun in lexicon().of_kind("animal")),
        "pet": (*SHE_ANIMALS, *HE_ANIMALS),
    }[topic]
    return tuple(word for word in words if introduction_is_held_out(word) == unseen)


def about_me(dice: Dice, topic: str, *, unseen: bool = False) -> tuple[Turns, Turns, str]:
    """What somebody says about themselves; what they ask about it later; the word that answers."""
    word = dice.pick(said_of_oneself(topic, unseen))
    if topic == "name":
        told = turn(
            phrase(
                f"[My name is {word}.|I am {word}.|Hello, I am {word}.|Hi, my name is {word}!|You can call me {word}.]",
                dice,
            ),
            phrase(
                f"[Hello|Hi|Nice to meet you], {word}! [How are you?|What shall we do?|What can I do for you?|]", dice
            ).strip(),
        )
        asked = turn(
            phrase("[What is my name?|Do you know my name?|Do you remember my name?|Who am I?]", dice),
            f"Your name is {word}.",
        )
    elif topic == "pet":
        kind = dice.pick(PETS)
        told = turn(
            phrase(
                f"[I have a {kind}. It is called {word}.|I have a {kind} named {word}.|My {kind} is called {word}.]",
                dice,
            ),
            phrase(f"[{word} is a lovely name for a {kind}!|Say hello to {word}!|How nice!]", dice),
        )
        asked = turn(
            phrase(f"[What is my {kind} called?|What is the name of my {kind}?]", dice),
            f"Your {kind} is called {word}.",
        )
    else:
        told = turn(
            phrase(f"[My favourite {topic} is {word}.|The {topic} I like best is {word}.]", dice)
            if topic == "colour"
            else phrase(f"[I like {word} best.|I love {word}.|My favourite {topic}: {word}.]", dice),
            phrase(f"[That is nice to know.|I will remember that.|{capital(word)}? Good choice!]", dice),
        )
        verb = "is" if topic == "colour" else "like best:"
        answer = f"Your favourite {topic} is {word}." if verb == "is" else f"You like {word} best."
        question = (
            f"[What is my favourite {topic}?|Do you remember my favourite {topic}?|Which {topic} do I like best?]"
        )
        asked = turn(phrase(question, dice), answer)
    return told, asked, word


def _reply(asked: str, dice: Dice) -> Turns:
    """The turn in which somebody answers what the assistant has just asked, or nothing where it did not ask."""
    if asked.endswith(("How are you?", "And you?")):
        return _say("moods", dice)
    if asked.endswith(("Ask me a sum.", "Try me.", "do some sums.")):
        return list(number_talk(dice))
    if asked.endswith(("Ask me one.", "Hello is bonjour.")):
        return list(french_talk(dice))
    if asked.endswith(("tell you one?", "tell you a story?", "like a story?", "hear a story?", "story about one?")):
        if dice.chance(0.4):
            return turn(typed("no, thank you.", dice), dice.pick(("All right.", "Maybe another time.", "As you like.")))
        yes = phrase("[yes|yes, please|please|yes, I would like that][.|!]", dice)
        return turn(typed(yes, dice), dice.pick(INTRODUCTIONS) + tell(dice, brief=True).text)
    return []


def small_talk(dice: Dice) -> Turns:
    """Greeting, a few turns about this and that, and sometimes a goodbye."""
    turns: Turns = []
    if dice.chance(0.6):
        turns += _say("greetings", dice)
    later: Turns = []
    if dice.chance(0.4):
        told, later, _ = about_me(dice, dice.pick(("name", "name", "colour", "food", "animal", "pet")))
        turns += told
    for _ in range(dice.between(0 if later else 1, 4)):
        answered = _reply(turns[-1].content, dice) if turns and dice.chance(0.8) else []
        if answered:
            turns += answered
        elif dice.chance(0.8):
            turns += _say(_SMALL_TALK.draw(dice), dice)
        else:
            turns += dice.pick((number_talk, word_talk, french_talk))(dice)
    turns += later
    if dice.chance(0.3):
        turns += _say("goodbyes", dice)
    return turns


def remembering(dice: Dice) -> Turns:
    """Somebody says a few things about themselves, and asks for them again."""
    turns: Turns = []
    later: list[Turns] = []
    for topic in dice.sample(("name", "colour", "food", "animal", "pet"), dice.pick((1, 1, 2, 2, 3))):
        told, asked, _ = about_me(dice, topic)
        turns += told
        later.append(asked)
        if dice.chance(0.25):
            turns += _say(_SMALL_TALK.draw(dice), dice)
    for asked in dice.shuffled(later):
        turns += asked
    return turns


def story_question(question: Question, dice: Dice) -> Turns:
    """A question about a story and its answer."""
    return turn(typed(question.ask, dice) if dice.chance(0.3) else question.ask, question.answer)


def story_talk(dice: Dice) -> Turns:
    """Somebody asks for a story, hears it, and asks about it."""
    tale = tell(dice, brief=True)
    turns: Turns = []
    if dice.chance(0.2):
        turns += _say("greetings", dice)
    if dice.chance(0.85):
        request = phrase(dice.pick(REQUESTS), dice, {"wish": tale.wish()})
    else:
        request = phrase(dice.pick(OPEN_REQUESTS), dice)
    mark = dice.pick(("?", "?", ".", "")) if request.startswith(("can", "could", "do")) else dice.pick((".", ".", ""))
    turns += turn(typed(request.replace("  ", " ") + mark, dice), dice.pick(INTRODUCTIONS) + tale.text)
    asked = tale.questions()
    for question in dice.sample(asked, dice.pick((0, 2, 3, 3, 4, 4, 5))):
        turns += story_question(question, dice)
    if dice.chance(0.25):
        user, assistant = dice.pick(PRAISE)
        turns += turn(typed(phrase(user, dice), dice), phrase(assistant, dice))
    return turns
