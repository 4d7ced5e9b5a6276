"""A part of a corpus, read and encoded by itself: the same bytes for the same files and settings, wherever it is made.

parts/part-00003-of-00064/
  part.json          settings, what the whole corpus is, what was read, and a checksum for every file; written last
  COLUMN             one file for each of `units.COLUMNS`: the documents in order
  tokenizer.json, …  the vocabulary

What only the whole corpus can tell is left to `merge`: which documents are near duplicates, which n-grams of tests are
too common to count, and whether both sides of the held-out split have something.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.settings import from_mapping, to_mapping
from chatsmith.text.clean import Deduplicator
from chatsmith.text.new_folder import NewFolder, write_folder
from chatsmith.text.overlap import TestGrams
from chatsmith.text.quality import QualityFilter
from chatsmith.text.read_pool import read_units, weight
from chatsmith.text.report import ReadReport
from chatsmith.text.shard_manifest import FileRecord, token_dtype
from chatsmith.text.shard_writer import telling_of_the_disk
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.unit_reader import GRAMS, QUALITY, Reading, ReadSettings
from chatsmith.text.units import COLUMNS, Unit
from chatsmith.text.walk import existing, walk

RECORD = "part.json"
FORMAT = "chatsmith part"
VERSION = 1
MOST_PARTS = 100_000

_PART = re.compile("([0-9]{1,6})/([0-9]{1,6})")
_MAX_RECORD_BYTES = 64 << 20
_VOCABULARY = ("tokenizer.json", "tokenizer_config.json")
_BLOCK_DOCUMENTS = 2**13
_BLOCK_TOKENS = 2**21


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What is known of a part without reading it.

    `number` counts from 1 to `parts`; `inputs` (SHA-256) stands for the names and sizes of the files of all parts,
    `first` and `last` are the ends of this part's own. `documents` and `tokens` count what it holds, in `files`.
    """

    format: str
    version: int
    number: int
    parts: int
    settings: ReadSettings
    tokenizer: str
    vocab_size: int
    grams: str
    quality: str
    inputs: str
    first: str
    last: str
    documents: int
    tokens: int
    report: dict[str, Any]
    files: dict[str, FileRecord]

    @property
    def of(self) -> tuple[Any, ...]:
        """What must be equal in all parts of a corpus."""
        return self.parts, self.settings, self.tokenizer, self.grams, self.quality, self.inputs


def part_name(number: int, parts: int) -> str:
    """The name of a part's folder."""
    return f"part-{number:05d}-of-{parts:05d}"


def parse_part(text: str) -> tuple[int, int]:
    """The numbers in "3/64"; `RequestError` for others."""
    found = _PART.fullmatch(text)
    if found is None:
        raise RequestError(f"{text!r} is not a part", "write for example --part 3/64, and --part 1/1 for the whole")
    number, parts = int(found[1]), int(found[2])
    if not 1 <= number <= parts <= MOST_PARTS:
        most = min(max(parts, 1), MOST_PARTS)
        raise RequestError(f"there is no part {text}", f"parts count from 1/{most} to {most}/{most}")
    return number, parts


Files = Sequence[tuple[Path, int]]


def files_of(
    paths: Iterable[str | os.PathLike[str]], report: ReadReport, hidden: bool = False, leave_out: Path | None = None
) -> Files:
    """All files to read, in their one order, with their sizes in bytes; see `walk`."""
    return [(file, file.stat().st_size) for file in walk(existing(paths), report, hidden, leave_out)]


def files_of_part(files: Files, number: int, parts: int) -> Files:
    """The files of one of the parts: neighbours, about as much text in each; a file is never cut.

    A file belongs to the part in whose share of the whole its middle lies.
    """
    weights = np.array([max(weight(*file), 1) for file in files], np.float64)
    middles = (np.cumsum(weights) - weights / 2) / max(weights.sum(), 1)
    mine = np.floor(middles * parts).astype(np.int64) == number - 1
    return [file for file, own in zip(files, mine.tolist(), strict=True) if own]


def shard(
    paths: Sequence[str | os.PathLike[str]],
    tokenizer: str | os.PathLike[str],
    out: str | os.PathLike[str],
    part: str = "1/1",
    *,
    clean_of: Sequence[str | os.PathLike[str]] = (),
    quality: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    processes: int | None = None,
    **settings: Any,
) -> tuple[PartRecord, bool]:
    """`write_part` by names alone, so that any scheduler can call it anywhere: what `chatsmith data shard` does.

    `tokenizer` is a folder with a vocabulary, `clean_of` files of tests, `quality` a file with a filter, and `settings`
    those of `ReadSettings`.
    """
    number, parts = parse_part(part)
    grams = TestGrams.read(clean_of) if clean_of else None
    good = None if quality is None else QualityFilter.read(Path(quality))
    reading = Reading(Tokenizer.load(Path(tokenizer)), from_mapping(ReadSettings, settings), grams, good)
    return write_part(paths, reading, Path(out), number, parts, overwrite=overwrite, threads=processes)


def write_part(
    paths: Iterable[str | os.PathLike[str]],
    reading: Reading,
    out: Path,
    number: int = 1,
    parts: int = 1,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    leave_out: Path | None = None,
) -> tuple[PartRecord, bool]:
    """Read part `number` of `parts` of the files and folders into a folder below `out`; its record, and if it is new.

    A pure function: the bytes written follow from the files' names and contents and from `reading` alone. The folder
    appears under its name only when it is whole. A part that is there already, made of the same files with the same
    settings, and newer than they are, is left as it is. `out`, or `leave_out`, is passed over where it lies among them.
    Raises `RequestError` where something else is in its place.
    """
    report = ReadReport()
    everything = files_of(paths, report, reading.settings.hidden, leave_out or Path(out))
    if number > 1:  # what the walk passed over is told once
        report = ReadReport()
    files = files_of_part(everything, number, parts)
    wanted = _wanted(everything, files, reading, number, parts)
    folder = Path(out) / part_name(number, parts)
    if not overwrite and (folder / RECORD).is_file():
        return _already(folder, wanted, files), False
    try:
        with telling_of_the_disk(folder), write_folder(folder, overwrite, RECORD) as new:
            documents, tokens = _write_columns(new, reading, files, report, threads)
            reading.tokenizer.save(new.path)
            for name in _VOCABULARY:
                if (new.path / name).exists():
                    new.records[name] = _record(new.path / name)
            for name, data in reading.files().items():
                new.write(name, data)
            records = dict(sorted(new.records.items()))
            record = replace(wanted, documents=documents, tokens=tokens, report=report.to_json(), files=records)
            new.write(RECORD, (json.dumps(to_mapping(record), indent=1) + "\n").encode())
    except (RequestError, WorkError):
        if overwrite or not (folder / RECORD).is_file():
            raise
        return _already(folder, wanted, files), False  # another process, told to make it as well, was faster
    return record, True


def _wanted(everything: Files, files: Files, reading: Reading, number: int, parts: int) -> PartRecord:
    """The record of a part before anything is read."""
    names = [f"{len(os.fsencode(file))} {os.fsdecode(file)} {size}" for file, size in everything]
    return PartRecord(
        format=FORMAT,
        version=VERSION,
        number=number,
        parts=parts,
        settings=reading.settings,
        tokenizer=reading.tokenizer.fingerprint,
        vocab_size=reading.tokenizer.vocab_size,
        grams="" if reading.grams is None else reading.grams.fingerprint,
        quality="" if reading.quality is None else reading.quality.fingerprint,
        inputs=hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
        first=str(files[0][0]) if files else "",
        last=str(files[-1][0]) if files else "",
        documents=0,
        tokens=0,
        report={},
        files={},
    )


def _write_columns(
    new: NewFolder, reading: Reading, files: Files, report: ReadReport, threads: int | None
) -> tuple[int, int]:
    """Write the documents of files, without exact duplicates among them; how many there are, and their tokens."""
    columns = {name: new.create(name) for name in COLUMNS}
    documents = tokens = 0
    before = None if reading.settings.duplicates == "keep" else Deduplicator(near=False)
    for unit in read_units(reading, files, report, threads):
        kept = unit if before is None else unit.chosen(before.judge_signed(unit.signatures))
        documents += len(kept)
        tokens += len(kept["ids"])
        for name, file in columns.items():
            file.write(kept[name].astype(_dtype(name, reading.tokenizer.vocab_size), copy=False))
    for file in columns.values():
        new.close(file)
    report.exact_duplicates += 0 if before is None else before.exact_duplicates
    return documents, tokens


def _dtype(name: str, vocab_size: int) -> np.dtype:
    """How a column lies on disk: ids as narrow as the vocabulary allows."""
    return np.dtype(token_dtype(vocab_size) if name == "ids" else COLUMNS[name].dtype).newbyteorder("<")


def _record(path: Path) -> FileRecord:
    with open(path, "rb") as file:
        return FileRecord(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _already(folder: Path, wanted: PartRecord, files: Files) -> PartRecord:
    """The record of a part that is there and is the one that is wanted."""
    found = Part(folder).record
    if (found.number, found.of) != (wanted.number, wanted.of):
        raise RequestError(
            f"{folder} was made from other files or with other settings",
            "name another folder, or ask to overwrite this part",
        )
    made = (folder / RECORD).stat().st_mtime_ns
    changed = next((file for file, _ in files if file.stat().st_mtime_ns > made), None)
    if changed is not None:
        raise RequestError(f"{folder} is older than {changed}", "ask to overwrite this part")
    return found


class Part:
    """A part on disk. Raises `RequestError` where there is none, `WorkError` where it is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.record = self._read_record()
        for name, record in self.record.files.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != record.size:
                raise self.damaged(f"{name} is not {record.size:,} bytes long")

    def damaged(self, why: str) -> WorkError:
        """The error that names this part and how to make it again."""
        again = "make it again: the same chatsmith data shard with --overwrite"
        return WorkError(f"the part {self.folder} is damaged: {why}", again)

    def _read_record(self) -> PartRecord:
        path = self.folder / RECORD
        if not path.is_file():
            raise RequestError(
                f"{self.folder} is not a part of a corpus: it has no {RECORD}", "name what data shard made"
            )
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise self.damaged(f"{RECORD} is far too large")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw.get("format") != FORMAT or raw.get("version") != VERSION:
                raise RequestError(f"{path} is not a part that this chatsmith reads")
            record = from_mapping(PartRecord, raw, str(path))
        except (ValueError, RecursionError, AttributeError) as error:
            raise self.damaged(f"{RECORD} is not what was written ({error})") from None
        known = {*COLUMNS, *_VOCABULARY, GRAMS, QUALITY}
        if (
            not set(COLUMNS) <= set(record.files) <= known
            or not 1 <= record.number <= record.parts <= MOST_PARTS
            or record.vocab_size < 1
        ):
            raise self.damaged(f"{RECORD} contradicts itself")
        return record

    def verify(self) -> None:
        """Compare every file with its checksum."""
        for name, record in self.record.files.items():
            if _record(self.folder / name) != record:
                raise self.damaged(f"the contents of {name} are not those that were written")

    def tell(self, report: ReadReport) -> None:
        """Add what was read for this part."""
        try:
            report.add(self.record.report)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise self.damaged(f"the report in {RECORD} is not what was written") from None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary."""
        return Tokenizer.load(self.folder)

    @cached_property
    def grams(self) -> TestGrams | None:
        """The n-grams of the tests that are to be kept out."""
        path = self.folder / GRAMS
        return TestGrams.load(path.read_bytes()) if GRAMS in self.record.files else None

    def units(self, names: Sequence[str] = tuple(COLUMNS)) -> Iterator[Unit]:
        """The documents in blocks of bounded size; of `names`, and the columns that they are counted by."""
        wanted = {*names, "lengths", *filter(None, (COLUMNS[name].counts for name in names))}
        maps = {name: self._map(name) for name in COLUMNS if name in wanted}
        at = dict.fromkeys(maps, 0)
        ends = np.cumsum(maps["lengths"])
        first = 0
        while first < len(ends):
            begin = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, begin + _BLOCK_TOKENS, "right")), first + 1)
            last = min(last, first + _BLOCK_DOCUMENTS, len(ends))
            block: dict[str, np.ndarray] = {}
            for name, rows in maps.items():
                counts = COLUMNS[name].counts
                count = int(block[counts].sum(dtype=np.int64)) if counts else last - first
                block[name] = np.array(rows[at[name] : at[name] + count])
                if len(block[name]) != count:
                    raise self.damaged(f"{name} ends too early")
                at[name] += count
            if "ids" in block:
                block["ids"] = block["ids"].astype(np.uint32)
                if int(block["ids"].max(initial=0)) >= self.record.vocab_size:
                    raise self.damaged("some ids are outside its vocabulary")
            yield Unit(block)
            first = last

    def _map(self, name: str) -> np.ndarray:
        column = COLUMNS[name]
        size, dtype = self.record.files[name].size, _dtype(name, self.record.vocab_size)
        if not size:
            rows = np.zeros(0, dtype)
        else:
            rows = np.memmap(self.folder / name, np.dtype("u1"), "r").view(np.ndarray)
            rows = rows[: size - size % dtype.itemsize].view(dtype)
        if len(rows) % column.width:
            raise self.damaged(f"{name} ends within a row")
        if not column.counts and len(rows) != self.record.documents:
            raise self.damaged(f"{name} has {len(rows):,} rows for {self.record.documents:,} documents")
        if not column.counts and np.issubdtype(rows.dtype, np.signedinteger) and len(rows) and int(rows.min()) < 0:
            raise self.damaged(f"{name} has a negative count")
        return rows.reshape(-1, column.width) if column.width > 1 else rows
