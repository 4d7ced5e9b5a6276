"""Two answers side by side and a verdict, as people compare models: which one is to be learned.

`conversation_a` and `conversation_b` with a `winner`, `response_0` and `response_1` with a `better_response_id`,
`human_ref_A` and `human_ref_B` with `labels`, and the like. Without a verdict they are no comparison, and are left to
the rules for other records.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatsmith.text.cells import spelled

_ONE_OF_TWO = re.compile(
    r"(conversation|response|answer|human_ref|completion|output|reply|summary|generation)_?(a|b|0|1|2)"
)
_NAMED = ("winner", "preference", "preferred", "better", "better_response_id", "choice", "verdict")
"""Names of what says which of the two is better: by its name, its letter or number, or that of its model."""
_SIGNED = ("preference_strength", "overall_preference")
"""Names of a number that is below zero where the first is better, and above where the second is."""
_FIRST_IS_BETTER = "labels"  # 1, or 0, where the two are people's (Stanford's human preferences)
_EQUAL = ("tie", "both", "equal", "same")
VERDICTS = frozenset((*_NAMED, *_SIGNED, _FIRST_IS_BETTER))


SUMMARIES = "summaries"
SUMMED_UP = ("info", SUMMARIES, "choice", "summary")
"""The names of OpenAI's judged summaries, of which the first tells them from other records."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The names of two answers, and of what may say which is better, as a record spells them."""

    first: str
    second: str
    marks: tuple[str, str]
    verdicts: Mapping[str, str]
    """By their usual spelling."""


def pair_of(names: Sequence[str]) -> Pair | None:
    """The two answers that a record with these names compares; None where there are none, or more than two."""
    spelled_as = {name.lower(): name for name in names}
    found: dict[str, list[str]] = {}
    for name in spelled_as:
        if match := _ONE_OF_TWO.fullmatch(name):
            found.setdefault(match[1], []).append(name)
    for stem, two in found.items():
        if len(two) != 2:
            continue
        first, second = sorted(two)
        marks = first[-1], second[-1]
        if marks not in (("a", "b"), ("0", "1"), ("1", "2")):
            continue
        told = {*VERDICTS} - ({_FIRST_IS_BETTER} if stem != "human_ref" else set())
        told |= {f"{kind}_{mark}" for kind in ("score", "winner_model", "winner") for mark in marks}
        verdicts = {name: own for name, own in spelled_as.items() if name in told}
        if verdicts:
            return Pair(spelled_as[first], spelled_as[second], marks, verdicts)
    return None


def decides(name: str) -> bool:
    """Whether a column may be one of two answers, or say which is better."""
    name = name.lower()
    return bool(_ONE_OF_TWO.fullmatch(name)) or name in VERDICTS or name.startswith(("score_", "winner_"))


def sorted_out(record: Mapping[str, Any], pair: Pair) -> list[dict[str, Any]] | None:
    """The record with the better answer as `chosen` and the other as `rejected`; two records where both are good.

    None where no verdict says which is better, or it says that none is good.
    """
    spent = {pair.first, pair.second, *pair.verdicts.values()}
    rest = {name: value for name, value in record.items() if name not in spent}
    first, second = record[pair.first], record[pair.second]
    asked = next((name for name in rest if name.lower() in ("prompt", "question", "instruction")), None)
    if asked is None and isinstance(record.get("history"), str):
        rest["prompt"] = rest.pop("history")
    elif asked and (two := [_rounds(rest[asked], answer) for answer in (first, second)]) and all(two):
        first, second = two
        del rest[asked]
    better = _better(record, pair)
    if better is None:
        return None
    if better == 0:
        return [{**rest, "chosen": answer} for answer in (first, second)]
    if better > 0:
        first, second = second, first
    return [{**rest, "chosen": first, "rejected": second}]


def summaries(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """OpenAI's judged summaries: what was to be summed up with the better of two, or with one that was graded.

    None for any other record.
    """
    about, several, choice, one = (record.get(name) for name in SUMMED_UP)
    if not isinstance(about, Mapping) or not (isinstance(several, list) or isinstance(one, Mapping)):
        return None
    text = next((text for name in ("post", "article") if isinstance(text := about.get(name), str) and text), None)
    if text is None:
        return None
    title = about.get("title")
    asked = {"prompt": "\n\n".join(part for part in (title, text, "TL;DR:") if isinstance(part, str) and part)}
    if not isinstance(several, list):
        return [{**asked, "response": one}]
    if not isinstance(choice, int) or not 0 <= choice < len(several):
        return None
    worse = [summary for place, summary in enumerate(several) if place != choice]
    return [{**asked, "chosen": several[choice], "rejected": worse}]


def _rounds(asked: Any, answered: Any) -> list[list[str]] | None:
    """The turns of questions and as many answers, each a list, or a cell that spells one."""
    asked, answered = spelled(asked), spelled(answered)
    if not (isinstance(asked, list) and isinstance(answered, list) and asked and len(asked) == len(answered)):
        return None
    if not all(one is None or isinstance(one, str) for one in (*asked, *answered)):
        return None
    both = zip(asked, answered, strict=True)
    return [[role, words or ""] for two in both for role, words in zip(("user", "assistant"), two, strict=True)]


def _better(record: Mapping[str, Any], pair: Pair) -> int | None:
    """-1 where the first is better, 1 where the second is, 0 where both are good; None where nothing says so."""
    told = {name: record[own] for name, own in pair.verdicts.items()}
    for name in _NAMED:
        if name in told:
            return _named(str(told[name]).strip().lower(), pair)
    for name in _SIGNED:
        if (value := _number(told.get(name))) is not None:
            return (value > 0) - (value < 0)
    if (value := _number(told.get(_FIRST_IS_BETTER))) is not None:
        return -1 if value == 1 else 1 if value == 0 else None
    for kind in ("winner_model", "winner", "score"):
        one, other = (_number(told.get(f"{kind}_{mark}")) for mark in pair.marks)
        if one is not None and other is not None:
            return (other > one) - (other < one)
    return None


def _named(verdict: str, pair: Pair) -> int | None:
    for place, (name, mark) in zip((-1, 1), zip((pair.first, pair.second), pair.marks, strict=True), strict=True):
        if verdict in (name.lower(), mark, f"model_{mark}", f"model {mark}", f"assistant_{mark}", f"{mark}.0"):
            return place
    return 0 if verdict in _EQUAL else None


def _number(value: Any) -> float | None:
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
