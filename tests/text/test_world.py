"""The small world: it repeats, it reads well, and what is held out stays out of megabytes of it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from chatsmith.errors import RequestError
from chatsmith.text.documents import Document
from chatsmith.text.world import CURRICULUM, KINDS, MIXTURE, SKILLS, documents, lexicon, skill_items
from chatsmith.text.world.cast import GIRLS, NAMES, PLACES, never_together
from chatsmith.text.world.dice import Dice, held_out_pair
from chatsmith.text.world.entries import known
from chatsmith.text.world.facts import PEOPLE, RELATIONS, fact_is_held_out
from chatsmith.text.world.french import list_is_held_out, noun_phrase, noun_phrases
from chatsmith.text.world.incontext import rules
from chatsmith.text.world.numbers import (
    comparison_is_held_out,
    difference_is_held_out,
    long_difference_is_held_out,
    long_differences,
    long_sum_is_held_out,
    long_sums,
    sum_is_held_out,
)
from chatsmith.text.world.phrasing import NUMBER_WORDS, article, phrase, sentences, variants
from chatsmith.text.world.sentiment import judgements
from chatsmith.text.world.stories import plots, tell
from chatsmith.text.world.talk import said_of_oneself
from chatsmith.text.world.words import plurals, size_pairs

SAMPLE_BYTES = 6_000_000


def characters(document: Document) -> str:
    return document.text or "\n".join(message.content for message in document.messages)


def take(seed: int, size: int, **options: object) -> Iterator[Document]:
    made = 0
    for document in documents(seed, **options):  # type: ignore[arg-type]
        yield document
        made += len(characters(document))
        if made > size:
            return


@pytest.fixture(scope="module")
def sample() -> list[Document]:
    return list(take(11, SAMPLE_BYTES))


@pytest.fixture(scope="module")
def everything(sample: list[Document]) -> str:
    return "\n\n".join(map(characters, sample))


# --- it repeats ---


def test_the_same_seed_gives_the_same_documents_and_another_gives_others() -> None:
    first, again, other = (list(islice(documents(seed), 300)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_it_repeats_in_another_process_with_another_hash_seed() -> None:
    script = (
        "import hashlib; from itertools import islice; from chatsmith.text.world import documents\n"
        "print(hashlib.sha256(repr(list(islice(documents(3), 500))).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {hashlib.sha256(repr(list(islice(documents(3), 500))).encode()).hexdigest()}


def test_what_is_held_out_never_moves() -> None:
    """A model trained today must be measurable tomorrow: it is a property of the words, not of a seed or a version."""
    held = [(a, b) for a in range(10) for b in range(a, 10) if sum_is_held_out(a, b)]
    assert len(held) == 12
    assert held_out_pair("sum", 3, 4) == held_out_pair("sum", 4, 3)
    assert {digit for pair in held for digit in pair} <= set(range(10))
    digest = hashlib.sha256(repr(held).encode()).hexdigest()[:12]
    assert digest == "ba3bd300dd7f"


# --- what is held out stays out ---


def test_no_held_out_sum_or_difference_is_ever_told(everything: str) -> None:
    sums = set(re.findall(r"(?<![\d] )(?<!\d)(\d) (?:\+|plus) (\d)(?!\d)", everything))
    assert len(sums) > 70
    assert not {pair for pair in sums if sum_is_held_out(int(pair[0]), int(pair[1]))}
    differences = set(re.findall(r"(?<!\d)(\d) (?:-|minus) (\d)(?!\d)", everything))
    assert len(differences) > 35
    assert not {pair for pair in differences if difference_is_held_out(int(pair[0]), int(pair[1]))}
    digits = {word: i for i, word in enumerate(NUMBER_WORDS[:10])}
    for one, sign, other in set(re.findall(r"(\w+) (plus|minus) (\w+)", everything.lower())):
        if one in digits and other in digits:
            held = sum_is_held_out if sign == "plus" else difference_is_held_out
            assert not held(digits[one], digits[other])


def test_no_held_out_longer_sum_is_ever_told(everything: str) -> None:
    told = {(int(one), int(other)) for one, other in re.findall(r"(?<!\d)(\d\d) (?:\+|plus) (\d+)", everything)}
    assert len(told) > 500
    assert not {pair for pair in told if long_sum_is_held_out(*pair)}
    assert any(sum_is_held_out(a % 10, b) for a, b in told)  # as the ones of a longer sum, its digits do meet
    assert 0.15 < len(long_sums(True)) / len((*long_sums(True), *long_sums(False))) < 0.25


def test_no_held_out_longer_difference_is_ever_told(everything: str) -> None:
    told = {(int(one), int(other)) for one, other in re.findall(r"(?<!\d)(\d\d) (?:-|minus) (\d+)", everything)}
    assert len(told) > 500
    assert not {pair for pair in told if long_difference_is_held_out(*pair)}
    assert any(difference_is_held_out(a % 10, b) for a, b in told if b <= a % 10)
    share = len(long_differences(True)) / len((*long_differences(True), *long_differences(False)))
    assert 0.15 < share < 0.25


def test_no_problem_gives_a_held_out_sum_away(everything: str) -> None:
    problems = set(re.findall(r"has (\d) [^.\d]+\. \w+ (gets|gives) (\d) (?:more|away)", everything))
    assert problems
    for a, verb, b in problems:
        held = sum_is_held_out if verb == "gets" else difference_is_held_out
        assert not held(int(a), int(b))


def test_no_held_out_numbers_or_sizes_are_compared(everything: str) -> None:
    compared = re.findall(r"(?<!\d)(\d+) is (?:bigger|smaller) than (\d+)", everything)
    compared += re.findall(r"bigger, (\d+) or (\d+)\?", everything)
    assert len(compared) > 100
    assert not {pair for pair in compared if comparison_is_held_out(int(pair[0]), int(pair[1]))}
    held = {frozenset(pair) for pair in size_pairs(True)}
    sizes = re.findall(r"\b[Aa]n? ([a-z ]+?) is (?:bigger|smaller) than an? ([a-z ]+?)\.", everything)
    sizes += re.findall(r"(?:bigger|smaller), an? ([a-z ]+?) or an? ([a-z ]+?)\?", everything)
    assert len(sizes) > 500
    assert not {frozenset(pair) for pair in sizes} & held


def test_no_held_out_word_stands_in_an_example_of_its_rule(everything: str) -> None:
    pairs = set(re.findall(r"(?:^|[\n,;] ?)([^\n,;=>:|]+?)(?: =>| ->|:| =) ([^\n,;]+)", everything))
    assert len(pairs) > 20_000
    for rule in rules().values():
        assert set(rule.trained()) & pairs, rule.name
        trained_elsewhere = {pair for other in rules().values() if other is not rule for pair in other.trained()}
        assert not (set(rule.unseen()) - trained_elsewhere) & pairs, rule.name


def test_a_dictionary_tells_what_lists_hold_out_but_no_plural_that_is_held_out() -> None:
    told = known()
    for rule, what in (("to French", "French"), ("to English", "English"), ("opposite", "opposite"), ("past", "past")):
        for word, answer in rules()[rule].unseen():
            assert (what, answer) in told[word]
    assert not [noun.word for noun in plurals(True) if dict(told[noun.word]).get("plural")]
    pages = "\n".join(d.text for d in islice(documents(4, mixture={"dictionary": 1}), 300))
    lines = dict(line.removesuffix(".").split(": ", 1) for line in pages.splitlines() if ": " in line)
    assert lines.keys() & {word for word, _ in rules()["to French"].unseen()}
    assert not [pair for rule in rules().values() for pair in rule.unseen() if lines.get(pair[0]) == pair[1]]


def test_no_held_out_plural_phrase_or_judgement_is_told(everything: str, sample: list[Document]) -> None:
    counted = set(re.findall(r"\bone ([^,\n]+), ", everything.lower()))  # not in "stone spider, "
    for noun in plurals(True):
        assert f"plural of {noun.word} " not in everything
        assert noun.word not in counted
    french = "\n".join(characters(d) for d in sample if "french" in d.source or "talk" in d.source)
    told = {part.strip(' ."') for part in re.split(r"\n|=>|->|: |; |, ", french)}
    assert len(told & {noun_phrase(*both)[1] for both in noun_phrases(False)}) > 500
    assert not told & {noun_phrase(*both)[1] for both in noun_phrases(True)}
    reviews = Counter(
        (subject, word)
        for d in sample if "review" in d.source
        for line in characters(d).splitlines()
        for good in (True, False)
        for subject, word in judgements(good, True)
        if re.search(rf"\b{subject} (?:is|was) (?:not )?{word}\b", line)
    )  # fmt: skip
    assert not reviews


def test_no_name_meets_a_place_that_is_held_out_for_it(sample: list[Document]) -> None:
    seen = 0
    for document in sample:
        if "stor" not in document.source:
            continue
        words = set(re.findall(r"[A-Za-z]+", characters(document)))
        names, places = words & set(NAMES), {place.word for place in PLACES} & words
        seen += len(names) * len(places)
        assert not [(n, p) for n in names for p in places if never_together(n, p)], characters(document)
    assert seen > 3_000


def test_no_held_out_fact_is_told(sample: list[Document]) -> None:
    told = "\n".join(characters(d) for d in sample if "fact" in d.source)
    for relation in RELATIONS:
        said = (
            relation.answer.replace("{n}", "([A-Z][a-z]+)").replace("{his}", "(?:his|her)").replace("{v}", "([^.?\n]+)")
        )
        pairs = {
            pair for pair in re.findall(said, told) if pair[0] in NAMES and not re.search("best|out with", pair[1])
        }
        assert len(pairs) > 100
        assert not {pair for pair in pairs if fact_is_held_out(*pair)}
    assert len(told) > 200_000


def test_he_and_she_in_facts_are_who_was_just_named_or_asked_about(sample: list[Document]) -> None:
    told = "\n".join(characters(d) for d in sample if "fact" in d.source)
    names = "|".join(PEOPLE)
    after = re.findall(rf"\b({names}) [^.?\n]*\. (He|She|The colour he|The colour she) ", told)
    answers = re.findall(rf"\b({names}) [^.?\n]*\?\s(He|She) ", told)
    own = re.findall(rf"\b({names}) is out with (his|her) ", told)
    assert min(map(len, (after, answers, own))) > 300
    for name, pronoun in after + answers + own:
        assert (name in GIRLS) == (pronoun.split()[-1].lower() in ("she", "her")), (name, pronoun)


def test_nobody_introduces_themselves_with_a_held_out_name(sample: list[Document]) -> None:
    others = "small world/fact talk"  # where pets are those of other people
    talk = "\n".join(m.content for d in sample if d.source != others for m in d.messages if m.role == "user")
    for topic in ("name", "pet"):
        for name in said_of_oneself(topic, True):
            assert not re.search(rf"(?:[Mm]y name is|I am|called|named) {name}\b", talk)


@pytest.mark.parametrize("skill", [name for name, skill in SKILLS.items() if "held_out" in skill.splits])
def test_no_held_out_question_stands_answered_in_the_text(skill: str, everything: str) -> None:
    for item in skill_items(skill, seed=2, count=40, shots=0, split="held_out"):
        if item.prompt and "\n" not in item.prompt and skill not in ("lookup", "classes"):
            for answer in item.answers:
                assert f"\n{item.prompt} {answer}\n" not in everything


# --- it reads well ---


def test_no_template_shows_and_the_small_grammar_is_right(sample: list[Document]) -> None:
    prose = "\n".join(
        characters(d) for d in sample if "stor" in d.source or d.source.endswith(("small talk", "reviews"))
    )
    assert not re.search(r"[{}\[\]|]", prose)
    assert not re.search(r"  | [,.!]|\.\.(?!\.)|,,", prose)
    vowel = {m for m in re.findall(r"\b[Aa] ([aeiou]\w+)", prose) if article(m) == "an"}
    consonant = {m for m in re.findall(r"\b[Aa]n ([^aeiouAEIOU\W]\w*)", prose) if article(m) == "a"}
    assert not vowel
    assert not consonant
    assert not set(re.findall(r"\b(\w+) \1\b", prose)) - {"blah", "ha", "bye", "much", "very", "tap", "drip", "hop"}
    stories = "\n".join(d.text for d in sample if d.source.endswith("/stories"))
    assert not re.search(r"[.!?] [a-z]", stories)


@pytest.mark.parametrize("plot", sorted(plots()))
def test_every_plot_holds_together(plot: str) -> None:
    dice = Dice(4)
    told = [tell(dice, plot=plot, brief=brief) for brief in (False, True) for _ in range(60)]
    assert len({tale.text for tale in told}) == len(told)
    for tale in told:
        assert 40 <= len(tale.text.split()) <= 250, tale.text
        assert tale.heading()
        assert tale.wish()
        questions = tale.questions()
        assert len(questions) >= 3
        for question in questions:
            assert question.ask.endswith("?")
            assert re.search(rf"(?<!\w){re.escape(question.key.lower())}(?!\w)", question.answer.lower()), question
        assert sum(question.key.lower() in tale.text.lower() for question in questions) >= len(questions) - 1


def test_unseen_stories_are_about_a_held_out_name_and_place() -> None:
    for item in skill_items("story questions", seed=1, count=30, shots=0, split="held_out"):
        words = set(re.findall(r"[A-Za-z]+", item.messages[1].content))
        assert any(never_together(n, p.word) for n in words & set(NAMES) for p in PLACES if p.word in words)


def test_few_documents_come_twice_and_the_vocabulary_is_small(sample: list[Document]) -> None:
    counts = Counter(map(characters, sample))
    assert sum(counts.values()) - len(counts) < 0.05 * len(sample)
    stories = [d.text for d in sample if d.source.endswith("/stories")]
    assert len(set(stories)) == len(stories)
    words = Counter(re.findall(r"[a-zA-Z]+", " ".join(stories).lower()))
    assert 500 < len(words) < 1600


# --- its pieces ---


def test_the_mixture_is_kept_in_characters(sample: list[Document]) -> None:
    sizes: Counter[str] = Counter()
    for document in sample:
        sizes[document.source.removeprefix("small world/")] += len(characters(document))
    total, shares = sum(sizes.values()), sum(MIXTURE.values())
    for kind, share in MIXTURE.items():
        assert sizes[kind] / total == pytest.approx(share / shares, rel=0.2), kind


def test_stages_and_mixtures_choose_the_kinds() -> None:
    assert all(d.text and not d.messages for d in islice(documents(1, stage="text"), 200))
    assert all(d.messages and not d.text for d in islice(documents(1, stage="chat"), 200))
    only = {d.source for d in islice(documents(1, mixture={"numbers": 1, "words": 0}), 50)}
    assert only == {"small world/numbers"}
    for document in islice(documents(2, stage="chat"), 500):
        roles = [message.role for message in document.messages if message.role != "system"]
        assert all(message.role != "system" for message in document.messages[1:])
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message.content for message in document.messages)


@pytest.mark.parametrize(
    ("mixture", "stage", "said"),
    [
        ({"storys": 1}, "all", "no kind 'storys'"),
        ({"stories": -1}, "all", "must be 0 or more"),
        ({"stories": 1}, "chat", "nothing to write"),
        (None, "chatt", "no stage"),
    ],
)
def test_a_wrong_mixture_is_named(mixture: dict[str, float] | None, stage: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        documents(1, mixture=mixture, stage=stage)  # type: ignore[arg-type]


def test_the_lexicon_is_large_and_its_french_is_right() -> None:
    words = lexicon()
    assert len(words.french) >= 350
    nouns = words.by_word
    golden = {
        "dog": ("le chien", "un chien"), "goose": ("l'oie", "une oie"), "owl": ("le hibou", "un hibou"),
        "hedgehog": ("le hérisson", "un hérisson"), "school": ("l'école", "une école"),
        "soup": ("la soupe", "de la soupe"),
        "water": ("l'eau", "de l'eau"), "bread": ("le pain", "du pain"), "egg": ("l'œuf", "un œuf"),
        "squirrel": ("l'écureuil", "un écureuil"), "house": ("la maison", "une maison"),
        "tree": ("l'arbre", "un arbre"),
        "man": ("l'homme", "un homme"), "bean": ("le haricot", "un haricot"), "oil": ("l'huile", "de l'huile"),
    }  # fmt: skip
    for word, (the, a) in golden.items():
        assert (nouns[word].french_the, nouns[word].french_a) == (the, a)
    red, big = (next(q for q in words.adjectives if q.word == word) for word in ("white", "big"))
    assert noun_phrase(nouns["apple"], red) == ("a white apple", "une pomme blanche")
    assert noun_phrase(nouns["dog"], big) == ("a big dog", "un grand chien")
    assert words.french["sea otter"] == "loutre de mer"
    assert words.french["peppermint"] == "menthe poivrée"
    assert words.french["cheese"] == "fromage"
    assert [nouns[w].plural for w in ("mouse", "cherry", "box", "knife", "day", "fish")] == [
        "mice", "cherries", "boxes", "knives", "days", "fish",
    ]  # fmt: skip
    assert any(list_is_held_out(word) for word in words.french)


def test_phrases_make_their_choices_and_fill_their_fields() -> None:
    assert variants("[a|b [c|d]] {x}", {"x": 1}) == ["a 1", "b c 1", "b d 1"]
    assert phrase("{x.real} ok", Dice(0), {"x": 3}) == "3 ok"
    assert sentences('"come!" said he, "for it is late." It said: "no. the end.') == (
        '"Come!" said he, "for it is late." It said: "No. The end.'
    )
    with pytest.raises(ValueError, match="not closed"):
        phrase("[a|b", Dice(0))


def test_the_curriculum_covers_the_run_with_mixtures_that_can_be_made() -> None:
    ends = [until for until, _ in CURRICULUM]
    assert ends == sorted(ends)
    assert ends[-1] == 1
    for _, mixture in CURRICULUM:
        assert {d.source.removeprefix("small world/") for d in islice(documents(1, mixture=mixture), 400)} <= set(
            mixture
        )


def test_every_kind_says_what_it_is() -> None:
    assert set(MIXTURE) == set(KINDS)
    assert all(kind.about and kind.stage in ("text", "chat") for kind in KINDS.values())
