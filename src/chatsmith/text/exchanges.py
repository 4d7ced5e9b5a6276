"""What was asked and what was answered: records that hold both, under the names that published data sets use.

A request may have names of its own (`instruction`, `question`, …), which any usual name of an answer goes with, or be
one half of a pair of names that say so only together (`input` and `target`, `problem` and `solution`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chatsmith.text.cells import spelled
from chatsmith.text.chat import Message
from chatsmith.text.report import Unreadable
from chatsmith.text.talks import Content, conversation, joined, pairs, turns

ASKED = {  # what a request may be called, and what is added to it where it is there
    "instruction": (("input", "context"), "after"),
    "question": (("context", "passage"), "before"),
    "prompt": ((), "after"),
    "query": ((), "after"),
}
PREFERRED = ("chosen", "chosen_response", "accepted", "preferred_output", "response_j")
ANSWERED = (
    *("output", "response", "completion", "answer", "answers", "completions", *PREFERRED),
    *("solution", "best_answer", "generation", "generations", "target"),
)
_SPOKEN = ("assistant", "gpt", "bot", "ai")
PAIRED = {  # what a request may be called where there is an answer of such a name
    "input": ("output", "outputs", "target", "targets", *ANSWERED[1:6], *PREFERRED, "generation", "generations"),
    "inputs": ("targets", "outputs", "target"),
    "problem": ("solution", "generated_solution", "generation", "generations", "answer"),
    "context": ("response",),
    "user": _SPOKEN,
    "human": _SPOKEN,
}
CHOICES = ("choices", "options")  # of which an answer that is a number is one, counted from 0
RATINGS = ("ratings", "rating")  # of several answers, a number for each
HISTORY = "history"
VERDICT = "label"  # false where a completion is a bad one (the unpaired preferences of TRL)
WORSE = "rejected answer"
_SCORES = ("overall_score", "score", "rating", "pm_score")
"""Names of how good one of several answers is; or its rank, the best having the least."""
_INSTANCES = "instances"
_UNFINISHED = ("draft", "discarded")  # answers of annotators who have not sent them

_NAMES = frozenset(
    (
        *(*ASKED, *ANSWERED, *(name for more, _ in ASKED.values() for name in more)),
        *(*CHOICES, *RATINGS, VERDICT, HISTORY, _INSTANCES),
    )
)


def exchange_names(names: Sequence[str]) -> list[str]:
    """Which of these names (in small letters) may be of use to an exchange; none where there cannot be one."""
    paired = [
        name
        for asked, answers in PAIRED.items()
        if asked in names and (two := [name for name in answers if name in names])
        for name in (asked, *two)
    ]
    found = [name for name in names if name in _NAMES or name in paired]
    return found if paired or any(name in found for name in (*ASKED, *PREFERRED, "input")) else []


def exchange(by_name: Mapping[str, Any]) -> list[Content]:
    """What was asked and what was answered, each as a text or as turns of a conversation."""
    asked = request(by_name)
    if "completion" in by_name and str(by_name.get(VERDICT)).lower() == "false":
        return [Unreadable(WORSE)]
    if found := _with(asked, ANSWERED, by_name):
        return found
    if asked and isinstance(several := by_name.get(_INSTANCES), list):
        rest = {name: value for name, value in by_name.items() if name != _INSTANCES}
        each = [exchange({**rest, **one}) for one in several if isinstance(one, dict)]
        return [content for one in each for content in one]
    for name, answers in PAIRED.items():
        if (text := _words(by_name.get(name))) and (found := _with(text, answers, by_name)):
            return found
    return []


def is_unanswered(by_name: Mapping[str, Any]) -> bool:
    """Whether somebody asked, and there is room for an answer that is not there."""
    return bool(request(by_name)) and any(name in by_name for name in ANSWERED)


def request(by_name: Mapping[str, Any]) -> str | list[Any]:
    """What was asked and what was added to it, or the turns that lead to the question; empty where there is none."""
    for name, (more, where) in ASKED.items():
        value = by_name.get(name)
        if leading := turns(value):
            return leading
        if text := _words(value):
            extra = next((by_name[name] for name in more if isinstance(by_name.get(name), str) and by_name[name]), "")
            parts = [text, extra] if where == "after" else [extra, text]
            return "\n\n".join(part for part in parts if part)
    return turns(by_name.get("input")) or turns(by_name.get("context")) or ""


def told(value: Any) -> Any:
    """The conversation that a string spells in JSON; else the value itself."""
    found = spelled(value)
    return found if found is not value and turns(found) is not None else value


def answered(value: Any) -> list[Any]:
    """An answer as turns; empty where there is none."""
    found = turns(value)
    return found if found is not None else [["assistant", answer]] if (answer := _answer(value).strip()) else []


def _with(asked: str | list[Any], answers: Sequence[str], by_name: Mapping[str, Any]) -> list[Content]:
    """What was asked with the first answer that there is."""
    if earlier := pairs(by_name.get(HISTORY), sure=True) or turns(by_name.get(HISTORY)) or []:
        asked = [*earlier, *([["user", asked]] if asked else [])] if isinstance(asked, str) else asked
    for name in answers:
        value = _chosen(by_name.get(name), by_name)
        if name in PREFERRED and (spelled_out := told(value)) is not value:  # as the prompt beside it may be
            value, asked = spelled_out, turns(told(by_name.get("prompt"))) or asked
        if isinstance(asked, str) and asked and _is_text(value, asked) and (answer := _answer(value)):
            return [(Message("user", asked), Message("assistant", answer))]
        if said := answered(value):
            before = asked if isinstance(asked, list) else [["user", asked]] * bool(asked)
            if before or turns(value) is not None:
                return conversation(joined(before, said))
    return []


def _is_text(value: Any, asked: str) -> bool:
    """Whether an answer is no talk, or one that was to be written: in that the question itself is not said."""
    talk = turns(value)
    return talk is None or (isinstance(value, str) and not any(asked.strip() in words for _, words in talk))


def _words(value: Any) -> str:
    """A request as text; of an object (WebGPT's questions), what it calls its text."""
    if isinstance(value, dict):
        value = value.get("full_text", value.get("text"))
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = "\n".join(value)
    return value if isinstance(value, str) and not value.isspace() else ""


def _chosen(value: Any, by_name: Mapping[str, Any]) -> Any:
    """The choice that an answer names by its number, or of answers rated beside them the best; else the answer."""
    if isinstance(value, list):
        ratings: list[Any] = next((by_name[name] for name in RATINGS if isinstance(by_name.get(name), list)), [])
        if len(ratings) != len(value) or not ratings or not any(map(_number, ratings)):
            return value
        return value[max(range(len(value)), key=lambda place: _number(ratings[place]))]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    choices: list[Any] = next((by_name[name] for name in CHOICES if isinstance(by_name.get(name), list)), [])
    return choices[value] if 0 <= value < len(choices) else value


def _score(answer: Any) -> float:
    """How good somebody found one of several answers; 0 where nobody said so."""
    if not isinstance(answer, dict):
        return 0.0
    name = next((name for name in _SCORES if name in answer), None)
    return -_number(answer.get("rank")) if name is None else _number(answer[name])


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value == value else 0.0


def _answer(value: Any) -> str:
    """An answer as text: of several, the best, or the first where none is said to be better."""
    if isinstance(value, dict):
        if value.get("status") in _UNFINISHED:
            return ""
        value = next((value[name] for name in ("text", "response", "answer", "value") if name in value), None)
    if isinstance(value, list):
        value = sorted(value, key=_score, reverse=True) if any(map(_score, value)) else value
        return next((answer for item in value if (answer := _answer(item))), "")
    if isinstance(value, bool) or value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) and str(value).strip() else ""
