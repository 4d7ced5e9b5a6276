"""Documents that tests write and read, and how they look at the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatsmith.text.chat import Message
from chatsmith.text.documents import Document, ReadReport, read_documents


def texts(count: int) -> list[Document]:
    """So many little stories, of several lengths."""
    return [
        Document(f"Story {number}: " + "the sea otter sleeps. " * (number % 7), f"s{number}") for number in range(count)
    ]


def talk(number: int, said: str = "I am well.") -> Document:
    """A conversation of two messages."""
    turns = (Message("user", f"How are you, {number}?"), Message("assistant", said))
    return Document(source="talk", messages=turns)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file in the folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


TEXT = "It was a dark night.\n\nThe rain fell in torrents – naïve, 漢字 and 🦦.\n"


def read(*paths: Path | str, **options: Any) -> tuple[list[Document], ReadReport]:
    """What is read from these paths, and the report of it."""
    report = ReadReport()
    return list(read_documents(paths, report=report, **options)), report


def reasons(path: Path, **options: Any) -> dict[str, int]:
    """Why what lies there is skipped, beside one good file."""
    (path / "good.txt").write_text("a good file")
    documents, report = read(path, **options)
    assert [document.text for document in documents] == ["a good file"]
    assert str(path) not in report.summary()
    return dict(report.reasons)
