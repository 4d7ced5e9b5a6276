"""From files to a folder of tokens on one machine, by whichever way keeps its cores busy; all ways write the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from chatsmith.text.clean import Deduplicator
from chatsmith.text.documents import read_documents
from chatsmith.text.held_out import HeldOutSplit
from chatsmith.text.merge import count_kept, merge
from chatsmith.text.nothing_found import nothing_found
from chatsmith.text.overlap import TestGrams
from chatsmith.text.parts import files_of, write_part
from chatsmith.text.read_pool import is_even, read_units
from chatsmith.text.report import ReadReport
from chatsmith.text.shard_manifest import Manifest, read_manifest
from chatsmith.text.shard_writer import new_corpus, write_shards
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.unit_reader import Reading, ReadSettings
from chatsmith.text.units import Unit, sided
from chatsmith.text.walk import existing


def write_corpus(
    paths: Iterable[str | os.PathLike[str]],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    report: ReadReport,
    field: str | None = None,
    duplicates: Literal["keep", "exact", "near"] = "near",
    clean_of: Sequence[str | os.PathLike[str]] = (),
    held_out: float = 0.01,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
    leave_out: Path | None = None,
) -> Manifest:
    """Read documents as `read_documents` does and write their tokens as `write_shards` does, on all cores.

    With `clean_of`, text of the tests in these files is cut out (`overlap`); the report says what. It takes the disk
    twice, since the whole corpus must be known before anything is cut. Raises what those two raise.
    """
    folder = Path(folder)
    found = existing(paths)
    settings = ReadSettings(field, duplicates, seed=seed)
    if clean_of:
        reading = Reading(tokenizer, settings, TestGrams.read(clean_of))
        place = folder.parent / f".{folder.name}.parts"
        try:
            write_part(found, reading, place, overwrite=True, threads=threads, leave_out=leave_out)
            merged = merge([place], folder, held_out=held_out, overwrite=overwrite, onto=report)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return merged.manifest
    walked = ReadReport()
    files = files_of(found, walked, leave_out=leave_out)
    if not is_even(files, threads):
        documents = read_documents(found, report=report, field=field, duplicates=duplicates, leave_out=leave_out)
        return write_shards(
            documents,
            tokenizer,
            folder,
            held_out=held_out,
            seed=seed,
            overwrite=overwrite,
            threads=threads,
        )
    report.add(walked.to_json())
    split: HeldOutSplit[tuple[Unit, int]] = HeldOutSplit(held_out, seed)
    units = _new_units(read_units(Reading(tokenizer, settings), files, report, threads), duplicates, report)
    with new_corpus(folder, tokenizer, split, overwrite=overwrite) as corpus:
        for encoded, sources, held in sided(units, split, tokenizer):
            corpus.append(encoded, sources, held)
        if not corpus.documents:
            raise nothing_found(found, report)
    return read_manifest(folder)


def _new_units(units: Iterator[Unit], duplicates: str, report: ReadReport) -> Iterator[Unit]:
    """What did not come before; the report counts it."""
    judge = None if duplicates == "keep" else Deduplicator(near=duplicates == "near")
    for unit in units:
        new = unit if judge is None else unit.chosen(judge.judge_signed(unit.signatures))
        count_kept(new, report)
        yield new
    if judge is not None:
        report.exact_duplicates += judge.exact_duplicates
        report.near_duplicates, report.forgetful = judge.near_duplicates, judge.forgetful
