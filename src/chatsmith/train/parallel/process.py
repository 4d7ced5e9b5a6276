"""The processes of a run: who this one is, and meeting the others. torchrun starts them and tells them by environment.

Nothing here is imported where a run has one process.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from chatsmith.errors import RequestError, WorkError

_TIMEOUT = "CHATSMITH_TIMEOUT"
_DEFAULT_TIMEOUT, _LONGEST_TIMEOUT = 600.0, 1e7
RESTARTS = "CHATSMITH_RESTARTS"
"""How often our own launcher has started the processes anew, as torchrun says it in a variable of its own."""
LAUNCH = "CHATSMITH_LAUNCH"
"""What our own launcher calls itself."""
LAUNCHER = "CHATSMITH_LAUNCHER"
"""The process that our own launcher is."""
_ROUND = "chatsmith/round"
_SIGNAL_AT_DEATH_OF_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl
_POLL_SECONDS = 0.01
_OF_MESSAGES = ("gloo", "NCCL", "ProcessGroup", "TCPStore", "Connection reset", "Connection closed")
"""What errors of messages between processes say, which are RuntimeErrors like others."""
T = TypeVar("T")


class OutOfTouch(WorkError):
    """Another process did not answer, which may have been killed: started anew, all may go well. Exit code 75."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True, slots=True)
class Process:
    """This process among `size`; `local_size` of them share its machine."""

    rank: int
    size: int
    local_size: int
    device: torch.device


def from_environment() -> Process:
    """Who torchrun says this process is; alone without it."""
    rank, size, local, here = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    )
    device = torch.device("cuda", local % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    return Process(rank, size, here, torch.device(device))


def patience() -> float:
    """The seconds that processes wait for each other: `$CHATSMITH_TIMEOUT`, or 600."""
    given = os.environ.get(_TIMEOUT) or str(_DEFAULT_TIMEOUT)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise RequestError(f"{_TIMEOUT} is a number of seconds above 0, not {given!r}", f"export {_TIMEOUT}=600")
    return seconds


@contextmanager
def met(process: Process) -> Iterator[bool]:
    """Within it, the processes of the run can talk; a group that exists already is used and left as it is.

    Gives whether they take the place of processes that died: all of them the same, on whatever machine that was.
    Messages that take longer than `$CHATSMITH_TIMEOUT` seconds (600) end the process, so that torchrun starts it anew.
    """
    if process.size == 1 or dist.is_initialized():
        yield _restarts() > 0
        return
    cuda = process.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(process.device)
    _end_with_launcher()
    seconds = patience()
    timeout = datetime.timedelta(seconds=seconds)
    try:
        store, rank, size = next(rendezvous("env://", process.rank, process.size, timeout=timeout))
        store, again = round_of(store, rank, size, seconds)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:
        raise OutOfTouch(
            f"process {process.rank} of {process.size} did not meet the others: {_in_short(error)}",
            "all of them are started by one torchrun command per machine, which they must be able to reach",
        ) from error
    try:
        yield again
    except RuntimeError as error:
        if not any(word in str(error) for word in _OF_MESSAGES):
            raise
        raise OutOfTouch(
            f"process {process.rank} of {process.size} lost touch with another: {_in_short(error)}",
            "torchrun starts them anew; where it has given up, resume the run",
        ) from error
    finally:
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process, one of several, with an exit code: what it printed is flushed, and nothing is taken down.

    PyTorch remembers the meshes of divided models, and so keeps their groups, with threads, past
    `destroy_process_group`. One that still holds something of Python's while the interpreter takes itself down ends the
    process by SIGABRT ("terminate called without an active exception"), and all would be started anew for nothing.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    logging.shutdown()
    os._exit(code)


def _restarts() -> int:
    """How often this machine's processes were started anew, not counting for another machine's sake."""
    return sum(int(os.environ.get(name, 0)) for name in ("TORCHELASTIC_RESTART_COUNT", RESTARTS))


def of_first(process: Process, value: T) -> T:
    """What the process that leads has for `value`, in all of them."""
    if process.size == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told, 0)
    return told[0]


def launched_as() -> str | None:
    """What tells the launch that this process belongs to from others, and stays the same when it is started anew.

    None where no launcher started it. torchrun's name is one that only `--rdzv-id` makes the same for several launches.
    """
    return os.environ.get(LAUNCH) or os.environ.get("TORCHELASTIC_RUN_ID")


def _in_short(error: Exception) -> str:
    """What an error of PyTorch's says first, without the place in its source that it begins with."""
    return re.sub(r"^\[[^]]*\] ", "", " ".join(str(error).split())).partition(". ")[0]


def _end_with_launcher() -> None:
    """Have this process told to save and stop where what started it is killed: nobody else would ever end it.

    Raises `OutOfTouch` where that has happened already, while torch was being loaded: no signal would come any more.
    """
    if launched_as() is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_DEATH_OF_PARENT, signal.SIGTERM)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
        raise OutOfTouch("what started this process has ended", "give the command again")


def round_of(store: Store, rank: int, size: int, seconds: float) -> tuple[Store, bool]:
    """The part of `store` that belongs to those who are here now, and whether others were here before them.

    torchrun keeps its store when it starts the processes anew, with the addresses of the dead in it, and whoever read
    one of those would wait for its owner in vain. So the first process names the round by a random word, every other
    answers with one of its own, and believes in the round that has its own word in it. Rounds are counted there, too:
    where a worker dies on one machine, torchrun on the others starts theirs anew without counting it as a restart.

    Raises RuntimeError where one does not come.
    """
    deadline = time.monotonic() + seconds
    own = secrets.token_hex(8)

    def patient() -> None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} seconds for the others to start")
        time.sleep(_POLL_SECONDS)

    if rank == 0:
        answers = [f"{own}/{other}" for other in range(1, size)]
        before = store.add(f"{_ROUND}s", 1) - 1
        store.set(_ROUND, own)
        while answers and not store.check(answers):
            patient()
        words, restarts = zip((own, _restarts()), *(json.loads(store.get(answer)) for answer in answers), strict=True)
        again = before > 0 or max(restarts) > 0
        store.set(f"{own}/all", json.dumps([words, again]))
        return PrefixStore(own, store), again
    while True:
        if store.check([_ROUND]):
            name = store.get(_ROUND).decode()
            store.set(f"{name}/{rank}", json.dumps([own, _restarts()]))
            if store.check([f"{name}/all"]):
                words, again = json.loads(store.get(f"{name}/all"))
                if own in words:
                    return PrefixStore(name, store), again
        patient()


def all_there(process: Process) -> None:
    """Return when all processes have come here."""
    if process.size > 1:
        dist.barrier()


def in_turn(process: Process, first: Callable[[], T], others: Callable[[], T]) -> T:
    """What `first` gives in the process that leads, and then what `others` gives in the rest.

    An error of the first is raised in all, so that none waits for what will not come, and all leave with its exit code.
    """
    if process.size == 1:
        return first()
    problem: tuple[str, bool] | None = None
    made: list[T] = []
    error: BaseException | None = None
    if process.rank == 0:
        try:
            made.append(first())
        except BaseException as raised:
            error = raised
            problem = (getattr(raised, "message", None) or str(raised), isinstance(raised, RequestError))
    problem = of_first(process, problem)
    if error is not None:
        raise error
    if problem is not None:
        message, wrong = problem
        raise (RequestError if wrong else WorkError)(f"the first process could not begin: {message}")
    if process.rank > 0:
        return others()
    return made[0]
