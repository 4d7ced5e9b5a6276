"""How fast backends decode on this machine, side by side: turn about, so that a busy moment strikes them all."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from chatsmith.generate.backend import Backend, Step

_ROUNDS, _TURN = 8, 8
_SETTLE = 0.001  # seconds after which the threads of the one before have gone to sleep


def decoding_speeds(backends: Sequence[Backend]) -> list[float]:
    """Tokens per second of one stream after a short prompt: the median step of each backend over all its turns."""
    times: list[list[float]] = [[] for _ in backends]
    for turn in range(_ROUNDS):
        order = list(zip(backends, times, strict=True))
        for backend, found in order if turn % 2 else reversed(order):
            time.sleep(_SETTLE)
            steps = _steps(backend)
            backend.logits(steps[0])  # wakes its threads, and brings its weights back
            for step in steps:
                start = time.perf_counter()
                backend.logits(step)
                found.append(time.perf_counter() - start)
    return [1 / float(np.median(found)) for found in times]


def _steps(backend: Backend) -> list[Step]:
    """A sequence from its first token on, a token a step."""
    count = min(_TURN, backend.spec.context)
    blocks, groups = -(-count // backend.block_size), len(backend.bands)
    table = np.arange(groups * blocks, dtype=np.int32).reshape(groups, 1, blocks)
    one, ends = np.zeros(1, np.int32), np.array([0, 1], np.int32)
    return [Step(one, np.array([place], np.int32), ends, table, one) for place in range(count)]
