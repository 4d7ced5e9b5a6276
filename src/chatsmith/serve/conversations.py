"""Conversations kept in SQLite: trees of messages, of which nothing acknowledged is lost.

A method that returns has committed and synced (write-ahead log, `synchronous = FULL`), so a killed server or a power
cut keeps whatever a caller was told is kept. Everything belongs to an owner (the name of a key; "" where none is
needed) and is invisible to others. Every size is bounded before it is stored.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError, WorkError
from chatsmith.paths import data_dir

Json = dict[str, Any]

FORMAT = "chatsmith conversation 1"
_VERSION = 1  # of the tables, in SQLite's user_version

_TABLES = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, system TEXT NOT NULL, settings TEXT NOT NULL,
    leaf TEXT, created REAL NOT NULL, updated REAL NOT NULL
) STRICT;
CREATE INDEX conversations_by_time ON conversations (owner, updated DESC);
CREATE TABLE messages (
    id TEXT PRIMARY KEY, conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    parent TEXT REFERENCES messages (id) ON DELETE CASCADE, role TEXT NOT NULL, content TEXT NOT NULL,
    tokens TEXT NOT NULL, settings TEXT NOT NULL, created REAL NOT NULL
) STRICT;
CREATE INDEX messages_by_conversation ON messages (conversation);
CREATE INDEX messages_by_parent ON messages (parent);
"""
_CONVERSATION = "id, title, system, settings, leaf, created, updated"
_MESSAGE = "id, parent, role, content, tokens, settings, created"


class NotThere(RequestError):
    """The owner has no conversation, or the conversation no message, of that id."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is stored at most; lengths in characters."""

    conversations: int = 5_000  # an owner's
    messages: int = 2_000  # of a conversation
    title: int = 200
    system: int = 32_768
    content: int = 262_144  # of a message
    tokens: int = 1_048_576  # of a message, as JSON
    settings: int = 4_096  # as JSON
    stored: int = 14 * 2**20  # bytes of a conversation's messages: what is exported can be imported again
    listed: int = 200  # conversations in one answer


def default_path() -> Path:
    """`conversations.db` in the folder for what cannot be made again."""
    return data_dir() / "conversations.db"


class Conversations:
    """The conversations in one file. Safe to call from any thread; one writer at a time."""

    def __init__(self, path: Path, bounds: Bounds | None = None) -> None:
        """Open the file, or make it, readable by its owner alone. Raises `WorkError` for a damaged or newer one."""
        self.path, self.bounds = Path(path), bounds or Bounds()
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(self.path, timeout=10, check_same_thread=False, isolation_level=None)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise WorkError(
                f"the conversations in {self.path} cannot be opened: {error}",
                "move the file away to begin anew, or name another",
            ) from error

    def _prepare(self) -> None:
        database = self._database
        database.row_factory = sqlite3.Row
        database.create_function("holds", 2, lambda text, part: part in text.casefold(), deterministic=True)
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {setting}")
        with self._change():
            [found] = database.execute("PRAGMA user_version").fetchone()
            if found > _VERSION:
                raise WorkError(
                    f"{self.path} was written by a newer chatsmith",
                    "update chatsmith, or name another file for the conversations",
                )
            if not found:
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Close the file; nothing may be asked afterwards."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """All of the changes or none; synced when left."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def search(self, part: str = "", owner: str = "") -> list[Json]:
        """The newest conversations, or those with a text in their title or messages, without regard to case.

        Each has `id`, `title`, `created`, `updated` (seconds since 1970) and `messages`, their number.
        """
        part = _text("search", part, self.bounds.title).casefold()
        said = "EXISTS (SELECT 1 FROM messages WHERE conversation = c.id AND holds(content, :part))"
        query = (
            "SELECT id, title, created, updated, (SELECT count(*) FROM messages WHERE conversation = c.id) AS messages"
            f" FROM conversations AS c WHERE owner = :owner AND (:part = '' OR holds(c.title, :part) OR {said})"
            " ORDER BY updated DESC, rowid DESC LIMIT :limit"
        )
        with self._lock:
            rows = self._database.execute(query, {"owner": owner, "part": part, "limit": self.bounds.listed}).fetchall()
        return [dict(row) for row in rows]

    def create(self, owner: str = "", *, title: str = "", system: str = "", settings: Mapping[str, Any] = {}) -> Json:
        """A new conversation without messages."""
        with self._change() as database:
            made = self._create(database, owner, title, system, settings)
        return self.get(made, owner)

    def _create(self, database: sqlite3.Connection, owner: str, title: Any, system: Any, settings: Any) -> str:
        [count] = database.execute("SELECT count(*) FROM conversations WHERE owner = ?", (owner,)).fetchone()
        if count >= self.bounds.conversations:
            raise RequestError(f"there are {count:,} conversations already", "delete some, or export them first")
        made, now, bounds = secrets.token_hex(12), time.time(), self.bounds
        database.execute(
            "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, NULL, ?, ?)",
            (
                made,
                owner,
                _text("title", title, bounds.title),
                _text("system", system, bounds.system),
                _object("settings", settings, bounds.settings),
                now,
                now,
            ),
        )
        return made

    def get(self, conversation: str, owner: str = "") -> Json:
        """A conversation with its messages in the order they were written; `leaf` is where it was last read."""
        with self._lock:
            row = _row(self._database, conversation, owner)
            query = f"SELECT {_MESSAGE} FROM messages WHERE conversation = ? ORDER BY rowid"
            messages = self._database.execute(query, (conversation,)).fetchall()
        return _read(row) | {"messages": [_read(message) for message in messages]}

    def change(self, conversation: str, owner: str = "", **changes: Any) -> Json:
        """Give a conversation another `title`, `system`, `settings` or `leaf` (the id of a message)."""
        unknown = changes.keys() - {"title", "system", "settings", "leaf"}
        if unknown:
            raise RequestError(f"a conversation has no {', '.join(sorted(unknown))} to change")
        with self._change() as database:
            _row(database, conversation, owner)
            for name, value in changes.items():
                if name == "settings":
                    value = _object(name, value, self.bounds.settings)
                elif name == "leaf":
                    _message(database, conversation, value)
                else:
                    value = _text(name, value, getattr(self.bounds, name))
                database.execute(f"UPDATE conversations SET {name} = ? WHERE id = ?", (value, conversation))
            if changes.keys() - {"leaf"}:
                database.execute("UPDATE conversations SET updated = ? WHERE id = ?", (time.time(), conversation))
        return self.get(conversation, owner)

    def delete(self, conversation: str, owner: str = "") -> None:
        """Delete a conversation and all of its messages."""
        with self._change() as database:
            _row(database, conversation, owner)
            database.execute("DELETE FROM conversations WHERE id = ?", (conversation,))

    def add(self, conversation: str, owner: str = "", **message: Any) -> Json:
        """Add a message after its `parent` (None begins the conversation) and make it the leaf; see `_add`."""
        with self._change() as database:
            _row(database, conversation, owner)
            measured = "SELECT count(*), sum(length(CAST(content AS BLOB)) + length(tokens)) FROM messages"
            found = database.execute(f"{measured} WHERE conversation = ?", (conversation,)).fetchone()
            if found[0] >= self.bounds.messages or (found[1] or 0) >= self.bounds.stored:
                raise RequestError(f"this conversation is full with {found[0]:,} messages", "begin another")
            made = self._add(database, conversation, message)
            row = _message(database, conversation, made)
        return _read(row)

    def _add(self, database: sqlite3.Connection, conversation: str, message: Mapping[str, Any]) -> str:
        """Store a message: `parent`, `role`, `content`, and of a reply its `tokens` and the `settings` that made it."""
        unknown = message.keys() - {"parent", "role", "content", "tokens", "settings"}
        if unknown:
            raise RequestError(f"a message has no {', '.join(sorted(unknown))}")
        parent, role = message.get("parent"), message.get("role")
        before = None if parent is None else _message(database, conversation, parent)["role"]
        if (before, role) not in ((None, "user"), ("assistant", "user"), ("user", "assistant")):
            place = "begins a conversation" if before is None else f"follows {before}"
            raise RequestError(f"no message of {role!r} {place}", "user and assistant take turns; a user begins")
        made, now = secrets.token_hex(12), time.time()
        database.execute(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                made,
                conversation,
                parent,
                role,
                _text("content", message.get("content"), self.bounds.content),
                _tokens(message.get("tokens", []), self.bounds.tokens),
                _object("settings", message.get("settings", {}), self.bounds.settings),
                now,
            ),
        )
        database.execute("UPDATE conversations SET leaf = ?, updated = ? WHERE id = ?", (made, now, conversation))
        return made

    def export(self, conversation: str, owner: str = "") -> Json:
        """A conversation as `load` reads it: the file says what it is, and parents are places in its list."""
        found = self.get(conversation, owner)
        places = {message["id"]: place for place, message in enumerate(found["messages"])}
        messages = [
            {"parent": places.get(message["parent"])}
            | {name: message[name] for name in ("role", "content", "tokens", "settings")}
            for message in found["messages"]
        ]
        kept = {name: found[name] for name in ("title", "system", "settings")}
        return {"format": FORMAT, **kept, "leaf": places.get(found["leaf"]), "messages": messages}

    def load(self, file: Mapping[str, Any], owner: str = "") -> Json:
        """Store what `export` gave, as a new conversation: all of it, or nothing where any part is wrong."""
        if file.get("format") != FORMAT:
            raise RequestError(
                "this is not an exported conversation", f'an exported conversation has "format": "{FORMAT}"'
            )
        messages = file.get("messages", [])
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise RequestError("messages must be a list of objects")
        if len(messages) > self.bounds.messages:
            raise RequestError(f"the file has {len(messages):,} messages; at most {self.bounds.messages:,} are kept")
        with self._change() as database:
            made = self._create(
                database, owner, file.get("title", ""), file.get("system", ""), file.get("settings", {})
            )
            ids: list[str] = []

            def at(place: Any) -> str | None:
                if place is None:
                    return None
                if type(place) is not int or not 0 <= place < len(ids):
                    raise RequestError(f"no message stands at place {place!r}, or it comes later")
                return ids[place]

            for message in messages:
                ids.append(self._add(database, made, message | {"parent": at(message.get("parent"))}))
            leaf = at(file.get("leaf"))
            if leaf is not None:
                database.execute("UPDATE conversations SET leaf = ? WHERE id = ?", (leaf, made))
        return self.get(made, owner)


def _row(database: sqlite3.Connection, conversation: str, owner: str) -> sqlite3.Row:
    query = f"SELECT {_CONVERSATION} FROM conversations WHERE id = ? AND owner = ?"
    row: sqlite3.Row | None = database.execute(query, (conversation, owner)).fetchone()
    if row is None:
        raise NotThere("there is no such conversation")
    return row


def _message(database: sqlite3.Connection, conversation: str, message: Any) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if isinstance(message, str):
        query = f"SELECT {_MESSAGE} FROM messages WHERE id = ? AND conversation = ?"
        row = database.execute(query, (message, conversation)).fetchone()
    if row is None:
        raise NotThere("there is no such message in this conversation")
    return row


def _read(row: sqlite3.Row) -> Json:
    """A row as JSON: what was stored as text of JSON is read."""
    return {name: json.loads(row[name]) if name in ("settings", "tokens") else row[name] for name in row.keys()}  # noqa: SIM118


def _text(name: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text")
    if len(value) > limit:
        raise RequestError(f"{name} has {len(value):,} characters; at most {limit:,} are kept")
    # A lone surrogate, which JSON can carry, has no UTF-8.
    return value.encode("utf-8", "replace").decode()


def _object(name: str, value: Any, limit: int) -> str:
    """Settings as JSON: names with numbers, texts, truth or nothing."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise RequestError(f"{name} must be an object")
    for key, part in value.items():
        if not (part is None or isinstance(part, str | int | float)):
            raise RequestError(f"{name}.{key[:40]} must be a number, a text, true, false or null")
        if isinstance(part, float) and not math.isfinite(part):
            raise RequestError(f"{name}.{key[:40]} must be finite")
    return _json(name, dict(value), limit)


def _tokens(value: Any, limit: int) -> str:
    """The tokens of a reply as JSON: [id, text, log probability, [[id, text, log probability], …]] each."""

    def is_token(token: Any, *, parts: int) -> bool:
        return (
            isinstance(token, list)
            and len(token) == parts
            and type(token[0]) is int
            and isinstance(token[1], str)
            and type(token[2]) in (int, float)
            and (parts == 3 or (isinstance(token[3], list) and all(is_token(other, parts=3) for other in token[3])))
        )

    if not isinstance(value, list) or not all(is_token(token, parts=4) for token in value):
        raise RequestError("tokens must be a list of [id, text, logprob, alternatives]")
    return _json("tokens", value, limit)


def _json(name: str, value: Any, limit: int) -> str:
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{name} is not JSON") from error
    if len(text) > limit:
        raise RequestError(f"{name} takes {len(text):,} characters; at most {limit:,} are kept")
    return text
