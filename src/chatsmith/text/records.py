"""Which fields of a record are its text: from one JSON object, or one row of a table, to texts and conversations.

The first of these rules that finds anything decides:

1. the field that was asked for, by its path (`field="data.summary"`);
2. a conversation: a list of turns under one of the usual names (`messages`, `conversations`, …);
3. what was asked and what was answered (`instruction` and `output`, `question` and `answer`, …): a conversation of two;
4. a text under one of the usual names (`text`, `content`, `body`, …);
5. objects in lists within (`{"data": [{…}, …]}`), by these rules each;
6. the fields that hold words rather than codes, one to a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from chatsmith.text.chat import Conversation, Message, Role

Content: TypeAlias = str | Conversation

TEXTS = (
    *("text", "content", "body", "document", "article", "story", "raw_content", "page_content", "markdown", "pages"),
    *("paragraphs", "passage", "context", "paragraph", "sentences", "sentence", "review", "code", "abstract"),
)
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
ASKED = {  # what a request may be called, and what is added to it where it is there
    "instruction": (("input", "context"), "after"),
    "question": (("context", "passage"), "before"),
    "prompt": ((), "after"),
    "query": ((), "after"),
}
ANSWERED = ("output", "response", "completion", "answer", "answers", "chosen", "accepted")
_EXCHANGE = frozenset((*ASKED, *ANSWERED, *(name for more, _ in ASKED.values() for name in more)))
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    **dict.fromkeys(("user", "human", "prompter", "customer", "client", "person"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai", "agent", "bing", "bard"), "assistant"),
}
_SPEAKER = ("role", "from", "speaker", "author")
_WORDS = ("content", "value", "text", "utterance", "message")
_DEEPEST = 16

KNOWN = frozenset((*TEXTS, *CONVERSATIONS, *ASKED, *ANSWERED, "title", "label", "id"))
"""Names by which the heading of a table is known for one."""


def contents(record: Any, field: str | None = None) -> list[Content]:
    """The texts and conversations of one record (any value that JSON can hold); none where it has no text."""
    if field is not None:
        found = [conversation(value) or _text(value) for value in _at(record, field.split("."))]
        return [content for content in found if content]
    return _contents(record, 0)


def strings(record: Any, depth: int = 0) -> list[Content]:
    """Every string in a record, in order."""
    if isinstance(record, str):
        return [record]
    inner = record.values() if isinstance(record, dict) else record if isinstance(record, list) else ()
    return [text for value in inner for text in strings(value, depth + 1)] if depth <= _DEEPEST else []


def _contents(record: Any, depth: int) -> list[Content]:
    if isinstance(record, dict):
        return _of_object(record, depth) if depth <= _DEEPEST else []
    if isinstance(record, str):
        return [record] if record and not record.isspace() else []
    if isinstance(record, list) and depth <= _DEEPEST:
        talk = conversation(record) if record and isinstance(record[0], dict) else None
        return [talk] if talk else [content for item in record for content in _contents(item, depth + 1)]
    return []


@dataclass(frozen=True, slots=True)
class _Names:
    """Which names an object has that may decide, as the object spells them; of equal ones, the last counts."""

    conversations: tuple[str, ...]
    texts: tuple[str, ...]
    exchange: Mapping[str, str]
    """By their usual spelling, the names of what was asked and answered; empty without something asked."""


_Found = TypeVar("_Found")
_MOST_REMEMBERED, _MOST_LETTERS = 256, 1000


def _remembered(find: Callable[[tuple[str, ...]], _Found]) -> Callable[[tuple[str, ...]], _Found]:
    """`find` with a memory, since the records of a file mostly have the same names; few and short ones are kept."""
    known: dict[tuple[str, ...], _Found] = {}

    def finding(names: tuple[str, ...]) -> _Found:
        try:
            return known[names]
        except KeyError:
            found = find(names)
            if len(known) < _MOST_REMEMBERED and sum(map(len, names)) + len(names) < _MOST_LETTERS:
                known[names] = found
            return found

    return finding


@_remembered
def _names(names: tuple[str, ...]) -> _Names:
    spelled = {name.lower(): name for name in names}
    exchange = {name: own for name, own in spelled.items() if name in _EXCHANGE}
    return _Names(
        tuple([spelled[name] for name in CONVERSATIONS if name in spelled]),
        tuple([spelled[name] for name in TEXTS if name in spelled]),
        exchange if any(name in exchange for name in ASKED) else {},
    )


def _of_object(record: dict[str, Any], depth: int) -> list[Content]:
    names = _names(tuple(record))
    for name in names.conversations:
        if talk := conversation(record[name]):
            return [talk]
    if names.exchange and (talk := _exchange({name: record[own] for name, own in names.exchange.items()})):
        return [talk]
    for name in names.texts:
        if text := _text(record[name]):
            return [text]
    inner = [value for value in record.values() if isinstance(value, dict) or _holds_objects(value)]
    return [content for value in inner for content in _contents(value, depth + 1)] or _wordy(record)


def _wordy(record: Mapping[str, Any]) -> list[Content]:
    """The values that have several words, one to a line; without any, the longest that has a letter."""
    texts = [text for value in record.values() if (text := _text(value)) and _has_letter(text)]
    wordy = [text for text in texts if len(text.split(maxsplit=1)) > 1]
    if wordy:
        return ["\n".join(wordy)]
    return [max(texts, key=len)] if texts else []


def _has_letter(text: str) -> bool:
    return text[0].isalpha() or any(map(str.isalpha, text))


def conversation(value: Any) -> Content | None:
    """The turns in a list as a conversation; as plain lines "name: words" where more than two strangers talk.

    A turn is an object with a speaker and words, a pair [speaker, words], or words alone (then two take turns). Of
    speakers that are not known by name, the first is the user and the second the assistant; "system" after the first
    turn is the assistant, as in records of help desks. None for what is no list of turns, or has turns by tools.
    """
    if not isinstance(value, list) or len(value) < 2:
        return None
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(value):
        said = _turn(turn, number)
        if said is None:
            return None
        if said[1] and not said[1].isspace():
            turns.append(said)
    speakers = [name.lower() for name, _ in turns]
    roles = _roles(tuple(dict.fromkeys(speakers))) if len(turns) > 1 else None
    if roles is None:
        return None
    if not roles:
        return "\n".join([f"{name}: {words}" for name, words in turns])
    said_by = [roles[name] for name in speakers]
    said_by[1:] = ["assistant" if role == "system" else role for role in said_by[1:]]
    if "assistant" not in said_by:
        return None
    return tuple([Message(role, words) for role, (_, words) in zip(said_by, turns, strict=True)])


@_remembered
def _roles(names: tuple[str, ...]) -> Mapping[str, Role] | None:
    """The role of each speaker, in the order of their first words; empty for too many strangers, None with tools."""
    if any(name in ("tool", "function", "observation") for name in names):
        return None
    roles = {name: _ROLES[name] for name in names if name in _ROLES}
    strangers = [name for name in names if name not in _ROLES]
    free: list[Role] = [role for role in ("user", "assistant") if role not in roles.values()]
    if "system" in names[1:] and "assistant" in free:
        free.remove("assistant")
    if len(strangers) > len(free):
        return {}
    return roles | dict(zip(strangers, free, strict=False))


def _turn(turn: Any, number: int) -> tuple[str, str] | None:
    if isinstance(turn, str):
        return ("user", "assistant")[number % 2], turn
    if isinstance(turn, list):
        pair = len(turn) >= 2 and isinstance(turn[0], str) and isinstance(turn[1], str)
        return (turn[0], turn[1]) if pair else None
    if not isinstance(turn, dict):
        return None
    speaker = words = None
    for name in _SPEAKER:
        if isinstance(turn.get(name), str):
            speaker = turn[name]
            break
    for name in _WORDS:
        if name in turn:
            words = turn[name]
            break
    if isinstance(words, list):  # parts: {"type": "text", "text": …}
        words = "\n".join(
            part["text"] for part in words if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if speaker is None or not (words is None or isinstance(words, str)):
        return None
    return speaker, words or ""


def _exchange(by_name: Mapping[str, Any]) -> Content | None:
    """One request and its answer."""
    asked = next((name for name in ASKED if name in by_name), None)
    if asked is None or not _text(by_name[asked]):
        return None
    for name in ANSWERED:
        value = by_name.get(name)
        if talk := conversation(value):  # some preference data has whole conversations as answers
            return talk
        answer = _answer(value)
        if answer:
            more, where = ASKED[asked]
            extra = next((by_name[name] for name in more if isinstance(by_name.get(name), str) and by_name[name]), "")
            parts = [_text(by_name[asked]), extra] if where == "after" else [extra, _text(by_name[asked])]
            return Message("user", "\n\n".join(part for part in parts if part)), Message("assistant", answer)
    return None


def _answer(value: Any) -> str:
    """An answer as text: of several, the first."""
    if isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, list):
        return next((answer for item in value if (answer := _answer(item))), "")
    if isinstance(value, bool) or value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) and str(value).strip() else ""


def _text(value: Any) -> str:
    """A string, or strings in lists one to a line; empty for anything else."""
    if isinstance(value, str):
        return "" if value.isspace() else value
    if isinstance(value, list):
        flat = list(_strings(value, 0))
        return "\n".join(flat) if flat and None not in flat else ""  # type: ignore[arg-type]
    return ""


def _strings(value: list[Any], depth: int) -> Iterator[str | None]:
    """The strings in nested lists; None for whatever else is among them."""
    for item in value:
        if isinstance(item, list) and depth < _DEEPEST:
            yield from _strings(item, depth + 1)
        else:
            yield item if isinstance(item, str) else None


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value[:100])


def _at(record: Any, path: list[str]) -> Iterator[Any]:
    """The values at a path of names; lists on the way are gone through."""
    if not path:
        yield record
    elif isinstance(record, list):
        for item in record:
            yield from _at(item, path)
    elif isinstance(record, dict):
        whole = ".".join(path)
        if whole in record:  # a name that has dots in it
            yield record[whole]
        elif path[0] in record:
            yield from _at(record[path[0]], path[1:])
