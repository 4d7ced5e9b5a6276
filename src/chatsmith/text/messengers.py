"""Chats between people as messengers export them: Telegram's `result.json`, Facebook's `message_1.json`.

Beside what was said their lists of messages hold calls, joins and pictures, which are passed over. What one person
says in several messages on end is one turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TELEGRAM = ("message", "service")  # types of its messages
_META = ("sender_name", "timestamp_ms")


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
    turns: list[list[str]] = []
    for speaker, words in said:
        if not speaker or not words.strip():
            continue
        if turns and turns[-1][0] == speaker:
            turns[-1][1] += "\n" + words
        else:
            turns.append([speaker, words])
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
    return tuple(_mended(message.get(name)) for name in ("sender_name", "content"))  # type: ignore[return-value]


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
