"""What may be asked beside plain words: forms, scores of prompts, likeliest tokens, rolling windows, embeddings."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from chatsmith.errors import MissingExtra, RequestError, WorkError
from chatsmith.generate.constraints import Constraint, embedded
from chatsmith.generate.engine import Engine
from chatsmith.generate.requests import Beams, Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.torch_backend import TorchBackend
from chatsmith.text.tokenizer import Tokenizer
from tiny import tiny_engine, tiny_model, tiny_sentencepiece, tiny_tokenizer

NONE: frozenset[int] = frozenset()
PROMPT = tuple(range(60, 80))


def test_answers_have_the_form_that_was_asked_for() -> None:
    pytest.importorskip("llguidance")
    engine = tiny_engine(tiny_model(context=128))
    hot = Sampling(temperature=1.5, seed=3, max_tokens=60)
    for done in engine.complete([Request(PROMPT, hot, 4, constraint=Constraint("regex", "(the|and|x[0-9]{2}){2,3}!"))]):
        assert re.fullmatch("(the|and|x[0-9]{2}){2,3}!", done.text)
        assert done.finish_reason == "eos"
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["sea", "sand"]}, "deep": {"type": "boolean"}},
        "required": ["name", "deep"],
        "additionalProperties": False,
    }
    together = engine.complete(
        [
            Request(PROMPT, hot, constraint=Constraint.schema(schema), look=True),
            Request(PROMPT, hot),
            Request(PROMPT, hot, constraint=Constraint("grammar", 'start: "in" | "inn"')),
        ]
    )
    found = json.loads(together[0].text)
    assert found["name"] in ("sea", "sand")
    assert isinstance(found["deep"], bool)
    assert together[0].distributions[0].kept("penalties") < 268
    assert together[1].ids == engine.complete([Request(PROMPT, hot)])[0].ids
    assert together[2].text in ("in", "inn")


@pytest.mark.parametrize("inside", [False, True], ids=["schema", "in a grammar"])
def test_json_leaves_no_room_for_white_space(inside: bool) -> None:
    """A model that loves nothing but white space still comes to an end, whatever the schema says of layouts."""
    pytest.importorskip("llguidance")
    loved = tuple((token, 100.0) for character in " \t\r\n" for token in tiny_tokenizer().encode(character))
    loves = Sampling(temperature=0, max_tokens=100, logit_bias=loved)
    schema = {
        "type": "object",
        "properties": {"a": {"const": 1}, "b": {"const": [2, {}]}},
        "required": ["a", "b"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": True, "whitespace_pattern": "[ \\n]*"},
    }
    form = Constraint("grammar", f"start: %json {embedded(schema)}") if inside else Constraint.schema(schema)
    [done] = tiny_engine(tiny_model(context=128)).complete([Request(PROMPT, loves, constraint=form)])
    assert done.text == '{"a": 1, "b": [2, {}]}'
    assert done.finish_reason == "eos"


@pytest.mark.parametrize(("kind", "text"), [("regex", "(ab"), ("schema", "{"), ("grammar", "start: nothing")])
def test_a_form_that_makes_no_sense_is_refused(kind: str, text: str) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(RequestError, match=f"this {kind} cannot be used") as refused:
        tiny_engine().complete([Request(PROMPT, constraint=Constraint(kind, text))])  # type: ignore[arg-type]
    assert kind != "regex" or "unclosed group" in refused.value.message


def test_forms_hold_where_the_vocabulary_puts_a_space_before_texts() -> None:
    pytest.importorskip("llguidance")
    engine = Engine(TorchBackend(tiny_model(), cache_bytes=8 * 2**20), tiny_sentencepiece())
    form = "(hello|red owl) hello|wo{2,3}l!"
    for done in engine.complete(
        [Request(PROMPT, Sampling(seed=3, max_tokens=40), 8, constraint=Constraint("regex", form))]
    ):
        assert re.fullmatch(form, done.text)


def test_a_form_that_the_vocabulary_cannot_write_fails_and_says_so() -> None:
    pytest.importorskip("llguidance")
    document = tiny_sentencepiece()._document
    kept = {name: number for name, number in document["model"]["vocab"].items() if not name.startswith("<0x")}
    model = document["model"] | {"vocab": kept, "byte_fallback": False}
    engine = Engine(
        TorchBackend(tiny_model(), cache_bytes=8 * 2**20), Tokenizer(document | {"model": model}, {"eos_token": "</s>"})
    )
    with pytest.raises(RequestError, match="no answer has this form"):
        engine.complete([Request(PROMPT, constraint=Constraint("regex", "z+"))])
    form = Constraint("regex", "hello z")
    for asked in (Request(PROMPT, constraint=form), Request(PROMPT, samples=3, constraint=form)):
        with pytest.raises(WorkError, match="no token of the vocabulary goes on"):
            engine.complete([asked])
    with pytest.raises(WorkError, match="no token of the vocabulary goes on"):
        engine.complete([Request(PROMPT, Sampling(max_tokens=20), beams=Beams(2), constraint=form)])
    assert not engine.batch.busy
    assert engine.complete([Request(PROMPT, Sampling(max_tokens=3))])[0].ids


def test_a_form_too_large_to_be_followed_fails_and_says_so() -> None:
    pytest.importorskip("llguidance")
    engine = tiny_engine(tiny_model(context=128))
    form = Constraint.schema(
        {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(1500)}}
    )
    for asked in (Request(PROMPT, constraint=form), Request(PROMPT, beams=Beams(2), constraint=form)):
        with pytest.raises(WorkError, match="more at once than can be kept track of"):
            engine.complete([asked])
    assert not engine.batch.busy


def test_a_schema_that_is_no_json_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    for schema in (deep, {"const": float("nan")}, {"const": object()}):
        with pytest.raises(RequestError, match="this schema is no JSON"):
            Constraint.schema(schema)


def test_a_regular_expression_of_nothing_is_refused() -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(RequestError, match="no answer has this form"):
        tiny_engine().complete([Request(PROMPT, constraint=Constraint("regex", r"[^\s\S]"))])


def test_forms_need_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match="needs llguidance") as caught:
        tiny_engine().complete([Request(PROMPT, constraint=Constraint("regex", "a"))])
    assert caught.value.hint == 'pip install "chatsmith[constrain]"'
    with pytest.raises(RequestError, match="may have 65,536 characters"):
        Constraint("regex", "a" * 70000)


def test_scores_of_the_prompt_and_the_likeliest_tokens() -> None:
    model = tiny_model()
    with torch.inference_mode():
        logs = torch.log_softmax(model(torch.tensor([PROMPT]))[0, :, :268].double(), -1)
    request = Request(PROMPT, Sampling(temperature=1, seed=1, max_tokens=2), top=3, score_prompt=True, stop_ids=NONE)
    engine = tiny_engine(model)
    for _ in range(2):  # the second time, the beginning of the prompt is known
        done, read = engine.complete([request, replace(request, sampling=Sampling(max_tokens=0))])
        assert done.prompt is not None
        assert done.prompt == read.prompt
        assert (read.ids, read.text, read.finish_reason) == ((), "", "length")
        expected = logs[:-1].gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0]
        np.testing.assert_allclose(done.prompt.logprobs, expected, atol=1e-4)
        for place, top in enumerate((*done.prompt.top, done.top[0])):
            best = logs[place].topk(3)
            assert [token for token, _ in top] == best.indices.tolist()
            np.testing.assert_allclose([logprob for _, logprob in top], best.values, atol=1e-4)
        assert dict(done.top[0]).get(done.ids[0], done.logprobs[0]) == done.logprobs[0]


def test_a_rolling_window_reads_the_newer_half_again() -> None:
    engine = tiny_engine(tiny_model("gpt2"))
    greedy = Sampling(temperature=0, max_tokens=100)
    request = Request(PROMPT, greedy, stop_ids=NONE, rolling=True)
    events = list(engine.stream([request]))
    assert len(events) == 100
    assert engine.complete([replace(request, rolling=False)])[0].ids == tuple(event.id for event in events[:44])
    # By hand: at 64 tokens and one more, the last 32 are read as a text of their own.
    ids, begin = list(PROMPT), 0
    for event in events:
        if len(ids) - begin > 64:
            begin = len(ids) - 32
        assert event.forgotten == begin
        with torch.inference_mode():
            expected = int(engine.backend.model(torch.tensor([ids[begin:]]))[0, -1, :268].argmax())
        assert event.id == expected
        ids.append(expected)
    [long] = engine.complete([replace(request, prompt=tuple(range(5, 205)), sampling=replace(greedy, max_tokens=3))])
    assert long.forgotten == 200 - 32


def test_embeddings_are_means_of_the_last_states() -> None:
    model = tiny_model()
    engine = tiny_engine(model)
    texts = [tuple(range(5, 5 + count)) for count in (1, 7, 64)]
    found = engine.embed(texts)
    for ids, vector in zip(texts, found, strict=True):
        with torch.inference_mode():
            expected = model.hidden(torch.tensor([ids]))[0].double().mean(0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)
    np.testing.assert_array_equal(engine.embed(texts[1:2])[0], found[1])


def test_the_penalties_of_an_answer_count_its_own_tokens() -> None:
    engine = tiny_engine()
    greedy = Sampling(temperature=0, max_tokens=30)
    [plain] = engine.complete([Request(PROMPT, greedy, stop_ids=NONE)])
    [once] = engine.complete([Request(PROMPT, replace(greedy, presence_penalty=2.0), stop_ids=NONE)])
    [banned] = engine.complete([Request(PROMPT, replace(greedy, logit_bias={plain.ids[0]: -100.0}), stop_ids=NONE)])
    assert len(set(once.ids)) >= len(set(plain.ids))
    assert plain.ids[0] not in banned.ids


def test_streams_of_one_engine_may_be_read_in_turns() -> None:
    engine = tiny_engine()
    request = Request(PROMPT, Sampling(temperature=1, seed=2, max_tokens=20), stop_ids=NONE)
    [alone] = engine.complete([request])
    one, two = engine.stream([request]), engine.stream([replace(request, samples=2)])
    first = [next(one).id for _ in range(5)]
    [between] = engine.complete([request])
    rest = list(two)
    first += [event.id for event in one]
    assert tuple(first) == alone.ids == between.ids
    assert tuple(event.id for event in rest if event.index == 0) == alone.ids
    left = engine.stream([request])
    next(left)
    left.close()
    assert not engine.batch.busy
    assert engine.batch.blocks.held == 0
    assert tiny_tokenizer() is engine.tokenizer
