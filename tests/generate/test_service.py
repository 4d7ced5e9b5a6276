"""One engine thread, many that ask: the same tokens, places freed at once, and failures that everybody hears of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chatsmith.errors import Busy, RequestError, WorkError
from chatsmith.generate.batch import Batch
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.service import Service
from tiny import tiny_engine, tiny_model

REQUEST = Request((70, 71), Sampling(temperature=1, seed=1, max_tokens=20), stop_ids=frozenset())


@pytest.fixture
def service() -> Iterator[Service]:
    engine = tiny_engine(tiny_model(context=128))
    with Service(Batch(engine.backend, engine.tokenizer, max_rows=4, max_waiting=8)) as made:
        yield made


def ids(service: Service, request: Request) -> list[int | None]:
    return [event.id for event in service.submit(request)]


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


def test_samples_come_together_and_the_last_ends_the_ticket(service: Service) -> None:
    events = list(service.submit(replace(REQUEST, samples=3)))
    assert sorted(event.index for event in events if event.finish) == [0, 1, 2]


def test_a_request_that_is_taken_back_ends_and_frees_its_place(service: Service) -> None:
    long = replace(REQUEST, sampling=replace(REQUEST.sampling, max_tokens=120))
    tickets = [service.submit(long) for _ in range(4)]
    events = iter(tickets[0])
    next(events)
    before = service.batch.counts["steps"]
    tickets[0].cancel()
    assert service.batch.counts["steps"] - before <= 2  # the step that was being made, and none after it
    for ticket in tickets:
        ticket.cancel()
    assert len(list(events)) < 119
    assert service.batch.blocks.held == 0
    assert len(ids(service, REQUEST)) == 20


def test_what_is_wrong_is_said_to_who_asked(service: Service) -> None:
    with pytest.raises(RequestError, match="empty prompt"):
        service.submit(replace(REQUEST, prompt=()))
    with service._changed:  # no step is made meanwhile
        tickets = [service.submit(REQUEST) for _ in range(8)]
        with pytest.raises(Busy):
            service.submit(REQUEST)
    for ticket in tickets:
        assert len(list(ticket)) == 20


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
