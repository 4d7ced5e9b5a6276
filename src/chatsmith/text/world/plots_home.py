"""Plots at home: something broken, a noise at night, a rainy day, a seed, a thief of cookies, a cake."""

from __future__ import annotations

from chatsmith.text.world.cast import OUTDOORS, TREATS, Prop
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.phrasing import number_word
from chatsmith.text.world.tale import Plot, Tale, close_tale, open_tale

FRAGILE = ("cup", "lamp", "plate", "clock", "mirror", "vase", "flute", "bowl")


def broken(tale: Tale) -> None:
    """Something of somebody else's breaks; hiding it is worse than telling."""
    cast = tale.casting
    thing = Prop(tale.dice.pick(FRAGILE), tale.dice.pick(("blue", "white", "green", "yellow", "old")))
    tale.set(h=cast.hero(), e=cast.elder(), t=thing, w=tale.dice.pick(("ball", "kite", "broom", "drum", "stick")))
    tale.set(spot=tale.dice.pick(("under the bed", "behind the door", "in a big boot", "under the stairs")))
    tale.title = "[The Broken {t.Word}|{h} Tells the Truth|Crash!]"
    tale.about("a broken {t}", "{h.a} who breaks {t.a}", "telling the truth", "{h} and {e}")
    open_tale(tale)
    tale.say(
        "{e} had {t.a_full} that {e.he} [loved|liked very much].",
        "on the table stood {t.a_full}. It was {e}'s.",
        "{e}'s best thing was {t.a_full}.",
    )
    tale.ask("Whose {t} was it?", "It was {e}'s {t}.", "{e}")
    tale.say(
        "one day {h} played with a {w} in the house. Crash! The {t} fell down and broke.",
        "{h} knew {h.he} must not play with a {w} inside. {h.He} did it all the same. Crash! The {t} broke.",
    )
    tale.ask("What did {h} break?", "{h} broke the {t}.", "{t}")
    tale.ask("What did {h} play with?", "{h} played with a {w}.", "{w}")
    tale.feel("h", "afraid")
    tale.end_paragraph()
    tale.say(
        "{h} was afraid. {h.He} hid the pieces {spot}.",
        "nobody had seen it. Quickly {h} put the pieces {spot}.",
    )
    tale.ask("Where did {h} hide the pieces?", "{h} hid the pieces {spot}.", "{spot}")
    tale.say(
        '"Have you seen my {t}?" asked {e}. "No," said {h}, and {h.his} face grew hot.',
        'at dinner {e} asked, "Where is my {t}?" {h} looked at {h.his} plate and said nothing.',
    )
    tale.say(
        "{h} could not [sleep|eat]. The secret was [too heavy|like a stone in {h.his} shoe].",
        "all night {h} thought about the {t}.",
    )
    tale.say(
        'in the morning {h.he} went to {e}. "I broke it," said {h}. "I am so sorry."',
        'at last {h} brought the pieces to {e}. "It was me," {h.he} said, and began to cry.',
    )
    tale.end_paragraph()
    tale.feel("h", tale.dice.pick(("glad", "much better")))
    tale.say(
        '{e} was quiet for a moment. Then {e.he} said, "Thank you for telling me." {h} felt {h.feeling}.',
        '"I was sad about the {t}," said {e}, "but now I am proud of you." {h} felt {h.feeling}.',
    )
    tale.say(
        "together they put the {t} back together, piece by piece.",
        "they mended it with glue. It was not pretty, but it was theirs.",
        "the next day they made a new one, and it was a funny one.",
    )
    close_tale(
        tale,
        "and {h} never played with the {w} in the house again. Well, almost never.",
        "a broken {t} can be mended, and so can a lie.",
        "the truth is hard to say, but it is light to carry.",
    )


NOISES = (
    ("tap, tap, tap", "a branch at the window", "branch"),
    ("whoo, whoo", "an owl on the roof", "owl"),
    ("scratch, scratch", "a hungry mouse with a piece of bread", "mouse"),
    ("drip, drip, drip", "rain that fell into a bucket", "rain"),
    ("bump, bump", "a hedgehog who had walked into a pot", "hedgehog"),
    ("creak, creak", "an old door and the wind", "wind"),
)


def night_noise(tale: Tale) -> None:
    """A noise in the dark, three guesses, and the small thing that made it."""
    cast = tale.casting
    hero = cast.hero()
    noise, cause, key = tale.dice.pick(NOISES)
    guess, worse = tale.dice.sample(("a wolf", "a ghost", "a dragon", "a giant", "a robber", "a bear"), 2)
    tale.set(h=hero, f=cast.friend(hero), noise=noise, cause=cause, key=key, guess=guess, worse=worse)
    tale.title = "[The Noise in the Night|{h} Hears Something|Who Is There?]"
    tale.about("a noise in the night", "the dark", "{h.a} who is afraid of the dark", "{h} and {f}")
    open_tale(tale)
    tale.say(
        "one night {h} could not sleep. {f} was staying with {h.him}.",
        "{f} came to stay for the night. They told stories until the lamp went out.",
        "it was dark, and {h} and {f} were already in bed.",
    )
    tale.ask("Who was with {h}?", "{f} was with {h}.", "{f}")
    tale.say("then they heard it: {noise}.", "suddenly there was a noise: {noise}.", '"Listen!" said {h}. {noise}!')
    tale.feel("h", "afraid")
    tale.say(
        '"It is {guess}!" whispered {f}. "Or {worse}," whispered {h}. They held hands.',
        '"Maybe it is {guess}," said {h}. "Maybe it is {worse}," said {f}. That did not help.',
    )
    tale.ask("What did they think it was?", "They thought it was {guess} or {worse}.", "{guess}")
    tale.end_paragraph()
    tale.say(
        '"I want to know," said {h}. {h.He} took the lamp, and {f} took a [spoon|broom|pillow].',
        "but {h} was more curious than afraid. With the lamp in one hand {h.he} opened the door.",
        'they waited. The noise did not stop. "Come," said {h}, "let us look."',
    )
    tale.say("step by step they went [down the stairs|to the kitchen|through the dark house].")
    tale.say("and what was it? It was {cause}!", "there it was. It was only {cause}!")
    tale.ask("What made the noise?", "It was {cause}.", "{key}")
    tale.feel("h", tale.dice.pick(("brave", "brave and sleepy", "glad")))
    tale.say(
        "they laughed so loudly that Mum woke up. {h} felt {h.feeling}.",
        '"Good evening," said {h}, and {f} began to laugh. {h} felt {h.feeling}.',
        "{h} looked at {f}, and they both sat down on the floor and laughed. {h} felt {h.feeling}.",
    )
    close_tale(
        tale,
        "after that they slept until the sun was high.",
        "the dark is big, but most things in it are small.",
        '"Next time," said {f}, "you go first again."',
    )


def rainy_day(tale: Tale) -> None:
    """The trip cannot be made, so it is made at home."""
    cast = tale.casting
    hero = cast.hero()
    weather = tale.dice.pick(("rain", "snow", "storm"))
    ship = tale.dice.pick(("ship", "tent", "train", "house of pillows", "rocket"))
    tale.set(h=hero, f=cast.friend(hero), p=cast.place(OUTDOORS), weather=weather, ship=ship, e=cast.elder())
    tale.set(food=lexicon().by_word[tale.dice.pick(TREATS)])
    tale.title = "[The Long Day|A Trip at Home|{h} Stays at Home]"
    tale.about("a day at home", "a trip at home", "{h} and {f}", "bad weather")
    open_tale(tale)
    tale.say(
        "{h} and {f} wanted to go {p.to}. The bag was packed and the shoes were on.",
        "all week {h} had waited for this day. {h.He} and {f} were going {p.to}!",
    )
    tale.ask("Where did they want to go?", "They wanted to go {p.to}.", "{p}")
    tale.ask("Who wanted to go with {h}?", "{f} wanted to go with {h}.", "{f}")
    tale.say(
        {
            "rain": "then it began to rain. It rained and rained.",
            "snow": "but in the night so much snow had fallen that the door would not open.",
            "storm": "then a storm came. The wind was so strong that the trees bowed down.",
        }[weather]
    )
    tale.ask("Why did they stay at home?", "They stayed at home because of the {weather}.", "{weather}")
    tale.feel("h", "sad")
    tale.say('"Now the day is lost," said {h}.', "{h} sat at the window and looked very sad.")
    tale.end_paragraph()
    tale.say(
        '"Lost?" said {e}. "Days do not get lost. Bring me the chairs."',
        '{e} smiled. "Then {p.the} must come to you," {e.he} said.',
    )
    tale.ask("Who had the idea?", "{e} had the idea.", "{e}")
    tale.say(
        "with chairs and blankets they built a {ship}.",
        "out of the table, two chairs and a blanket they made a {ship}.",
    )
    tale.ask("What did they build?", "They built a {ship}.", "{ship}")
    tale.say(
        "the carpet was the grass, the lamp was the sun, and {f} was [the captain|the driver].",
        "{h} was the captain, {f} was the cook, and the cat was a dangerous animal.",
        "they had {food.plural} for lunch, under the table, with a candle.",
    )
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say(
        "when the sky was clear again, nobody saw it. {h} was too {h.feeling} to look.",
        "in the evening {h} felt {h.feeling}. It was the best trip of the year.",
    )
    close_tale(
        tale,
        '"I hope it rains tomorrow," said {f}.',
        "one day they did go {p.to}. It was nice, but it had no pillows.",
        "the {ship} stood there for a week, and nobody was allowed to take it down.",
    )


def seed(tale: Tale) -> None:
    """Something is planted, waited for, despaired of, and shared."""
    cast = tale.casting
    hero = cast.hero()
    kind, fruit = tale.dice.pick(
        (
            ("bean", "beans"),
            ("pumpkin", "a pumpkin"),
            ("melon", "a melon"),
            ("flower", "a flower"),
            ("tomato", "tomatoes"),
        )
    )
    days = number_word(tale.dice.between(3, 9))
    tale.set(h=hero, f=cast.friend(hero), e=cast.elder(), kind=kind, fruit=fruit, days=days)
    tale.title = "[The Little Seed|{h} and the Seed|Waiting]"
    tale.about("a little seed", "a {kind}", "{h.a} who plants a seed", "waiting")
    open_tale(tale)
    tale.say(
        'one spring day {e} gave {h} a seed. "Put it into the earth and wait," {e.he} said.',
        "in an old coat {h} found one small seed. {h.He} showed it to {e}, who knew what to do.",
    )
    tale.ask("Who knew about seeds?", "{e} knew about seeds.", "{e}")
    tale.say(
        "{h} planted it behind the house and gave it water.",
        "{h} made a hole with one finger, put the seed in and covered it with earth.",
    )
    tale.ask("What did {h} plant?", "{h} planted a seed.", "seed")
    tale.say(
        "the next day nothing had happened. {days} days later, nothing had happened.",
        "{h} waited one day. {h.He} waited {days} days. Nothing.",
    )
    tale.ask("How many days did {h} wait?", "{h} waited {days} days.", "{days}")
    tale.feel("h", "sad")
    tale.maybe(0.6, '"Maybe it is asleep," said {f}.', '"Maybe it does not like me," said {h}.')
    tale.end_paragraph()
    tale.say(
        'so {h} sang to it. "That will not help," said {f}, but {f.he} sang too.',
        "every evening {h} told it a story. Seeds like stories, thought {h}.",
        "{h} did not give up. Every morning {h.he} brought it water in a cup.",
    )
    tale.say(
        "then, one morning, there was a tiny green leaf!",
        "and one day something green looked out of the earth!",
    )
    tale.say("it grew and grew. At the end of summer [{h} found {fruit}|the seed had become {fruit}].")
    tale.ask("What grew from the seed?", "From the seed grew {fruit}.", "{fruit}")
    tale.feel("h", tale.dice.pick(("proud", "happy")))
    if kind == "flower":
        tale.say("it was taller than {h}, and the bees came from far away. {h} was {h.feeling}.")
    else:
        tale.say(
            "{e} made soup from it, and there was enough for everybody. {h} was {h.feeling}.",
            "{h} shared with {f} and with all who came by. {h} was {h.feeling}.",
        )
    close_tale(
        tale,
        "and {h.he} kept one seed for the next spring.",
        '"You see," said {e}, "waiting is also work."',
        "{f} says it was the song. {h} thinks so too.",
    )


CLUES = (
    ("feather", "hen", "a white feather"),
    ("whisker", "cat", "one long whisker"),
    ("mud", "dog", "four muddy footprints"),
    ("crumbs", "mouse", "a thin line of crumbs"),
    ("shell", "squirrel", "an empty nutshell"),
    ("leaf", "goat", "half a leaf and a hair from a beard"),
)


def mystery(tale: Tale) -> None:
    """Something to eat is gone; there is a clue; the thief has a reason."""
    cast = tale.casting
    clue, kind, found = tale.dice.pick(CLUES)
    cast.words.add(kind)
    hero = cast.child()
    food = lexicon().by_word[tale.dice.pick(TREATS)]
    count = tale.dice.between(3, 9)
    tale.set(h=hero, f=cast.friend(hero), e=cast.elder(), food=food, count=number_word(count), clue=clue, found=found)
    tale.set(b=cast.beast((kind,)))
    tale.title = "[Who Took the {foods}?|The {foods} Thief|Detective {h}]".replace("{foods}", food.plural.capitalize())
    tale.about("a thief", "{food.plural} that are gone", "a mystery", "{h} the detective")
    open_tale(tale)
    tale.say(
        "{e} had put {count} {food.plural} on the kitchen table.",
        "on the kitchen table stood a plate with {count} {food.plural}.",
    )
    tale.ask("How many {food.plural} were there?", "There were {count} {food.plural}.", "{count}")
    tale.say(
        "an hour later the plate was empty! All the {food.plural} were gone.",
        '"Who took the {food.plural}?" cried {e}. The plate was empty.',
    )
    tale.ask("What was gone?", "The {food.plural} were gone.", "{food.plural}")
    tale.say('"It was not me," said {f}. "It was not me," said {h}. "I will find the thief!"')
    tale.end_paragraph()
    tale.say(
        "{h} looked at everything very closely. On the floor {h.he} found {found}.",
        "under the table {h} found something: {found}.",
    )
    tale.ask("What did {h} find?", "{h} found {found}.", "{found}")
    tale.say('"Aha!" said {h}. "Now I know who it was."', '"Interesting," said {h}, and {h.he} went out to the shed.')
    tale.say(
        "in the shed sat {b}, the {b.kind}, [with a very round belly|and looked at the ceiling].",
        "behind the shed {h.he} found {b}, the {b.kind}. {b.He} looked the other way.",
    )
    tale.ask("Who was the thief?", "{b}, the {b.kind}, was the thief.", "{b}")
    tale.say(
        "and next to {b.him} slept [three|four] little ones. They had been so hungry!",
        '"I only wanted one," said {b}. "But one was so lonely in my belly."',
        '"It was for my birthday," said {b}. "Nobody remembered."',
    )
    tale.feel("h", tale.dice.pick(("proud", "glad")))
    tale.say(
        "{h} was not angry. {h.He} was {h.feeling} that {h.he} had found out.",
        '"Next time, just ask," said {h}. {h.He} felt {h.feeling}.',
    )
    close_tale(
        tale,
        "then they made new {food.plural}, and {b} was allowed to lick the spoon.",
        "since that day there is always one more {food} on the plate, for {b}.",
        "and {e}? {e} laughed until {e.he} had to sit down.",
    )


def baking(tale: Tale) -> None:
    """A cake for somebody goes wrong in a way that turns out right."""
    cast = tale.casting
    hero = cast.hero()
    tale.set(h=hero, f=cast.friend(hero), e=cast.elder())
    tale.set(wrong=tale.dice.pick(("salt", "pepper", "sand", "soap")), right=tale.dice.pick(("sugar", "flour")))
    tale.title = "[A Cake for {e}|{h} Bakes a Cake|The Strange Cake]"
    tale.about("a cake", "{h.a} who bakes a cake", "a birthday", "{h}, {f} and a cake")
    open_tale(tale)
    tale.say(
        "it was {e}'s birthday, and {h} wanted to bake a cake.",
        '"We will bake a cake for {e}," said {h} to {f}. "It is a surprise."',
    )
    tale.ask("Who was the cake for?", "The cake was for {e}.", "{e}")
    tale.say("{f} read the book, and {h} did the work.", "{f} broke the eggs, and {h} stirred.")
    tale.ask("Who helped {h}?", "{f} helped {h}.", "{f}")
    tale.say(
        "but {h} took the wrong bag. {h.He} put in {wrong} and not {right}!",
        '"Is this the {right}?" asked {h}. It was the {wrong}. {h} put in two cups of it.',
    )
    tale.ask("What did {h} put into the cake?", "{h} put in {wrong}.", "{wrong}")
    tale.end_paragraph()
    tale.say(
        "the cake came out [flat as a plate|hard as a stone|as high as a hat]. {f} tried it and made a very long face.",
        "the cake looked fine. Then {f} tried it. {f.His} eyes grew big and round.",
    )
    tale.feel("h", "sad")
    tale.say('"It is terrible," said {h}, and {h.he} wanted to hide it.', '{h} was sad. "Now we have no cake."')
    tale.say("just then {e} came in.", "at that moment the door opened. It was {e}.")
    tale.say(
        '"For me?" said {e}, and {e.he} ate a big piece. "It is the [strangest|bravest] cake of my life. Thank you!"',
        '{e} tried it, and {e.he} laughed and laughed. "When I was small, I made one like this," {e.he} said.',
    )
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say("{h} felt {h.feeling} after all.", "then {h} was {h.feeling} again.")
    close_tale(
        tale,
        "and then they all baked another one, and read what was on the bag.",
        "the birds would not eat the rest. Neither would the pig.",
        "since then {h} tries everything with one finger first.",
    )


PLOTS: dict[str, Plot] = {
    "broken": broken,
    "night noise": night_noise,
    "rainy day": rainy_day,
    "seed": seed,
    "mystery": mystery,
    "baking": baking,
}
