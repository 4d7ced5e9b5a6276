"""Encoding in several processes, for corpora large enough to be worth starting them.

Encoding is numpy and Python as much as it is compiled code, so threads take turns where processes do not: on two cores
two processes encode twice as fast as two threads. The workers are plain programs at the end of two pipes; they need no
guard in the caller's script, see no data but what is sent, and end when their input does.

A request is the number of texts and of bytes, the length of each text in characters (all int64), and the texts one
after another in UTF-8; the answer is where each one's ids end (int64), and the ids (uint32).
"""

from __future__ import annotations

import itertools
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from chatsmith.errors import WorkError
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.tokenizer_engines import Row

_SECONDS_TO_END = 10.0


class EncodePool:
    """Worker processes that encode with one tokenizer; `encode_row` may be called from as many threads at once."""

    def __init__(self, tokenizer: Tokenizer, workers: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chatsmith-encode-")
        tokenizer.save(Path(self._folder.name))
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread each: the arithmetic libraries would set memory aside for as many as there are cores.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "chatsmith.text.encode_pool", self._folder.name]
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(workers)
        ]
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def __enter__(self) -> EncodePool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            with suppress(OSError):
                worker.stdin.close()
        for worker in self._workers:
            assert worker.stdout is not None
            try:
                worker.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            worker.stdout.close()
        self._folder.cleanup()

    def encode_row(self, texts: Sequence[str]) -> Row:
        """`Tokenizer.encode_row` by the first worker that is free; `WorkError` if it died."""
        worker = self._free.get()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            _send_texts(worker.stdin, texts)
            ends = _read(worker.stdout, np.int64, len(texts))
            return _read(worker.stdout, np.uint32, int(ends[-1]) if len(ends) else 0), ends
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
    ends = np.cumsum(_read(stream, np.int64, count)).tolist()
    whole = _read(stream, np.uint8, size).tobytes().decode("utf-8", "surrogatepass")
    return [whole[begin:end] for begin, end in itertools.pairwise([0, *ends])]


def _read(stream: IO[bytes], dtype: type, count: int) -> np.ndarray:
    size = count * np.dtype(dtype).itemsize
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return np.frombuffer(data, dtype=dtype)


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
