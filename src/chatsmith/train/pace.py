"""How fast a run goes, and how many steps fit into what is left of a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from chatsmith.train.recipe import Batch
from chatsmith.train.schedules import mean_rows


class Pacer:
    """Measures a run's speed and, where it has a budget in seconds, plans its number of steps.

    Speed is the mean over a window of about a twentieth of the budget that fades exponentially: the machine may halve
    its speed at any moment, and a plan must follow it without trusting any single step. Plans are made about forty
    times, so whatever happens after the last one can cost a fortieth of the budget at most.
    """

    REPLANS = 40
    _WINDOW = 60.0  # seconds, where there is no budget

    def __init__(self, budget: float | None, batch: Batch, clock: Callable[[], float] = time.perf_counter) -> None:
        self.budget = budget
        self._batch = batch
        self._clock = clock
        self._window = budget / 20.0 if budget else self._WINDOW
        self._seconds = 0.0
        self._rows = 0.0
        self._next = 0.0
        self._costs: dict[str, list[float]] = {}  # what happens between steps: [times, seconds]

    def observe(self, seconds: float, rows: int) -> None:
        """Take note of a step of `rows` rows that took `seconds`."""
        fade = math.exp(-seconds / self._window)
        self._seconds = self._seconds * fade + seconds
        self._rows = self._rows * fade + rows

    def timed(self, name: str, work: Callable[[], None]) -> None:
        """Do something between steps and remember what it costs."""
        began = self._clock()
        work()
        cost = self._costs.setdefault(name, [0.0, 0.0])
        cost[0] += 1.0
        cost[1] += self._clock() - began

    def cost(self, name: str) -> float:
        """Mean seconds of one `name`; 0 before the first."""
        times, seconds = self._costs.get(name, (0.0, 0.0))
        return seconds / times if times else 0.0

    def due(self, elapsed: float) -> bool:
        """Whether it is time to plan again."""
        return self.budget is not None and elapsed >= self._next

    def plan(self, step: int, progress: float, elapsed: float, reserve: float) -> int:
        """The total number of steps that ends the run on time.

        `reserve` is the time in seconds that evaluations, samples and checkpoints will still take.
        """
        assert self.budget is not None
        self._next = elapsed + self.budget / self.REPLANS
        left = max(0.0, self.budget - elapsed - reserve)
        return step + max(1, round(left / self._step_seconds(progress)))

    def seconds_left(self, progress: float, steps: int, reserve: float) -> float:
        """How long so many more steps will take, with `reserve` for what happens between them."""
        return steps * self._step_seconds(progress) + reserve

    def _step_seconds(self, progress: float) -> float:
        """Seconds of a mean step from `progress` on; a step smaller than a microsecond is not believed."""
        per_row = self._seconds / self._rows if self._rows else 0.0
        return max(1e-6, per_row * mean_rows(progress, self._batch))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"seconds": self._seconds, "rows": self._rows, "next": self._next, "costs": self._costs}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self._seconds, self._rows, self._next = state["seconds"], state["rows"], state["next"]
        self._costs = {name: list(cost) for name, cost in state["costs"].items()}
