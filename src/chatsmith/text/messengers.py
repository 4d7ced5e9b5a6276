"""Chats between people as messengers export them: Telegram's and Facebook's JSON, WhatsApp's text.

Beside what was said they hold calls, joins and pictures, which are passed over. What one person says in several
messages on end is one turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any

_TELEGRAM = ("message", "service")  # types of its messages
_WHEN = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4},\s\d{1,2}[:.]\d\d(?:[:.]\d\d)?(?:\s?[AaPp]\.?\s?[Mm]\.?)?"
_STAMP = re.compile(rf"^\u200e?(?:\[{_WHEN}\] |{_WHEN} - )", re.MULTILINE)
_NOTE = "\u200e"  # what begins words that are WhatsApp's, as "image omitted"
_LEFT_OUT = re.compile(r"<[^<>\n]+>")  # the same in Android's exports
_OPENING, _LONGEST_NAME = 4000, 60  # characters
_META = ("sender_name", "timestamp_ms")
_LEVELS = frozenset(
    ("trace", "debug", "verbose", "info", "log", "notice", "warn", "warning", "error", "critical", "fatal")
)
"""What stands where a name would in the log of a program, whose dates may look the same."""


def chat(messages: Sequence[Any]) -> list[list[str]] | None:
    """The turns [speaker, words] of such a list; None for any other, and where only one speaks, as in a channel."""
    if not messages or not isinstance(messages[0], dict):
        return None
    if messages[0].get("type") in _TELEGRAM and "id" in messages[0] and _all(messages, ("type", "id")):
        said = [_of_telegram(one) for one in messages]
    elif _all(messages, _META):
        said = [_of_meta(one) for one in sorted(messages, key=lambda one: _number(one["timestamp_ms"]))]
    else:
        return None
    return _turns(said)


def is_log(text: str) -> bool:
    """Whether a text begins as a chat that WhatsApp exports: lines "date, time - name: words"."""
    speakers = (speaker.lower() for speaker, _ in _lines(text[:_OPENING]))
    return bool(_STAMP.match(text)) and any(name and name not in _LEVELS for name in speakers)


def log(text: str) -> list[dict[str, str]] | None:
    """The turns of such a text; None where only one speaks."""
    turns = _turns(_lines(text))
    return None if turns is None else [{"from": speaker, "text": words} for speaker, words in turns]


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Who says what; nobody where the messenger itself does."""
    marks = list(_STAMP.finditer(text))
    for mark, after in zip_longest(marks, marks[1:]):
        speaker, colon, words = text[mark.end() : after.start() if after else len(text)].partition(": ")
        if (
            colon
            and len(speaker) <= _LONGEST_NAME
            and "\n" not in speaker
            and not words.startswith(_NOTE)
            and not _LEFT_OUT.fullmatch(words.strip())
        ):
            yield speaker.strip(_NOTE), words.strip()


def _turns(said: Iterable[tuple[str, str]]) -> list[list[str]] | None:
    """What each says until another does; None where only one speaks."""
    heard = ((speaker, words) for speaker, words in said if speaker and words.strip())
    turns = [[speaker, "\n".join([words for _, words in on_end])] for speaker, on_end in groupby(heard, itemgetter(0))]
    return turns if len(turns) > 1 else None


def _all(messages: Sequence[Any], names: Sequence[str]) -> bool:
    return all(isinstance(one, dict) and all(name in one for name in names) for one in messages)


def _of_telegram(message: Mapping[str, Any]) -> tuple[str, str]:
    """Who says what: a text, or a list of texts and of parts that are links, names or set in bold."""
    if message["type"] != "message":
        return "", ""
    text, speaker = message.get("text"), message.get("from") or message.get("from_id")  # no name: an account deleted
    parts = text if isinstance(text, list) else [text]
    words = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return str(speaker or ""), "".join([one for one in words if isinstance(one, str)])


def _of_meta(message: Mapping[str, Any]) -> tuple[str, str]:
    return _mended(message.get("sender_name")), _mended(message.get("content"))


def _mended(text: Any) -> str:
    """A text whose bytes of UTF-8 were each written as a character, as those exports have it."""
    if not isinstance(text, str):
        return ""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and value == value else 0.0
