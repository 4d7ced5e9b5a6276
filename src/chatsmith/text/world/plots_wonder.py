"""Plots with a little wonder in them: a wish, a dragon, the moon, a star, a cloud, and the long winter."""

from __future__ import annotations

from chatsmith.text.world.cast import FAR, OUTDOORS
from chatsmith.text.world.tale import Plot, Tale, close_tale, open_tale

WISHES = (
    (
        "to fly",
        "{h.he} flew over the roofs. It was wonderful, until the wind became cold",
        "to have warm feet on the ground",
    ),
    ("to be very tall", "{h.he} was as tall as a tree. But {h.he} could not get into the house", "to be small again"),
    (
        "for a house of cake",
        "there was cake to the ceiling. Soon nobody wanted any more of it",
        "for a little bread",
    ),
    ("to be invisible", "nobody could see {h.him}, and nobody said good night to {h.him}", "to be seen"),
    ("to talk with animals", "all the animals talked at once, day and night, about food", "for some quiet"),
    (
        "that every day was Sunday",
        "there was no school, but there were no letters and no fresh bread",
        "for a plain Monday",
    ),
)


def wish(tale: Tale) -> None:
    """A kindness is paid with a wish; the second wish is the wiser one."""
    cast = tale.casting
    hero = cast.hero()
    what, came, back = tale.dice.pick(WISHES)
    place = cast.place(OUTDOORS)
    tale.set(h=hero, p=place, b=cast.stranger(("fish", "frog", "bird", "bee", "snail")))
    tale.set(what=what, back=back, f=cast.friend(hero))
    tale.title = "[Two Wishes|{h} Makes a Wish|The Golden {b.Kind}]"
    tale.about("a wish", "a golden {b.kind}", "magic", "{h} and a {b.kind}")
    open_tale(tale)
    tale.say(
        "one day {h} was {p.at} and found a golden {b.kind} that was caught in an old net.",
        "{p.at} {h} heard somebody cry. It was a golden {b.kind} in an old net.",
    )
    tale.ask("What did {h} find {p.at}?", "{h} found a golden {b.kind}.", "{b.kind}")
    tale.ask("Where was {h}?", "{h} was {p.at}.", "{p}")
    tale.say("{h} opened the net with care.", 'carefully {h} set {b.him} free. "Off you go," {h.he} said.')
    tale.say(
        '"Thank you," said {b}. "For this you have two wishes. Think before you speak!"',
        '"You are kind," said {b}. "You may make two wishes."',
    )
    tale.ask("How many wishes did {h} get?", "{h} got two wishes.", "two")
    tale.end_paragraph()
    tale.say("{h} did not think for long. {h.He} wished {what}.", "at once {h} wished {what}.")
    tale.ask("What did {h} wish first?", "First {h} wished {what}.", "{what}")
    tale.say(f"and so it was: {came}.", f"and look: {came}.")
    tale.feel("h", "sad")
    tale.maybe(0.6, '"This is not what I wanted," said {h}.', '"I miss you," said {f}.')
    tale.say(
        "then {h} thought for a long time, and wished {back}.",
        'that night {h} said quietly, "I know my second wish." And {h.he} wished {back}.',
    )
    tale.ask("What did {h} wish last?", "Last {h} wished {back}.", "{back}")
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say(
        "in the morning everything was as before, and {h} had never been so {h.feeling}.",
        "everything was as it had been. {h} ran to {f} and felt {h.feeling}.",
    )
    close_tale(
        tale,
        "some wishes are only good for dreaming.",
        "{b.Name} laughed, far away, and the water shone like gold.",
        '"What would you wish for?" {h} asked {f}. But {f} only smiled.',
    )


DRAGONS = (
    ("bubbles", "where fire should be, only bubbles came out", "washed all the plates in the kitchen", "bubbles"),
    ("warm air", "{d.his} fire was only a little warm air", "dried the wet clothes of the whole street", "warm air"),
    ("a small light", "{d.his} fire was no bigger than a candle", "lit every lamp when the dark winter came", "light"),
    (
        "smoke rings",
        "where fire should be, only smoke rings came out",
        "showed the ships the way through the fog",
        "smoke",
    ),
)


def dragon(tale: Tale) -> None:
    """A dragon that frightens everybody, until somebody asks what it would like."""
    cast = tale.casting
    hero = cast.child()
    what, why, use, key = tale.dice.pick(DRAGONS)
    place = cast.place(("cave", "mountain", "castle", "hill", "island", "forest"))
    beast = cast.beast(("dragon",))
    tale.set(h=hero, d=beast, p=place, what=what, use=use, key=key)
    tale.title = "[The Shy Dragon|{h} and the Dragon|{d} the Dragon]"
    tale.about("a dragon", "{h} and a dragon", "a shy dragon", "{h.a} and a dragon")
    tale.say(
        "{p.at} lived a dragon named {d}, and everybody was afraid of {d.him}.",
        "far away, {p.at}, there lived a big green dragon. {d.His} name was {d}.",
    )
    tale.ask("What was the dragon's name?", "The dragon's name was {d}.", "{d}")
    tale.ask("Where did the dragon live?", "The dragon lived {p.at}.", "{p}")
    tale.say(
        'people closed their doors when {d.he} flew by. "Dragons are dangerous," they said.',
        "nobody ever went there. Nobody ever said good morning to {d.him}.",
    )
    tale.feel("d", "lonely")
    tale.say("but {d} was only lonely.", "nobody knew that {d} cried at night.")
    tale.say("there was also {h.intro}, who was [more curious|braver] than the others.", "then {h.intro} had an idea.")
    tale.say(
        '{h.he} went up to {d} and asked, "What would you like?"', '"Good morning," said {h} to {d}. "How are you?"'
    )
    tale.ask("Who went to see the dragon?", "{h} went to see the dragon.", "{h}")
    tale.end_paragraph()
    tale.say(
        "{d} was so surprised that {d.he} sat down on {d.his} own tail.",
        "nobody had ever asked {d} that. {d.He} did not know what to say.",
    )
    tale.say(
        f'"I am not a real dragon," said {{d}}. It was true: {why}.',
        f"then {{d}} told {{h}} {{d.his}} secret: {why}.",
    )
    tale.ask("What came out instead of fire?", "Only {what} came out.", "{key}")
    tale.say('"But that is wonderful!" said {h}.', "{h} did not laugh. {h.He} thought.")
    tale.say(f"the next day {{h}} brought {{d}} home with {{h.him}}, and {{d}} {use}.")
    tale.feel("h", tale.dice.pick(("proud", "happy")))
    tale.say(
        "everybody clapped, and {d} turned red with joy. {h} felt {h.feeling}.",
        "people opened their doors, first a little, then wide. {h} was {h.feeling}.",
    )
    close_tale(
        tale,
        "now {d} comes every Sunday, and there is always a very big cup of tea.",
        "since then children ride to town on a dragon's back, but only on Mondays.",
        "and if you hear somebody sing very low in the evening, it is {d}.",
    )


def moon(tale: Tale) -> None:
    """Somebody wants the moon, tries to reach it, and is given it in another way."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place(("hill", "mountain", "castle", "barn", "mill", "harbour"))
    water = tale.dice.pick(("bucket", "cup", "bowl", "bottle"))
    tale.set(h=hero, f=cast.friend(hero), p=place, w=water, e=cast.elder())
    tale.set(tool=tale.dice.pick(("ladder", "rope", "stick", "kite")))
    tale.title = "[The Moon in the {W}|{h} and the Moon|Catching the Moon]".replace("{W}", water.capitalize())
    tale.about("the moon", "{h.a} who wants the moon", "{h} and the moon", "a night outside")
    open_tale(tale)
    tale.say(
        'one night {h} saw the moon, round and white. "I want to have it," said {h}.',
        "every evening {h} looked at the moon. How near it was!",
    )
    tale.ask("What did {h} want?", "{h} wanted the moon.", "moon")
    tale.say("so {h} took a {tool} and went {p.to}.", "with a {tool} on {h.his} back {h} went {p.to}.")
    tale.ask("What did {h} take with {h.him}?", "{h} took a {tool}.", "{tool}")
    tale.ask("Where did {h} go?", "{h} went {p.to}.", "{p}")
    tale.say(
        "{h.he} reached up as high as {h.he} could. The moon only smiled.",
        "but the {tool} was too short, much too short.",
    )
    tale.feel("h", "sad")
    tale.say('"It does not want to come," said {h}.', "{h} sat down in the cold grass and was sad.")
    tale.end_paragraph()
    tale.say(
        'then {f} came with a {w} full of water. "Look into it," said {f}.',
        '{f} had followed {h.him}. "Wait here," said {f}, and brought a {w} with water.',
    )
    tale.ask("Who helped {h}?", "{f} helped {h}.", "{f}")
    tale.say("{h} looked. And there, in the {w}, was the moon!", "in the water lay the moon, small and bright.")
    tale.ask("Where was the moon?", "The moon was in the {w}.", "{w}")
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say(
        "{h} touched it, and it danced. {h.He} was {h.feeling}.",
        '"It is mine and yours," whispered {h}, and felt {h.feeling}.',
    )
    close_tale(
        tale,
        "they carried it home, very slowly, so that it would not fall out.",
        "in the morning the moon was gone. But {h} knew where to find it.",
        'at home {e} asked, "What is in the {w}?" "Nothing," said {h}. "It is asleep."',
    )


def star(tale: Tale) -> None:
    """A small star has fallen down and must be brought home."""
    cast = tale.casting
    hero = cast.hero()
    place, high = cast.place(OUTDOORS), cast.place(("mountain", "castle", "hill", "mill"))
    tale.set(h=hero, p=place, o=high, b=cast.stranger(("owl", "goose", "duck", "bird")))
    tale.set(box=tale.dice.pick(("hat", "box", "basket", "boot", "pocket")))
    tale.title = "[The Little Star|{h} and the Star|A Light in the Grass]"
    tale.about("a star", "a star that falls down", "{h} and a star", "{h.a} who finds a star")
    open_tale(tale)
    tale.say(
        "one evening {h} saw a light {p.at}.", "late one evening {h} was {p.at}, and something shone in the grass."
    )
    tale.ask("Where was the star?", "The star was {p.at}.", "{p}")
    tale.say(
        'it was a little star. "I fell down," it said. "I was too curious."',
        "it was a star, no bigger than a nut, and it was shaking with cold.",
    )
    tale.say(
        "{h} put it into {h.his} {box} to keep it warm.",
        'gently {h} laid it in {h.his} {box}. "I will bring you home."',
    )
    tale.ask("Where did {h} put the star?", "{h} put it into {h.his} {box}.", "{box}")
    tale.end_paragraph()
    tale.say(
        "but how does one bring a star home? {h} carried it {o.to}, as high as one can go.",
        "{h} went {o.to}, for that is close to the sky.",
    )
    tale.ask("Where did {h} carry it?", "{h} carried it {o.to}.", "{o}")
    tale.say(
        "{h} threw it up once, twice, three times. It always came down again.",
        "{h} stretched out {h.his} arms. It was still too far.",
    )
    tale.say(
        'then {b.a} landed beside {h.him}. "Give it to me," said {b}.',
        '"That is my way," said a voice. It was {b.a}. "I can take it."',
    )
    tale.ask("Who carried the star to the sky?", "{b.Name} carried the star to the sky.", "{b.kind}")
    tale.say("{b} took the star and flew and flew, until it was only a dot among many dots.")
    tale.feel("h", tale.dice.pick(("happy", "proud", "glad")))
    tale.say("{h} felt {h.feeling}, and a little bit sad too.", "{h} waved for a long time. {h.He} was {h.feeling}.")
    close_tale(
        tale,
        "but one of the stars blinks, once, every time {h} says good night.",
        "{h.his} {box} still shines a little in the dark.",
    )


def cloud(tale: Tale) -> None:
    """A small cloud follows somebody about; it is a nuisance, until it is needed."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place(("garden", "farm", "orchard", "village", "meadow"))
    tale.set(h=hero, f=cast.friend(hero), p=place, name=tale.dice.pick(("Wolly", "Puff", "Drop", "Tilly")))
    tale.set(thing=tale.dice.pick(("bed", "soup", "book", "homework")))
    tale.title = "[The Small Cloud|{h} and the Cloud|A Cloud Named {name}]"
    tale.about("a cloud", "a small cloud", "{h} and a cloud", "rain")
    open_tale(tale)
    tale.say(
        "one morning a small cloud came in through the window. It stayed over {h}'s head.",
        "a small cloud had lost its mother. It saw {h} and followed {h.him} home.",
    )
    tale.ask("What followed {h}?", "A small cloud followed {h}.", "cloud")
    tale.say("{h} called it {name}.", '"I will call you {name}," said {h}.')
    tale.ask("What was the cloud called?", "The cloud was called {name}.", "{name}")
    tale.say("but {name} rained on everything: on the cat, on the floor, and on {h}'s {thing}.")
    tale.ask("What got wet?", "{h}'s {thing} got wet.", "{thing}")
    tale.feel("h", "angry")
    tale.say(
        '"Go away!" said {h}, wet and angry. And the cloud went, very slowly.',
        '{h} was angry. "I do not want you any more!" The cloud grew grey and left.',
    )
    tale.end_paragraph()
    tale.say(
        "then the hot days came. {p.at} everything was dry, and the flowers hung their heads.",
        "it did not rain for [four|five|six|seven] weeks. {p.at} the leaves turned brown.",
    )
    tale.ask("Where was it too dry?", "It was too dry {p.at}.", "{p}")
    tale.say('"If only we had a cloud," said {f}. {h} ran out and called, "{name}! I am sorry! Come back!"')
    tale.say(
        "far away something small and grey stopped and turned around.",
        "for a long time nothing happened. Then a shadow fell on {h}'s nose.",
    )
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say("{name} came, and it rained and rained. {h} stood in the middle of it and was {h.feeling}.")
    close_tale(
        tale,
        "today {name} is big, but it still comes to tea. {h} opens an umbrella then.",
        "everybody danced in the wet grass, even {f}, who did not like to dance.",
    )


def winter(tale: Tale) -> None:
    """One gathers food, one makes music; in the cold they find what each has."""
    cast = tale.casting
    hero, other = (
        cast.beast(("squirrel", "mouse", "hedgehog", "ant", "rabbit")),
        cast.beast(("frog", "bird", "bee", "cat", "fox")),
    )
    place = cast.place(FAR)
    tale.set(h=other, q=hero, p=place, food=tale.dice.pick(("nuts", "apples", "carrots", "seeds")))
    tale.set(art=tale.dice.pick(("songs", "stories", "jokes", "dances")))
    tale.title = "[The Long Winter|{q} and {h}|Before the Snow]"
    tale.about("winter", "{q.a} and {h.a}", "{q} and {h}", "the cold winter")
    tale.say(
        "all summer {q} the {q.kind} gathered {food} {p.at}. Back and forth, back and forth.",
        "{p.at} lived {q} the {q.kind}, who worked from morning to night and gathered {food}.",
    )
    tale.ask("What did {q} gather?", "{q} gathered {food}.", "{food}")
    tale.ask("Where did {q} live?", "{q} lived {p.at}.", "{p}")
    tale.say(
        "{h} the {h.kind} lay in the sun and thought of new {art}.",
        '{h} the {h.kind} made up {art} all day. "Come and listen!" called {h}. But {q} had no time.',
    )
    tale.ask("What did {h} make?", "{h} made {art}.", "{art}")
    tale.say(
        '"Winter is coming," said {q}. "But it is not here," said {h}.',
        '"What will you eat in winter?" asked {q}. {h} did not know.',
    )
    tale.end_paragraph()
    tale.say(
        "then the snow came, and {h} had nothing to eat.",
        "winter came in one night. Everything was white, and {h} was cold and hungry.",
    )
    tale.feel("h", "hungry")
    tale.say(
        '{h} knocked at {q}\'s door. "I have been foolish," said {h}.',
        "for a long time {h} stood at {q}'s door. Then {h.he} knocked.",
    )
    tale.ask("Whose door did {h} knock at?", "{h} knocked at {q}'s door.", "{q}")
    tale.say(
        '"I have {food}," said {q}, "but the evenings are long and quiet here. What do you have?"',
        "{q} was full, but {q.he} was bored. There was nobody to talk to.",
    )
    tale.say(
        '"I have a hundred {art}," said {h}. "Then come in," said {q}.',
        "so {h} ate {food}, and {q} got {art}. It was a good trade.",
    )
    tale.feel("h", tale.dice.pick(("glad", "happy", "warm")))
    tale.say(
        "{h} was {h.feeling}, and {q} laughed for the first time that year.",
        "{h} felt {h.feeling}, and the winter was not long at all.",
    )
    close_tale(
        tale,
        "next summer {h} gathered {food} too, and {q} learned to lie in the sun.",
        "one has {food} and one has {art}. It is best to have both.",
    )


PLOTS: dict[str, Plot] = {
    "wish": wish,
    "dragon": dragon,
    "moon": moon,
    "star": star,
    "cloud": cloud,
    "winter": winter,
}
