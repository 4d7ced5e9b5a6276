"""What did it learn? Each skill of the small world, measured on what was trained and on what was held out.

The questions come from the small world with zero, one or more solved examples before them, as GPT-3 was measured
(Brown et al. 2020, section 2); the answers come from whatever completes text, so that a model in this process, a
published one, or one behind an API are measured by the same count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import sqrt
from typing import Any, Protocol, TypeAlias

from rich.table import Table

from chatsmith.arguments import whole
from chatsmith.errors import RequestError, WorkError, did_you_mean
from chatsmith.text.chat import Message
from chatsmith.text.world import SKILLS, SPLITS, SkillItem, Split, skill_items

Prompt: TypeAlias = "str | tuple[Message, ...]"

LONGEST_ANSWER = 24
"""Tokens that an answer may take; every right answer of the small world is shorter with any vocabulary above 500."""

MAX_QUESTIONS = 10_000
"""The most questions of a row: a share is then known to within one percent."""


class Complete(Protocol):
    """What is measured: the most likely continuation of each text, or the next turn of each conversation."""

    def __call__(self, prompts: list[Prompt], max_tokens: int, stop: tuple[str, ...], /) -> list[str]: ...


_Z = 1.959964  # standard deviations on both sides of the mean that hold 95% of a normal distribution


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927): sound for few trials and for shares near 0 and 1."""
    if count == 0:
        return 0.0, 1.0
    share, square = correct / count, _Z * _Z / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class SkillRow:
    """One skill, one split, one number of examples: how many of the questions were answered right."""

    skill: str
    split: Split
    shots: int
    correct: int
    count: int
    chance: float

    @property
    def share(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval of the share."""
        return wilson(self.correct, self.count)

    def to_mapping(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "skill": self.skill,
            "split": self.split,
            "shots": self.shots,
            "correct": self.correct,
            "count": self.count,
            "share": round(self.share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "chance": round(self.chance, 4),
        }


@dataclass(frozen=True)
class Miss:
    """A question that was answered wrongly, kept for reading."""

    skill: str
    split: Split
    shots: int
    question: str
    answer: str
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class SkillReport:
    """What was measured, row by row, and a few of the wrong answers of each."""

    rows: tuple[SkillRow, ...]
    misses: tuple[Miss, ...] = ()
    too_long: int = 0
    """Questions that were not asked: with their examples they are longer than the model reads."""
    left_out: tuple[str, ...] = ()
    """Skills that are asked in conversations, which this model cannot hold."""

    def row(self, skill: str, split: Split, shots: int) -> SkillRow:
        """The row of this skill, split and number of examples; `RequestError` where it was not measured."""
        for row in self.rows:
            if (row.skill, row.split, row.shots) == (skill, split, shots):
                return row
        raise RequestError(
            f"{skill!r} ({split}, {shots} examples) was not measured",
            did_you_mean(skill, sorted({row.skill for row in self.rows})),
        )

    @property
    def shots(self) -> tuple[int, ...]:
        """The numbers of examples that were measured, in order."""
        return tuple(sorted({row.shots for row in self.rows}))

    def to_mapping(self) -> dict[str, Any]:
        """Everything measured, ready for JSON."""
        rows = [row.to_mapping() for row in self.rows]
        return {"rows": rows, "too_long": self.too_long, "left_out": list(self.left_out)}

    @property
    def _note(self) -> str:
        """What was not asked, and why."""
        notes = []
        if self.too_long:
            notes.append(f"not asked, longer than the model's context: {self.too_long:,} questions")
        if self.left_out:
            notes.append(f"left out, because the model has no chat template: {', '.join(self.left_out)}")
        return "\n".join(notes)

    def _table(self) -> list[tuple[str, str, dict[int, SkillRow], float]]:
        groups: dict[tuple[str, Split], dict[int, SkillRow]] = {}
        for row in self.rows:
            groups.setdefault((row.skill, row.split), {})[row.shots] = row
        return [
            (skill, split.replace("_", " "), found, next(iter(found.values())).chance)
            for (skill, split), found in groups.items()
        ]

    def __rich__(self) -> Table:
        table = Table(title="Skills: share of right answers, with the 95% interval", title_justify="left")
        if self._note:
            table.caption, table.caption_justify = self._note, "left"
        table.add_column("skill", overflow="fold")
        table.add_column("asked about", overflow="fold")
        for shots in self.shots:
            table.add_column(_examples(shots), justify="right", overflow="fold")
        table.add_column("chance", justify="right", overflow="fold")
        previous = ""
        for skill, split, found, chance in self._table():
            cells = [_cell(found.get(shots)) for shots in self.shots]
            table.add_row(skill if skill != previous else "", split, *cells, f"{chance:.0%}" if chance else "≈0%")
            previous = skill
        return table

    def _repr_html_(self) -> str:
        heads = ["skill", "asked about", *(_examples(shots) for shots in self.shots), "chance"]
        body = "".join(
            "<tr>"
            + "".join(
                f"<td>{escape(cell)}</td>"
                for cell in (
                    skill,
                    split,
                    *(_cell(found.get(shots)) for shots in self.shots),
                    f"{chance:.0%}" if chance else "≈0%",
                )
            )
            + "</tr>"
            for skill, split, found, chance in self._table()
        )
        note = f"<p>{escape(self._note)}</p>" if self._note else ""
        return f"<table><tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>{body}</table>{note}"


def _examples(shots: int) -> str:
    return {0: "no example", 1: "1 example"}.get(shots, f"{shots} examples")


def _cell(row: SkillRow | None) -> str:
    if row is None:
        return "–"
    low, high = row.interval
    return f"{row.share:.0%} ({row.correct}/{row.count}, {low:.0%}–{high:.0%})"


def _question(item: SkillItem) -> Prompt:
    return item.messages or item.prompt


def measure_skills(
    complete: Complete,
    *,
    skills: Iterable[str] | None = None,
    splits: Iterable[Split] = SPLITS,
    shots: Sequence[int] = (0, 1, 4),
    count: int = 100,
    seed: int = 0,
    keep_misses: int = 3,
    fits: Callable[[Prompt], bool] | None = None,
    talks: bool = True,
) -> SkillReport:
    """Asks `complete` up to `count` different questions for each skill, split and number of examples, and counts.

    A skill that has fewer different questions (there are only so many sums) is asked all it has, and the row says how
    many. Splits and numbers of examples that make no sense for a skill are left out, and so is a question that does not
    fit a short context (`fits`); the report counts these. What does not hold conversations (`talks`) is not asked in
    any, unless such a skill is named. Raises `RequestError` for unknown skills and numbers out of bounds, and
    `WorkError` when `complete` answers with another number of texts than it was asked.
    """
    chosen = list(SKILLS if skills is None else skills)
    for name in chosen:
        if name not in SKILLS:
            raise RequestError(f"there is no skill {name!r}", did_you_mean(name, SKILLS))
    whole("count", count, 1, MAX_QUESTIONS)
    whole("misses", keep_misses, 0, MAX_QUESTIONS)
    left_out = tuple(name for name in chosen if SKILLS[name].talks) if skills is None and not talks else ()
    wanted = tuple(splits)
    rows: list[SkillRow] = []
    misses: list[Miss] = []
    too_long = 0
    for name in chosen:
        if name in left_out:
            continue
        skill = SKILLS[name]
        for split in wanted:
            if split not in skill.splits:
                continue
            for examples in shots:
                if skill.shots is not None and examples not in skill.shots:
                    continue
                items = skill_items(name, seed=seed, count=count, shots=examples, split=split)
                asked = items if fits is None else [item for item in items if fits(_question(item))]
                too_long += len(items) - len(asked)
                if not asked:
                    continue
                row, wrong = _measure(complete, asked, skill.chance)
                rows.append(row)
                misses += wrong[:keep_misses]
    return SkillReport(tuple(rows), tuple(misses), too_long, left_out)


def _measure(complete: Complete, items: list[SkillItem], chance: float) -> tuple[SkillRow, list[Miss]]:
    texts = bool(items[0].prompt)
    replies = complete([_question(item) for item in items], LONGEST_ANSWER, ("\n",) if texts else ())
    if len(replies) != len(items):
        raise WorkError(f"{len(items)} questions were asked and {len(replies)} answers came back")
    first = items[0]
    wrong = [
        Miss(first.skill, first.split, first.shots, item.prompt or item.messages[-1].content, reply, item.answers)
        for item, reply in zip(items, replies, strict=True)
        if not item.correct(reply)
    ]
    return SkillRow(first.skill, first.split, first.shots, len(items) - len(wrong), len(items), chance), wrong
