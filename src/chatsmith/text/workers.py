"""Processes that work for this one: plain programs at the ends of two pipes.

They need no guard in the caller's script, see no data but what is sent, and end when their input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from chatsmith.text.tokenizer import Tokenizer

_SECONDS_TO_END = 10.0
_MAX_HEAD = 64 << 20

Worker = subprocess.Popen  # of bytes


class Workers:
    """Running processes of one module of chatsmith; each is given a folder with a vocabulary and what else it needs."""

    def __init__(self, module: str, count: int, tokenizer: Tokenizer, files: Mapping[str, bytes] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chatsmith-workers-")
        tokenizer.save(Path(self._folder.name))
        for name, data in (files or {}).items():
            (Path(self._folder.name) / name).write_bytes(data)
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread each: the arithmetic libraries would set memory aside for as many as there are cores.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, self._folder.name]
        self.running: list[subprocess.Popen[bytes]] = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(count)
        ]

    def end(self, kill: bool = False) -> None:
        """Let them end, at once with `kill`, and remove their folder."""
        for worker in self.running:
            assert worker.stdin is not None
            if kill:
                worker.kill()
            with suppress(OSError):
                worker.stdin.close()
        for worker in self.running:
            assert worker.stdout is not None
            try:
                worker.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            worker.stdout.close()
        self._folder.cleanup()


def read_array(stream: IO[bytes], dtype: Any, count: int) -> np.ndarray:
    """`count` numbers from a pipe; `EOFError` where it ends before."""
    size = count * np.dtype(dtype).itemsize
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return np.frombuffer(data, dtype=dtype)


def send(stream: IO[bytes], said: Any, arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """A message: anything that JSON can hold, and arrays by name."""
    arrays = arrays or {}
    shapes = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    head = json.dumps([said, shapes]).encode()
    stream.write(len(head).to_bytes(8, "little") + head)
    for array in arrays.values():
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Any, dict[str, np.ndarray]] | None:
    """The next message, None where there are no more; `EOFError` where one ends before its end."""
    size = stream.read(8)
    if not size:
        return None
    length = int.from_bytes(size, "little")
    if length > _MAX_HEAD:
        raise EOFError
    said, shapes = json.loads(stream.read(length) or b"[null, []]")
    arrays = {
        name: read_array(stream, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
        for name, dtype, shape in shapes
    }
    return said, arrays
