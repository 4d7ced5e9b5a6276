"""Several processes of this machine, started by torchrun's own launcher and anew where one dies."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from chatsmith.errors import RequestError, WorkError
from chatsmith.plan.emit import RESTARTS as MOST_RESTARTS
from chatsmith.train.parallel.process import LAUNCH, LAUNCHER, RESTARTS, OutOfTouch
from chatsmith.train.parallel.telling import reports, taken

_SAVING_SECONDS = "600"
_TORCHRUN_LOGS = (
    "torch.distributed.elastic.multiprocessing.api",
    "torch.distributed.elastic.agent.server.api",
)
_STOPPED = 128  # exit codes from here on are those of runs that a signal ended as asked


def launch(
    words: Sequence[str],
    processes: int,
    restarts: int = MOST_RESTARTS,
    note: Callable[[str], None] = lambda text: None,
    tell: Callable[[str, str | None], None] = lambda message, hint: None,
) -> int:
    """Run `python words` in so many processes; returns the exit code that all of it comes to.

    torchrun starts anew whatever failed, and then shows a page of its own code. Here what would fail again ends all at
    once: a wrong request, work of which a process said why it failed (a loss that is no number, a full disk), and a run
    that was told to stop. `note` is told of every new start and of a stop, and `tell` what was wrong and the hint,
    once, whether one process says it or all. Raises `WorkError` where processes were killed, or lost touch, once more
    than there are `restarts`.
    """
    before = dict(os.environ)  # which torchrun hands on to its workers, and which is the caller's again afterwards
    try:
        with reports() as folder:
            return _launch(words, processes, restarts, note, tell, folder)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _launch(
    words: Sequence[str],
    processes: int,
    restarts: int,
    note: Callable[[str], None],
    tell: Callable[[str, str | None], None],
    folder: Path,
) -> int:
    start = ["--standalone", f"--nproc-per-node={processes}", "--max-restarts=0", *words]
    os.environ[LAUNCH], os.environ[LAUNCHER] = secrets.token_hex(8), str(os.getpid())
    for name in _TORCHRUN_LOGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what ended a process is told in words here
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SAVING_SECONDS)  # to end the step and save it
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun sets it with a warning; the recipe says how many train
    sys.stdout.flush()
    for attempt in range(restarts + 1):
        os.environ[RESTARTS] = str(attempt)
        try:
            torchrun.run(torchrun.parse_args(start))
            return 0
        except SignalException as stop:
            _told(folder, note, tell)
            return 128 + stop.sigval
        except ChildFailedError as error:
            lost, said = _told(folder, note, tell)
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            if RequestError.exit_code in codes.values():
                return RequestError.exit_code
            # Of a process that was killed the others may say all kinds of things.
            if WorkError.exit_code in codes.values() and not any(map(_killed, codes.values())):
                if not said:
                    rank = next(rank for rank, code in codes.items() if code == WorkError.exit_code)
                    tell(f"process {rank} of {processes} failed and did not say why", "what it wrote stands above")
                return WorkError.exit_code
            if min(codes.values()) >= _STOPPED:
                return max(codes.values())
            ended = _ended(codes, processes)
            if attempt < restarts:
                what = ended or lost or "processes lost touch"
                note(f"{what}; starting all anew ({attempt + 1} of {restarts} times)")
    if ended is None:
        raise WorkError(f"{lost or 'processes lost touch'}, {restarts + 1} times in all", "resume the run")
    raise WorkError(
        f"{ended}, {restarts + 1} times in all",
        "where memory ran out, a smaller batch.micro_batch or parallel.shard needs less; then resume the run",
    )


def _told(
    folder: Path, note: Callable[[str], None], tell: Callable[[str, str | None], None]
) -> tuple[str | None, bool]:
    """Tell what the processes report, and note that they were stopped; returns what one says that only lost touch,
    which is not told, and whether anything was."""
    lost: str | None = None
    said = False
    for found in taken(folder):
        if found.exit_code == OutOfTouch.exit_code:
            lost = lost or found.message
        elif found.exit_code >= _STOPPED:
            note(found.message)
        else:
            tell(found.message, found.hint)
            said = True
    return lost, said


def _ended(codes: Mapping[int, int], processes: int) -> str | None:
    """Which process a signal ended, in words; None where none was."""
    found = ((rank, -code) for rank, code in codes.items() if _killed(code))
    return next((f"process {rank} of {processes} was ended by {_name(number)}" for rank, number in found), None)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _killed(code: int) -> bool:
    """Whether an exit code is that of a process which a signal ended, other than torchrun's own."""
    return code < 0 and code != -signal.SIGTERM
