"""Any schedule of requests, aborts and preemptions leaks no block and changes no token, whatever computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chatsmith.errors import Busy, RequestError
from chatsmith.generate import noise
from chatsmith.generate.backend import Backend, Draws, Floats, Step
from chatsmith.generate.batch import Batch
from chatsmith.generate.native import NativeBackend
from chatsmith.generate.requests import Beams, Event, Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.speculation import DraftModel, Guesser, PromptLookup
from chatsmith.generate.torch_backend import TorchBackend
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.matrix import Kind
from chatsmith.kernels.infer.session import Part
from chatsmith.models.cache import bytes_per_block
from chatsmith.models.decoder import Decoder
from chatsmith.store.packing import Format, packed_parts
from tiny import tiny_model, tiny_spec, tiny_tokenizer

NONE: frozenset[int] = frozenset()
CONTEXT = 96
Numbers = torch.dtype | Kind | Literal["chooses"]
"""What computes: torch in a dtype, the native backend with weights of a kind (int8: the cache, too), or torch in
float32 that chooses by itself."""
KINDS: list[tuple[str, Numbers]] = [
    ("qwen3", torch.float32),
    ("qwen3", torch.bfloat16),
    ("banded", torch.float32),
    ("banded", torch.bfloat16),
    ("qwen3", "chooses"),
]
if build.library() is not None:
    KINDS += [("qwen3", "int8"), ("banded", "f32"), ("banded", "bf16")]


class Choosing(TorchBackend):
    """Chooses as a GPU's backend does, but with another chance than the engine, so that it shows who chose."""

    def choose(self, step: Step, draws: Draws, shown: bool) -> tuple[NDArray[np.int64], Floats, Floats | None]:
        assert len(draws.rows)
        logits = self.logits(step)
        rows = logits[draws.rows, : draws.vocabulary]
        warm = np.where(draws.temperatures > 0, draws.temperatures, 1.0)[:, None]
        chosen = noise.choose(np.exp((rows - rows.max(1, keepdims=True)) / warm), draws.keys ^ np.uint64(1))
        tokens = np.where(draws.temperatures > 0, chosen, rows.argmax(1))
        logprobs = torch.from_numpy(rows).log_softmax(-1).numpy()[np.arange(len(rows)), tokens]
        return tokens, logprobs, logits if shown else None


@cache
def model(kind: str, dtype: torch.dtype) -> Decoder:
    return tiny_model(kind, context=CONTEXT).to(dtype)


@cache
def parts(kind: str, weights: Kind) -> dict[str, Part]:
    known = model(kind, torch.float32).state_dict()
    return dict(packed_parts(tiny_spec(kind, CONTEXT), lambda name: known[name].numpy(), Format(weights)))


def backend(kind: str, numbers: Numbers, blocks: int = 0) -> Backend:
    """A model with room for so many blocks; as few as possible, unless more are asked for."""
    if numbers == "chooses":
        made = model(kind, torch.float32)
        return Choosing(made, cache_bytes=blocks * bytes_per_block(made.spec, 4))
    if isinstance(numbers, torch.dtype):
        made = model(kind, numbers)
        return TorchBackend(made, cache_bytes=blocks * bytes_per_block(made.spec, numbers.itemsize))
    head = {"f32": 32 * 32 * 4, "int8": 32 * 32 + 64}.get(numbers, 32 * 32 * 2)  # int8 has scales beside
    return NativeBackend(
        tiny_spec(kind, CONTEXT),
        parts(kind, numbers),
        cache="int8" if numbers == "int8" else None,
        cache_bytes=blocks * 4 * 2 * head,  # layers and heads of a group, keys and values
        threads=1,
    )


def batch(kind: str, dtype: Numbers, blocks: int = 0, guesser: Guesser | None = None, rows: int = 5) -> Batch:
    return Batch(backend(kind, dtype, blocks), tiny_tokenizer(), max_rows=rows, guesser=guesser)


def drain(made: Batch) -> list[Event]:
    events = []
    while made.busy:
        events += made.step()
    return events


def words(events: list[Event]) -> dict[tuple[int, int], list[tuple[int | None, float, str]]]:
    """What each answer consists of: tokens, log probabilities to the last bit, and how it ended."""
    found: dict[tuple[int, int], list[tuple[int | None, float, str]]] = {}
    for event in events:
        found.setdefault((event.request, event.index), []).append((event.id, event.logprob, event.finish or ""))
    return found


def check_nothing_held(made: Batch) -> None:
    assert not made.busy
    assert made.blocks.held == 0
    assert made.blocks.free == made.backend.blocks
    made.blocks.forget()
    assert sorted(made.blocks._fresh) == list(range(made.backend.blocks))


PREFIXES = [tuple(range(20, 20 + 40)), tuple(range(30, 30 + 64))]


@cache
def catalogue() -> tuple[Request, ...]:
    """Requests of all kinds, some of which begin alike."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(16):
        start = [(), PREFIXES[0], PREFIXES[0][:33], PREFIXES[1]][number % 4]
        prompt = (*start, *rng.integers(5, 268, int(rng.integers(1, 20))).tolist())
        greedy = number % 5 == 0
        found.append(
            Request(
                prompt,
                Sampling(
                    temperature=0.0 if greedy else float(rng.choice([0.7, 1.0, 1.3])),
                    top_k=int(rng.choice([0, 20])),
                    repetition_penalty=float(rng.choice([1.0, 1.2])),
                    frequency_penalty=float(rng.choice([0.0, 0.5])),
                    seed=number,
                    max_tokens=int(rng.integers(1, 14)),
                ),
                samples=[1, 1, 3][number % 3],
                stop_ids=NONE,
                score_prompt=number % 4 == 2,
            )
        )
    found.append(Request(PREFIXES[0], Sampling(temperature=0, max_tokens=6), beams=Beams(3), samples=2, stop_ids=NONE))
    found.append(Request(PREFIXES[1], Sampling(temperature=1, seed=3, max_tokens=80), stop_ids=NONE, rolling=True))
    found.append(Request(PREFIXES[0], Sampling(max_tokens=0), score_prompt=True))
    found.append(Request(PREFIXES[1], Sampling(max_tokens=0), embed=True))
    return tuple(found)


@cache
def alone(kind: str, dtype: Numbers, number: int) -> dict[int, list[tuple[int | None, float, str]]]:
    """The answers of one request that has an engine to itself."""
    made = batch(kind, dtype, blocks=60)
    made.add(catalogue()[number])
    return {index: said for (_, index), said in words(drain(made)).items()}


@dataclass
class Act:
    add: int | None = None
    cancel: int | None = None
    steps: int = 0


acts = st.one_of(
    st.builds(Act, add=st.integers(0, 19)),
    st.builds(Act, add=st.integers(0, 19)),
    st.builds(Act, cancel=st.integers(0, 8)),
    st.builds(Act, steps=st.integers(1, 4)),
)


def guessers(dtype: Numbers) -> Iterator[Guesser | None]:
    yield None
    yield PromptLookup(count=4, longest=2, shortest=1)
    yield DraftModel(backend("qwen3", dtype), 268, count=3)


@pytest.mark.parametrize(("kind", "dtype"), KINDS, ids=str)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    plan=st.lists(acts, min_size=4, max_size=30),
    spare=st.integers(0, 6),
    rows=st.integers(3, 6),
    guess=st.integers(0, 2),
    chunk=st.sampled_from([3, 20, 512]),
)
def test_any_schedule_changes_no_token_and_leaks_no_block(
    kind: str, dtype: Numbers, plan: list[Act], spare: int, rows: int, guess: int, chunk: int
) -> None:
    """Few blocks, so that answers must give way; requests that join, leave and are taken back at any step."""
    beams = 3 * 2 * 2 * (2 if kind == "banded" else 1)  # as many as the search among the requests may need
    made = batch(kind, dtype, blocks=beams + spare, guesser=list(guessers(dtype))[guess], rows=rows)
    made.backend.step_tokens = chunk
    asked: list[int] = []
    taken_back: set[int] = set()
    events: list[Event] = []
    for act in plan:
        if act.add is not None:
            asked.append(act.add)
            made.add(catalogue()[act.add])
        elif act.cancel is not None and act.cancel < len(asked):
            made.cancel(act.cancel)
            taken_back.add(act.cancel)
        for _ in range(act.steps):
            events += made.step()
    events += drain(made)
    found = words(events)
    for ticket, number in enumerate(asked):
        expected = alone(kind, dtype, number)
        for index, said in expected.items():
            mine = found.get((ticket, index), [])
            if ticket in taken_back:
                assert mine == said[: len(mine)]
            else:
                assert mine == said
    check_nothing_held(made)


@pytest.mark.parametrize(("kind", "dtype"), KINDS, ids=str)
def test_answers_that_had_to_give_way_are_the_same(kind: str, dtype: Numbers) -> None:
    made = batch(kind, dtype, rows=8)
    asked = [0, 1, 3, 5, 7, 9, 11, 13, 15]
    for number in asked:
        made.add(catalogue()[number])
    found = words(drain(made))
    assert made.counts["preempted"] > 0
    for ticket, number in enumerate(asked):
        for index, said in alone(kind, dtype, number).items():
            assert found[ticket, index] == said
    check_nothing_held(made)


@pytest.mark.parametrize("kind", ["qwen3", "banded"])
def test_a_known_beginning_is_read_once(kind: str) -> None:
    made = batch(kind, torch.float32, blocks=60)
    request = Request(PREFIXES[1] + (99, 98), Sampling(temperature=1, seed=1, max_tokens=5), stop_ids=NONE)
    made.add(request)
    first = drain(made)
    assert (made.counts["read"], made.counts["reused"]) == (66 + 4, 0)
    made.add(replace(request, prompt=PREFIXES[1] + (99, 97)))
    drain(made)
    made.add(request)
    again = drain(made)
    assert made.counts["reused"] == 64 + 64
    assert [event.id for event in again] == [event.id for event in first]
    made.add(replace(request, isolation="someone else"))
    assert [event.id for event in drain(made)] == [event.id for event in first]
    assert made.counts["reused"] == 64 + 64
    made.blocks.forget()
    made.add(request)
    drain(made)
    assert made.counts["reused"] == 64 + 64


@pytest.mark.parametrize(("kind", "dtype"), KINDS, ids=str)
def test_a_prompt_that_is_known_whole_reads_its_last_token_alone(kind: str, dtype: Numbers) -> None:
    made = batch(kind, dtype, blocks=12)
    request = Request(tuple(range(5, 69)), Sampling(max_tokens=8, temperature=1.0, seed=3), stop_ids=NONE, top=3)
    found = []
    for read in (64, 1, 1):
        before = made.counts["read"]
        number = made.add(request)
        found.append(words(drain(made))[number, 0])
        assert made.counts["read"] - before == read + 7
    check_nothing_held(made)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("kind", "dtype"), KINDS, ids=str)
def test_in_the_smallest_cache_a_known_prompt_is_answered_the_same(kind: str, dtype: Numbers) -> None:
    made = batch(kind, dtype)
    request = Request(tuple(range(69)), Sampling(max_tokens=27, temperature=1.0, seed=3), stop_ids=NONE)
    found = []
    for _ in range(3):
        number = made.add(
            replace(request, prompt=request.prompt[:64], sampling=replace(request.sampling, max_tokens=32))
        )
        other = made.add(request)
        said = words(drain(made))
        found.append((said[number, 0], said[other, 0]))
    check_nothing_held(made)
    assert found[0] == found[1] == found[2]


def test_a_digest_alone_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text has the same digest: only the comparison of tokens keeps them apart."""
    monkeypatch.setattr("chatsmith.generate.blocks._digest", lambda parent, data: b"same")
    made = batch("qwen3", torch.float32, blocks=60)
    for number in (1, 3, 5, 1, 3):
        made.add(catalogue()[number])
        events = drain(made)
        expected = alone("qwen3", torch.float32, number)
        assert {index: said for (_, index), said in words(events).items()} == expected
    check_nothing_held(made)


def test_no_answer_waits_for_a_long_prompt() -> None:
    made = batch("qwen3", torch.float32, blocks=60)
    made.backend.step_tokens = 8
    made.add(Request((70,), Sampling(temperature=1, seed=0, max_tokens=60), stop_ids=NONE))
    made.step()
    made.add(Request(PREFIXES[1], Sampling(temperature=1, seed=0, max_tokens=3), stop_ids=NONE))
    for _ in range(9):
        assert {event.request for event in made.step()} == {0}
    steps = [{event.request for event in made.step()} for _ in range(3)]
    assert steps[-1] == {0, 1}


def test_cancelling_frees_the_place_at_the_next_step() -> None:
    made = batch("qwen3", torch.float32, rows=1)
    long = Request((70,), Sampling(temperature=1, seed=0, max_tokens=60), stop_ids=NONE)
    first = made.add(long)
    made.step()
    second = made.add(long)
    assert {event.request for event in made.step()} == {first}
    made.cancel(first)
    assert {event.request for event in made.step()} == {second}


def test_the_line_is_bounded() -> None:
    made = Batch(backend("qwen3", torch.float32), tiny_tokenizer(), max_rows=1, max_waiting=2)
    long = Request((70,), Sampling(temperature=1, seed=0, max_tokens=60), stop_ids=NONE)
    made.add(long)
    made.step()
    made.add(long)
    last = made.add(long)
    with pytest.raises(Busy, match="the line is full: 2 wait"):
        made.add(long)
    made.cancel(last)
    made.add(long)
    made.clear()
    check_nothing_held(made)


def test_a_banded_layer_keeps_only_what_it_sees() -> None:
    made = batch("banded", torch.float32, blocks=60)
    made.add(Request(PREFIXES[1], Sampling(temperature=1, seed=0, max_tokens=30), stop_ids=NONE))
    while made.busy:
        made.step()
        for sequence in made._schedule.running:
            dense, banded = sequence.table.rows
            assert all(block >= 0 for block in dense)
            assert sum(block >= 0 for block in banded) <= 2  # a band of 5 lies in at most two blocks


def test_numbers_that_are_not_finite_end_one_request_and_no_other() -> None:
    broken = tiny_model(context=CONTEXT)
    with torch.no_grad():
        broken.embed.weight[100] = float("nan")
    made = Batch(TorchBackend(broken, cache_bytes=2**20), tiny_tokenizer())
    fine = Request((70, 71), Sampling(temperature=1, seed=0, max_tokens=9, logit_bias={100: -100.0}), stop_ids=NONE)
    expected = made.add(fine)
    good = [event.id for event in drain(made)]
    for prompt in ((100, 70), (70, 71, 100)):
        made.add(replace(fine, prompt=prompt, samples=2))
    after = made.add(fine)
    events = drain(made)
    assert [event.finish for event in events if event.request not in (expected, after)] == ["error", "error"]
    assert [event.id for event in events if event.request == after] == good
    check_nothing_held(made)


def test_an_answer_that_an_empty_cache_could_not_hold_is_refused() -> None:
    """Else it would give way to itself for ever."""
    made = batch("qwen3", torch.float32)
    made.backend.blocks = 2
    assert made.add(Request((70,) * 40, Sampling(max_tokens=24))) == 0
    with pytest.raises(RequestError, match="65 tokens need 3 blocks, and the cache has 2"):
        made.add(Request((70,) * 40, Sampling(max_tokens=25)))


@pytest.mark.skipif(build.library() is None, reason=f"no kernels of generation here: {build.status()}")
def test_the_native_cache_holds_one_context_however_little_it_may_take() -> None:
    made = batch("qwen3", "f32")
    made.add(Request(PREFIXES[1], Sampling(temperature=1, seed=0, max_tokens=CONTEXT), stop_ids=NONE))
    assert len(drain(made)) == CONTEXT - len(PREFIXES[1])


def test_what_cannot_be_met_is_refused_at_once() -> None:
    made = batch("qwen3", torch.float32)
    plain = Request((70,), Sampling(max_tokens=50))
    for changes, said in (
        ({"beams": Beams(6)}, "beams must be from 1 to 5, not 6"),
        ({"beams": Beams(5)}, "may need 20 blocks; the cache has 3"),
        ({"beams": Beams(2), "samples": 3}, "give at most as many answers"),
        ({"beams": Beams(1), "top": 2}, "a search shows no distributions"),
        ({"top": 101}, "top must be from 0 to 100"),
        ({"rolling": True, "embed": True}, "a rolling window does not go with beams"),
        ({"embed": True, "samples": 2}, "one answer where nothing is written"),
        ({"sampling": Sampling(logit_bias={300: 1.0})}, "logit_bias has ids outside"),
    ):
        with pytest.raises(RequestError, match=said):
            made.add(replace(plain, **changes))  # type: ignore[arg-type]
    check_nothing_held(made)
