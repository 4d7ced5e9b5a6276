"""What changes as a run goes on, each a function of its progress from 0 to 1, and how progress itself is kept.

A run of steps or tokens knows its end. A run of minutes does not: it measures its speed and re-plans its number of
steps now and then. `Timeline` goes on from the progress reached, so that the learning rate never jumps; with the
plans written down, the same run can be repeated without a clock.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from chatsmith.errors import RequestError
from chatsmith.train.recipe import Batch, Schedule, Stage


class Timeline:
    """Progress from 0 to 1 over positions (steps, or tokens), along plans (position, total) made on the way.

    Between plans progress is linear: p_k + (1 - p_k)·(x - x_k)/(X_k - x_k), where plan k was made at position x_k and
    progress p_k for a total of X_k positions. A plan made where the last one had ended makes a finished run longer: it
    goes on from p_k = x_k / X_k, for at a progress of 1 nothing more would be learned. A run of minutes begins without
    a plan, and stands at progress 0 until it has one.
    """

    def __init__(self, plans: Sequence[tuple[int, int]]) -> None:
        self._plans: list[tuple[int, int]] = []
        self._starts: list[float] = []  # progress where each plan was made
        for at, total in plans:
            self.replan(at, total)

    @property
    def plans(self) -> tuple[tuple[int, int], ...]:
        """Every plan so far: (position it was made at, total)."""
        return tuple(self._plans)

    @property
    def total(self) -> int:
        """The position at which progress reaches 1, as planned last; 0 before the first plan."""
        return self._plans[-1][1] if self._plans else 0

    def replan(self, at: int, total: int) -> None:
        """From position `at` on, go linearly from the progress there to 1 at `total`."""
        if total <= at or (self._plans and at < self._plans[-1][0]) or (not self._plans and at != 0):
            raise RequestError(f"a plan at {at} for a total of {total} does not follow {self._plans[-1:]}")
        start = self.progress(at)
        if self._plans and at >= self.total:
            start = at / total
        if self._plans and self._plans[-1][0] == at:
            self._plans.pop()
            self._starts.pop()
        self._plans.append((at, total))
        self._starts.append(start)

    def progress(self, position: float) -> float:
        """Progress at `position`, at most 1."""
        if not self._plans:
            return 0.0
        index = max(0, bisect.bisect_right(self._plans, (position, math.inf)) - 1)
        at, total = self._plans[index]
        start = self._starts[index]
        return min(1.0, start + (1.0 - start) * (position - at) / (total - at))


def first_plan(schedule: Schedule) -> list[tuple[int, int]]:
    """The one plan of a run that is measured in steps or tokens; none for a run of minutes, which plans as it goes."""
    total = schedule.steps or schedule.tokens
    return [(0, total)] if total else []


def learning_rate_factor(progress: float, schedule: Schedule) -> float:
    """The share of the peak learning rate at `progress`: linear warm-up, decay until `decay_until`, then flat."""
    if progress < schedule.warmup:
        return progress / schedule.warmup
    if schedule.decay == "constant":
        return 1.0
    passed = min(1.0, (progress - schedule.warmup) / (schedule.decay_until - schedule.warmup))
    left = 1.0 - passed if schedule.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * passed))
    return schedule.final_fraction + (1.0 - schedule.final_fraction) * left


def rows_at(progress: float, batch: Batch) -> int:
    """Rows of the step at `progress`: the full batch, or less on the ramp.

    The ramp climbs in whole micro-batches, or in eighths of the only one, so that few shapes occur.
    """
    if progress >= batch.ramp_until:
        return batch.rows
    share = batch.ramp_start + (1.0 - batch.ramp_start) * progress / batch.ramp_until
    quantum = batch.micro_batch if batch.accumulation > 1 else max(1, batch.micro_batch // 8)
    return min(batch.rows, max(1, round(share * batch.rows / quantum)) * quantum)


def mean_rows(progress: float, batch: Batch, points: int = 64) -> float:
    """The mean of `rows_at` from `progress` to the end."""
    if progress >= batch.ramp_until:
        return float(batch.rows)
    width = (1.0 - progress) / points
    return sum(rows_at(progress + (i + 0.5) * width, batch) for i in range(points)) / points


def stage_at(progress: float, stages: Sequence[Stage]) -> int | None:
    """The index of the stage that `progress` lies in; None without stages."""
    if not stages:
        return None
    return min(bisect.bisect_right([stage.until for stage in stages], progress), len(stages) - 1)


class Milestones:
    """Moments spread evenly over progress: `times` of them, the last at 1."""

    def __init__(self, times: int) -> None:
        self.times = times

    def passed(self, before: float, after: float) -> bool:
        """Whether a moment lies in (before, after]."""
        # A step's progress is a sum of float fractions: 0.9999999999 must count as having arrived.
        return math.floor(before * self.times + 1e-9) < math.floor(after * self.times + 1e-9)

    def left(self, progress: float) -> int:
        """How many moments lie beyond `progress`."""
        return self.times - math.floor(progress * self.times + 1e-9)
