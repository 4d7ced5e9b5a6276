"""How fast this machine trains: its matrix rate, and the tokens per second of whole steps, shape by shape."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from chatsmith import machine
from chatsmith.kernels import native
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec
from chatsmith.train.losses import next_token_loss
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.precision import Compute, compute_dtype, keep_memory
from chatsmith.train.recipe import Optimizer

_STEP_TOKENS = 2048
_SIDES = (256, 1024, 2048)
_LOST = 2.0
"""A number of threads that makes steps so many times as long is not tried again."""


def kernel_rate(kind: str, seconds: float = 0.5) -> float | None:
    """The best rate in FLOP/s of square matrix products of dtype `kind` by our own kernels; None where they do not
    serve."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(kind)
    if dtype is None or not native.multiplies(torch.empty(0, dtype=dtype)):
        return None
    best = 0.0
    for side in _SIDES:
        x, weight = (torch.randn(side, side).to(dtype) for _ in range(2))
        best = max(best, 2.0 * side**3 / _times(partial(native.linear, x, weight), seconds / len(_SIDES))[0])
    return best


def matrix_rate(compute: Compute = "auto", seconds: float = 0.5) -> float:
    """The best rate of matrix products in FLOP/s, by PyTorch or by our own kernels: what a step is measured against."""
    kinds = ("float32", "bfloat16") if compute == "auto" else (compute,)
    own = [] if torch.cuda.is_available() else [kernel_rate(kind, seconds) or 0.0 for kind in kinds]
    return max([machine.measure_peak(compute, seconds), *own])


def _times(work: Callable[[], object], seconds: float, least: int = 1, most: float = math.inf) -> list[float]:
    """The seconds of each of at least `least` calls, as many as fit into `seconds`, shortest first.

    A call to warm up comes before them. Where it takes more than `most` seconds, its time is all that is returned.
    """
    began = time.perf_counter()
    work()
    first = time.perf_counter() - began
    if first > most:
        return [first]
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)


class TrainingSpeed:
    """Tokens per second that a model of a given shape trains at here: measured, where a step is short enough.

    A matrix rate does not tell: how much of it a step reaches depends on the width, the vocabulary and the processor. A
    shape whose step would take longer than `seconds` is taken to reach what the one before it reached, in FLOP/s.

    Threads that share a step wait for one another, many times in it. Where another program holds a core, all of them
    can be far slower than half of them. So half of them are tried first, and then more or still fewer, for as long as
    that is faster. Once all were faster they are for larger shapes too, and those are measured with all.
    """

    def __init__(self, seconds: float = 0.7) -> None:
        keep_memory()  # as a run does: without it a step takes longer
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = compute_dtype("auto", self.device)
        self.seconds = seconds
        self.cores = machine.usable_cores()
        self._flops: float | None = None
        self._known: dict[ModelSpec, float] = {}
        self._threads: dict[ModelSpec, int] = {}
        self._lost: set[int] = set()

    def __call__(self, spec: ModelSpec) -> float:
        """Tokens per second for `spec`, rows of its context."""
        per_token = spec.training_flops_per_token()
        if self._flops is None or _STEP_TOKENS * per_token / self._flops < self.seconds:
            if spec not in self._known:
                self._known[spec] = self._measured(spec)
            self._flops = self._known[spec] * per_token
        return self._flops / per_token

    def threads(self, spec: ModelSpec) -> int:
        """How many threads trained `spec` fastest; a shape that was not measured, by the last one that was."""
        return self._threads.get(replace(spec, dropout=0.0), self._last)

    @property
    def _last(self) -> int:
        return next(reversed(self._threads.values()), max(1, self.cores // 2))

    def _measured(self, spec: ModelSpec) -> float:
        rows = max(1, _STEP_TOKENS // spec.context)
        with torch.random.fork_rng(devices=[]):
            model = Decoder(spec, device=self.device, dtype=self.dtype)
            model.init_weights(0)
            optimizer = TrainingOptimizer(model.train(), Optimizer())
            ids = torch.randint(0, spec.vocab_size, (rows, spec.context), device=self.device)

            def step() -> None:
                loss, count = next_token_loss(model, ids, ids)
                (loss / count).backward()
                optimizer.step(1.0)

            seconds, self._threads[spec] = self._fastest(step)
        return rows * spec.context / seconds

    def _fastest(self, step: Callable[[], None]) -> tuple[float, int]:
        """The median seconds of a step, and the threads that make it so short."""
        if self.device.type != "cpu":
            return self._median(step, self.cores), self.cores
        start = self._last
        best = self._median(step, start), start
        while (more := min(self.cores, 2 * best[1])) > best[1] and more not in self._lost:
            seconds = self._median(step, more, max(self.seconds, _LOST * best[0]))
            if seconds >= best[0]:
                if seconds > _LOST * best[0]:
                    self._lost.add(more)
                break
            best = seconds, more
        while best[1] <= start < self.cores and (fewer := best[1] // 2):
            seconds = self._median(step, fewer)
            if seconds >= best[0]:
                break
            best = seconds, fewer
        return best

    def _median(self, step: Callable[[], None], threads: int, most: float = math.inf) -> float:
        with machine.using_threads(threads):
            times = _times(step, self.seconds if threads == self.cores else self.seconds / 2, 3, most)
        return times[len(times) // 2]
