"""The engine behind a thread of its own: requests come from any thread, and each is answered in its own queue.

This is what a server stands on. One thread makes the steps; whoever asks gets a `Ticket`, reads its events as they
come, and may take the request back at any time: its place and its blocks are free at the next step.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from chatsmith.errors import ChatsmithError, WorkError
from chatsmith.generate.batch import Batch
from chatsmith.generate.requests import Event, Request


class Ticket:
    """A request that was submitted: iterate for its events, the last of which ends the last of its answers."""

    def __init__(self, service: Service, number: int, answers: int) -> None:
        self.number = number
        self._service, self._open = service, answers
        self._events: queue.SimpleQueue[Event | ChatsmithError | None] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Event]:
        """The events as they come; ends early when the request was taken back. Raises what made it fail."""
        while self._open:
            event = self._events.get()
            if event is None:
                return
            if isinstance(event, ChatsmithError):
                raise event
            if event.finish is not None:
                self._open -= 1
            yield event
            if event.finish == "error":
                return

    def cancel(self) -> None:
        """Take the request back; nothing happens if it is done already."""
        self._service.cancel(self)


class Service:
    """Runs a batch in a thread until it is closed; use it in a `with` statement, or call `close`."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._changed = threading.Condition()
        self._door = threading.Lock()
        self._tickets: dict[int, Ticket] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="chatsmith-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Ticket:
        """Put a request in the line. Raises `RequestError` for one that cannot be met, `Busy` for a full line."""
        with self._turn():
            if self._closing:
                raise WorkError("the engine is closing down and takes no more requests")
            number = self.batch.add(request)
            ticket = self._tickets[number] = Ticket(self, number, request.samples)
            self._changed.notify()
            return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Take a request back: it has no part in the next step."""
        with self._turn():
            if self._tickets.pop(ticket.number, None) is not None:
                self.batch.cancel(ticket.number)
                ticket._events.put(None)
                self._changed.notify()

    def close(self, *, drain: bool = False, seconds: float = 30.0) -> None:
        """Take no more requests; with `drain` finish those that are there, within so many seconds, then stop."""
        with self._turn():
            self._closing = True
            if drain:
                self._changed.wait_for(lambda: not self._tickets, seconds)
            for ticket in self._tickets.values():
                self.batch.cancel(ticket.number)
                ticket._events.put(None)
            self._tickets.clear()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The lock, in the order in which it was wanted: the thread that makes steps would else take it again before
        anybody who waits to ask or to take back."""
        with self._door:
            self._changed.acquire()
        try:
            yield
        finally:
            self._changed.release()

    def _run(self) -> None:
        while True:
            with self._turn():
                self._changed.wait_for(lambda: self.batch.busy or (self._closing and not self._tickets))
                if not self.batch.busy:
                    return
                self._step()

    def _step(self) -> None:
        try:
            events = self.batch.step()
        except Exception as error:
            # The batch has let everything go; those who wait must hear of it, and the thread goes on.
            failure = error if isinstance(error, ChatsmithError) else WorkError(f"the model failed: {error}")
            for ticket in self._tickets.values():
                ticket._events.put(failure)
            self._tickets.clear()
            self._changed.notify_all()
            return
        for event in events:
            if event.ticket in self._tickets:
                self._tickets[event.ticket]._events.put(event)
        alive = self.batch.tickets
        for number in [number for number in self._tickets if number not in alive]:
            del self._tickets[number]
        self._changed.notify_all()
