"""The engine that says every word: prompts in, tokens out, many answers at once.

Rows of a batch are answers. Each has its own length in the key/value cache, its own settings and its own chance; a row
leaves when its answer ends, and a waiting request takes the place. A request's tokens do not depend on its neighbours:
the stages of sampling are the same to the last bit alone or in a batch. The logits may differ in their last bits, where
the matrix library picks another kernel for another number of rows; that changes a token only where two candidates are
as close as that (about once in a million tokens in float32, more often in bfloat16).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError
from chatsmith.generate.batch import Batch
from chatsmith.generate.requests import Completion, Event, Finish, Request
from chatsmith.generate.scoring import score_many
from chatsmith.models.decoder import Decoder
from chatsmith.text.tokenizer import Tokenizer


class Engine:
    """A model and its tokenizer, ready to answer.

    `max_rows` answers are worked on at a time; fewer where their keys and values would take more than `cache_bytes`.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int = 32, cache_bytes: int = 2 * 2**30
    ) -> None:
        if max_rows < 1:
            raise RequestError(f"an engine needs at least one row, not {max_rows}")
        if tokenizer.vocab_size > model.spec.vocab_size:
            raise RequestError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model knows {model.spec.vocab_size}",
                "use the tokenizer that the model was trained with",
            )
        self.model, self.tokenizer = model, tokenizer
        self.max_rows, self.cache_bytes = max_rows, cache_bytes

    def batch(self) -> Batch:
        """An empty batch: `add` requests at any time, and call `step` for the next token of every answer in it."""
        return Batch(self.model, self.tokenizer, max_rows=self.max_rows, cache_bytes=self.cache_bytes)

    def stream(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer all requests, giving each token as soon as it is chosen. Every request is checked before the first."""
        batch = self.batch()
        for request in requests:
            batch.add(request)
        while batch.busy:
            yield from batch.step()

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
        """`score` for many texts, in batches."""
        return score_many(self.model, texts, self.tokenizer.vocab_size)


def gather(events: Sequence[Event]) -> Completion:
    """The completion that a finished answer's events add up to."""
    last = events[-1]
    finish: Finish | None = last.finish
    if finish is None:
        raise RequestError("an answer that has not ended cannot be gathered")
    return Completion(
        request=last.request,
        index=last.index,
        ids=tuple(event.id for event in events),
        text="".join(event.text for event in events),
        finish_reason=finish,
        seed=last.seed,
        logprobs=tuple(event.logprob for event in events),
        distributions=tuple(event.distribution for event in events if event.distribution is not None),
    )
