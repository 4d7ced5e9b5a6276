"""The engine: the same tokens with or without cache, alone or in any batch, and text that never shows half a thing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.generate.batch import Batch
from chatsmith.generate.engine import Engine, gather
from chatsmith.generate.noise import key, sample_seed
from chatsmith.generate.requests import Completion, Event, Request
from chatsmith.generate.sampling import Past, Sampling, Stages
from tiny import tiny_engine, tiny_model, tiny_tokenizer

NONE: frozenset[int] = frozenset()
PROMPTS = ["the sea", "and", "in the inn and the tin", "x", "the sand and the sea and the end"]
MIXED = [
    Sampling(temperature=0, max_tokens=20),
    Sampling(temperature=1.0, seed=5, max_tokens=25),
    Sampling(temperature=1.2, top_k=20, top_p=0.9, seed=6, max_tokens=9),
    Sampling(temperature=0.7, min_p=0.05, repetition_penalty=1.2, seed=7, max_tokens=30),
    Sampling(temperature=1.0, seed=8, max_tokens=1),
]


@pytest.fixture(scope="module", params=["qwen3", "gpt2", "banded"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return tiny_engine(tiny_model(request.param))


def requests(**changes: object) -> list[Request]:
    encode = tiny_tokenizer().encode
    return [
        Request(tuple(encode(text)), sampling, stop_ids=NONE, **changes)  # type: ignore[arg-type]
        for text, sampling in zip(PROMPTS, MIXED, strict=True)
    ]


def without_cache(engine: Engine, request: Request) -> list[int]:
    """One answer by whole forward passes over the growing text."""
    ids, sampling = list(request.prompt), request.sampling
    for position in range(sampling.max_tokens):
        with torch.inference_mode():
            logits = engine.backend.model(torch.tensor([ids]))[:, -1, : engine.tokenizer.vocab_size].numpy()
        stages = Stages(logits, sampling, [Past.of(ids)])
        keys = np.array([key(sampling.seed or 0, position)], np.uint64)
        ids.append(int(stages.choose(keys)[0]))
    return ids[len(request.prompt) :]


def test_equals_whole_passes_without_a_cache(engine: Engine) -> None:
    for request, done in zip(requests(), engine.complete(requests()), strict=True):
        assert list(done.ids) == without_cache(engine, request)
        assert done.finish_reason == "length"


@pytest.mark.parametrize("max_rows", [1, 2, 3, 32])
def test_tokens_are_the_same_alone_and_in_any_batch(engine: Engine, max_rows: int) -> None:
    alone = [engine.complete([request])[0] for request in requests()]
    some = tiny_engine(engine.backend.model, max_rows=max_rows)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1, 1]):
        together = some.complete([requests()[place] for place in order])
        assert [done.request for done in together] == list(range(len(order)))
        for place, done in zip(order, together, strict=True):
            assert done.ids == alone[place].ids
            assert done.text == alone[place].text
            np.testing.assert_allclose(done.logprobs, alone[place].logprobs, atol=1e-4)


def test_many_ragged_requests_equal_themselves_alone() -> None:
    """300 answers of random length and settings, on rows that come and go."""
    engine = tiny_engine(tiny_model("qwen3"), max_rows=8)
    rng = np.random.default_rng(0)
    asked = [
        Request(
            tuple(rng.integers(0, 268, rng.integers(1, 30)).tolist()),
            Sampling(temperature=float(rng.choice([0.5, 1.0])), seed=int(number), max_tokens=int(rng.integers(1, 12))),
        )
        for number in range(300)
    ]
    together = engine.complete(asked)
    alone = [engine.complete([request])[0] for request in asked]
    assert [done.ids for done in together] == [done.ids for done in alone]


def test_memory_for_one_answer_is_enough_for_many(engine: Engine) -> None:
    narrow = tiny_engine(engine.backend.model, cache_bytes=1)
    assert narrow.backend.blocks * narrow.backend.block_size == 64 * len(narrow.backend.bands)
    assert [done.ids for done in narrow.complete(requests())] == [done.ids for done in engine.complete(requests())]


def test_samples_share_a_prompt_and_each_can_be_had_alone(engine: Engine) -> None:
    request = replace(requests()[1], samples=5)
    answers = tiny_engine(engine.backend.model, max_rows=3).complete([request])
    assert [done.index for done in answers] == [0, 1, 2, 3, 4]
    assert len({done.ids for done in answers}) == 5
    assert [done.seed for done in answers] == [sample_seed(5, index) for index in range(5)]
    for done in answers:
        single = replace(request, samples=1, sampling=replace(request.sampling, seed=done.seed))
        assert engine.complete([single])[0].ids == done.ids


def test_samples_read_their_prompt_once_and_share_its_blocks(engine: Engine) -> None:
    fresh = tiny_engine(engine.backend.model)
    steps: list[int] = []
    logits = fresh.backend.logits
    fresh.backend.logits = lambda step: steps.append(len(step.ids)) or logits(step)  # type: ignore[method-assign]
    prompt = tuple(range(5, 45))
    fresh.complete([replace(requests()[1], prompt=prompt, samples=4)])
    assert steps[0] == len(prompt)
    assert set(steps[1:]) == {4}
    held = []
    stream = fresh.stream([replace(requests()[1], prompt=tuple(range(6, 46)), samples=4)])
    for _, _ in zip(range(12), stream, strict=False):
        held.append(fresh.batch.blocks.held)
    # One whole block for all, and each its own half-full one. What a band of 5 no longer sees is let go.
    assert max(held) == (1 + 4 if len(fresh.backend.bands) == 1 else 1 + 4 + 4)


def test_a_seed_left_out_is_drawn_and_reported(engine: Engine) -> None:
    request = replace(requests()[1], sampling=Sampling(temperature=1.0, max_tokens=20))
    first, second = engine.complete([request, request])
    assert first.seed != second.seed
    assert first.ids != second.ids
    again = engine.complete([replace(request, sampling=replace(request.sampling, seed=first.seed))])[0]
    assert again.ids == first.ids


def test_rows_that_pad_the_embedding_are_never_chosen() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.head.weight[268:] = model.head.weight[:52] * 50
    engine = tiny_engine(model)
    hot = Sampling(temperature=50.0, seed=1, max_tokens=50)
    for sampling in (hot, replace(hot, temperature=0)):
        [done] = engine.complete([Request((70,), sampling, stop_ids=NONE)])
        assert max(done.ids) < 268
    assert np.isfinite(engine.score([5, 6, 7])).all()


def test_the_context_ends_an_answer_and_refuses_a_prompt_that_fills_it(engine: Engine) -> None:
    long = Request(tuple([70] * 60), Sampling(temperature=0, max_tokens=1000), stop_ids=NONE)
    [done] = engine.complete([long])
    assert (len(done.ids), done.finish_reason) == (4, "length")
    with pytest.raises(RequestError, match="the prompt has 64 tokens, and the model's context of 64") as caught:
        engine.complete([replace(long, prompt=(70,) * 64)])
    assert caught.value.hint == "shorten it to at most 63 tokens"
    with pytest.raises(RequestError, match="empty prompt"):
        engine.complete([replace(long, prompt=())])
    with pytest.raises(RequestError, match="outside the vocabulary"):
        engine.complete([replace(long, prompt=(268,))])
    with pytest.raises(RequestError, match="samples must be from 1"):
        engine.complete([replace(long, samples=0)])


def scripted(text: str, context: int = 64) -> Engine:
    """An engine whose greedy answer to any one token is `text`, byte by byte, and then end of text."""
    engine = tiny_engine(tiny_model(context=context))
    ids = [*(5 + byte for byte in text.encode()), 0]

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        found = torch.full((*hidden.shape[:-1], 320), -10.0)
        found[..., ids[min(logits.step, len(ids) - 1)]] = 10.0  # type: ignore[attr-defined]
        logits.step += 1  # type: ignore[attr-defined]
        return found

    logits.step = 0  # type: ignore[attr-defined]
    engine.backend.model.logits = logits  # type: ignore[method-assign]
    return engine


def run(text: str, **changes: object) -> tuple[list[Event], Completion]:
    sampling = Sampling(**({"temperature": 0, "max_tokens": 60} | changes))  # type: ignore[arg-type]
    events = list(scripted(text).stream([Request((70,), sampling)]))
    return events, gather(events)


def test_an_ending_token_ends_the_answer_and_is_not_text() -> None:
    events, done = run("Hi!")
    assert (done.text, done.finish_reason, done.ids[-1]) == ("Hi!", "eos", 0)
    assert [event.finish for event in events] == [None, None, None, "eos"]


def test_a_stop_text_across_tokens_ends_the_answer_and_is_not_text() -> None:
    events, done = run("One day.\nUser: what", stop=("\nUser:", "zebra"))
    assert (done.text, done.finish_reason) == ("One day.", "stop")
    assert len(done.ids) == len("One day.\nUser:")
    assert "".join(event.text for event in events[:8]) == "One day."


def test_what_was_held_back_for_a_stop_text_comes_when_the_answer_ends_otherwise() -> None:
    assert run("One\nUs", stop=("\nUser:",))[1].text == "One\nUs"
    _, done = run("One\nUser:", stop=("\nUser:",), max_tokens=6)
    assert (done.text, done.finish_reason) == ("One\nUs", "length")


def test_no_half_characters_in_the_stream() -> None:
    events, done = run("né — 海 🦊!")
    assert done.text == "né — 海 🦊!"
    assert [event.text for event in events if event.text] == list("né — 海 🦊!")
    _, cut = run("海海", max_tokens=4)
    assert cut.text == "海\ufffd"


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.integers(1, 60))
def test_streams_of_any_text(text: str, stops: list[str], max_tokens: int) -> None:
    events, done = run(text, stop=tuple(stops), max_tokens=max_tokens)
    whole = text.encode()[:max_tokens].decode("utf-8", "replace")
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    shown = ""
    for event in events:
        shown += event.text
        assert whole.startswith(shown)
    assert shown == done.text
    assert len(done.ids) == len(events) == len(done.logprobs) <= max_tokens
    if ends:
        assert done.finish_reason == "stop"
        assert len(done.text) < min(ends)
        assert not any(stop in done.text for stop in stops)
    else:
        assert done.text == whole
        assert done.finish_reason == ("eos" if len(text.encode()) < max_tokens else "length")


def test_a_look_shows_the_distribution_behind_each_token(engine: Engine) -> None:
    plain, looked = (engine.complete(requests(look=look)) for look in (False, True))
    assert [done.ids for done in plain] == [done.ids for done in looked]
    for done in looked:
        assert [shown.chosen for shown in done.distributions] == list(done.ids)
        for shown, logprob in zip(done.distributions, done.logprobs, strict=True):
            assert np.log(shown.before[shown.chosen]) == pytest.approx(logprob, abs=1e-5)
            assert shown.after[shown.chosen] > 0


def test_requests_may_come_late_and_be_cancelled(engine: Engine) -> None:
    alone = [done.ids for done in engine.complete(requests())]
    batch = Batch(engine.backend, engine.tokenizer)
    events = []
    batch.add(requests()[0])
    for _ in range(5):
        events += batch.step()
    batch.add(requests()[1])
    doomed = batch.add(requests()[3])
    for _ in range(4):
        events += batch.step()
    batch.cancel(doomed)
    while batch.busy:
        events += batch.step()
    for number in (0, 1):
        assert tuple(event.id for event in events if event.request == number) == alone[number]
    assert 0 < sum(event.request == doomed for event in events) < 30
    assert batch.step() == []
    assert batch.blocks.held == 0


def test_a_model_in_training_is_read_without_dropout_and_left_in_training() -> None:
    model = tiny_model("gpt2")
    for block in model.blocks:
        block.dropout = 0.5  # type: ignore[assignment]
    engine = tiny_engine(model)
    expected = engine.complete(requests())
    scores = engine.score([7, 8, 9, 10])
    model.train()
    assert [done.ids for done in engine.complete(requests())] == [done.ids for done in expected]
    assert (engine.score([7, 8, 9, 10]) == scores).all()
    assert model.training


def test_bfloat16_runs_and_repeats() -> None:
    engine = tiny_engine(tiny_model().bfloat16())
    first, again = engine.complete(requests()), engine.complete(requests())
    assert [done.ids for done in first] == [done.ids for done in again]


def test_a_tokenizer_with_more_ids_than_the_model_is_refused() -> None:
    model = tiny_model()
    narrow = type(model)(replace(model.spec, vocab_size=200))
    with pytest.raises(RequestError, match="the tokenizer has 268 ids, the model knows 200"):
        tiny_engine(narrow)
