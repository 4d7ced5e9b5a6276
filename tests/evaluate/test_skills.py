"""Measuring skills: one that knows all is right everywhere, one that knows nothing nowhere, and counts are kept."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from chatsmith.errors import RequestError, WorkError
from chatsmith.evaluate.skills import Prompt, SkillReport, SkillRow, measure_skills, wilson
from chatsmith.text.chat import Message
from chatsmith.text.world import SKILLS, SPLITS, SkillItem, skill_items

SHOTS = (0, 1, 4)


class Oracle:
    """Answers every question of the given size from the items themselves, but for every `spoil`-th one."""

    def __init__(self, seed: int, count: int, spoil: int = 0) -> None:
        self.known: dict[Prompt, str] = {}
        self.spoil = spoil
        self.asked = 0
        self.stops: set[tuple[str, ...]] = set()
        for name, skill in SKILLS.items():
            for split in skill.splits:
                for shots in SHOTS:
                    if skill.shots is None or shots in skill.shots:
                        for item in skill_items(name, seed=seed, count=count, shots=shots, split=split):
                            self.known[item.messages or item.prompt] = item.answers[0]

    def __call__(self, batch: list[Prompt], max_tokens: int, stop: tuple[str, ...]) -> list[str]:
        self.stops.add(stop)
        replies = []
        for prompt in batch:
            self.asked += 1
            wrong = self.spoil and self.asked % self.spoil == 0
            replies.append("nonsense" if wrong else f" {self.known[prompt]}\nand more")
        return replies


def test_one_that_knows_all_is_right_everywhere() -> None:
    report = measure_skills(Oracle(0, 12), shots=SHOTS, count=12)
    assert {row.skill for row in report.rows} == set(SKILLS)
    # "dog =>" alone may ask for anything: there the oracle, which keeps one answer to a question, can be wrong too
    sure = [row for row in report.rows if row.shots > 0 or row.skill not in ("known rule", "classes", "lookup")]
    assert all(row.share == 1 for row in sure), [row for row in sure if row.share < 1]


def test_wrong_answers_are_counted_and_kept() -> None:
    report = measure_skills(Oracle(0, 12, spoil=4), skills=["lookup", "about me"], shots=SHOTS, count=12)
    row = report.row("lookup", "held_out", 4)
    assert (row.correct, row.count) == (9, 12)
    assert report.misses[0].answer == "nonsense"
    with pytest.raises(RequestError, match="not measured"):
        report.row("sums", "trained", 0)


def test_one_that_says_nothing_is_right_nowhere() -> None:
    report = measure_skills(lambda batch, max_tokens, stop: [""] * len(batch), shots=(0,), count=5)
    assert all(row.correct == 0 for row in report.rows)


def test_texts_stop_at_the_line_and_conversations_at_the_turn() -> None:
    oracle = Oracle(0, 3)
    measure_skills(oracle, skills=["sums"], shots=(0,), count=3)
    assert oracle.stops == {("\n",)}
    measure_skills(oracle, skills=["chat sums"], shots=(0,), count=3)
    assert oracle.stops == {("\n",), ()}


def test_a_small_set_is_asked_whole_and_the_row_says_how_many() -> None:
    held = skill_items("sums", seed=0, count=500, shots=0, split="held_out")
    assert len(held) == len({item.prompt for item in held}) < 30
    report = measure_skills(
        lambda batch, max_tokens, stop: ["1"] * len(batch), skills=["sums"], splits=["held_out"], shots=(0,), count=500
    )
    assert report.rows[0].count == len(held)


def test_the_report_reads_and_writes() -> None:
    report = SkillReport(
        (SkillRow("sums", "trained", 0, 9, 10, 1 / 19), SkillRow("sums", "held_out", 4, 1, 10, 1 / 19))
    )
    out = StringIO()
    Console(file=out, width=140).print(report)
    assert "90% (9/10, 60%–98%)" in out.getvalue()
    assert "held out" in out.getvalue()
    assert "<td>10% (1/10, 2%–40%)</td>" in report._repr_html_()
    rows = json.loads(json.dumps(report.to_mapping()))["rows"]
    assert rows[0] == {
        "skill": "sums", "split": "trained", "shots": 0, "correct": 9, "count": 10, "share": 0.9,
        "low": 0.5958, "high": 0.9821, "chance": 0.0526,
    }  # fmt: skip


def test_wilson_gives_the_known_intervals() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 0) == (0.0, 1.0)


def test_wrong_requests_are_named() -> None:
    def nothing(batch: list[Prompt], max_tokens: int, stop: tuple[str, ...]) -> list[str]:
        return []

    with pytest.raises(RequestError, match="no skill 'sum'"):
        measure_skills(nothing, skills=["sum"])
    for count in (0, 10**9, 2.5):
        with pytest.raises(RequestError, match="count must be"):
            measure_skills(nothing, count=count)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="misses must be from 0"):
        measure_skills(nothing, keep_misses=-1)
    with pytest.raises(WorkError, match="0 answers came back"):
        measure_skills(nothing, skills=["sums"], count=3)
    with pytest.raises(RequestError, match="no split"):
        skill_items("itself", seed=0, count=3, split="held_out")
    with pytest.raises(RequestError, match="cannot be asked with 4"):
        skill_items("about me", seed=0, count=3, shots=4)


@pytest.mark.parametrize(
    ("match", "answers", "reply", "right"),
    [
        ("line", ("fromage",), " Fromage.\nchèvre", True),
        ("line", ("fromage",), "le fromage", False),
        ("line", ("7",), "7 + 1", False),
        ("number", ("7",), "3 + 4 = 7.", True),
        ("number", ("7",), "3 + 4 = 17.", False),
        ("number", ("7",), "seven", False),
        ("mention", ("park",), "Anna went to the park.", True),
        ("mention", ("park",), "Anna went to the parking.", False),
        ("mention", ("park",), "The park or the river.", False),
    ],
)
def test_answers_are_judged_by_their_kind(match: str, answers: tuple[str, ...], reply: str, right: bool) -> None:
    item = SkillItem("s", "trained", 0, answers, prompt="p", match=match, rivals=("river",))  # type: ignore[arg-type]
    assert item.correct(reply) is right


def test_capitals_count_where_they_are_the_point() -> None:
    item = SkillItem("s", "trained", 0, ("Dog",), prompt="dog =>", capitals=True)
    assert item.correct("Dog")
    assert not item.correct("dog")


@pytest.mark.parametrize("skill", sorted(SKILLS))
def test_items_repeat_differ_and_show_their_examples(skill: str) -> None:
    chosen = SKILLS[skill]
    for split in SPLITS:
        for shots in SHOTS:
            if split not in chosen.splits or (chosen.shots is not None and shots not in chosen.shots):
                continue
            items = skill_items(skill, seed=3, count=15, shots=shots, split=split)
            assert items == skill_items(skill, seed=3, count=15, shots=shots, split=split)
            assert len({item.messages or item.prompt for item in items}) == len(items)
            for item in items:
                assert bool(item.prompt) != bool(item.messages)
                assert item.answers
                assert item.correct(item.answers[0])
                if item.messages:
                    assert item.messages[-1].role == "user"
                    assert isinstance(item.messages[0], Message)
                else:
                    assert not item.prompt.endswith((" ", "\n"))


def test_what_a_short_context_cannot_hold_is_not_asked() -> None:
    def fits(prompt: Prompt) -> bool:
        return isinstance(prompt, str) and prompt.count("=>") < 4

    report = measure_skills(Oracle(0, 12), skills=["lookup"], shots=SHOTS, count=12, fits=fits)
    assert report.shots == (0, 1)
    assert report.too_long == report.to_mapping()["too_long"] > 0
    screen = StringIO()
    Console(file=screen, width=100).print(report)
    narrow = StringIO()
    Console(file=narrow, width=40).print(report)
    assert "\u2026" not in narrow.getvalue()  # nothing is cut
    assert f"longer than the model's context: {report.too_long} questions" in screen.getvalue()


def test_what_holds_no_conversations_is_asked_in_none() -> None:
    oracle = Oracle(0, 3)
    report = measure_skills(oracle, shots=(0,), count=3, talks=False)
    assert oracle.stops == {("\n",)}
    assert "about me" in report.left_out
    assert {row.skill for row in report.rows} == set(SKILLS) - set(report.left_out)
    assert report.to_mapping()["left_out"] == list(report.left_out)
    screen = StringIO()
    Console(file=screen, width=140).print(report)
    for drawn in (screen.getvalue(), report._repr_html_()):
        assert "no chat template: chat sums" in " ".join(drawn.split())
    # Named, it is asked: whoever answers then says why it cannot.
    assert measure_skills(oracle, skills=["chat sums"], shots=(0,), count=3, talks=False).rows
