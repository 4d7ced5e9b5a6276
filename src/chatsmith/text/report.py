"""What was read and what was not: the report that every reading of documents leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

LISTED = 1000  # skipped sources kept by name; the counts go on beyond


class Unreadable(Exception):
    """A file, or what is left of it, cannot be read: a reason that is counted and the detail of this case."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, folder or record that was passed over. Equal cases have the same `reason`; `detail` is this one's own."""

    source: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(slots=True)
class OverlapReport:
    """What was found of the tests in the training text, and what was done about it.

    `ngrams` are the tests', `too_short` their texts with fewer words than an n-gram has: nothing is found by them.
    """

    n: int = 0
    most_documents: int = 0
    ngrams: int = 0
    texts: int = 0
    too_short: int = 0
    found: int = 0
    ignored: int = 0
    documents: int = 0
    dropped: int = 0
    pieces: int = 0
    characters_removed: int = 0

    def count(self, text: str, pieces: Sequence[str]) -> None:
        """Take note of what was left of a text."""
        self.documents += 1
        self.dropped += not pieces
        self.pieces += len(pieces)
        self.characters_removed += len(text) - sum(map(len, pieces))

    def to_json(self) -> dict[str, int]:
        """The counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __rich__(self) -> RenderableType:
        table = Table(title="What was cleaned of the tests", title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("texts of the tests", f"{self.texts:,}")
        if self.too_short:
            table.add_row(f"  more, of fewer than {self.n} words: not looked for", f"{self.too_short:,}")
        table.add_row(f"different {self.n}-grams in them", f"{self.ngrams:,}")
        table.add_row("  of them found in the documents", f"{self.found:,}")
        table.add_row(f"    of them ignored: in more than {self.most_documents} documents", f"{self.ignored:,}")
        table.add_row("documents that were cut", f"{self.documents - self.dropped:,}")
        table.add_row("  the pieces that are left of them", f"{self.pieces:,}")
        table.add_row("documents that were dropped", f"{self.dropped:,}")
        table.add_row("characters removed", f"{self.characters_removed:,}")
        return table


@dataclass(slots=True)
class ReadReport:
    """Running counts of a reading: they hold at any moment, and for good once the documents are used up.

    `bytes` are those of the kept text in UTF-8, `bytes_read` those of the files as they lie on disk.
    """

    files: int = 0
    bytes_read: int = 0
    documents: int = 0
    conversations: int = 0
    characters: int = 0
    bytes: int = 0
    repaired: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    low_quality: int = 0
    forgetful: bool = False
    overlap: OverlapReport | None = None
    skipped: list[Skipped] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, text: str) -> None:
        """Count the letters of a kept text."""
        length = len(text)
        self.characters += length
        self.bytes += length if text.isascii() else len(text.encode())

    def skip(self, source: str, reason: str, detail: str = "") -> None:
        """Count something passed over, and list it while the list is short."""
        self.reasons[reason] += 1
        if len(self.skipped) < LISTED:
            self.skipped.append(Skipped(source, reason, detail))

    def add(self, other: Mapping[str, Any]) -> None:
        """Take over what another reading says, as its `to_json`; the documents it kept are not counted."""
        self.files += other["files"]
        self.bytes_read += other["bytes_read"]
        self.repaired += other["repaired"]
        self.exact_duplicates += other["exact_duplicates"]
        self.low_quality += other["low_quality"]
        self.reasons.update(other["skipped_by_reason"])
        for one in other["skipped"][: LISTED - len(self.skipped)]:
            self.skipped.append(Skipped(one["source"], one["reason"], one["detail"]))

    def summary(self) -> str:
        """One line for the terminal or a log."""
        parts = [
            f"{_count(self.documents, 'document')} from {_count(self.files, 'file')}",
            f"{_count(self.characters, 'character')} ({_size(self.bytes)})",
        ]
        if self.exact_duplicates or self.near_duplicates:
            parts.append(f"dropped {self.exact_duplicates:,} exact and {self.near_duplicates:,} near duplicates")
        if self.overlap is not None:
            cut = self.overlap.documents - self.overlap.dropped
            parts.append(f"cleaned of tests: {_count(cut, 'document')} cut and {self.overlap.dropped:,} dropped")
        if self.reasons:
            parts.append(f"skipped {self.skipped_because()}")
        return "; ".join(parts)

    def skipped_because(self) -> str:
        """How many were skipped for which reason, the most frequent first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())

    def to_json(self) -> dict[str, Any]:
        """The report as a mapping of JSON values."""
        return {
            "files": self.files,
            "bytes_read": self.bytes_read,
            "documents": self.documents,
            "conversations": self.conversations,
            "characters": self.characters,
            "bytes": self.bytes,
            "repaired": self.repaired,
            "exact_duplicates": self.exact_duplicates,
            "near_duplicates": self.near_duplicates,
            "near_duplicates_windowed": self.forgetful,
            "low_quality": self.low_quality,
            "overlap": None if self.overlap is None else self.overlap.to_json(),
            "skipped_by_reason": dict(self.reasons.most_common()),
            "skipped": [{"source": one.source, "reason": one.reason, "detail": one.detail} for one in self.skipped],
        }

    def __rich__(self) -> RenderableType:
        table = Table(title="What was read", title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("files", f"{self.files:,}")
        table.add_row("documents", f"{self.documents:,}")
        if self.conversations:
            table.add_row("  of them conversations", f"{self.conversations:,}")
        table.add_row("text", f"{_count(self.characters, 'character')}, {_size(self.bytes)}")
        table.add_row("exact duplicates dropped", f"{self.exact_duplicates:,}")
        near = "near duplicates dropped" + (" (among the latest documents)" if self.forgetful else "")
        table.add_row(near, f"{self.near_duplicates:,}")
        if self.low_quality:
            table.add_row("documents that the filter of quality dropped", f"{self.low_quality:,}")
        if self.repaired:
            table.add_row("characters that were not UTF-8, now \N{REPLACEMENT CHARACTER}", f"{self.repaired:,}")
        tables: list[RenderableType] = [table] if self.overlap is None else [table, self.overlap]
        if not self.reasons:
            return Group(*tables)
        skipped = Table(title="What was skipped", title_justify="left")
        skipped.add_column("count", justify="right")
        skipped.add_column("reason")
        skipped.add_column("such as", overflow="fold")
        for reason, count in self.reasons.most_common():
            example = next((one for one in self.skipped if one.reason == reason), None)
            such = "" if example is None else example.source + (f" ({example.detail})" if example.detail else "")
            skipped.add_row(f"{count:,}", Text(reason), Text(such))
        return Group(*tables, skipped)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return _count(count, "byte")
