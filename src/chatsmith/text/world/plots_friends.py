"""Plots between friends: meeting, sharing, swapping, racing, building, learning, telling lies and making up."""

from __future__ import annotations

from chatsmith.text.world.cast import OUTDOORS, TREATS
from chatsmith.text.world.phrasing import number_word
from chatsmith.text.world.tale import Plot, Tale, close_tale, open_tale


def new_friend(tale: Tale) -> None:
    """Somebody new is alone until a small thing breaks the silence."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place(OUTDOORS)
    tale.set(h=hero, f=cast.friend(hero), p=place, t=cast.prop(), food=cast.food(TREATS))
    tale.title = "[A New Friend|{h} and {f}|The First Word]"
    tale.about("a new friend", "{h.a} who is new", "{h} and {f}", "{h.a} and {t.a}")
    open_tale(tale)
    tale.say(
        "{h} had just moved to a new house and knew nobody.",
        "{h} was new here. Everything was strange: the streets, the smells, the voices.",
    )
    tale.feel("h", "lonely")
    tale.say("{h} felt lonely.", "it is hard to be new, and {h} felt lonely.")
    tale.ask("How did {h} feel at first?", "At first {h} felt lonely.", "lonely")
    tale.say(
        "one afternoon {h} went {p.to} and sat down.",
        "so {h.he} went {p.to}, alone, and looked at {h.his} feet.",
    )
    tale.ask("Where did {h} go?", "{h} went {p.to}.", "{p}")
    tale.end_paragraph()
    tale.say(
        "there was {f}, who was playing with {t.a_full}.",
        "{f} was there too, with {t.a_full}.",
    )
    tale.ask("What did {f} have?", "{f} had {t.a_full}.", "{t}")
    kind = tale.dice.below(3)
    if kind == 0:
        tale.say(
            "they looked at each other. They looked away. Nobody knew what to say.",
            "{h} wanted to say hello, but the word would not come out.",
        )
        tale.say(
            "then a bird landed on {f}'s head. {h} laughed, and {f} laughed too.",
            "then {h} had to sneeze, very loudly. {f} laughed, and {h} laughed too.",
        )
    elif kind == 1:
        tale.say('the {t} fell into the mud. "Oh no," said {f}.', "suddenly the {t} got stuck high up in a tree.")
        tale.say('"I can help," said {h}, and {h.he} did. It was the first thing {h.he} said here.')
    else:
        tale.say("{h} had two {food.plural} in {h.his} bag. {h.He} looked at them for a long time.")
        tale.say('"Would you like one?" {h} asked at last. {f} did. They ate, and that was how it began.')
        tale.ask("What did {h} give {f}?", "{h} gave {f} {food.a}.", "{food}")
    tale.say('"I am {f}," said {f}. "I am {h}," said {h}.', '"Do you want to play?" asked {f}. {h} nodded.')
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say(
        "they played with the {t} until the lamps were lit. {h} was {h.feeling}.",
        "{f} knew a game with the {t}, and {h} knew a better one. {h} felt {h.feeling}.",
    )
    close_tale(
        tale,
        "now {h} is not new any more. Now there is somebody else who is new, and {h} says hello.",
        "the next day {f} was waiting at {h}'s door.",
        'at home Mum asked, "What is your friend\'s name?" And {h} knew the answer.',
    )


def sharing(tale: Tale) -> None:
    """Three hungry ones, three gifts, an empty bag, and what comes back."""
    cast = tale.casting
    hero = cast.hero()
    tale.set(h=hero, p=cast.place(OUTDOORS), food=cast.food(("apple", "cookie", "pear", "pancake", "sandwich", "nut")))
    tale.set(a=cast.stranger(), b=cast.stranger(), c=cast.stranger())
    tale.title = "[Three {foods}|{h} Shares|The Empty Bag]".replace("{foods}", "{food.plural}")
    tale.about("sharing", "three {food.plural}", "{h.a} who shares", "{a.a}, {b.a} and {c.a}")
    open_tale(tale)
    tale.say(
        "{h} had three {food.plural} and was on {h.his} way {p.to}.",
        "{h} put three {food.plural} into a bag and set off {p.to}.",
    )
    tale.ask("How many {food.plural} did {h} have?", "{h} had three {food.plural}.", "three")
    tale.ask("Where was {h} going?", "{h} was going {p.to}.", "{p}")
    tale.say('first {h.he} met {a.a}. "I am so hungry," said {a}. {h} gave {a.him} {food.a}.')
    tale.ask("Who did {h} meet first?", "First {h} met {a.a}.", "{a.kind}")
    tale.say(
        "then {h.he} met {b.a}, who had not eaten since yesterday. {h} gave {b.him} {food.a} too.",
        'then came {b.a}. "Is that {food.a}?" asked {b}. "It is yours," said {h}.',
    )
    tale.ask("Who did {h} meet next?", "Next {h} met {b.a}.", "{b.kind}")
    tale.say(
        "at last {h} sat down to eat. But there was {c.a}, who looked at the {food} and said nothing at all.",
        "now {h} had one left. Just then {c.a} came by with a very empty belly.",
    )
    tale.ask("Who got the last {food}?", "{c.Name} got the last {food}.", "{c.kind}")
    tale.say("{h} thought about it for a while, and gave {c.him} the last one.", "{h} sighed, and {c} ate.")
    tale.end_paragraph()
    tale.say("now the bag was empty, and so was {h}'s belly.", "and so {h} had nothing left.")
    tale.feel("h", tale.dice.pick(("happy", "glad", "full")))
    tale.say(
        "but in the evening somebody knocked. It was {a}, {b} and {c}. They had made soup, and there was some for {h}.",
        'but {a}, {b} and {c} had been talking. They came with berries, bread and honey. "Now you eat," they said.',
    )
    tale.say("{h} ate and felt {h.feeling}.", "they all sat down together, and {h} was {h.feeling}.")
    close_tale(
        tale,
        "a bag can be empty and a table full.",
        "after that, nobody {p.at} was ever hungry alone.",
        "three {food.plural} are not much. But they were enough for three friends.",
    )


def swapping(tale: Tale) -> None:
    """One thing is given for another, and that for a third, until everybody has what they want."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place(("market", "village", "harbour", "station", "farm", "park"))
    tale.set(h=hero, p=place, s=cast.prop(), t=cast.prop(), u=cast.prop())
    tale.set(a=cast.friend(hero), b=cast.friend(hero), g=cast.elder())
    tale.title = "[A Good Swap|From {s.Word} to {u.Word}|{h} Swaps]"
    tale.about("a swap", "{h.a} who swaps things", "{h}, {a} and {b}", "{s.a} and {u.a}")
    open_tale(tale)
    tale.say(
        "{h} wanted to give {g} {u.a}, but {h.he} had no money. {h.He} had only {s.a_full}.",
        "tomorrow was {g}'s birthday. {g} wished for {u.a}, and all {h} had was {s.a_full}.",
    )
    tale.ask("What did {h} have first?", "First {h} had {s.a_full}.", "{s}")
    tale.ask("Who was the {u} for?", "The {u} was for {g}.", "{g}")
    tale.say("so {h} took the {s} and went {p.to}.", "with the {s} in {h.his} hand {h.he} went {p.to}.")
    tale.ask("Where did {h} go?", "{h} went {p.to}.", "{p}")
    tale.end_paragraph()
    tale.say(
        'there {h.he} met {a}. "What a nice {s}!" said {a}. "I will give you my {t} for it."',
        '{a} was there with {t.a_full}. "Will you swap?" {a.he} asked. "My {t} for your {s}?"',
    )
    tale.say("now {h} had {t.a}.", "they swapped, and {h} had {t.a}.")
    tale.ask("What did {a} give {h}?", "{a} gave {h} {t.a}.", "{t}")
    tale.ask("Who got the {s}?", "{a} got the {s}.", "{a}")
    tale.say(
        'next came {b}, who was sad. "I have lost my {t}," said {b}. "I have only this old {u}."',
        'then {h} saw {b} with {u.a_full}. "I do not need it," said {b}. "I would rather have {t.a}."',
    )
    tale.say(
        '"Take mine," said {h}, "and give me the {u}!" And so it was done.', '"Here you are!" said {h}. They swapped.'
    )
    tale.ask("Who had the {u}?", "{b} had the {u}.", "{b}")
    tale.ask("What did {h} have in the end?", "In the end {h} had the {u}.", "{u}")
    tale.feel("h", tale.dice.pick(("happy", "proud")))
    tale.say(
        '{h} ran home. "For me?" cried {g}. {h} felt {h.feeling}.',
        "{g} held the {u} in both hands and could not speak. {h} was {h.feeling}.",
    )
    close_tale(
        tale,
        "nobody had spent any money, and everybody had what they wanted.",
        "{a} has the {s}, {b} has the {t}, {g} has the {u}, and {h} has a good story.",
    )


RACES = (("rabbit", "turtle"), ("horse", "donkey"), ("fox", "hedgehog"), ("cat", "duck"), ("dog", "snail"))


def race(tale: Tale) -> None:
    """A fast one and a slow one; what the fast one does on the way decides."""
    cast = tale.casting
    fast, slow = tale.dice.pick(RACES)
    quick, hero = cast.beast((fast,)), cast.beast((slow,))
    place = cast.place(OUTDOORS)
    tale.set(h=hero, q=quick, p=place)
    tale.title = "[The Race|{q} and {h}|Fast and Slow]"
    tale.about("a race", "{q.a} and {h.a}", "{h.a} who runs a race", "{q} and {h}")
    tale.say(
        "{q} the {q.kind} was the fastest of all, and {q.he} said so every day.",
        '"Nobody is as fast as I am," said {q} the {q.kind}. {q.He} said it at breakfast, lunch and dinner.',
    )
    tale.say(
        '"Then let us race," said {h} the {h.kind}. Everybody laughed.',
        '{h} the {h.kind} was slow, but {h.he} was tired of hearing it. "I will race you," said {h}.',
    )
    tale.ask("What kind of animal was {q}?", "{q} was {q.a}.", "{q.kind}")
    tale.ask("What kind of animal was {h}?", "{h} was {h.a}.", "{h.kind}")
    tale.say("they met {p.at} in the morning.", "the race began {p.at}, and everybody came to watch.")
    tale.ask("Where was the race?", "The race was {p.at}.", "{p}")
    tale.say("one, two, three, go! {q} was gone like the wind.", "{q} ran. {h} walked. Soon {q} was far ahead.")
    tale.end_paragraph()
    end = tale.dice.below(3)
    if end == 0:
        tale.say(
            'half way {q} looked back. "I have time for a nap," said {q}, and lay down under a tree.',
            "{q} was so far ahead that {q.he} sat down to rest. Soon {q.he} was asleep.",
        )
        tale.ask("Why did {q} lose?", "{q} fell asleep.", "asleep")
        tale.say("{h} came by, step by step, very quietly, and walked on.", "{h} did not stop. Step, step, step.")
        tale.say("when {q} woke up, {h} was already there. {h} had won!")
        tale.feel("h", "proud")
        tale.ask("Who won the race?", "{h} won the race.", "{h}")
    elif end == 1:
        tale.say(
            "but {q} stopped to show everybody how high {q.he} could jump. {q.He} jumped here and jumped there.",
            "but {q} waved to the left and waved to the right, and so {q.he} took the wrong road.",
        )
        tale.ask("Why did {q} lose?", "{q} wanted to show off.", "show off")
        tale.say("{h} only looked ahead.", "{h} looked neither left nor right.")
        tale.say("and so {h} came first, to everybody's surprise. Most of all to {h}'s.")
        tale.feel("h", "surprised")
        tale.ask("Who won the race?", "{h} won the race.", "{h}")
    else:
        tale.say("then {q} fell and hurt {q.his} leg. {q.He} could not get up.")
        tale.say('{h} came by and stopped. "The race can wait," said {h}. "Lean on me."')
        tale.ask("What happened to {q}?", "{q} fell and hurt {q.his} leg.", "leg")
        tale.say("they came in together, at the same time, and very late.")
        tale.feel("h", "happy")
        tale.ask("Who won the race?", "Nobody won. They came in together.", "together")
    tale.say("{h} felt {h.feeling}.", "how {h.feeling} {h} was!")
    close_tale(
        tale,
        "{q} still runs fast, but {q.he} does not talk about it so much.",
        '"You are the fastest," said {h}. "And you are not the slowest," said {q}.',
        "the next day they went for a walk. A slow one.",
    )


PROJECTS = (
    ("kite", "it would not fly", "the tail was too short", "a longer tail", "tail"),
    ("boat", "it filled with water", "there was a hole in it", "a piece of old boot over the hole", "hole"),
    ("tower", "it fell down", "the small blocks were at the bottom", "big blocks at the bottom", "blocks"),
    ("cart", "it only went in circles", "one wheel was smaller", "two wheels of the same size", "wheel"),
    ("swing", "it hung too low", "the rope was too long", "a knot in the rope", "rope"),
    ("nest box", "no bird came", "the door was too small", "a bigger door", "door"),
)


def building(tale: Tale) -> None:
    """Something is built, fails, is understood, and works."""
    cast = tale.casting
    hero = cast.hero()
    thing, fails, why, better, key = tale.dice.pick(PROJECTS)
    tale.set(h=hero, f=cast.friend(hero), p=cast.place(OUTDOORS), thing=thing, fails=fails, why=why, better=better)
    tale.set(key=key, times=number_word(tale.dice.between(3, 5)))
    tale.title = "[{h} Builds a {Thing}|Try Again|The {Thing}]".replace("{Thing}", thing.title())
    tale.about("a {thing}", "{h.a} who builds a {thing}", "trying again", "{h}, {f} and a {thing}")
    open_tale(tale)
    tale.say(
        "{h} wanted to have a {thing}, so {h.he} built one.",
        '"I will build a {thing}," said {h}, "all by myself."',
    )
    tale.ask("What did {h} build?", "{h} built a {thing}.", "{thing}")
    tale.say("{h.he} worked all day with a hammer and nails.", "it took all morning, and {h.his} hands were dirty.")
    tale.say("proudly {h} took it {p.to}. But {fails}!", "then {h.he} carried it {p.to} to try it. But {fails}!")
    tale.ask("Where did {h} take the {thing}?", "{h} took it {p.to}.", "{p}")
    tale.feel("h", "angry")
    tale.say(
        "{h} tried {times} times, and {times} times {fails}. {h.He} was so angry that {h.he} kicked a stone.",
        "{h} was angry. {h.He} sat down beside the {thing} and did not want to see it any more.",
    )
    tale.end_paragraph()
    tale.say(
        "then {f} came by, walked around it, and saw that {why}.",
        '"May I see?" asked {f}. {f.He} looked at it for a long time and saw that {why}.',
    )
    tale.ask("Who saw what was wrong?", "{f} saw what was wrong.", "{f}")
    tale.ask("What was wrong?", "{f} saw that {why}.", "{key}")
    tale.say("{h} looked. It was true!", "{h} did not want to hear it. But it was true.")
    tale.say(
        "so they worked together and built it again, with {better}.",
        "they took it apart and built it again, with {better}.",
    )
    tale.feel("h", tale.dice.pick(("proud", "happy")))
    tale.say(
        "and now? Now it worked! {h} felt {h.feeling}.", "they tried once more, and it worked! {h} was {h.feeling}."
    )
    close_tale(
        tale,
        '"We built it," {h} said that evening. {h.He} did not say "I".',
        "a mistake is only a question, and {f} had found the answer.",
        "it was not pretty, but it was the best {thing} {p.at}.",
    )


LESSONS = (
    ("swim", "the water is cold and deep", "lie on your back and look at the sky"),
    ("ride a bike", "the ground is hard", "look ahead and not at your feet"),
    ("whistle", "only air comes out", "think of something sour"),
    ("climb", "the ground is far away", "look up and not down"),
    ("dance", "my feet do not listen to me", "count to three, again and again"),
    ("skate", "the ice is hard", "bend your knees and smile"),
)


def learning(tale: Tale) -> None:
    """Something is too hard, then less hard, then a joy."""
    cast = tale.casting
    hero = cast.child()
    skill, fear, tip = tale.dice.pick(LESSONS)
    tale.set(h=hero, f=cast.friend(hero), g=cast.friend(hero), skill=skill, fear=fear, tip=tip)
    tale.set(days=number_word(tale.dice.between(2, 6)))
    tale.title = "[{h} Learns|Not Yet|{f} Shows How]"
    tale.about("{h.a} who learns to {skill}", "learning to {skill}", "{h} and {f}")
    open_tale(tale)
    tale.say("everybody could {skill}, but {h} could not.", "{h} wanted to {skill}, but {h.he} did not know how.")
    tale.ask("What did {h} want to learn?", "{h} wanted to learn to {skill}.", "{skill}")
    tale.say(
        '"You are too small," said {g}. That hurt.',
        "when the others did it, {h} held the coats. {g} laughed at {h.him}.",
    )
    tale.ask("Who was not kind to {h}?", "{g} was not kind to {h}.", "{g}")
    tale.end_paragraph()
    tale.say(
        '"I will show you," said {f}. "I cannot," said {h}, "because {fear}."',
        'then {f} came. "Why do you not try?" {f.he} asked. "Because {fear}," said {h}.',
    )
    tale.ask("Who showed {h} how to {skill}?", "{f} showed {h} how to {skill}.", "{f}")
    tale.say('"There is a secret," said {f}. "You must {tip}."', '"Just {tip}," said {f}. "That is all."')
    tale.ask("What did {f} tell {h} to do?", "{f} told {h} to {tip}.", "{tip}")
    tale.say(
        "{h} tried. It was terrible. {h.He} tried for {days} days, and it was a little less terrible.",
        "the first day went badly. So did the next. But after {days} days something was different.",
    )
    tale.ask("How many days did it take?", "It took {days} days.", "{days}")
    tale.say(
        "and then it happened. {h} could {skill}!",
        "and suddenly, without thinking, {h.he} could {skill}.",
    )
    tale.feel("h", tale.dice.pick(("proud", "happy")))
    tale.say('"Look at me!" {h} cried. {h.He} felt {h.feeling}.', "{h} was so {h.feeling} that {h.he} forgot to stop.")
    close_tale(
        tale,
        'even {g} said, "Well done." And {h} showed {g.him} the secret.',
        "not yet, {h} says now, when something is hard. Not yet.",
        "now {h} teaches the little ones, and {h.he} never laughs at them.",
    )


PLOTS: dict[str, Plot] = {
    "new friend": new_friend,
    "sharing": sharing,
    "swapping": swapping,
    "race": race,
    "building": building,
    "learning": learning,
}
