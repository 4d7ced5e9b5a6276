"""One engine thread, many that ask: the same tokens, places freed at once, and failures that everybody hears of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from chatsmith.errors import Busy, RequestError, WorkError
from chatsmith.generate.backend import Floats, Step
from chatsmith.generate.batch import Batch
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.service import Delivery, Order, Service
from tiny import tiny_engine, tiny_model

REQUEST = Request((70, 71), Sampling(temperature=1, seed=1, max_tokens=20), stop_ids=frozenset())


@pytest.fixture
def service() -> Iterator[Service]:
    engine = tiny_engine(tiny_model(context=128))
    with Service(Batch(engine.backend, engine.tokenizer, max_rows=4, max_waiting=8)) as made:
        yield made


def ids(service: Service, request: Request) -> list[int | None]:
    return [event.id for event in service.submit(request)]


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_many_threads_get_what_each_gets_alone(service: Service) -> None:
    requests = [replace(REQUEST, sampling=replace(REQUEST.sampling, seed=seed)) for seed in range(8)]
    expected = [ids(service, request) for request in requests]
    found: list[list[int | None]] = [[] for _ in requests]

    def ask(place: int) -> None:
        found[place] = ids(service, requests[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == expected
    assert service.batch.blocks.held == 0


def test_who_comes_as_the_thread_ends_is_told_so(service: Service) -> None:
    service.close()
    service._closing = False  # as it was for a thread that had just looked
    with pytest.raises(WorkError, match="closing down"):
        service.submit(REQUEST)


def test_samples_come_together_and_the_last_ends_the_ticket(service: Service) -> None:
    events = list(service.submit(replace(REQUEST, samples=3)))
    assert sorted(event.index for event in events if event.finish) == [0, 1, 2]


def test_a_request_that_is_taken_back_ends_and_frees_its_place(service: Service) -> None:
    long = replace(REQUEST, sampling=replace(REQUEST.sampling, max_tokens=120))
    backend = service.batch.backend
    logits = backend.logits

    def when_asked(step: Step) -> Floats:
        """A step ends when something is on the list, so that nothing is made while this thread does not look."""
        while not service._list:
            time.sleep(0.001)
        return logits(step)

    backend.logits = when_asked  # type: ignore[method-assign]
    tickets = [service.submit(long) for _ in range(4)]
    events = iter(tickets[0])
    next(events)
    before = service.batch.counts["steps"]
    tickets[0].cancel()
    assert service.batch.counts["steps"] - before <= 2  # the step that was being made, and none after it
    for ticket in tickets:
        ticket.cancel()
    backend.logits = logits  # type: ignore[method-assign]
    assert len(list(events)) < 119
    assert service.batch.blocks.held == 0
    assert len(ids(service, REQUEST)) == 20


def test_what_is_wrong_is_said_to_who_asked(service: Service) -> None:
    with pytest.raises(RequestError, match="empty prompt"):
        service.submit(replace(REQUEST, prompt=()))
    heard: list[list[Delivery]] = [[] for _ in range(13)]
    orders = [Order(REQUEST, box.append) for box in heard]
    with service._bell:  # all come before the next step: eight may wait
        for order in orders:
            service.place(order)
    for box in heard[:8]:
        wait_for(lambda box=box: len(box) == 21)
        assert box[0] == "taken"
    assert any(isinstance(box[0], Busy) for box in heard[8:])


def test_what_was_ordered_is_delivered_and_can_be_taken_back_at_once(service: Service) -> None:
    heard: list[Delivery] = []
    order = Order(REQUEST, heard.append)
    with service._bell:
        service.place(order)
        done = service.take_back(order)
    done.result(60)
    assert heard == ["taken", None]
    assert service.batch.blocks.held == 0
    service.take_back(order).result(60)
    assert heard == ["taken", None]


def test_a_failing_model_fails_its_requests_and_not_the_service(service: Service) -> None:
    good = service.batch.backend.logits

    def bad(step: object) -> None:
        raise MemoryError("no memory")

    service.batch.backend.logits = bad  # type: ignore[method-assign, assignment]
    with pytest.raises(WorkError, match="the model failed: no memory"):
        ids(service, REQUEST)
    service.batch.backend.logits = good  # type: ignore[method-assign]
    assert len(ids(service, REQUEST)) == 20
    assert service.batch.blocks.held == 0


def test_closing_finishes_what_is_there_and_takes_no_more(service: Service) -> None:
    ticket = service.submit(REQUEST)
    service.close(drain=True)
    assert len(list(ticket)) == 20
    with pytest.raises(WorkError, match="closing down"):
        service.submit(REQUEST)
