"""The engine behind a thread of its own: requests come from any thread, and each is answered where it wants to be.

This is what a server stands on. One thread makes the steps; between two of them it does what was put on its list:
take a request, take one back. So nobody who asks waits for a lock while the model computes. A program with an event
loop places an `Order`, and what comes of it is handed to a function; any other submits and iterates over a `Ticket`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, TypeAlias

from chatsmith.errors import ChatsmithError, WorkError
from chatsmith.generate.batch import Batch
from chatsmith.generate.constraints import Matcher
from chatsmith.generate.requests import FAULTS, Event, Request

Delivery: TypeAlias = Event | ChatsmithError | Literal["taken"] | None
"""What comes of an order: "taken" once it stands in the line, then its events; an error instead of what is left of
them; None when it was taken back."""


@dataclass(eq=False, slots=True)
class Order:
    """A request on its way; `deliver` is called with what comes of it, in the engine's thread, and must be quick.

    `matcher` is the request's constraint made ready, where the caller has done that already: it can take long.
    """

    request: Request
    deliver: Callable[[Delivery], None]
    matcher: Matcher | None = None
    number: int = -1
    _done: bool = field(default=False, repr=False)


class Ticket:
    """A request that was submitted: iterate for its events, the last of which ends the last of its answers."""

    def __init__(self, service: Service, request: Request) -> None:
        self._service = service
        self._events: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._order = Order(request, self._events.put)
        self._open = request.samples
        service.place(self._order)
        first = self._events.get()
        if isinstance(first, ChatsmithError):
            raise first
        if first is None:
            raise _closing()

    def __iter__(self) -> Iterator[Event]:
        """The events as they come; ends early when the request was taken back. Raises what made it fail."""
        while self._open:
            event = self._events.get()
            if event is None or event == "taken":
                return
            if isinstance(event, ChatsmithError):
                raise event
            if event.finish is not None:
                self._open -= 1
            yield event
            if event.finish in FAULTS:
                return

    def cancel(self) -> None:
        """Take the request back, and wait until that is done; nothing happens if it has ended already."""
        self._service.take_back(self._order).result()


class Service:
    """Runs a batch in a thread until it is closed; use it in a `with` statement, or call `close`.

    `stepped` is called in that thread after each step and each time the list was done, when everything that came of it
    has been delivered.
    """

    def __init__(self, batch: Batch, *, stepped: Callable[[], None] = lambda: None) -> None:
        self.batch = batch
        self._stepped = stepped
        self._bell = threading.Condition()
        self._list: deque[Callable[[], None]] = deque()
        self._orders: dict[int, Order] = {}
        self._closing = self._ended = False
        self._thread = threading.Thread(target=self._run, name="chatsmith-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Ticket:
        """Put a request in the line. Raises `RequestError` for one that cannot be met, `Busy` for a full line."""
        return Ticket(self, request)

    def place(self, order: Order) -> None:
        """Put an order on the list; what is wrong with it, its `deliver` hears. Raises `WorkError` while closing."""
        if self._closing or not self._put(lambda: self._take(order)):
            raise _closing()

    def take_back(self, order: Order) -> Future[None]:
        """Take an order back before the next step; the future says when that is done."""
        done: Future[None] = Future()

        def act() -> None:
            self._drop(order)
            done.set_result(None)

        if not self._put(act):
            done.set_result(None)
        return done

    def close(self, *, drain: bool = False, seconds: float = 30.0) -> None:
        """Take no more requests; with `drain` finish those that are there, within so many seconds, then stop."""
        with self._bell:
            self._closing = True
            if drain:
                self._bell.wait_for(lambda: not self._orders and not self._list, seconds)
        self._put(self._drop_all)
        self._thread.join()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- in the engine's thread, but for `_put` --------------------------------------------------------------------

    def _put(self, act: Callable[[], None]) -> bool:
        """Something to do before the next step; False where there is no thread left to do it."""
        with self._bell:
            if self._ended:
                return False
            self._list.append(act)
            self._bell.notify_all()
            return True

    def _run(self) -> None:
        while True:
            with self._bell:
                self._bell.wait_for(lambda: self._list or self.batch.busy or self._closing)
                acts = list(self._list)
                self._list.clear()
                if self._closing and not acts and not self.batch.busy:
                    self._ended = True
                    return
            for act in acts:
                act()
            if self.batch.busy:
                self._step()
            self._stepped()
            if self._closing:
                with self._bell:
                    self._bell.notify_all()

    def _take(self, order: Order) -> None:
        if order._done:
            return
        try:
            order.number = self.batch.add(order.request, matcher=order.matcher)
        except Exception as error:
            order._done = True
            order.deliver(_told(error))
            return
        self._orders[order.number] = order
        order.deliver("taken")

    def _drop(self, order: Order) -> None:
        """An order that has not ended ends, and its blocks are free."""
        if order._done:
            return
        order._done = True
        if self._orders.pop(order.number, None) is not None:
            self.batch.cancel(order.number)
        order.deliver(None)

    def _drop_all(self) -> None:
        for order in list(self._orders.values()):
            self._drop(order)

    def _step(self) -> None:
        try:
            events = self.batch.step()
        except Exception as error:
            # The batch has let everything go; those who wait must hear of it, and the thread goes on.
            failure = _told(error)
            for order in self._orders.values():
                order._done = True
                order.deliver(failure)
            self._orders.clear()
            return
        for event in events:
            found = self._orders.get(event.ticket)
            if found is not None:
                found.deliver(event)
        alive = self.batch.tickets
        for number in [number for number in self._orders if number not in alive]:
            self._orders.pop(number)._done = True


def _told(error: Exception) -> ChatsmithError:
    return error if isinstance(error, ChatsmithError) else WorkError(f"the model failed: {error}")


def _closing() -> WorkError:
    return WorkError("the engine is closing down and takes no more requests")
