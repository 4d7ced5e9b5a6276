"""Files to units on all cores: each process reads, cleans, signs and encodes some files by itself.

What comes out is in the order of the files, and the same however many processes there are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from chatsmith.errors import WorkError
from chatsmith.machine import usable_cores
from chatsmith.settings import to_mapping
from chatsmith.text.encode_pool import pipelined
from chatsmith.text.formats import format_of
from chatsmith.text.report import ReadReport
from chatsmith.text.unit_reader import Reading, batches
from chatsmith.text.units import Unit
from chatsmith.text.workers import Workers, receive, send

MOST_READERS = 32
"""Processes that read: the one that collects what they give keeps no more busy."""

_JOB_BYTES = 8 << 20
_JOB_FILES = 256
_AHEAD_BYTES = 128 << 20  # of units that wait for those of earlier files
_ALONE_BYTES = 16 << 20  # read here in about the time that processes take to start
_FEEDING = 0.6  # the share of all CPU time that one process has when it reads and others encode (bench/read.py)
_PACKED = 4  # how much more text a compressed file holds than its size says


@dataclass(slots=True)
class _Job:
    """Some files, and what has been made of them so far."""

    files: list[str]
    units: deque[Unit] = field(default_factory=deque)
    done: bool = False
    report: dict[str, Any] = field(default_factory=dict)


def weight(file: Path, size: int) -> int:
    """About how many bytes of text a file of `size` bytes holds."""
    form = format_of(file.name)
    return size * _PACKED if form is not None and form.compression else size


def read_units(
    reading: Reading, files: Sequence[tuple[Path, int]], report: ReadReport, threads: int | None = None
) -> Iterator[Unit]:
    """The units of files, given with their sizes in bytes, made by as many processes as are worth starting.

    Files of like size are read side by side; a few large ones are read here, and only encoded by others.
    Raises `WorkError` where a process dies.
    """
    if not is_even(files, threads):
        yield from _read_here(reading, [file for file, _ in files], report, threads)
        return
    jobs = list(_jobs(files))
    pool = _ReadPool(reading, jobs, min(threads or usable_cores(), MOST_READERS, len(jobs)), report)
    try:
        yield from pool.units()
    finally:
        pool.stop()


def _read_here(reading: Reading, files: Sequence[Path], report: ReadReport, threads: int | None) -> Iterator[Unit]:
    # No unit knows another while several are made at once, so exact duplicates are left to who takes them.
    make = partial(reading.unit, before=None)
    yield from pipelined(batches(reading.documents(files, report)), make, reading.tokenizer, threads)


def is_even(files: Sequence[tuple[Path, int]], threads: int | None = None) -> bool:
    """Whether files are read sooner side by side than by one process that feeds others.

    Side by side they take at most the work divided by the processes, and all but that share of the largest file once
    more (Graham 1969, "Bounds on multiprocessing timing anomalies").
    """
    weights = [weight(*file) for file in files] or [0]
    total, workers = sum(weights), min(threads or usable_cores(), MOST_READERS, len(weights))
    return total >= _ALONE_BYTES and total / workers + (1 - 1 / workers) * max(weights) <= _FEEDING * total


def _jobs(files: Sequence[tuple[Path, int]]) -> Iterator[_Job]:
    """Files in portions that are worth asking for."""
    portion: list[str] = []
    total = 0
    for file, size in files:
        portion.append(str(file))
        total += weight(file, size)
        if total >= _JOB_BYTES or len(portion) >= _JOB_FILES:
            yield _Job(portion)
            portion, total = [], 0
    if portion:
        yield _Job(portion)


class _ReadPool:
    """A thread for each process asks for the next files and takes what comes, up to a bound of what must wait."""

    def __init__(self, reading: Reading, jobs: list[_Job], workers: int, report: ReadReport) -> None:
        self._reading, self._jobs, self._report = reading, jobs, report
        self._changed = threading.Condition()
        self._next = self._current = self._waiting = 0
        self._failed = self._stopped = False
        self._workers = Workers("chatsmith.text.unit_reader", workers, reading.tokenizer, reading.files())
        self._threads = [threading.Thread(target=self._serve, args=(number,)) for number in range(workers)]
        for thread in self._threads:
            thread.start()

    def units(self) -> Iterator[Unit]:
        """Everything, in order."""
        for number, job in enumerate(self._jobs):
            with self._changed:
                self._current = number
                self._changed.notify_all()
            while (unit := self._take(job)) is not None:
                yield unit
            self._report.add(job.report)

    def stop(self) -> None:
        """End the processes and the threads, whether all is read or not."""
        with self._changed:
            finished = self._current == len(self._jobs) - 1 and self._jobs[-1].done
            self._stopped = True
            self._changed.notify_all()
        self._workers.end(kill=not finished)
        for thread in self._threads:
            thread.join()

    def _take(self, job: _Job) -> Unit | None:
        with self._changed:
            while not job.units and not job.done:
                if self._failed:
                    raise WorkError(
                        "a process that read documents ended before its work was done",
                        "it may have run out of memory; try again, or with fewer processes at a time",
                    )
                self._changed.wait()
            if not job.units:
                return None
            unit = job.units.popleft()
            self._waiting -= unit.nbytes
            self._changed.notify_all()
            return unit

    def _serve(self, number: int) -> None:
        worker = self._workers.running[number]
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            send(worker.stdin, to_mapping(self._reading.settings))
            while (place := self._claim()) is not None:
                job = self._jobs[place]
                send(worker.stdin, job.files)
                while (answer := receive(worker.stdout)) is not None and answer[0] is None:
                    if not self._put(place, Unit(answer[1])):
                        return
                if answer is None:
                    raise EOFError
                with self._changed:
                    job.report = answer[0]
                    job.done = True
                    self._changed.notify_all()
        except (OSError, EOFError, ValueError):
            with suppress(RuntimeError), self._changed:
                self._failed = True
                self._changed.notify_all()

    def _claim(self) -> int | None:
        """The next files to read, if there are more."""
        with self._changed:
            if self._stopped or self._next == len(self._jobs):
                return None
            self._next += 1
            return self._next - 1

    def _put(self, place: int, unit: Unit) -> bool:
        """Keep a unit until its turn; those of the files whose turn it is may always come. False after the end."""
        with self._changed:
            while place != self._current and self._waiting > _AHEAD_BYTES and not self._stopped:
                self._changed.wait()
            self._jobs[place].units.append(unit)
            self._waiting += unit.nbytes
            self._changed.notify_all()
            return not self._stopped
