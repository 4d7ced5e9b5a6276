"""Records from files of records: JSON, JSON lines, CSV, TSV and Parquet, one at a time."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Any

from chatsmith.errors import MissingExtra
from chatsmith.text.archives import DAMAGED, seekable
from chatsmith.text.exchanges import ANSWERED, ASKED, CHOICES, exchange_names
from chatsmith.text.message_trees import ROW, TREE
from chatsmith.text.plain import RECORD_BYTES, TOO_LONG, lines
from chatsmith.text.preferences import SUMMARIES, SUMMED_UP, decides, pair_of
from chatsmith.text.records import BESIDE, CONVERSATIONS, KNOWN, TEXTS
from chatsmith.text.report import Unreadable

NOT_JSON = "not valid JSON"
NOT_TABLE = "not a valid table"

Record = tuple[int, Any]
"""The number of a line, item or row, counted from one, and what is there."""

_ROWS = 256  # rows of Parquet that become Python objects at once
_JSON = json.JSONDecoder(strict=False)
_LINE_ENDS = ("\n", "", "\r\n")
_AFTER_VALUE = (" ", "\t", "\r", "\n", ",", "]")
_BLANK = re.compile(r"[ \t\r\n]*")
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)
_NAME = re.compile(r"[^\W\d]\w*")


def json_lines(blocks: Iterator[str], bad: Callable[[int, str, str], None]) -> Iterator[Record]:
    """A value from each line; a line that holds none is told to `bad` (number, reason, detail) and passed over."""
    for number, line in enumerate(lines(blocks), 1):
        try:
            value, end = _JSON.raw_decode(line)
            if line[end:] not in _LINE_ENDS:
                value = _JSON.decode(line)
        except (ValueError, RecursionError):  # blanks before the value, for one
            if line.isspace():
                continue
            try:
                value = _JSON.decode(line)
            except (ValueError, RecursionError) as error:
                bad(number, NOT_JSON, getattr(error, "msg", "") or str(error))
                continue
        yield number, value


def json_values(blocks: Iterator[str]) -> Iterator[Record]:
    """The items of a JSON array, or values that follow each other, without holding the whole file.

    One item or value may have 64 MiB. `Unreadable` where the text is not JSON; what came before has been given.
    """
    text = _JsonText(blocks)
    within = text.peek() == "["
    if within:
        text.at += 1
    number = 0
    while character := text.peek():
        if within and character == "]":
            text.at += 1
            if text.peek():
                raise Unreadable(NOT_JSON, "something follows the end of the array")
            return
        if within and number:
            if character != ",":
                raise Unreadable(NOT_JSON, f"no comma after item {number}")
            text.at += 1
            text.peek()
        number += 1
        yield number, text.value(number)
    if within:
        raise Unreadable(DAMAGED, "the array has no end")


class _JsonText:
    """A stream of JSON text, of which only the value that is being read is held."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self.at = 0
        self._blocks = blocks
        self._held = ""
        self._ended = False

    def peek(self) -> str:
        """The next character that is not blank, which `at` then points to; empty at the end."""
        while True:
            blank = _BLANK.match(self._held, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self._held) or self._ended:
                return self._held[self.at : self.at + 1]
            self._more()

    def value(self, number: int) -> Any:
        """The value that begins at `at`, which moves behind it."""
        while True:
            try:
                value, end = _JSON.raw_decode(self._held, self.at)
            except (ValueError, RecursionError) as error:
                if self._ended:
                    detail = getattr(error, "msg", "") or str(error)
                    raise Unreadable(NOT_JSON, f"item {number}: {detail}") from None
            else:
                # A number at the end of what is held may go on in the next block.
                if self._ended or self._held[end : end + 1] in _AFTER_VALUE:
                    self.at = end
                    return value
            if len(self._held) - self.at > RECORD_BYTES:
                raise Unreadable(TOO_LONG, f"item {number} has more than {RECORD_BYTES:,} characters")
            self._more()

    def _more(self) -> None:
        """Take in as much again as is held, so that a long value is tried few times."""
        parts = [self._held[self.at :]]
        wanted, size = len(parts[0]), 0
        while not self._ended and size <= wanted:
            block = next(self._blocks, None)
            self._ended = block is None
            parts.append(block or "")
            size += len(parts[-1])
        self._held, self.at = "".join(parts), 0


def table(blocks: Iterator[str], tabs: bool, field: str | None) -> Iterator[Record]:
    """The rows of a CSV or TSV file: by column where the file has a heading, else the cells that have letters.

    The separator of CSV is the most frequent of , ; tab and | in its first line. TSV has no quoting.
    """
    rows = _rows(lines(blocks), tabs)
    opening = [row for _, row in zip(range(2), rows, strict=False)]
    if not opening:
        return
    first = opening[0][1]
    headed = _is_heading(first, opening[1][1] if len(opening) > 1 else [], field)
    names = [name.strip() for name in first]
    for number, row in chain(opening[headed:], rows):
        yield number, dict(zip(names, row, strict=False)) if headed else _nameless(row, field)


def _rows(lines: Iterator[str], tabs: bool) -> Iterator[tuple[int, list[str]]]:
    first = next(lines, "")
    told = _SEPARATOR.fullmatch(first)  # as Excel writes and reads it
    first = next(lines, "") if told else first
    separator = "\t" if tabs else told[1] if told else max(",;\t|", key=first.count)

    def all_lines() -> Iterator[str]:
        yield first
        yield from lines

    csv.field_size_limit(RECORD_BYTES)
    reader = csv.reader(all_lines(), delimiter=separator, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
    try:
        for row in reader:
            joined = "".join(row)
            if joined and not joined.isspace():
                yield reader.line_num + bool(told), row
    except csv.Error as error:
        raise Unreadable(NOT_TABLE, f"line {reader.line_num}: {error}") from error


def _is_heading(first: list[str], second: list[str], field: str | None) -> bool:
    """Names in the first row: a known one, or names only while the second row has more than names."""
    names = [cell.strip() for cell in first]
    if field in names or any(name.lower() in KNOWN for name in names):
        return True
    return len(names) > 1 and all(map(_NAME.fullmatch, names)) and not all(map(_NAME.fullmatch, second))


def _nameless(row: list[str], field: str | None) -> Any:
    """A row of a table without a heading: its columns have numbers where one is asked for."""
    if field is not None:
        return {str(number): cell for number, cell in enumerate(row, 1)}
    return "\t".join([cell for cell in row if any(map(str.isalpha, cell))])


def parquet(stream: IO[bytes], field: str | None) -> Iterator[Record]:
    """The rows of a Parquet file, from the columns that can be or hold text; one row group in memory at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data", "reading .parquet files") from None
    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(seekable(stream), memory_map=False, pre_buffer=False)
        columns = _text_columns(file.schema_arrow, field)
        paths = [file.schema.column(place).path for place in range(len(file.schema))]
        columns = [_light(name, paths) if name.lower() in BESIDE else name for name in columns]
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
            values = [_values(column) for column in batch.columns]
            for number, row in enumerate(zip(*values, strict=True), number + 1):  # noqa: B020
                yield number, dict(zip(batch.schema.names, row, strict=True))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Unreadable(DAMAGED, str(error).partition("\n")[0]) from error


def _light(name: str, paths: list[str]) -> str:
    """The part of a column of pictures that says where each was, for it is enough that one is there; else the whole."""
    return next((path for path in paths if path.startswith(f"{name}.") and path.endswith(".path")), name)


def _values(column: Any) -> Any:
    """A column as a list of Python objects; strings, which most are, in one go."""
    import pyarrow.types as types

    if types.is_string(column.type) or types.is_large_string(column.type):
        return column.to_numpy(zero_copy_only=False).tolist()
    values = column.to_pylist()
    return list(map(_decoded, values)) if _is_binary(column.type) else values


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _decoded(value: bytes | None) -> str | None:
    """The text in a cell of bytes, as writers leave it that do not say what is a string; None where it is no text."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _text_columns(schema: Any, field: str | None) -> list[str]:
    """The columns to read: the one asked for, or those of usual names, or all that can hold text.

    With those of usual names come those that decide about them.
    """
    import pyarrow.types as types

    def textual(kind: Any) -> bool:
        if types.is_list(kind) or types.is_large_list(kind):
            return textual(kind.value_type)
        if types.is_dictionary(kind):
            return textual(kind.value_type)
        return bool(
            types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_struct(kind)
        )

    if field is not None:
        return [name for name in schema.names if name == field or field.startswith(f"{name}.")]
    likely = [
        name
        for name, kind in zip(schema.names, schema.types, strict=True)
        if textual(kind) or (_is_binary(kind) and name.lower() in TEXTS)
    ]
    usual = {*TEXTS, *CONVERSATIONS, *ASKED, *ANSWERED, *(name for more, _ in ASKED.values() for name in more)}
    usual |= set(exchange_names([name.lower() for name in schema.names]))
    beside = {*BESIDE, *(ROW if TREE in schema.names else ())}
    if any(name.lower() in CHOICES for name in likely):
        beside |= {*CHOICES, "answer"}  # which is then a number
    if SUMMARIES in schema.names:
        return [name for name in schema.names if name in SUMMED_UP]
    compared = pair_of(schema.names) is not None
    if not compared and not any(name.lower() in usual for name in likely):
        return likely
    return [
        name
        for name in schema.names
        if name.lower() in beside or (compared and decides(name)) or (name.lower() in usual and name in likely)
    ]
