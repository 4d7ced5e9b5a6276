"""One answer in the making: where it stands, and what it needs to go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from chatsmith.generate.backend import Floats
from chatsmith.generate.blocks import Table
from chatsmith.generate.constraints import Matcher
from chatsmith.generate.requests import Event, Finish, PromptScore, Request, Top
from chatsmith.generate.sampling import Past
from chatsmith.generate.stopping import StopText
from chatsmith.text.tokenizer import TextStream, Tokenizer

if TYPE_CHECKING:
    from chatsmith.generate.beams import Search


@dataclass(eq=False, slots=True)
class Sequence:
    """Tokens so far, of which `table.size` after `begin` are in the cache; the model reads the rest next.

    It is the answer number `index` to the request that the engine knows as `number` and whoever asked as `label`, and
    may have `limit` tokens, of which `made` are there. `twins` are the other samples until the prompt has been read.
    """

    number: int
    label: int
    index: int
    request: Request
    seed: int
    limit: int
    table: Table
    tokens: list[int]
    text: TextStream
    stopper: StopText
    stop_ids: frozenset[int]
    matcher: Matcher | None = None
    begin: int = 0
    made: int = 0
    twins: list[Sequence] = field(default_factory=list)
    score: PromptSums | None = None
    pool: Pooled | None = None
    search: Search | None = None  # the beam search it belongs to
    said: Counter[int] | None = None
    seen: set[int] | None = None
    placed: bool = False  # whether it has looked for a known beginning since it last had blocks

    @classmethod
    def of(
        cls,
        request: Request,
        tokenizer: Tokenizer,
        *,
        number: int,
        label: int,
        index: int,
        seed: int,
        limit: int,
        table: Table,
        matcher: Matcher | None,
    ) -> Sequence:
        """An answer that has not begun."""
        remembers = request.sampling.remembers
        return cls(
            number=number,
            label=label,
            index=index,
            request=request,
            seed=seed,
            limit=limit,
            table=table,
            tokens=list(request.prompt),
            text=TextStream(tokenizer),
            stopper=StopText(request.sampling.stop),
            stop_ids=tokenizer.stop_ids if request.stop_ids is None else request.stop_ids,
            matcher=matcher,
            said=Counter() if remembers else None,
            seen=set(request.prompt) if remembers else None,
        )

    @property
    def pending(self) -> int:
        """Tokens that the model has still to read."""
        return len(self.tokens) - self.begin - self.table.size

    @property
    def reading(self) -> bool:
        """Whether there is more to read than the one token that was chosen last."""
        return self.pending > 1 or self.made == 0

    def past(self, guesses: tuple[int, ...] = ()) -> Past | None:
        """What the text so far, and guesses after it, make of the next logits; None where it makes nothing of them."""
        allowed = None if self.matcher is None else self.matcher.allowed()
        if self.said is None or self.seen is None:
            return None if allowed is None else Past(_NONE, _NONE, _NO_COUNTS, allowed)
        said = self.said + Counter(guesses) if guesses else self.said
        seen = self.seen.union(guesses) if guesses else self.seen
        return Past(
            np.fromiter(seen, np.int64, len(seen)),
            np.fromiter(said.keys(), np.int64, len(said)),
            np.fromiter(said.values(), np.float32, len(said)),
            allowed,
        )

    def take(self, token: int) -> tuple[str, Finish | None]:
        """Add a token: the text that may be shown now, and why the answer ends, if it does."""
        self.tokens.append(token)
        self.made += 1
        if self.said is not None and self.seen is not None:
            self.said[token] += 1
            self.seen.add(token)
        if self.matcher is not None:
            self.matcher.take(token)
            if self.matcher.fault:
                return "", self.matcher.fault
        ended = token in self.stop_ids
        shown = self.stopper.push(self.text.flush() if ended else self.text.push(token))
        if not ended and not self.stopper.stopped and self.made < self.limit:
            return shown, None
        if not ended and not self.stopper.stopped:
            shown += self.stopper.push(self.text.flush())
        if self.stopper.stopped:
            return shown, "stop"
        return shown + self.stopper.flush(), "eos" if ended else "length"

    def event(self, **rest: Any) -> Event:
        """Something about this answer."""
        said: dict[str, Any] = {"id": None, "text": "", "logprob": 0.0} | rest
        return Event(self.label, self.index, ticket=self.number, seed=self.seed, reused=self.table.hits, **said)

    def fork(self, index: int) -> Sequence:
        """Another answer that begins with all of this one and shares its blocks."""
        return Sequence(
            number=self.number,
            label=self.label,
            index=index,
            request=self.request,
            seed=self.seed,
            limit=self.limit,
            table=self.table.fork(),
            tokens=self.tokens.copy(),
            text=self.text.copy(),
            stopper=self.stopper.copy(),
            stop_ids=self.stop_ids,
            matcher=None if self.matcher is None else self.matcher.copy(),
            begin=self.begin,
            made=self.made,
            search=self.search,
            said=None if self.said is None else self.said.copy(),
            seen=None if self.seen is None else self.seen.copy(),
            placed=True,
        )

    def roll(self, context: int) -> None:
        """Forget the older half of a full context; what is left will be read anew."""
        self.table.release()
        self.begin = len(self.tokens) - max(context // 2, 1)
        self.placed = False


_NONE = np.zeros(0, np.int64)
_NO_COUNTS = np.zeros(0, np.float32)


@dataclass(slots=True)
class PromptSums:
    """The log probabilities of a prompt's tokens as they become known."""

    logprobs: list[float] = field(default_factory=list)
    top: list[Top] = field(default_factory=list)

    def done(self) -> PromptScore:
        """The whole."""
        return PromptScore(tuple(self.logprobs), tuple(self.top))


@dataclass(slots=True)
class Pooled:
    """The sum of the states of a prompt's tokens so far."""

    total: Floats | None = None

    def add(self, states: Floats) -> None:
        """More states [n, E]; summed in order, so that parts of any size give the same."""
        for state in states.astype(np.float64):
            self.total = state if self.total is None else self.total + state
