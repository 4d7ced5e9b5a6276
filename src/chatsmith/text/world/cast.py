"""Who and what a story is made of: people, animals, things, places, weather; and which of them may meet.

Some pairs of a name and a place are held out: no training text ever brings them together, so a question about such a
pair can only be answered from the story at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from chatsmith.text.world.dice import Dice, held_out
from chatsmith.text.world.lexicon import Noun, lexicon
from chatsmith.text.world.phrasing import article, capital, split

GIRLS = split("Anna Lily Mia Emma Rosa Clara Nora Ruby Sara Lucy Ella Molly Ivy Alice Zoe Eva Nina Maya Hana Amina")
BOYS = split("Tom Ben Max Sam Leo Jack Noah Finn Omar Luca Paul Eli Oscar Hugo Adam Kofi Theo Ravi Peter Jonas")
SHE_ANIMALS = split("Clover Hazel Fern Poppy Dot Coco Nutmeg Daisy Minnie Olive")
HE_ANIMALS = split("Biscuit Pip Bramble Mossy Rusty Waffle Pickle Marble Bobo Tuft")
NAMES = (*GIRLS, *BOYS, *SHE_ANIMALS, *HE_ANIMALS)

HERO_ANIMALS = split("fox rabbit mouse bear owl hedgehog squirrel duck cat dog frog goat turtle pig donkey")
SHE_KINDS = split("mouse owl squirrel duck cat goat turtle hen cow bee goose bird")
"""Which animals are 'she' where they have no name: by kind, so that it can be known."""
PETS = ("dog", "cat", "rabbit", "duck", "goat", "hen", "turtle")

# place: how one is there, and three spots to look in; no spot names another place
PLACE_TABLE = """
    park | at the park | under the long bench; behind the old oak; near the swings
    forest | in the forest | under a green fern; behind a fallen log; inside a hollow tree
    river | by the river | among the tall reeds; behind a grey stone; under the willow
    beach | at the beach | behind a pile of sand; under an old boat; between two rocks
    farm | on the farm | behind the tractor; under the hay; beside the gate
    market | at the market | under the fruit table; behind a tall basket; next to the flower cart
    lake | by the lake | under the little dock; in the long grass; behind a wet log
    hill | on the hill | behind a round rock; under a thorn bush; beside the crooked tree
    library | at the library | between two tall shelves; under a reading table; behind the big globe
    castle | at the castle | behind a dusty curtain; under the stone stairs; inside an old chest
    mill | at the mill | behind a sack of flour; under the turning wheel; beside the scales
    harbour | at the harbour | inside a ring of rope; behind a stack of boxes; under a fishing net
    meadow | in the meadow | among the daisies; behind a haystack; under a berry bush
    cave | in the cave | behind a pointed rock; under a pile of leaves; in a dark corner
    orchard | in the orchard | at the foot of a plum tree; inside an empty crate; behind a ladder
    pond | by the pond | under a lily leaf; beside the flat stones; in the soft mud
    barn | in the barn | under the straw; behind the milk cans; on top of a beam
    village | in the village | beside the well; under a cart; behind the bell tower
    station | at the station | beside the ticket window; behind a pile of bags; under the big clock
    garden | in the garden | between the beans; under the rose bush; behind the watering can
    museum | at the museum | behind a huge vase; under the whale bones; beside the old statue
    bakery | at the bakery | behind the bread oven; under the counter; beside the cake stand
    island | on the island | under a palm tree; inside a big shell; behind a wall of stones
    mountain | on the mountain | under a snowy pine; behind a big boulder; in a patch of clover
"""

OUTDOORS = split("park forest river beach farm lake hill harbour meadow orchard pond village garden mountain")
FAR = split("forest river beach farm lake hill castle mill harbour village island mountain")
"""Places where the open sky is, and places where somebody may live a long way off."""

THINGS = split(
    "ball book kite doll drum flute bell umbrella ring coin map hat scarf bucket basket blanket lamp toy bag box "
    "boot glove pencil flag button whistle teddy balloon"
)
TREATS = split("apple pear cherry strawberry banana peach plum cookie carrot nut pie pancake sandwich cake")
POTFULS = split("bread cheese butter soup honey jam chocolate tea juice salad rice")
"""What is eaten by the piece, and what is not."""

COLOURS = ("red", "blue", "green", "yellow", "white", "brown", "pink", "purple", "orange", "black")


class Actor:
    """Somebody in a story: how the narrator names them and which pronouns they take."""

    __slots__ = (
        "He", "His", "Kind", "Name", "a", "family", "feeling", "he", "him", "his", "intro", "kind", "little", "name",
        "person",
    )  # fmt: skip

    def __init__(self, name: str, kind: str, she: bool, *, person: bool = True, little: str = "little") -> None:
        self.name = name
        self.Name = capital(name)
        self.kind = kind
        self.Kind = capital(kind)
        self.family = {"Grandma": "grandmother", "Grandpa": "grandfather", "Mum": "mother", "Dad": "father"}.get(name)
        self.person = person
        self.he, self.him, self.his = ("she", "her", "her") if she else ("he", "him", "his")
        self.He, self.His = capital(self.he), capital(self.his)
        self.a = f"{article(kind)} {kind}"
        self.little = f"{article(little)} {little} {kind}"
        self.intro = f"{self.little} named {name}"
        self.feeling = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Prop:
    """A thing that somebody has, wants, loses or finds, with its colour."""

    word: str
    colour: str

    @cached_property
    def a(self) -> str:
        return f"{article(self.word)} {self.word}"

    @cached_property
    def Word(self) -> str:  # noqa: N802  as it stands in a title
        return capital(self.word)

    @cached_property
    def Colour(self) -> str:  # noqa: N802
        return capital(self.colour)

    @cached_property
    def full(self) -> str:
        return f"{self.colour} {self.word}"

    @cached_property
    def a_full(self) -> str:
        return f"{article(self.colour)} {self.colour} {self.word}"

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True)
class Place:
    """Where a story goes: 'park', 'the park', 'to the park', 'at the park', and spots to look in."""

    word: str
    at: str
    spots: tuple[str, ...]

    @cached_property
    def the(self) -> str:
        return f"the {self.word}"

    @cached_property
    def to(self) -> str:
        return f"to the {self.word}"

    def __str__(self) -> str:
        return self.word


def _places() -> tuple[Place, ...]:
    rows = (line.split(" | ") for line in PLACE_TABLE.strip().splitlines())
    return tuple(Place(word.strip(), at, tuple(spots.split("; "))) for word, at, spots in rows)


PLACES = _places()


def never_together(name: str, place: str) -> bool:
    """Whether this name and this place are kept apart in every training text."""
    return held_out("name and place", name, place, share=0.12)


@lru_cache(maxsize=256)
def places_against(name: str) -> tuple[Place, ...]:
    """The places where training text never takes somebody of this name."""
    return tuple(place for place in PLACES if never_together(name, place.word))


class Casting:
    """Fills the roles of one story, and sees to it that nobody meets a place that is held out for them.

    With `unseen=True` it does the opposite for the first person and the first place: that pair is a held-out one.
    """

    def __init__(self, dice: Dice, *, unseen: bool = False) -> None:
        self.dice = dice
        self.unseen = unseen
        self.names: list[str] = []
        self.places: list[Place] = []
        self.words: set[str] = set()

    def _name(self, pool: tuple[str, ...]) -> str:
        while True:
            name = self.dice.pick(pool)
            if name in self.names:
                continue
            if self.unseen:
                if self.names or places_against(name):
                    break
            elif not any(never_together(name, place.word) for place in self.places):
                break
        self.names.append(name)
        return name

    def child(self) -> Actor:
        """A girl or a boy."""
        she = self.dice.chance(0.5)
        little = self.dice.pick(("little", "young", "small", "brave", "curious", "kind", "clever", "quiet"))
        return Actor(self._name(GIRLS if she else BOYS), "girl" if she else "boy", she, little=little)

    def beast(self, kinds: tuple[str, ...] = HERO_ANIMALS) -> Actor:
        """An animal with a name of its own."""
        she = self.dice.chance(0.5)
        kind = self._fresh(kinds)
        little = self.dice.pick(("little", "young", "small", "shy", "curious", "cheerful", "clever", "sleepy"))
        return Actor(self._name(SHE_ANIMALS if she else HE_ANIMALS), kind, she, person=False, little=little)

    def stranger(self, kinds: tuple[str, ...] = HERO_ANIMALS) -> Actor:
        """An animal known only by its kind: 'the fox'."""
        kind = self._fresh(kinds)
        little = self.dice.pick(("old", "big", "small", "friendly", "grey", "busy", "tired"))
        return Actor(f"the {kind}", kind, kind in SHE_KINDS, person=False, little=little)

    def hero(self) -> Actor:
        """A child more often than an animal."""
        return self.child() if self.dice.chance(0.6) else self.beast()

    def friend(self, of: Actor) -> Actor:
        """Somebody of the same sort as `of`."""
        return self.child() if of.person else self.beast()

    def elder(self) -> Actor:
        """Somebody of the family, who is only called by that name."""
        word = self.dice.pick(("Mum", "Dad", "Grandma", "Grandpa"))
        return Actor(word, word, word in ("Mum", "Grandma"))

    def _fresh(self, words: tuple[str, ...]) -> str:
        word = self.dice.pick([word for word in words if word not in self.words] or list(words))
        self.words.add(word)
        return word

    def prop(self, words: tuple[str, ...] = THINGS) -> Prop:
        """A coloured thing that the story does not have yet."""
        return Prop(self._fresh(words), self.dice.pick(COLOURS))

    def food(self, words: tuple[str, ...] = TREATS) -> Noun:
        """Something good to eat."""
        return lexicon().by_word[self._fresh(words)]

    def place(self, words: tuple[str, ...] = ()) -> Place:
        """A place that everybody cast so far may go to (of these words, where given)."""
        while True:
            unseen = places_against(self.names[0]) if self.unseen and self.names and not self.places else ()
            wanted = [place for place in unseen or PLACES if not words or place.word in words]
            place = self.dice.pick(wanted or PLACES)
            if (words and place.word not in words) or place in self.places:
                continue
            if self.unseen or not any(never_together(name, place.word) for name in self.names):
                break
        self.places.append(place)
        return place
