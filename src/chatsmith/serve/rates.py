"""How much one key may ask in a minute: buckets that fill evenly and are never fuller than a minute's share."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from chatsmith.serve.errors import ApiError
from chatsmith.serve.limits import Limits

_MOST = 10_000


class Rates:
    """The buckets of all who ask. `clock` gives seconds."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._sizes = (float(limits.requests_per_minute), float(limits.tokens_per_minute))
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, list[float]]] = OrderedDict()

    def request(self, who: str) -> None:
        """Somebody asks something. Raises `ApiError` with the seconds to wait."""
        self._take(who, 0, 1.0, "requests")

    def tokens(self, who: str, count: int) -> None:
        """Somebody wants so many tokens; more than a minute's share waits for a full bucket."""
        self._take(who, 1, min(float(count), self._sizes[1]), "tokens")

    def give_back(self, who: str, count: int) -> None:
        """So many tokens were not used after all."""
        if who in self._buckets:
            levels = self._buckets[who][1]
            levels[1] = min(self._sizes[1], levels[1] + count)

    def _take(self, who: str, which: int, count: float, what: str) -> None:
        now = self._clock()
        then, levels = self._buckets.get(who, (now, list(self._sizes)))
        levels = [min(size, level + (now - then) * size / 60) for size, level in zip(self._sizes, levels, strict=True)]
        self._buckets[who] = (now, levels)
        self._buckets.move_to_end(who)
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        if levels[which] < count:
            wait = int((count - levels[which]) * 60 / self._sizes[which]) + 1
            raise ApiError(
                429,
                f"more than {self._sizes[which]:,.0f} {what} a minute: try again in {wait} s",
                code="rate_limit_exceeded",
                retry=wait,
            )
        levels[which] -= count
