"""Plots that go out of doors: things and pets lost and found, hiding, treasure, rescue, errands."""

from __future__ import annotations

from chatsmith.text.world.cast import FAR, OUTDOORS, PETS, POTFULS, Actor
from chatsmith.text.world.tale import Plot, Tale, close_tale, open_tale


def lost_thing(tale: Tale) -> None:
    """Something dear is lost, looked for in the wrong places, and found with a friend's help."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place()
    tale.set(h=hero, f=cast.friend(hero), p=place, t=cast.prop())
    near, far, right = tale.dice.shuffled(place.spots)
    tale.set(near=near, far=far, right=right)
    tale.title = "[The Lost {t.Word}|Where Is the {t.Word}?|{h} and the {t.Colour} {t.Word}]"
    tale.about("a lost {t}", "{h.a} who loses {h.his} {t}", "{h.a} and {t.a_full}", "{h}")
    open_tale(tale)
    tale.say(
        "{h} had {t.a_full} and took it everywhere.",
        "of all {h.his} things, {h} liked {h.his} {t.full} best.",
        "for {h.his} birthday {h} got {t.a_full}.",
        "grandma had given {h} {t.a_full}, and {h} was very proud of it.",
    )
    tale.say(
        "one day {h} went {p.to} with the {t} [and played until the sun was low|and stayed there all morning].",
        "{h} took the {t} {p.to} [one morning|one day|after lunch]. {h.He} played and played.",
    )
    tale.ask("What did {h} take {p.to}?", "{h} took {t.a_full} {p.to}.", "{t}")
    tale.ask("Where did {h} go?", "{h} went {p.to}.", "{p}")
    tale.end_paragraph()
    tale.say(
        "but when it was time to go home, the {t} was gone!",
        "then {h} looked around. The {t} was not there!",
        "suddenly {h} stopped. Where was the {t}?",
    )
    tale.ask("What did {h} lose?", "{h} lost {h.his} {t.full}.", "{t}")
    tale.ask("What colour was the {t}?", "The {t} was {t.colour}.", "{t.colour}")
    tale.maybe(0.5, "{h} [felt sad|wanted to cry|felt cold inside].", '"Oh no," said {h}. "My {t}!"')
    tale.say(
        "{h} looked {near}. [Nothing but a snail.|It was not there.|There was only an old shoe.]",
        "was it {near}? No, there was only [a beetle|a sleepy frog|an empty bottle].",
    )
    tale.say("{h.He} looked {far}. [No {t}.|Nothing.|It was not there either.]")
    tale.say(
        'then {f} came by. "Why are you sad?" {f.he} asked. "I lost my {t}," said {h}. "Then we will look together!"',
        '"What are you looking for?" asked {f}. {h} told {f.him} about the {t}. "I will help you," said {f}.',
        '{f} saw {h} and came over. "Four eyes are better than two," said {f}. "Let us look together."',
    )
    tale.ask("Who helped {h}?", "{f} helped {h}.", "{f}")
    tale.end_paragraph()
    tale.say(
        "{f} looked {right}, and there was the {t}!",
        'they looked {right}. "Here it is!" called {f}. It was the {t.full}!',
        "{right}, {f} saw something {t.colour}. It was the {t}!",
    )
    tale.ask("Where was the {t}?", "The {t} was {right}.", "{right}")
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say(
        '"Thank you!" said {h}. {h.He} was {h.feeling} again.',
        '{h} was so {h.feeling} that {h.he} [danced|jumped up and down]. "Thank you, {f}!"',
        '"You are a good friend," said {h}. {h.He} felt {h.feeling}.',
    )
    close_tale(
        tale,
        "from then on {h} always knew where {h.his} {t} was.",
        "and they played with the {t} together until it was dark.",
        "now {h} [ties the {t} to {h.his} bag|counts {h.his} things] before {h.he} goes home.",
        'on the way home {h} said, "Next time, you can hold the {t}."',
    )


def lost_pet(tale: Tale) -> None:
    """A pet runs away; tracks lead to where it is, and it had its reasons."""
    cast = tale.casting
    hero, place = cast.child(), cast.place()
    pet = cast.beast(PETS)
    tale.set(h=hero, p=place, b=pet, e=cast.elder(), right=tale.dice.pick(place.spots))
    tale.title = "[Where Is {b}?|{h} and {b}|{b} Runs Away]"
    tale.about("a lost {b.kind}", "{b.a}", "{h} and {h.his} {b.kind}", "{b.a} who runs away")
    open_tale(tale)
    tale.say(
        "{h} had {b.a} named {b}.",
        "{h}'s best friend was {b.a}. {b.His} name was {b}.",
        "with {h} lived {b.a} named {b}, who [was always hungry|liked to sleep in {h.his} bed].",
    )
    tale.ask("What was the {b.kind}'s name?", "The {b.kind}'s name was {b}.", "{b}")
    tale.ask("What kind of animal was {b}?", "{b} was {b.a}.", "{b.kind}")
    tale.say(
        "one morning {b} was gone. {b.His} [bed|basket] was empty.",
        "one night somebody left the door open. In the morning {b} was gone.",
        '"{b}! Breakfast!" called {h}. But nobody came. {b} was gone.',
    )
    tale.feel("h", "worried")
    tale.maybe(0.5, "{h} looked under the bed and in every box. No {b}.", "{h} was very worried.")
    tale.end_paragraph()
    tale.say(
        '"Look at the ground," said {e}. There were small [wet|muddy] footprints. They went {p.to}.',
        '"I saw {b.him} this morning," said {e}. "{b.He} was running {p.to}."',
        "{e} found {b}'s [bell|collar] on the road that goes {p.to}.",
    )
    tale.ask("Where did {b} go?", "{b} went {p.to}.", "{p}")
    tale.say(
        "so {h} and {e} ran {p.to}. They called and called.",
        "{h} took {e}'s hand, and they went {p.to} together.",
        "{h} did not wait. {h.He} ran {p.to} as fast as {h.he} could, and {e} ran behind.",
    )
    tale.ask("Who went {p.to} with {h}?", "{e} went {p.to} with {h}.", "{e}")
    tale.say("{right}, something moved.", "then {h} heard a small noise {right}.", "{h} looked {right}.")
    choice = tale.dice.below(3)
    if choice == 0:
        tale.say(
            "it was {b}! And {b.he} was not alone. Beside {b.him} sat a [tiny|little] bird that could not fly.",
            "there was {b}, and next to {b.him} sat a [tiny|little] bird with a hurt wing.",
        )
        tale.say(
            '"You were helping!" said {h}. They took the bird home and gave it water.',
            "{b} had kept the bird warm all night. {h} took them both home.",
        )
        tale.ask("What was with {b}?", "A little bird was with {b}.", "bird")
    elif choice == 1:
        tale.say(
            "there was {b}, fast asleep in an old hat.",
            "it was {b}! {b.He} was asleep in somebody's picnic basket.",
        )
        tale.say(
            '"You are a silly {b.kind}," said {h}, and {h.he} laughed and cried at the same time.',
            "{b} opened one eye. {b.He} was not lost at all. {b.He} was only busy sleeping.",
        )
        tale.ask("What was {b} doing?", "{b} was sleeping.", "sleeping")
    else:
        tale.say(
            "it was {b}! {b.He} was very wet and very afraid.",
            "there sat {b}. {b.His} foot was stuck in [an old net|a piece of rope].",
        )
        tale.say(
            '{h} [held|took] {b.him} in {h.his} arms. "I have you now," {h.he} said. "I have you."',
            "{h} and {e} worked together, and soon {b} was free.",
        )
    tale.feel("h", tale.dice.pick(("happy", "glad")))
    tale.say("{h} was so {h.feeling}!", "{h} felt {h.feeling} and [tired|warm] and a little bit hungry.")
    close_tale(
        tale,
        "that night {b} slept in {h}'s bed, and the door stayed closed.",
        'at home {b} got a big dinner. "Do not run away again," said {h}. {b} said nothing.',
        "and {b} got two breakfasts that day.",
        "since then {h} says good night to {b} every evening, and {b} is always there in the morning.",
    )


def hide_and_seek(tale: Tale) -> None:
    """A game of hiding in which one hides too well."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place()
    one, two = cast.friend(hero), cast.friend(hero)
    first, second, third = tale.dice.shuffled(place.spots)
    tale.set(h=hero, f=one, g=two, p=place, first=first, second=second, third=third)
    tale.title = "[Hide and Seek|The Best Place to Hide|{h} Hides]"
    tale.about("a game of hide and seek", "three friends", "{h}, {f} and {g}", "{h} and {h.his} friends")
    open_tale(tale)
    tale.say(
        '{h}, {f} and {g} met {p.at}. "Let us play hide and seek!" said {f}.',
        "one day {h} went {p.to} with {f} and {g} to play hide and seek.",
    )
    tale.ask("Where did they play?", "They played {p.at}.", "{p}")
    tale.ask("What game did they play?", "They played hide and seek.", "hide and seek")
    tale.say(
        "{f} closed {f.his} eyes and counted: one, two, three, four, five.",
        '{f} counted. "One, two, three, four, five! I am coming!"',
    )
    tale.ask("Who counted?", "{f} counted.", "{f}")
    tale.say("{g} hid {first}. {h} hid {third}.", "{h} ran and hid {third}. {g} hid {first}.")
    tale.ask("Where did {g} hide?", "{g} hid {first}.", "{first}")
    tale.ask("Where did {h} hide?", "{h} hid {third}.", "{third}")
    tale.end_paragraph()
    tale.say(
        "{f} found {g} at once, for {g} could not stop laughing.",
        "{f} looked {first}. There was {g}! One of {g.his} feet was sticking out.",
        "{g} had to sneeze, and {f} found {g.him} quickly.",
    )
    tale.say("but where was {h}?", "but {h} was hard to find.")
    tale.say(
        "{f} and {g} looked {second}. Nobody.",
        "they looked {second}, and up in the trees. Nobody.",
        "they called and called, but {h} did not answer.",
    )
    tale.say(
        "it grew late. At last they heard something: somebody was snoring! {h} was asleep {third}.",
        "then {f} heard a soft sound {third}. It was {h}, fast asleep.",
    )
    tale.ask("Why did {h} not answer?", "{h} was asleep.", "asleep")
    tale.feel("h", tale.dice.pick(("proud", "happy")))
    tale.say(
        '"Did I win?" asked {h}. "Yes," said {g}. "You won, and you had a nap." {h} felt {h.feeling}.',
        "{h} opened {h.his} eyes. {h.He} had won the game without knowing it, and {h.he} was {h.feeling}.",
    )
    close_tale(
        tale,
        "next time {h} will hide, but {h.he} will not lie down.",
        "they all laughed, and then it was {h}'s turn to count.",
        "and that is how {h} became the best hider of all.",
    )


def treasure(tale: Tale) -> None:
    """A map or a key leads to a box, and what is in it is better than gold, or at least funnier."""
    cast = tale.casting
    hero = cast.hero()
    first, place = cast.place(), cast.place()
    clue = tale.dice.pick(("map", "letter"))
    tale.set(h=hero, f=cast.friend(hero), o=first, p=place, clue=clue)
    tale.set(start=tale.dice.pick(first.spots), right=tale.dice.pick(place.spots))
    tale.title = "[The Old {clue}|{h} Finds a {clue}|The Box]".replace("{clue}", clue.capitalize())
    tale.about("a treasure", "{h.a} who finds an old {clue}", "a secret box", "{h} and {f}")
    open_tale(tale)
    tale.say("one day {h} went {o.to} and found an old {clue} {start}.", "{o.at}, {start}, {h} found an old {clue}.")
    tale.ask("What did {h} find {o.at}?", "{h} found an old {clue}.", "{clue}")
    tale.say(
        'it said: "Go {p.to}. Look {right}."',
        'there were only a few words on it: "{p.at}. {right}."',
    )
    tale.say(
        "{h} could not go alone, so {h.he} asked {f} to come.",
        'when {f} saw it, {f.he} said, "It is a treasure! I am coming with you."',
        '"Maybe it is gold," said {f}. "Maybe it is a trick," said {h}. They had to know.',
    )
    tale.ask("Who came with {h}?", "{f} came with {h}.", "{f}")
    tale.end_paragraph()
    tale.say("they walked {p.to}.", "together they went {p.to}.", "the way was long, but at last they were {p.at}.")
    tale.ask("Where did they go to look for the treasure?", "They went {p.to}.", "{p}")
    tale.say(
        "{right}, under some dry leaves, there was something hard. It was a box!",
        "they looked {right}, and there was a [small|heavy|rusty] box!",
    )
    tale.ask("Where was the box?", "The box was {right}.", "{right}")
    tale.say("{h} opened it [slowly|with both hands|with a stone].", "the box was [old|rusty], but it opened.")
    end = tale.dice.below(4)
    if end == 0:
        tale.say('inside was a note: "Well done! The treasure is the friend who came with you."')
        tale.ask("What was in the box?", "There was a note in the box.", "note")
        tale.say(
            "{h} looked at {f}, and {f} looked at {h}. Then they laughed until they fell over.",
            '"No gold," said {f}. "No," said {h}. "Better."',
        )
    elif end == 1:
        tale.say("it was full of [round|old] coins, but they were made of chocolate!")
        tale.ask("What was in the box?", "There were chocolate coins in the box.", "chocolate")
        tale.say("they ate three each and took the others home.", '"I like this kind of gold," said {f}.')
    elif end == 2:
        tale.say("inside was an old picture of a girl and a boy, and one line: We were happy here.")
        tale.ask("What was in the box?", "There was an old picture in the box.", "picture")
        tale.say("{h} and {f} drew their own faces on the back and hid the box again for somebody else.")
    else:
        tale.say("inside was a little silver bell. When {h} rang it, all the birds began to sing.")
        tale.ask("What was in the box?", "There was a silver bell in the box.", "bell")
        tale.say("{h} rang it once for {f}, and once more for the birds.", "{f} rang it too, and the birds sang again.")
    tale.feel("h", tale.dice.pick(("happy", "rich", "lucky")))
    close_tale(
        tale,
        "{h} felt {h.feeling}, and {f} did too.",
        '"Where do we go tomorrow?" asked {f}. {h} felt {h.feeling}.',
        "{h} still has the {clue}. {h.He} looks at it and feels {h.feeling}.",
    )


STUCK = (
    ("kitten", "up in a tree", "tree", "could not get down"),
    ("lamb", "in the deep mud", "mud", "could not get out"),
    ("duckling", "down in a hole", "hole", "was too small to climb out"),
    ("puppy", "under a heavy log", "log", "could not move"),
    ("goat", "on a high wall", "wall", "did not dare to jump"),
)


def rescue(tale: Tale) -> None:
    """An animal is stuck; one is too weak, many together are strong enough."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place(OUTDOORS)
    animal, where, thing, why = tale.dice.pick(STUCK)
    tale.set(h=hero, f=cast.friend(hero), b=cast.stranger(("horse", "donkey", "bear", "cow", "dog")), p=place)
    tale.set(k=Actor(f"the {animal}", animal, False, person=False), where=where, why=why, spot=thing)
    tale.title = "[{h} to the Rescue|The {k.Kind} in Trouble|Pull Together]"
    tale.about("a {k.kind} in trouble", "a rescue", "{h} who helps a {k.kind}", "{b.a} who helps")
    open_tale(tale)
    tale.say(
        "one day {h} was {p.at} when {h.he} heard a [small|thin|sad] voice.",
        "{h} was on {h.his} way {p.to}. There {h.he} heard somebody cry.",
    )
    tale.ask("Where was {h}?", "{h} was {p.at}.", "{p}")
    tale.say("a little {k.kind} was stuck {where} and {why}.", "it was a {k.kind}, stuck {where}. It {why}.")
    tale.ask("Who was stuck?", "A {k.kind} was stuck.", "{k.kind}")
    tale.ask("Where was the {k.kind} stuck?", "The {k.kind} was stuck {where}.", "{spot}")
    tale.say('"Do not be afraid," said {h}. "I will help you."', '"Hold on!" called {h}. "I am coming!"')
    tale.end_paragraph()
    tale.say(
        "{h} tried alone, but {h.he} was not strong enough.",
        "{h} pulled and pushed, but nothing happened.",
        "{h} tried once, and twice, and three times. It was no good.",
    )
    tale.say(
        "so {h} called {f}. Two could not do it either.",
        "{f} came to help. They tried together, but it was still too hard.",
    )
    tale.say(
        "then {b.a} came along with a long rope.",
        'then {b.a} came by, big and strong. "May I?" {b.he} asked.',
    )
    tale.ask("Who came to help {h} first?", "{f} came to help first.", "{f}")
    tale.ask("Who came last?", "{b.Name} came last.", "{b.kind}")
    tale.say(
        "{h}, {f} and {b} worked together. One, two, three! The {k.kind} was free!",
        '"All together now!" said {h}. One, two, three! And the {k.kind} was free.',
    )
    tale.feel("h", tale.dice.pick(("proud", "happy", "glad")))
    tale.say(
        "the {k.kind} licked {h}'s nose. {h} felt {h.feeling}.",
        '"Thank you, thank you!" said the {k.kind}. {h} was {h.feeling}, and so was {b}.',
    )
    close_tale(
        tale,
        "one is small, but three are strong.",
        "and the {k.kind} ran home to its mother and told her everything.",
        '"I could not do it alone," said {h}. "Nobody can do everything alone," said {b}.',
        "after that the four of them ate {p.at} every [Sunday|Friday].",
    )


def errand(tale: Tale) -> None:
    """Something must be brought to somebody, and the way is not easy."""
    cast = tale.casting
    hero = cast.hero()
    place = cast.place(FAR)
    old = cast.elder()
    while old.name in ("Mum", "Dad"):
        old = cast.elder()
    tale.set(h=hero, g=old, p=place, food=cast.food(POTFULS), b=cast.stranger(), e="Mum")
    tale.title = "[The Long Way to {g}|{h} Goes to {g}|Something for {g}]"
    tale.about("{h.a} who visits {h.his} {g.family}", "a long way", "{h} and {g}", "{g}")
    open_tale(tale)
    tale.say(
        '{g} was ill. "Take {g.him} this {food}," said Mum. "And do not stop on the way."',
        "it was {g}'s birthday, and Mum gave {h} some {food} for {g.him}.",
        '"Will you bring this {food} to {g}?" asked Mum. "Of course," said {h}.',
    )
    tale.ask("What did {h} bring?", "{h} brought some {food}.", "{food}")
    tale.ask("Who was the {food} for?", "The {food} was for {g}.", "{g}")
    tale.say("{g} lived {p.at}, [a long way away|far from everybody|where the road ends].")
    tale.ask("Where did {g} live?", "{g} lived {p.at}.", "{p}")
    tale.end_paragraph()
    kind = tale.dice.below(3)
    if kind == 0:
        tale.say("after a while {h} came to deep water, and there was no way across.")
        tale.say(
            'then {b.a} came by. "I know a way," {b.he} said. They crossed on an old log, step by step.',
            "then {b.a} showed {h.him} a row of flat stones. {h} jumped from one to the next. Hop, hop, hop!",
        )
    elif kind == 1:
        tale.say("soon a thick fog came. {h} could not see {h.his} own feet.")
        tale.say(
            '"I know the way," said a voice. It was {b.a}. {h} walked close behind {b.him}.',
            'then {h} met {b.a}. "Follow my voice," said {b}, and sang all the way.',
        )
    else:
        tale.say("on the way {h} met {b.a}, who was very hungry. {b.He} looked at the {food}.")
        tale.say(
            '"You may have a little," said {h}. To thank {h.him}, {b} showed {h.him} a short way.',
            "{h} gave {b.him} a small piece. Then {b} carried the bag all the way.",
        )
    tale.ask("Who did {h} meet on the way?", "{h} met {b} on the way.", "{b.kind}")
    tale.feel("h", tale.dice.pick(("proud", "happy", "tired but happy")))
    tale.say(
        'at last {h} knocked at the door. "You came all this way!" said {g}. {h} felt {h.feeling}.',
        "when {h} arrived, {g} was standing at the window. {h} was {h.feeling}.",
    )
    close_tale(
        tale,
        "they ate the {food} together, and it was the best {food} in the world.",
        "the {food} was [a little cold|not as much as before], but {g} said it was perfect.",
        "{g} told {h} a story, and in the story there was {b.little}.",
    )


PLOTS: dict[str, Plot] = {
    "lost thing": lost_thing,
    "lost pet": lost_pet,
    "hide and seek": hide_and_seek,
    "treasure": treasure,
    "rescue": rescue,
    "errand": errand,
}
