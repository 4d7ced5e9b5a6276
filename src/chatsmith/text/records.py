"""Which fields of a record are its text: from one JSON object, or one row of a table, to texts and conversations.

The first of these rules that finds anything decides:

1. the field that was asked for, by its path (`field="data.summary"`);
2. a conversation: a list of turns under one of the usual names (`messages`, `conversations`, …), ChatGPT's export, or
   what is kept in pieces (`pieced`);
3. what was asked and what was answered (`instruction` and `output`, `question` and `answer`, `prompt` and `chosen`, …):
   a conversation, of two turns where both are texts; of answers that somebody compared (`response_a` and
   `response_b`) or scored, the best one;
4. a text under one of the usual names (`text`, `content`, `body`, …); a conversation where one is written out in it;
5. objects in lists within (`{"data": [{…}, …]}`), by these rules each;
6. the fields that hold words rather than codes, one to a line.

What somebody rejected is never read, and nothing is made of a conversation but a conversation. `system` beside one is
its first turn, and the `history` beside a question stands before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatsmith.text.cells import spelled
from chatsmith.text.chat import Message
from chatsmith.text.exchanges import (
    ANSWERED,
    ASKED,
    HISTORY,
    PREFERRED,
    RATINGS,
    VERDICT,
    WORSE,
    answered,
    exchange,
    exchange_names,
    is_unanswered,
    told,
)
from chatsmith.text.pieced import PIECES, pieced
from chatsmith.text.preferences import Pair, pair_of, sorted_out, summaries
from chatsmith.text.report import Unreadable
from chatsmith.text.talks import (
    HALF,
    LONE,
    MORE_THAN_TEXT,
    SPEAKER,
    Content,
    conversation,
    is_lone_turn,
    pairs,
    remembered,
)
from chatsmith.text.transcripts import transcript

TEXTS = (
    *("text", "content", "body", "document", "article", "story", "raw_content", "page_content", "markdown", "pages"),
    *("paragraphs", "passage", "context", "paragraph", "sentences", "sentence", "review", "code", "abstract"),
)
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat_messages", "chat")
REJECTED = (
    *("rejected", "rejected_response", "rejected_responses", "rejected_output", "non_preferred_output", "response_k"),
    *("incorrect_answers", "incorrect_answer", "negative examples", "negative_examples"),
)
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_TRANSCRIPTS = ("input", "transcript", "plain_text")  # where a whole conversation may stand in one text
SYSTEM = ("system", "system_prompt", "system_message", "meta_instruction")
_ASKED_ABOUT = "input"  # a talk in it, with an answer beside it, is what was asked about, or leads to that answer
_QUESTIONS = "qas"
BESIDE = (*REJECTED, *_MEDIA, VERDICT, *SYSTEM, HISTORY, *RATINGS, _QUESTIONS)
"""Names of what is no text to read by itself, but decides about it or belongs to it."""
_DEEPEST = 16

KNOWN = frozenset((*TEXTS, *CONVERSATIONS, *ASKED, *ANSWERED, *REJECTED, "input", "title", "label", "id"))
"""Names by which the heading of a table is known for one."""

UNDECIDED = "two answers, none of them said to be good"
NO_TEXT_RECORD = "record without text"


def contents(record: Any, field: str | None = None) -> list[Content]:
    """The texts and conversations of one record (any value that JSON can hold); none where it has no text.

    Among them, as `Unreadable`, what was left out, and why.
    """
    if field is not None:
        values = map(told, _at(record, field.split(".")))
        found = [conversation(value) or [_text(value)] for value in values]
        return [content for one in found for content in one if content]
    return [str(content) if isinstance(content, _Guess) else content for content in _contents(record, 0)]


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
        found = conversation(record) if record and isinstance(record[0], dict) else []
        return found or [content for item in record for content in _contents(item, depth + 1)]
    return []


@dataclass(frozen=True, slots=True)
class _Names:
    """Which names an object has that may decide, as the object spells them; of equal ones, the last counts."""

    conversations: tuple[str, ...]
    answers: tuple[str, ...]
    texts: tuple[str, ...]
    transcripts: tuple[str, ...]
    exchange: Mapping[str, str]
    """By their usual spelling, the names of what was asked and answered; empty where there cannot be both."""
    rejected: tuple[str, ...]
    media: tuple[str, ...]
    system: tuple[str, ...]
    pair: Pair | None
    pieced: bool
    """Whether one of them is that of a conversation's pieces."""
    speaks: bool
    """Whether one of the names may be that of a speaker."""


@remembered
def _names(names: tuple[str, ...]) -> _Names:
    known = {name.lower(): name for name in names}

    def own(usual: tuple[str, ...]) -> tuple[str, ...]:
        return tuple([known[name] for name in usual if name in known])

    return _Names(
        conversations=own(CONVERSATIONS),
        answers=own(ANSWERED),
        texts=own(TEXTS),
        transcripts=own(_TRANSCRIPTS),
        exchange={name: known[name] for name in exchange_names(list(known))},
        rejected=own(REJECTED),
        media=own(_MEDIA),
        system=own(SYSTEM),
        pair=pair_of(names) if not any(name in known for name in PREFERRED) else None,
        pieced=any(name in known for name in PIECES),
        speaks=any(name in known for name in SPEAKER),
    )


def _of_object(record: dict[str, Any], depth: int) -> list[Content]:
    names = _names(tuple(record))
    if summed_up := summaries(record):
        return [content for one in summed_up for content in _of_object(one, depth)]
    if names.pair is not None:
        if (compared := sorted_out(record, names.pair)) is None:
            return [Unreadable(UNDECIDED)]
        return [content for one in compared for content in _of_object(one, depth)]
    if not names.rejected:
        return _of_rest(record, names, depth)
    rest = {name: value for name, value in record.items() if name not in names.rejected}
    worse = any(isinstance(record[name], str | list | dict) and record[name] for name in names.rejected)
    return _of_rest(rest, names, depth) + [Unreadable(WORSE)] * worse


def _of_rest(record: dict[str, Any], names: _Names, depth: int) -> list[Content]:
    by_name = {name: record[own] for name, own in names.exchange.items()}
    if talk := _conversation(record, names) or (exchange(by_name) if by_name else []):
        shown = next((name for name in names.media if record[name]), None)
        if shown is not None:
            return [Unreadable(MORE_THAN_TEXT, shown)]
        system = next((text for name in names.system if (text := _text(record[name]))), "")
        return [_led(content, system) for content in talk] if system else talk
    if names.speaks and is_lone_turn(record):
        return [Unreadable(LONE)]
    for name in names.texts:
        if text := _text(record[name]):
            return conversation(transcript(text)) or [text]
    inner = [value for value in record.values() if isinstance(value, dict) or _holds_objects(value)]
    if found := _least_guessed([_contents(value, depth + 1) for value in inner]):
        return found
    if by_name and is_unanswered(by_name):
        return [Unreadable(HALF, "nobody answers")]
    return list(map(_Guess, _wordy(record)))


class _Guess(str):
    """A text that no name said to be one, found by the last rule."""


def _least_guessed(found: list[list[Content]]) -> list[Content]:
    """What was found in each of several values; where names told of one what it is, no guesses about the others, which
    are the state of an annotation and the like."""
    told_of = [one for one in found if not all(isinstance(content, _Guess) for content in one)]
    return [content for one in told_of or found for content in one]


def _led(content: Content, system: str) -> Content:
    """The conversation with what was said to the model before it began, unless it says so itself."""
    if not isinstance(content, tuple) or content[0].role == "system":
        return content
    return (Message("system", system), *content)


def _conversation(record: dict[str, Any], names: _Names) -> list[Content]:
    tree = record if "replies" in record else record.get("prompt")
    if isinstance(tree, dict) and "replies" in tree and (found := conversation(tree)):
        return found
    if isinstance(record.get("mapping"), dict) and (found := conversation(record)):
        return found
    for name in names.transcripts:
        if isinstance(record[name], str) and (found := conversation(transcript(record[name]))):
            if name.lower() == _ASKED_ABOUT and any(answered(record[own]) for own in names.answers):
                continue
            return found
    for name in names.conversations:
        # What the last question was answered may stand beside the conversation, as in preference data.
        answer = next((turn for own in names.answers if (turn := answered(record[own]))), None)
        value = spelled(record[name])
        if found := conversation(pairs(value) or value, answer):
            return found
    if record.keys() == {"id", "data"} and isinstance(record["data"], list) and len(record["data"]) % 2 == 0:
        return conversation(record["data"])  # UltraChat: two take turns
    if names.pieced and (pieces := pieced({name: spelled(value) for name, value in record.items()})):
        return [pieces] if isinstance(pieces, str) else conversation(pieces)
    return _asked_about(record) if _QUESTIONS in record else []


def _asked_about(record: Mapping[str, Any]) -> list[Content]:
    """The answered questions about a paragraph of SQuAD's, each with its text, as the flat form of that data has it."""
    asked = spelled(record[_QUESTIONS])
    several = [one for one in asked if isinstance(one, dict)] if isinstance(asked, list) else []
    found = [exchange({"context": record.get("context"), **one}) for one in several]
    return [content for one in found for content in one]


def _wordy(record: Mapping[str, Any]) -> list[Content]:
    """The values that have several words, one to a line; without any, the longest that has a letter."""
    texts = [text for value in record.values() if (text := _text(value)) and _has_letter(text)]
    wordy = [text for text in texts if len(text.split(maxsplit=1)) > 1]
    if wordy:
        return ["\n".join(wordy)]
    return [max(texts, key=len)] if texts else []


def _has_letter(text: str) -> bool:
    return text[0].isalpha() or any(map(str.isalpha, text))


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
