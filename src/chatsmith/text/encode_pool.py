"""Encoding in several processes, for corpora large enough to be worth starting them.

Encoding is numpy and Python as much as it is compiled code, so threads take turns where processes do not: on two cores
two processes encode twice as fast as two threads.

A request is the number of texts and of bytes, the length of each text in characters (all int64), and the texts one
after another in UTF-8; the answer is where each one's ids end (int64), and the ids (uint32).
"""

from __future__ import annotations

import itertools
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from chatsmith.errors import WorkError
from chatsmith.machine import usable_cores
from chatsmith.text.encode_documents import Encode
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.tokenizer_engines import Row
from chatsmith.text.workers import Workers, read_array

MOST_WORKERS = 4
"""Processes that encode: the one that reads keeps no more than two or three busy."""

_ALONE_CHARACTERS = 24 * 2**20  # encoded here in about the time that processes take to start

Batch = TypeVar("Batch")
Made = TypeVar("Made")


def pipelined(
    batches: Iterable[tuple[Batch, int]],
    work: Callable[[Batch, Encode], Made],
    tokenizer: Tokenizer,
    threads: int | None = None,
) -> Iterator[Made]:
    """What `work` makes of batches (each with its characters), in order; more are read while others are encoded."""
    workers = min(threads or usable_cores(), MOST_WORKERS)
    encode: Encode = partial(tokenizer.encode_row, threads=threads)
    waiting: deque[Future[Made]] = deque()
    seen, most_waiting = 0, 1
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="encode"))
        for batch, characters in batches:
            if workers > 1 and most_waiting == 1 and seen > _ALONE_CHARACTERS:
                encode = stack.enter_context(EncodePool(tokenizer, workers)).encode_row
                most_waiting = workers + 1
            waiting.append(pool.submit(work, batch, encode))
            seen += characters
            while len(waiting) > most_waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class EncodePool:
    """Worker processes that encode with one tokenizer; `encode_row` may be called from as many threads at once."""

    def __init__(self, tokenizer: Tokenizer, workers: int) -> None:
        self._pool = Workers("chatsmith.text.encode_pool", workers, tokenizer)
        self._workers = self._pool.running
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def __enter__(self) -> EncodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.end()

    def encode_row(self, texts: Sequence[str]) -> Row:
        """`Tokenizer.encode_row` by the first worker that is free; `WorkError` if it died."""
        worker = self._free.get()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            _send_texts(worker.stdin, texts)
            ends = read_array(worker.stdout, np.int64, len(texts))
            return read_array(worker.stdout, np.uint32, int(ends[-1]) if len(ends) else 0), ends
        except (OSError, EOFError):
            raise WorkError(
                "a process that encoded text ended before its work was done",
                "it may have run out of memory; try again, or with threads=1 to encode in this process",
            ) from None
        finally:
            self._free.put(worker)


def _send_texts(stream: IO[bytes], texts: Sequence[str]) -> None:
    data = "".join(texts).encode("utf-8", "surrogatepass")
    stream.write(np.array([len(texts), len(data), *map(len, texts)], dtype=np.int64).tobytes())
    stream.write(data)
    stream.flush()


def _receive_texts(stream: IO[bytes]) -> list[str] | None:
    """The texts of one request; None where there are no more."""
    head = stream.read(16)
    if not head:
        return None
    count, size = np.frombuffer(head, dtype=np.int64).tolist()
    ends = np.cumsum(read_array(stream, np.int64, count)).tolist()
    whole = read_array(stream, np.uint8, size).tobytes().decode("utf-8", "surrogatepass")
    return [whole[begin:end] for begin, end in itertools.pairwise([0, *ends])]


def serve(tokenizer: Tokenizer, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    while (texts := _receive_texts(requests)) is not None:
        ids, ends = tokenizer.encode_row(texts, threads=1)
        answers.write(ends.astype(np.int64, copy=False).tobytes())
        answers.write(ids.astype(np.uint32, copy=False).data)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    serve(Tokenizer.load(Path(sys.argv[1])), sys.stdin.buffer, sys.stdout.buffer)
