"""The engine that says every word: prompts in, tokens out, many answers at once.

All that is asked of one engine is worked on together, whoever asks: `stream` and `complete` may be called while another
stream is being read, and from several threads. A request's tokens do not depend on its neighbours: a backend gives a
row of logits the same bits in any company, the stages of sampling do too, and all chance is a function of the request's
seed and the place in its answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, WorkError
from chatsmith.generate.backend import Backend, Floats
from chatsmith.generate.batch import Batch
from chatsmith.generate.requests import FAULTS, Completion, Event, Finish, Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.scoring import windows
from chatsmith.generate.speculation import Guesser
from chatsmith.text.tokenizer import Tokenizer

_READ_ONLY = Sampling(temperature=0.0, max_tokens=0, seed=0)


class Engine:
    """A backend and its tokenizer, ready to answer.

    `max_rows` answers are worked on at a time, fewer where the cache's blocks do not suffice. With `guesser` the next
    tokens are guessed at and checked together.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 32,
        guesser: Guesser | None = None,
    ) -> None:
        if max_rows < 1:
            raise RequestError(f"an engine needs at least one row, not {max_rows}")
        if tokenizer.vocab_size > backend.spec.vocab_size:
            raise RequestError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model knows {backend.spec.vocab_size}",
                "use the tokenizer that the model was trained with",
            )
        self.backend, self.tokenizer = backend, tokenizer
        self.batch = Batch(backend, tokenizer, max_rows=max_rows, guesser=guesser)
        self._lock = threading.RLock()
        self._inboxes: dict[int, deque[Event]] = {}
        self._version = backend.version

    def stream(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer all requests, giving each token as soon as it is chosen. Every request is checked before the first.

        A stream that is closed before its end takes its requests back. Raises `WorkError` where the model's numbers are
        not finite.
        """
        asked = tuple(requests)
        with self._lock:
            for request in asked:
                self.batch.check(request)
            if self._version != self.backend.version:
                self.forget()
                self._version = self.backend.version
        return self._stream(asked)

    def _stream(self, asked: Sequence[Request]) -> Iterator[Event]:
        inbox: deque[Event] = deque()
        open_: dict[int, int] = {}  # ticket -> answers that have not ended
        try:
            with self._lock:
                for label, request in enumerate(asked):
                    ticket = self.batch.add(request, label)
                    open_[ticket] = request.samples
                    self._inboxes[ticket] = inbox
            while open_:
                with self._lock:
                    if not inbox:
                        self._deliver()
                while inbox:
                    event = inbox.popleft()
                    if event.finish is not None:
                        open_[event.ticket] -= 1
                        if not open_[event.ticket] or event.finish in FAULTS:
                            del open_[event.ticket]
                    if event.finish in FAULTS:
                        raise WorkError(*FAULTS[event.finish])
                    yield event
        finally:
            with self._lock:
                for ticket in open_:
                    self.batch.cancel(ticket)
                for ticket in [ticket for ticket, box in self._inboxes.items() if box is inbox]:
                    del self._inboxes[ticket]

    def _deliver(self) -> None:
        """A step, and its events to those who wait for them."""
        if not self.batch.busy:
            raise WorkError("the answers were lost when another request failed", "ask again")
        for event in self.batch.step():
            inbox = self._inboxes.get(event.ticket)
            if inbox is not None:
                inbox.append(event)

    def complete(self, requests: Iterable[Request]) -> list[Completion]:
        """Answer all requests; the answers come in the order of the requests, then of the samples."""
        answers: dict[tuple[int, int], list[Event]] = {}
        for event in self.stream(requests):
            answers.setdefault((event.request, event.index), []).append(event)
        return [gather(events) for _, events in sorted(answers.items())]

    def score(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Natural log of the probability of each token after the first, given those before it: [len(ids) − 1].

        A text longer than the context is read in windows that overlap by half, so that every token but those of the
        first window sees at least half a context.
        """
        return self.score_many([ids])[0]

    def score_many(self, texts: Sequence[Sequence[int]]) -> list[NDArray[np.float64]]:
        """`score` for many texts, worked on together."""
        size = self.tokenizer.vocab_size
        for ids in texts:
            if not all(0 <= token < size for token in ids):
                raise RequestError(f"a text to score has ids outside the vocabulary of {size}")
        scores = [np.zeros(max(len(ids) - 1, 0)) for ids in texts]
        context = self.backend.spec.context
        parts = [part for text, ids in enumerate(texts) for part in windows(text, len(ids), context)]
        asked = [
            Request(tuple(texts[part.text][part.start : part.end]), _READ_ONLY, score_prompt=True) for part in parts
        ]
        for part, done in zip(parts, self.complete(asked), strict=True):
            assert done.prompt is not None
            found = done.prompt.logprobs[part.fresh - 1 - part.start :]
            scores[part.text][part.fresh - 1 : part.end - 1] = found
        return scores

    def embed(self, texts: Sequence[Sequence[int]]) -> Floats:
        """The mean of the states after the last norm over each text's tokens, [texts, E]."""
        asked = [Request(tuple(ids), _READ_ONLY, embed=True) for ids in texts]
        found: dict[int, Floats] = {}
        for event in self.stream(asked):
            assert event.embedding is not None
            found[event.request] = event.embedding
        return np.stack([found[place] for place in range(len(asked))])

    def forget(self) -> None:
        """Keep nothing of what was read: the model's weights have changed, say."""
        with self._lock:
            self.batch.blocks.forget()


def gather(events: Sequence[Event]) -> Completion:
    """The completion that a finished answer's events add up to."""
    last = events[-1]
    finish: Finish | None = last.finish
    if finish is None:
        raise RequestError("an answer that has not ended cannot be gathered")
    made = [event for event in events if event.id is not None]
    return Completion(
        request=last.request,
        index=last.index,
        ids=tuple(event.id for event in made if event.id is not None),
        text="".join(event.text for event in events),
        finish_reason=finish,
        seed=last.seed,
        logprobs=tuple(event.logprob for event in made),
        distributions=tuple(event.distribution for event in made if event.distribution is not None),
        top=tuple(event.top for event in made if event.top),
        prompt=next((event.prompt for event in events if event.prompt is not None), None),
        forgotten=last.forgotten,
    )
