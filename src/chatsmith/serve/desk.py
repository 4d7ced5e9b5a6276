"""Between the engine's thread and the event loop: requests go one way, and what comes of them the other.

However many answers a step moves on, it wakes the event loop once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.generate.batch import Batch
from chatsmith.generate.constraints import Matcher
from chatsmith.generate.requests import FAULTS, Event, Request
from chatsmith.generate.service import Delivery, Order, Service
from chatsmith.serve.errors import closing

Asked = tuple[Request, Matcher | None]


class Desk:
    """Takes requests for a batch, in an event loop; to be made where that loop runs."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.open: set[Answers] = set()
        self.loop = asyncio.get_running_loop()
        self._out: deque[tuple[Answers, int, Delivery]] = deque()
        self.service = Service(batch, stepped=self._ring)

    def ask(self, asked: Sequence[Asked]) -> Answers:
        """Put requests in the line; whoever reads the answers must close them."""
        return Answers(self, asked)

    async def close(self) -> None:
        """Take back what is there, and end the engine's thread."""
        await asyncio.to_thread(self.service.close)

    def deliver(self, answers: Answers, place: int, what: Delivery) -> None:
        """Called in the engine's thread: keep it until the step is over."""
        self._out.append((answers, place, what))

    def _ring(self) -> None:
        if self._out:
            try:
                self.loop.call_soon_threadsafe(self._hand_out)
            except RuntimeError:  # the loop has ended: nobody is left to hear it
                self._out.clear()

    def _hand_out(self) -> None:
        touched = set()
        while self._out:
            answers, place, what = self._out.popleft()
            answers.inbox.append((place, what))
            touched.add(answers)
        for answers in touched:
            answers.wake()


class Answers:
    """What comes of some requests, read by one task of the event loop.

    `first` and `last` are when events came (`perf_counter`), and `alone` says whether nobody else was answered then.
    """

    def __init__(self, desk: Desk, asked: Sequence[Asked]) -> None:
        self.inbox: list[tuple[int, Delivery]] = []
        self.alone, self.first, self.last = True, 0.0, 0.0
        self._desk = desk
        self._waiter: asyncio.Future[bool] | None = None
        self._open = sum(request.samples for request, _ in asked)
        self._orders = [
            Order(request, partial(desk.deliver, self, place), matcher)
            for place, (request, matcher) in enumerate(asked)
        ]
        desk.open.add(self)
        try:
            for order in self._orders:
                desk.service.place(order)
        except WorkError:
            self.close()
            raise closing() from None

    async def taken(self) -> None:
        """Wait until all requests stand in the line. Raises what speaks against one of them."""
        missing = len(self._orders)
        seen = 0
        while missing:
            if seen == len(self.inbox):
                await self._ring()
                continue
            what = self.inbox[seen][1]
            if what == "taken":
                self.inbox.pop(seen)
                missing -= 1
            elif isinstance(what, Event):
                seen += 1
            else:
                self._failed(what)

    async def next(self, patience: float | None = None) -> list[tuple[int, Event]]:
        """What has come since, as (place of the request, event); empty when all answers have ended, and where nothing
        came for `patience` seconds."""
        while not self.inbox:
            if not self._open:
                return []
            if not await self._ring(patience):
                return []
        found: list[tuple[int, Event]] = []
        for place, what in self.inbox:
            if what == "taken":
                continue
            if not isinstance(what, Event):
                self._failed(what)
                continue
            if what.finish in FAULTS:
                # A form that cannot be followed is the request's: who asks again gets no further.
                self._failed((WorkError if what.finish == "error" else RequestError)(*FAULTS[what.finish]))
            self._open -= what.finish is not None
            found.append((place, what))
        self.inbox.clear()
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.alone = self.alone and len(self._desk.open) == 1
        return found

    def _failed(self, what: Delivery) -> None:
        raise what if isinstance(what, ChatsmithError) else closing()

    async def _ring(self, patience: float | None = None) -> bool:
        """Wait until something comes; False where nothing did in time."""
        loop = self._desk.loop
        self._waiter = waiter = loop.create_future()
        timer = None if patience is None else loop.call_later(patience, _give_up, waiter)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Something has come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def close(self) -> None:
        """Take back what has not ended: it has no part in the next step."""
        self._desk.open.discard(self)
        if self._open:
            self._open = 0
            for order in self._orders:
                self._desk.service.take_back(order)


def _give_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
