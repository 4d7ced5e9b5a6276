"""Parts to one folder of tokens: what only the whole corpus can tell is decided, and documents are written in order.

The result does not depend on how many parts there were: it is the folder that `write_shards` makes of the same
documents, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from chatsmith.errors import RequestError
from chatsmith.text.clean import WINDOW, Deduplicator
from chatsmith.text.documents import Document
from chatsmith.text.encode_documents import encode_documents
from chatsmith.text.held_out import HeldOutSplit
from chatsmith.text.overlap import GramCounts, TestGrams, pieces_without
from chatsmith.text.parts import RECORD, Part
from chatsmith.text.report import OverlapReport, ReadReport
from chatsmith.text.shard_manifest import Manifest, read_manifest
from chatsmith.text.shard_writer import SHARD_TOKENS, new_corpus
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.units import Unit, joined, sided, strings, unit

_LISTED_MISSING = 8
_JUDGED = ("lengths", "keys", "rest", "sketched", "tops", "bands", "overlaps", "grams")


@dataclass(slots=True)
class MergeReport:
    """What was read in all parts, what was dropped, and the folder that came of it."""

    manifest: Manifest
    parts: int
    read: ReadReport

    def to_json(self) -> dict[str, Any]:
        """The report as a mapping of JSON values."""
        counts = {name: getattr(self.manifest, name) for name in ("documents", "tokens", "bytes", "fingerprint")}
        return {"parts": self.parts, "written": counts, "read": self.read.to_json()}

    def __rich__(self) -> RenderableType:
        table = Table(title="What was written", title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, split in self.manifest.splits.items():
            documents = f"{split.documents:,} document{'' if split.documents == 1 else 's'}"
            table.add_row(name.replace("_", " "), f"{documents}, {split.tokens:,} tokens")
        table.add_row("fingerprint", self.manifest.fingerprint[:16])
        return Group(self.read, table)


def find_parts(folders: Iterable[str | os.PathLike[str]]) -> list[Part]:
    """All parts of one corpus, in order, from their folders or from folders that hold them.

    Raises `RequestError` where some are missing, twice there, or of different corpora, and `WorkError` naming the one
    that is damaged.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        below = [] if (folder / RECORD).is_file() else sorted(folder.glob("part-*"))
        found += below or [folder]
    parts = sorted((Part(folder) for folder in found), key=lambda part: part.record.number)
    if not parts:
        raise RequestError("no part was named", "name the folder that data shard wrote to")
    first = parts[0]
    for part in parts[1:]:
        if part.record.of != first.record.of:
            raise RequestError(
                f"{part.folder} and {first.folder} are parts of different corpora, or were made with other settings",
                "make all parts by one command that differs in --part alone",
            )
    count = first.record.parts
    numbers = [part.record.number for part in parts]
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if missing:
        names = ", ".join(f"{number}/{count}" for number in missing[:_LISTED_MISSING])
        more = f" and {len(missing) - _LISTED_MISSING} more" if len(missing) > _LISTED_MISSING else ""
        raise RequestError(
            f"parts are missing: {names}{more}", f"make each: chatsmith data shard … --part {missing[0]}/{count}"
        )
    for part, other in pairwise(parts):
        if part.record.number == other.record.number:
            raise RequestError(f"{part.folder} and {other.folder} are the same part", "name only one of them")
    return parts


def merge(
    folders: Iterable[str | os.PathLike[str]],
    out: Path,
    *,
    held_out: float = 0.01,
    window: int = WINDOW,
    overwrite: bool = False,
    shard_tokens: int = SHARD_TOKENS,
    onto: ReadReport | None = None,
) -> MergeReport:
    """Write the documents of all parts of a corpus to a new folder of tokens, with the vocabulary beside them.

    Duplicates are looked for as `Deduplicator` says, among `window` kept documents at least, in the order of the
    whole corpus. Every part is compared with its checksums before anything is written. The counts are added to the
    report `onto`, if there is one.
    Raises `RequestError` and `WorkError` as `find_parts` and `write_shards` do.
    """
    if window < 1:
        raise RequestError(
            f"a window of {window} documents leaves nothing to compare with", "for example --window 1000000"
        )
    parts = find_parts(folders)
    tokenizer, report = parts[0].tokenizer, ReadReport() if onto is None else onto
    split: HeldOutSplit[tuple[Unit, int]] = HeldOutSplit(held_out, parts[0].record.settings.seed)
    with new_corpus(Path(out), tokenizer, split, overwrite=overwrite, shard_tokens=shard_tokens) as corpus:
        for part in parts:
            part.verify()
            part.tell(report)
        kept, grams = _judge(parts, window, report)
        units = _kept_units(parts, kept, grams, tokenizer, report)
        for documents, sources, held in sided(units, split, tokenizer):
            corpus.append(documents, sources, held)
        tokenizer.save(corpus.files.path)
    return MergeReport(read_manifest(Path(out)), len(parts), report)


def _judge(parts: Sequence[Part], window: int, report: ReadReport) -> tuple[list[np.ndarray], TestGrams | None]:
    """Which documents of each part are kept (bool), and which n-grams of tests are cut out of them."""
    duplicates = parts[0].record.settings.duplicates
    judge = None if duplicates == "keep" else Deduplicator(near=duplicates == "near", window=window)
    counts = GramCounts()
    kept: list[np.ndarray] = []
    for part in parts:
        own = [np.zeros(0, bool)]
        for block in part.units(_JUDGED):
            new = np.ones(len(block), bool) if judge is None else judge.judge_signed(block.signatures)
            own.append(new)
            counts.add(block["grams"][np.repeat(new, block["overlaps"])])
        kept.append(np.concatenate(own))
    grams = parts[0].grams
    if grams is not None:
        grams, report.overlap = counts.uncommon(grams)
    if judge is not None:
        report.exact_duplicates += judge.exact_duplicates
        report.near_duplicates, report.forgetful = judge.near_duplicates, judge.forgetful
    return kept, grams


def _kept_units(
    parts: Sequence[Part], kept: list[np.ndarray], grams: TestGrams | None, tokenizer: Tokenizer, report: ReadReport
) -> Iterator[Unit]:
    """The documents that are kept, in order, cleaned of what is the tests'; the report counts them."""
    for part, own in zip(parts, kept, strict=True):
        first = 0
        for block in part.units():
            left = block.chosen(own[first : first + len(block)])
            first += len(block)
            if grams is not None and report.overlap is not None and len(left["grams"]):
                left = _cleaned(left, grams, report.overlap, tokenizer)
            count_kept(left, report)
            yield left


def count_kept(unit: Unit, report: ReadReport) -> None:
    """Count documents that are kept."""
    report.documents += len(unit)
    report.conversations += int(unit["talks"].sum(dtype=np.int64))
    report.characters += int(unit["characters"].sum())
    report.bytes += int(unit["bytes"].sum())


def _cleaned(block: Unit, grams: TestGrams, overlap: OverlapReport, tokenizer: Tokenizer) -> Unit:
    """Documents without n-grams of tests: the pieces that are left take the place of a text.

    A conversation with any of them is dropped, as in `overlap.cleaned`. Pieces go to the side of the
    held-out split that their document was for.
    """
    hit = np.isin(block["grams"], grams.hashes)
    rows = np.repeat(np.arange(len(block)), block["overlaps"])
    touched = np.unique(rows[hit])
    if not len(touched):
        return block
    texts = strings(block["text"], block["text_lengths"])
    made: list[Unit] = []
    begin = 0
    for row in touched.tolist():
        made.append(block.taken(np.arange(begin, row)))
        begin = row + 1
        pieces = [] if block["talks"][row] else pieces_without(texts[row], grams)
        overlap.count(texts[row], pieces)
        if pieces:
            source = block.taken(np.array([row])).sources[0]
            made.append(_unit_of(pieces, source, float(block["fractions"][row]), tokenizer))
    made.append(block.taken(np.arange(begin, len(block))))
    return joined(made)


def _unit_of(pieces: Sequence[str], source: str, fraction: float, tokenizer: Tokenizer) -> Unit:
    documents = [Document(piece, source) for piece in pieces]
    encoded = encode_documents(tokenizer, documents, lambda texts: tokenizer.encode_row(texts, 1))
    columns = {
        "characters": np.array([len(piece) for piece in pieces], np.int64),
        "bytes": np.array([len(piece.encode()) for piece in pieces], np.int64),
        "fractions": np.full(len(pieces), fraction),
    }
    return unit(encoded.closed(tokenizer.end_of_text, np.ones(len(pieces), bool)), [source] * len(pieces), columns)
