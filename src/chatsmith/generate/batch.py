"""A batch of answers in the making: rows join, get a token per step, and leave when they are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from chatsmith.errors import RequestError
from chatsmith.generate.distribution import Distribution
from chatsmith.generate.noise import fresh_seed, key, sample_seed
from chatsmith.generate.requests import Event, Finish, Request
from chatsmith.generate.sampling import Floats, Stages
from chatsmith.generate.stopping import StopText
from chatsmith.models.cache import KVCache
from chatsmith.models.decoder import Decoder
from chatsmith.text.tokenizer import TextStream, Tokenizer

MAX_SAMPLES = 1024
_PREFILL_TOKENS = 8192  # prompts that are read together, padding included
_FIRST_ROOM = 128  # positions a cache has for answers before it first grows


class _Row:
    """One answer: where it stands, and what it needs to go on."""

    __slots__ = ("index", "limit", "number", "position", "request", "seed", "seen", "stop_ids", "stopper", "text")

    def __init__(self, number: int, request: Request, index: int, seed: int, limit: int, tokenizer: Tokenizer) -> None:
        self.number, self.request, self.index, self.seed, self.limit = number, request, index, seed, limit
        self.position = 0
        self.stop_ids = tokenizer.stop_ids if request.stop_ids is None else request.stop_ids
        self.text = TextStream(tokenizer)
        self.stopper = StopText(request.sampling.stop)
        self.seen: set[int] | None = set(request.prompt) if request.sampling.repetition_penalty != 1 else None

    @property
    def reach(self) -> int:
        """The most positions this row can come to need."""
        return len(self.request.prompt) + self.limit

    def take(self, token: int) -> tuple[str, Finish | None]:
        """Add a token: the text that may be shown now, and why the answer ends, if it does."""
        self.position += 1
        if self.seen is not None:
            self.seen.add(token)
        ended = token in self.stop_ids
        shown = self.stopper.push(self.text.flush() if ended else self.text.push(token))
        if not ended and not self.stopper.stopped and self.position < self.limit:
            return shown, None
        if not ended and not self.stopper.stopped:
            shown += self.stopper.push(self.text.flush())
        if self.stopper.stopped:
            return shown, "stop"
        return shown + self.stopper.flush(), "eos" if ended else "length"


class Batch:
    """Requests that wait and rows that run; `step` moves all of them on by one token. Used by `Engine`."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int, cache_bytes: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_rows, self.cache_bytes = max_rows, cache_bytes
        self._waiting: deque[list[_Row]] = deque()
        self._rows: list[_Row] = []
        self._last: list[int] = []
        self._cache: KVCache | None = None
        self._added = 0
        spec = model.spec
        self._position_bytes = 2 * spec.layers * spec.kv_heads * spec.head_dim * model.dtype.itemsize

    @property
    def busy(self) -> bool:
        """Whether any answer is still to be finished."""
        return bool(self._rows or self._waiting)

    def add(self, request: Request) -> int:
        """Queue a request; returns its number, which its events carry. A request that cannot be met raises."""
        context, size = self.model.spec.context, len(request.prompt)
        if not size:
            raise RequestError("an empty prompt gives the model nothing to go on", "begin with the end-of-text token")
        if size >= context:
            raise RequestError(
                f"the prompt has {size} tokens, and the model's context of {context} leaves no room for an answer",
                f"shorten it to at most {context - 1} tokens",
            )
        if not all(0 <= token < self.tokenizer.vocab_size for token in request.prompt):
            raise RequestError(f"the prompt has ids outside the vocabulary of {self.tokenizer.vocab_size}")
        if not 1 <= request.samples <= MAX_SAMPLES:
            raise RequestError(f"samples must be from 1 to {MAX_SAMPLES}, not {request.samples}")
        number, self._added = self._added, self._added + 1
        seed = fresh_seed() if request.sampling.seed is None else request.sampling.seed
        limit = min(request.sampling.max_tokens, context - size)
        self._waiting.append(
            [
                _Row(number, request, index, sample_seed(seed, index), limit, self.tokenizer)
                for index in range(request.samples)
            ]
        )
        return number

    def cancel(self, number: int) -> None:
        """Forget a request, waiting or running; its answers end without a last event."""
        self._waiting = deque(rows for rows in self._waiting if rows[0].number != number)
        self._keep([row.number != number for row in self._rows])

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """The next token of every running answer; or, while there is room, the first of those that waited."""
        with _evaluating(self.model):
            start = len(self._rows)
            if joining := self._admit():
                logits = self._prefill(joining)
            elif self._rows:
                start, logits = 0, self._decode()
            else:
                return []
        chosen, events = self._choose(self._rows[start:], logits)
        self._last[start:] = chosen
        self._keep([True] * start + [event.finish is None for event in events])
        return events

    def _admit(self) -> list[list[_Row]]:
        """Take waiting rows, first come first served, as far as rows, memory and one prefill's tokens allow.

        While many wait, a few free rows are not worth a prefill of their own: it stops the running rows, and their
        keys and values are copied once more. Then a quarter of the rows must be free.
        """
        joining: list[list[_Row]] = []
        free = self.max_rows - len(self._rows)
        if not self._waiting or free < min(len(self._waiting), -(-self.max_rows // 4)):
            return joining
        reach = max((row.reach for row in self._rows), default=0)
        longest = 0
        while self._waiting and free > 0:
            rows = self._waiting[0]
            longest = max(longest, len(rows[0].request.prompt))
            reach = max(reach, rows[0].reach)
            free = min(free, self.cache_bytes // (reach * self._position_bytes) - len(self._rows))
            if not self._rows:
                free = max(free, 1)
            if free <= 0 or (joining and (len(joining) + 1) * longest > _PREFILL_TOKENS):
                break
            joining.append(rows[:free])
            self._rows += joining[-1]
            free -= len(joining[-1])
            if len(joining[-1]) < len(rows):
                self._waiting[0] = rows[len(joining[-1]) :]
            else:
                self._waiting.popleft()
        return joining

    def _prefill(self, joining: Sequence[Sequence[_Row]]) -> Floats:
        """Read the prompts, one row each, and give every sample its own copy; logits [rows, V] after the prompts."""
        prompts = [rows[0].request.prompt for rows in joining]
        counts = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(counts.max())
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        device = self.model.device
        room = max(rows[0].limit for rows in joining)
        cache = KVCache(
            self.model.spec,
            len(prompts),
            min(longest + min(room, _FIRST_ROOM), self.model.spec.context),
            device=device,
            dtype=self.model.dtype,
        )
        counts = counts.to(device)
        hidden = self.model.hidden(ids.to(device), cache=cache, counts=counts)
        logits = self.model.logits(hidden[torch.arange(len(prompts), device=device), counts - 1])
        copies = [number for number, rows in enumerate(joining) for _ in rows]
        if len(copies) > len(prompts):
            repeat = torch.tensor(copies, device=device)
            cache.select(repeat)
            logits = logits[repeat]
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.merge(cache)
        self._last += [0] * len(copies)
        return self._to_numpy(logits)

    def _decode(self) -> Floats:
        """Feed each row's last token; logits [B, V] after it."""
        cache = self._cache
        assert cache is not None
        needed = max(len(row.request.prompt) + row.position for row in self._rows)
        if needed > cache.capacity:
            cache.reserve(min(2 * cache.capacity, self.model.spec.context))
        ids = torch.tensor(self._last, device=self.model.device)[:, None]
        return self._to_numpy(self.model(ids, cache=cache)[:, 0])

    def _to_numpy(self, logits: torch.Tensor) -> Floats:
        """Logits [B, V] as float32 on the CPU, without the rows that only pad the embedding to a round size."""
        found: Floats = logits[:, : self.tokenizer.vocab_size].float().cpu().contiguous().numpy()
        return found

    def _choose(self, rows: Sequence[_Row], logits: Floats) -> tuple[list[int], list[Event]]:
        """One token for each row; rows whose settings agree go through the stages together."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(row.request.sampling.shape, []).append(place)
        events: list[Event | None] = [None] * len(rows)
        for places in groups.values():
            members = [rows[place] for place in places]
            sampling = members[0].request.sampling
            stages = Stages(
                logits if len(groups) == 1 else logits[places],
                sampling,
                [np.fromiter(row.seen, np.int64, len(row.seen)) for row in members if row.seen is not None],
                look=any(row.request.look for row in members),
            )
            tokens = stages.choose(_keys(members))
            logprobs = stages.logprobs(tokens).tolist()
            for slot, (place, row, token) in enumerate(zip(places, members, tokens.tolist(), strict=True)):
                look = Distribution.of(stages, slot, token) if row.request.look else None
                text, finish = row.take(token)
                events[place] = Event(row.number, row.index, token, text, logprobs[slot], row.seed, finish, look)
        done = [event for event in events if event is not None]
        return [event.id for event in done], done

    def _keep(self, wanted: Sequence[bool]) -> None:
        """Drop the rows that are not wanted, and their keys and values."""
        if all(wanted):
            return
        places = [place for place, keep in enumerate(wanted) if keep]
        self._rows = [self._rows[place] for place in places]
        self._last = [self._last[place] for place in places]
        if not places:
            self._cache = None
        elif self._cache is not None:
            self._cache.select(torch.tensor(places, device=self.model.device))


def _keys(rows: Sequence[_Row]) -> NDArray[np.uint64]:
    if rows[0].request.sampling.greedy:
        return np.zeros(len(rows), np.uint64)
    return np.array([key(row.seed, row.position) for row in rows], np.uint64)


@contextmanager
def _evaluating(model: Decoder) -> Iterator[None]:
    """Without dropout, whatever mode the model is in; its mode afterwards is what it was before."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
