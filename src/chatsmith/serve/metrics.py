"""What /metrics tells, in Prometheus' text format: counts, sums and sizes, and no word of anybody's."""

from __future__ import annotations

import bisect
import sys
import time
import traceback
from collections import Counter
from itertools import accumulate

from chatsmith.generate.batch import Batch

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counted in the event loop, read by /metrics."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.tokens: Counter[str] = Counter()
        self.failures = 0
        self._seconds = [0] * (len(_BUCKETS) + 1)
        self._total = 0.0
        self._started = time.time()

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request has been answered, or left."""
        self.requests[path, status] += 1
        self._seconds[bisect.bisect_left(_BUCKETS, seconds)] += 1
        self._total += seconds

    def told(self, usage: dict[str, int]) -> None:
        """Tokens that were read and made for a finished request."""
        for name in ("prompt_tokens", "completion_tokens"):
            self.tokens[name] += usage.get(name, 0)

    def failed(self, error: BaseException) -> None:
        """A fault of ours: where it happened goes to stderr, and nothing of what was asked."""
        self.failures += 1
        places = [f"{place.filename}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)[-3:]]
        print(f"error: {type(error).__name__} at {' < '.join(reversed(places))}", file=sys.stderr, flush=True)

    def text(self, batch: Batch, connections: int) -> str:
        """All of it."""
        lines: list[str] = []

        def tell(name: str, kind: str, meaning: str, *values: tuple[str, float]) -> None:
            lines.append(f"# HELP chatsmith_{name} {meaning}")
            lines.append(f"# TYPE chatsmith_{name} {kind}")
            lines.extend(f"chatsmith_{name}{labels} {_in_full(value)}" for labels, value in values)

        asked = [
            (f'{{path="{path}",status="{status}"}}', count) for (path, status), count in sorted(self.requests.items())
        ]
        tell("requests_total", "counter", "Requests answered.", *asked)
        counts = [*accumulate(self._seconds)]
        edges = [*map(str, _BUCKETS), "+Inf"]
        buckets = [(f'_bucket{{le="{edge}"}}', count) for edge, count in zip(edges, counts, strict=True)]
        tell(
            "request_seconds",
            "histogram",
            "Seconds from a request's headers to the end of its answer.",
            *buckets,
            ("_sum", self._total),
            ("_count", counts[-1]),
        )
        tell(
            "prompt_tokens_total", "counter", "Tokens of prompts, read anew or not.", ("", self.tokens["prompt_tokens"])
        )
        tell("completion_tokens_total", "counter", "Tokens made.", ("", self.tokens["completion_tokens"]))
        for name, meaning in (
            ("steps", "Passes of the model."),
            ("read", "Tokens that the model has read."),
            ("reused", "Tokens of prompts that were in the cache."),
            ("made", "Tokens chosen."),
            ("preempted", "Answers that had to make room."),
        ):
            tell(f"engine_{name}_total", "counter", meaning, ("", batch.counts[name]))
        tell("answers_running", "gauge", "Answers being worked on.", ("", batch.running))
        tell("answers_waiting", "gauge", "Answers in the line.", ("", batch.waiting))
        tell("cache_blocks", "gauge", "Blocks of the cache.", ("", batch.blocks.blocks))
        tell("cache_blocks_held", "gauge", "Blocks that answers hold.", ("", batch.blocks.held))
        tell("connections", "gauge", "Open connections.", ("", connections))
        tell("failures_total", "counter", "Faults of the server.", ("", self.failures))
        tell("start_time_seconds", "gauge", "When the server was started, in Unix time.", ("", self._started))
        return "\n".join(lines) + "\n"


def _in_full(value: float) -> str:
    """A number with all its digits, a whole one without a point."""
    return str(int(value)) if value == int(value) else repr(value)
