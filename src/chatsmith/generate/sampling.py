"""From logits to a choice, stage by stage: penalties and bias → temperature → top-k → top-p → min-p → choice.

The stages run in the order the field has settled on, over whole batches, in numpy alone: one row gives the same numbers
to the last bit alone or in any batch. `Stages` keeps what every stage left, so that whoever wants to look at a choice
sees the very numbers that made it. Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from chatsmith.arguments import number, several, short, whole
from chatsmith.errors import RequestError, WorkError, did_you_mean
from chatsmith.generate.noise import choose

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Stage = Literal["logits", "penalties", "temperature", "top_k", "top_p", "min_p"]
STAGES: tuple[Stage, ...] = get_args(Stage)

MAX_SEED = 2**63 - 1
_MAX_STOPS, _MAX_STOP_LENGTH = 16, 1000
MAX_BIASES = 1024
_WARM = "0 always takes the likeliest token, 1 leaves the probabilities alone"
_LARGE, _LIKELY = 4096, 0.0003  # from this vocabulary on, top-p first tries the tokens of at least this weight


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to stop.

    Attributes:
        temperature: Sharpens (below 1) or flattens (above 1) the distribution; 0 always takes the likeliest token.
        top_k: Keep only the k likeliest tokens; 0 keeps all (Fan et al. 2018).
        top_p: Keep the fewest tokens whose probabilities reach this sum; 1 keeps all (Holtzman et al. 2020).
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all (Nguyen et al. 2024).
        repetition_penalty: Divides positive logits of tokens already in the text, and multiplies negative ones; 1 does
            nothing (CTRL, Keskar et al. 2019).
        presence_penalty: Taken from the logits of tokens that the answer already has; 0 does nothing.
        frequency_penalty: Taken from the logits of tokens of the answer as often as they occur in it; 0 does nothing.
        logit_bias: Added to the logits of single tokens: a mapping or pairs of id and bias, −100 to 100.
        seed: Makes the choice repeatable; without one a fresh seed is drawn, and reported with the result.
        stop: Texts that end the answer; they are not part of it.
        max_tokens: The most tokens to generate; 0 only reads the prompt.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 200

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else several("stop", self.stop or (), "texts")
        kept: dict[str, object] = {
            "stop": stop,
            "temperature": number("temperature", self.temperature, 0, 100, _WARM),
            "top_k": whole("top_k", self.top_k, 0, 2**24, "0 keeps all tokens"),
            "top_p": number("top_p", self.top_p, 0, 1, "1 keeps all tokens", above=True),
            "min_p": number("min_p", self.min_p, 0, 1, "0 keeps all tokens"),
            "repetition_penalty": number(
                "repetition_penalty", self.repetition_penalty, 0, 100, "1 does nothing, 1.2 is usual", above=True
            ),
            "presence_penalty": number("presence_penalty", self.presence_penalty, -2, 2, "0 does nothing"),
            "frequency_penalty": number("frequency_penalty", self.frequency_penalty, -2, 2, "0 does nothing"),
            "max_tokens": whole("max_tokens", self.max_tokens, 0, 2**24, "it counts the tokens of the answer"),
            "logit_bias": self._bias(),
        }
        if self.seed is not None:
            kept["seed"] = whole("seed", self.seed, 0, MAX_SEED, "leave it out for a fresh one")
        # Numbers of numpy's become Python's: those that JSON can say, and that a key can be made of.
        for name, value in kept.items():
            object.__setattr__(self, name, value)
        if len(stop) > _MAX_STOPS:
            raise RequestError(f"{len(stop)} stop texts are too many", f"give at most {_MAX_STOPS}")
        for part in stop:
            if not isinstance(part, str) or not 1 <= len(part) <= _MAX_STOP_LENGTH:
                raise RequestError(f"a stop text must have 1 to {_MAX_STOP_LENGTH} characters, not {short(part)}")

    def _bias(self) -> tuple[tuple[int, float], ...]:
        given = self.logit_bias
        try:
            pairs = sorted((given or {}).items() if isinstance(given, Mapping) else (tuple(pair) for pair in given))
            fits = len(dict(pairs)) == len(pairs) <= MAX_BIASES and all(
                isinstance(token, Integral) and int(token) >= 0 and abs(bias) <= 100 and not isinstance(bias, bool)
                for token, bias in pairs
            )
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise RequestError(
                f"logit_bias must give at most {MAX_BIASES} token ids a bias from -100 to 100, not {short(given)}"
            )
        return tuple((int(token), float(bias)) for token, bias in pairs)

    @classmethod
    def of(cls, defaults: Sampling | None = None, **settings: Any) -> Sampling:
        """`defaults` with the given settings changed; None leaves one as it is, an unknown name is an error."""
        base = defaults or cls()
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                raise RequestError(f"no sampling setting called {name!r}", did_you_mean(name, names))
        given = {name: value for name, value in settings.items() if value is not None}
        return cls(**({name: getattr(base, name) for name in names} | given))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    @property
    def shape(self) -> tuple[object, ...]:
        """The settings that shape the distribution; rows that agree in them go through the stages together."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty, self.logit_bias)
        return (self.temperature, self.top_k, self.top_p, self.min_p, *penalties)

    @property
    def remembers(self) -> bool:
        """Whether the choice depends on which tokens are already there."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class Past:
    """What a row's own text makes of its logits: `seen` are the distinct ids of prompt and answer, `said` those of the
    answer with their `counts`, and `allowed` [V] are the tokens that a constraint leaves (None: all)."""

    seen: Ids
    said: Ids
    counts: Floats
    allowed: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, prompt: Iterable[int], answer: Iterable[int] = (), allowed: NDArray[np.bool_] | None = None) -> Past:
        """After a prompt and some of an answer."""
        counts = Counter(answer)
        seen = np.array(sorted(counts.keys() | set(prompt)), np.int64)
        return cls(seen, np.array(list(counts), np.int64), np.array(list(counts.values()), np.float32), allowed)


class Stages:
    """Logits [B, V] on their way to a choice; all rows share `sampling.shape`, each has its own text so far.

    `pasts` holds each row's; there may be none where neither penalties nor constraints read them. After temperature
    the stages work on weights: probabilities up to a factor, the largest of a row exactly 1. What each stage left is
    kept only with `look`; otherwise they write over one another, the same numbers in less memory.
    """

    def __init__(self, logits: Floats, sampling: Sampling, pasts: Sequence[Past] = (), *, look: bool = False) -> None:
        self.sampling = sampling
        self.logits = logits
        self.peak = logits.max(axis=1)
        if not np.isfinite(self.peak).all():
            raise WorkError(
                "the model's logits are not finite: its weights are damaged or its training diverged",
                "take an earlier checkpoint, or train with a lower learning rate",
            )
        self.penalised = penalise(logits, pasts, sampling)
        self._lift = self.peak if self.penalised is logits else self.penalised.max(axis=1)
        self.look = look

    @cached_property
    def weights(self) -> dict[Stage, Floats]:
        """Weights [B, V] after temperature, top-k, top-p and min-p; a stage that is off shares the array before it.

        Without `look` all of them are the last one.
        """
        s, z = self.sampling, self.penalised
        if s.greedy:
            likeliest = np.zeros_like(z)
            likeliest[np.arange(len(z)), z.argmax(axis=1)] = 1.0
            return dict.fromkeys(STAGES[2:], likeliest)
        warm = heat(z, self._lift, s.temperature)
        # Arrays of this size are often mapped afresh by the allocator, which costs more than what is computed in them.
        out = None if self.look else warm
        top_k = keep_top_k(z, warm, s.top_k, out) if 0 < s.top_k < z.shape[1] else warm
        top_p = keep_top_p(top_k, s.top_p, out) if s.top_p < 1 else top_k
        min_p = keep_min_p(top_p, s.min_p, out) if s.min_p > 0 else top_p
        return {"temperature": warm, "top_k": top_k, "top_p": top_p, "min_p": min_p}

    def choose(self, keys: NDArray[np.uint64]) -> Ids:
        """One id per row; `keys` [B] (see `noise.key`) carry all the chance there is. Ties go to the lowest id."""
        if self.sampling.greedy:
            return self.penalised.argmax(axis=1)
        return choose(self.weights["min_p"], keys)

    @cached_property
    def _log_totals(self) -> NDArray[np.float64]:
        return np.log(heat(self.logits, self.peak, 1.0).sum(axis=1).astype(np.float64)) + self.peak

    def logprobs(self, ids: Ids) -> NDArray[np.float64]:
        """Natural log of the model's own probability (before any stage) of one id per row, [B]."""
        return self.logits[np.arange(len(ids)), ids].astype(np.float64) - self._log_totals

    def top(self, row: int, count: int) -> tuple[tuple[int, float], ...]:
        """The likeliest `count` tokens of one row by the model's own probability, with its natural log; best first."""
        z = self.logits[row]
        count = min(count, len(z))
        some = np.flatnonzero(z >= np.partition(z, -count)[-count])
        best = some[np.argsort(-z[some], kind="stable")][:count]
        return tuple(zip(best.tolist(), (z[best].astype(np.float64) - self._log_totals[row]).tolist(), strict=True))


def penalise(logits: Floats, pasts: Sequence[Past], sampling: Sampling) -> Floats:
    """Logits [B, V] after penalties, bias and constraint; they themselves where nothing is to be done.

    Repetition: z/p where positive and z·p where negative, for ids already seen. Presence and frequency: z − a − b·n for
    ids that the answer has n times. A token that a constraint forbids gets −∞.
    """
    s = sampling
    remembers = s.remembers and len(pasts) > 0
    if not remembers and not s.logit_bias and all(past.allowed is None for past in pasts):
        return logits
    changed = logits.copy()
    for row, past in zip(changed, pasts, strict=True) if remembers else ():
        if s.repetition_penalty != 1:
            z = row[past.seen]
            row[past.seen] = np.where(z < 0, z * np.float32(s.repetition_penalty), z / np.float32(s.repetition_penalty))
        if len(past.said):
            row[past.said] -= np.float32(s.presence_penalty) + np.float32(s.frequency_penalty) * past.counts
    if s.logit_bias:
        ids, bias = zip(*s.logit_bias, strict=True)
        changed[:, list(ids)] += np.array(bias, np.float32)
    for row, past in zip(changed, pasts, strict=False):
        if past.allowed is not None:
            row[~past.allowed] = -np.inf
    return changed


def heat(logits: Floats, peak: Floats, temperature: float) -> Floats:
    """Weights exp((z − peak) / temperature), [B, V]; `peak` [B] is the largest logit of each row."""
    weights = logits - peak[:, None]
    with np.errstate(over="ignore", under="ignore"):
        if temperature != 1.0:
            weights /= np.float32(max(temperature, 1e-30))  # a smaller one would be 0 in float32
        return np.exp(weights, out=weights)


def keep_top_k(logits: Floats, weights: Floats, k: int, out: Floats | None = None) -> Floats:
    """Weights with all but the k largest logits of each row at zero; ties with the k-th stay, as in transformers."""
    return np.multiply(weights, logits >= kth_largest(logits, k), out=out)


def kth_largest(values: Floats, k: int) -> Floats:
    """The k-th largest value of each row, [B, 1].

    Rows are folded 16 deep first. The k-th largest of the column maxima bounds the answer from below, and only the few
    values above the bound are searched: at V = 50,257 a quarter of the time of a selection over the whole row.
    """
    B, V = values.shape
    columns = V // 16
    if columns < 2 * k:
        return np.partition(values, V - k, axis=1)[:, V - k, None]
    maxima = values[:, : 16 * columns].reshape(B, 16, columns).max(axis=1)
    bounds = np.partition(maxima, columns - k, axis=1)[:, columns - k, None]
    few = compress(values, values >= bounds, -np.inf)
    return np.partition(few, few.shape[1] - k, axis=1)[:, few.shape[1] - k, None]


def compress(values: Floats, mask: NDArray[np.bool_], blank: float) -> Floats:
    """The masked values of each row moved to its front, [B, most in a row]; the rest of a row is `blank`."""
    flat = np.flatnonzero(mask)  # 12 times faster than nonzero of two dimensions
    rows = flat // values.shape[1]
    counts = np.bincount(rows, minlength=len(values))
    places = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    few = np.full((len(values), int(counts.max())), blank, np.float32)
    few[rows, places] = values.ravel()[flat]
    return few


def keep_top_p(weights: Floats, top_p: float, out: Floats | None = None) -> Floats:
    """Weights with all but the nucleus at zero: a token stays if those likelier than it sum to less than `top_p`.

    Among equals the lowest ids stay.
    """
    V = weights.shape[1]
    totals = weights.sum(axis=1, keepdims=True).astype(np.float64)
    wanted = top_p * totals
    # Tokens below (1 − p) · total / V sum to at most (1 − p) · total: none of them can be in the nucleus. In a large
    # vocabulary one that is peaked is decided by far fewer. Only what may be in the nucleus is sorted.
    mask = weights >= np.minimum((1.0 - top_p) / V * totals, 1.0).astype(np.float32)
    if V > _LARGE:
        likely = weights >= np.float32(_LIKELY)
        if (np.sum(weights, axis=1, keepdims=True, where=likely) > wanted).all():
            mask &= likely
    ordered = compress(weights, mask, 0.0)
    ordered.sort(axis=1)
    ordered = ordered[:, ::-1]
    before = ordered.cumsum(axis=1, dtype=np.float64) - ordered
    sizes = np.maximum((before < wanted).sum(axis=1), 1)
    edges = ordered[np.arange(len(weights)), sizes - 1][:, None]
    kept = np.multiply(weights, weights >= edges, out=out)
    surplus = (ordered >= edges).sum(axis=1) - sizes
    for row in surplus.nonzero()[0]:
        kept[row, np.flatnonzero(kept[row] == edges[row])[-surplus[row] :]] = 0
    return kept


def keep_min_p(weights: Floats, min_p: float, out: Floats | None = None) -> Floats:
    """Weights below `min_p` times the largest of the row at zero (the largest is 1, see `Stages`)."""
    return np.multiply(weights, weights >= np.float32(min_p), out=out)
