"""A loaded model: write, chat, next, score, and how they show themselves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

import chatsmith
from chatsmith.dialogue import Dialogue, read_messages
from chatsmith.errors import RequestError
from chatsmith.generate.published import published_sampling
from chatsmith.kernels.infer import build
from chatsmith.language_model import LanguageModel, document_start
from chatsmith.store.folder import save_model
from chatsmith.tables import percent
from chatsmith.text.chat import Message
from chatsmith.text.tokenizer import Tokenizer
from tiny import tiny_model, tiny_tokenizer

FULL = {"max_tokens": 12, "seed": 1, "temperature": 1.0}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(tiny_model(context=256), tiny_tokenizer(), name="tiny")


def shown(thing: object, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_load_gives_the_saved_model(tmp_path: Path, model: LanguageModel) -> None:
    save_model(tmp_path / "m", model.model, model.tokenizer, provenance={"seed": 7}, generation={"temperature": 0.3})
    loaded = chatsmith.load(tmp_path / "m")
    assert loaded.fingerprint == model.fingerprint
    assert loaded.spec == model.spec
    assert loaded.sampling.temperature == 0.3
    assert loaded.provenance["seed"] == 7
    assert loaded.name == "m"
    assert loaded.write("the", **FULL).text == model.write("the", **FULL).text
    with pytest.raises(RequestError, match=r"config\.json"):
        chatsmith.load(tmp_path)


@pytest.mark.parametrize(
    ("method", "given", "settings", "said"),
    [
        ("write", [123], {}, "text must be a text, not 123"),
        ("write", [None], {}, "text must be a text"),
        ("write", [b"x"], {}, "text must be a text"),
        ("write", ["x"], {"samples": "2"}, "samples must be a whole number, not '2'"),
        ("fits", ["x"], {"max_tokens": "x"}, "max_tokens must be a whole number, not 'x'"),
        ("write", ["x"], {"samples": 2.0}, "samples must be a whole number"),
        ("write", ["x"], {"beams": 2.5}, "beams must be a whole number, not 2.5"),
        ("write", ["x"], {"beams": 2, "length_penalty": "long"}, "length_penalty must be a number"),
        ("write", ["x"], {"stop": 5}, "stop must be a list of texts, not 5"),
        ("write", ["x"], {"constraint": "a+"}, "constraint must be a Constraint, not 'a+'"),
        ("write", ["x"], {"beams": 0}, "beams must be from 1"),
        ("write", ["x"], {"length_penalty": 1.0}, "length_penalty is for a search with beams"),
        ("write", ["x"], {"beams": 2, "temperature": 0.1}, "temperature does nothing in a search with beams"),
        ("write", ["x"], {"beams": 2, "top_k": 1}, "top_k does nothing in a search with beams"),
        ("next", ["x"], {"stop": "y"}, "stop ends an answer"),
        ("next", ["x"], {"max_tokens": 3}, "max_tokens ends an answer"),
        ("next", [["a"]], {}, "text must be a text"),
        ("next", ["x"], {"top": "3"}, "top must be a whole number"),
        ("next", ["x"], {"steps": 2.5}, "steps must be a whole number"),
        ("chat", [["hi"]], {}, "a message has role and content; 'hi' has none"),
        ("chat", [5], {}, "messages must be a list of messages"),
        ("chat", [[{"role": "user", "content": 3}]], {}, "the content of a message must be a text, not 3"),
        ("chat", [[{"role": 3, "content": "hi"}]], {}, "a message from 3 cannot be read"),
        ("complete", ["text"], {}, "prompts must be a list of texts or conversations"),
        ("complete", [[5]], {}, "messages must be a list of messages"),
        ("score", [None], {}, "text must be a text"),
        ("embed", [[]], {}, "there is no text to embed"),
        ("embed", ["text"], {}, "texts must be a list of texts"),
        ("embed", [["text", 5]], {}, "text must be a text"),
        ("embed", [["a " * 9999]], {}, "holds no more\n  shorten it to at most 256 tokens"),
        ("conversation", [5], {}, "system must be a text"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_in_words(
    model: LanguageModel, method: str, given: list, settings: dict, said: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        getattr(model, method)(*given, **settings)


@pytest.mark.parametrize("folder", [None, 5, b"m"])
def test_a_folder_is_a_path(folder: object) -> None:
    with pytest.raises(RequestError, match="folder must be a path"):
        chatsmith.load(folder)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: chatsmith.preset(5), "preset must be a text, not 5"),  # type: ignore[arg-type]
        (lambda: chatsmith.plan(5), "model must be a name, a path or a shape, not 5"),
        (lambda: Tokenizer.load(None), "path must be a path, not None"),  # type: ignore[arg-type]
        (lambda: chatsmith.load("m", cache_bytes="1"), "cache_bytes must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_the_other_doors_check_what_comes_in(call: Callable[[], object], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        call()


def test_a_published_end_of_text_ends_answers_on_every_backend(tmp_path: Path, model: LanguageModel) -> None:
    greedy = {"temperature": 0.0, "max_tokens": 8}
    first, second, *_ = model.write("the", **greedy).answers[0].ids
    published = {"eos_token_id": [0, second]}
    folder = save_model(tmp_path / "m", model.model, model.tokenizer, provenance={}, generation=published)
    for backend in ("torch", *(["native"] if build.library() is not None else [])):
        loaded = chatsmith.load(folder, backend=backend)  # type: ignore[arg-type]
        [answer] = loaded.write("the", **greedy).answers
        assert (answer.ids, answer.finish_reason) == ((first, second), "eos")
        assert second in loaded.turn_ends


def test_keys_and_values_in_int8_are_asked_for(tmp_path: Path, model: LanguageModel) -> None:
    folder = save_model(tmp_path / "m", model.model, model.tokenizer, provenance={})
    with pytest.raises(RequestError, match="only the native backend keeps keys and values in int8"):
        chatsmith.load(folder, backend="torch", cache="int8")
    if build.library() is None:
        return
    light = chatsmith.load(folder, backend="native", cache="int8")
    assert light.engine.backend.name.endswith("in f32, cache in int8")
    text = "the sea and the sand in the sun"
    assert light.score(text).nats == pytest.approx(model.score(text).nats, rel=0.01)


def test_the_fingerprint_follows_the_weights(model: LanguageModel) -> None:
    other = tiny_model(context=256)
    with torch.no_grad():
        other.norm.weight[3] += 1e-6
    assert LanguageModel(other, tiny_tokenizer()).fingerprint != model.fingerprint
    assert len(LanguageModel(other.bfloat16(), tiny_tokenizer()).fingerprint) == 64


def test_writing_one_and_several(model: LanguageModel) -> None:
    one = model.write("the sea", **FULL)
    assert str(one) == "the sea" + one.text
    several = model.write("the sea", samples=3, **FULL)
    assert several.texts[0] == one.text
    assert len(set(several.texts)) == 3
    again = [model.write("the sea", **FULL | {"seed": answer.seed}).text for answer in several.answers]
    assert again == several.texts
    assert str(several).count("the sea") == 3
    assert "sample 3" in shown(several)
    assert "temperature 1" in shown(one)
    html = several._repr_html_()
    assert html.count("sample ") == 3
    assert json.loads(json.dumps(several.to_mapping()))["answers"][1]["text"] == several.texts[1]


def test_a_text_begins_a_document(model: LanguageModel) -> None:
    assert model.prompt_ids("the") == [0, 262]
    assert model.prompt_ids("") == [0]
    assert model.write("", **FULL).answers[0].ids


def test_special_tokens_in_a_prompt_are_text(model: LanguageModel) -> None:
    assert 0 not in model.prompt_ids("<|endoftext|>")[1:]


def test_streaming_gives_the_same_text(model: LanguageModel) -> None:
    whole = model.write("the sea", **FULL)
    stream = model.write("the sea", stream=True, **FULL)
    assert "".join(stream) == whole.text
    assert stream.answer == whole.answers[0]
    assert model.write("the sea", stream=True, **FULL).answer == whole.answers[0]
    with pytest.raises(RequestError, match="only one sample can be streamed"):
        model.write("the sea", samples=2, stream=True)


def test_an_answer_that_the_context_ends_says_so(model: LanguageModel) -> None:
    """It was said to be cut at the most tokens, whichever had ended it."""
    often = {"seed": 1, "temperature": 1.0, "logit_bias": [[token, -100] for token in model.turn_ends]}
    written = model.write("the", **often, max_tokens=300)
    assert written.answers[0].full
    assert "cut at the end of the context" in shown(written)
    assert model.write("the", **often, max_tokens=300, stream=True).answer == written.answers[0]
    assert model.chat("the", **often, max_tokens=300).answer.full
    for less in ({"max_tokens": 5}, {"max_tokens": 0}, {"max_tokens": 300, "rolling": True}):
        assert not model.write("the", **often | less).answers[0].full
    assert "cut at the most tokens" in shown(model.write("the", **often, max_tokens=5))


def test_complete_many_texts_and_conversations(model: LanguageModel) -> None:
    asked = ["the", (Message("user", "and?"),), "in"]
    texts = model.complete(asked, max_tokens=8, stop=("\n",))
    assert texts[0] == model.write("the", temperature=0, max_tokens=8, stop="\n").text
    assert texts[1] == model.chat("and?", temperature=0, max_tokens=8, stop="\n").text


def test_unknown_settings_are_named(model: LanguageModel) -> None:
    with pytest.raises(RequestError, match="no sampling setting called 'temprature'"):
        model.write("x", temprature=1)


def test_score_is_the_surprise_of_every_token(model: LanguageModel) -> None:
    score = model.score("the sea and\n")
    ids = [0, *model.tokenizer.encode("the sea and\n")]
    with torch.inference_mode():
        logprobs = torch.log_softmax(model.model(torch.tensor([ids]))[0, :, :268].double(), -1)
    nats = -sum(float(logprobs[place, token]) for place, token in enumerate(ids[1:]))
    assert score.nats == pytest.approx(nats, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / 12, rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-5)
    assert "bits per byte" in str(score)
    assert "bits per byte" in shown(score)
    assert score._repr_html_().count("<span title") == len(ids) - 1
    assert json.dumps(score.to_mapping())
    with pytest.raises(RequestError, match="empty text"):
        model.score("")


def test_what_a_search_finds_has_no_seed(model: LanguageModel) -> None:
    one, both = (model.write("the", beams=2, samples=count, max_tokens=6) for count in (1, 2))
    for text in (shown(one), shown(both), str(both), one._repr_html_()):
        assert "of 2 beams" in text or text == str(one)
        assert "seed" not in text
        assert "temperature" not in text
    found = json.loads(json.dumps(both.to_mapping()))
    assert found["beams"] == {"width": 2, "length_penalty": 0.6}
    assert [answer["seed"] for answer in found["answers"]] == [None, None]


def test_next_with_and_without_text(model: LanguageModel) -> None:
    assert len(model.next("the", top=4).tokens) == 4
    assert model.next("").steps[0].text == ""


def test_chat_from_text_messages_and_mappings(model: LanguageModel) -> None:
    asked = [Message("system", "Be kind."), Message("user", "Hello")]
    reply = model.chat(asked, **FULL)
    assert reply.text == model.chat([{"role": m.role, "content": m.content} for m in asked], **FULL).text
    assert "".join(model.chat(asked, stream=True, **FULL)) == reply.text
    assert str(reply) == reply.text
    assert "seed 1" in shown(reply)
    assert "seed 1" in reply._repr_html_()
    assert json.dumps(reply.to_mapping())
    for bad in ([], [{"role": "user"}], [{"role": "judge", "content": "x"}]):
        with pytest.raises(RequestError):
            model.chat(bad)


def test_a_reply_ends_where_another_turn_would_begin(model: LanguageModel) -> None:
    assert model.chat_request([Message("user", "x")], model.sampling).stop_ids == frozenset(range(5))


def test_a_conversation_remembers(model: LanguageModel) -> None:
    talk = model.conversation("Be kind.", **FULL)
    first = talk.say("Hello")
    second = talk.say("And?")
    roles = [message.role for message in talk.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert second.text == model.chat(talk.messages[:4], **FULL).text
    assert first.text == talk.messages[2].content
    assert (first.dropped, second.dropped) == (0, 0)


def test_a_streamed_reply_is_remembered_as_far_as_it_was_read(model: LanguageModel) -> None:
    talk, twin = model.conversation(**FULL), model.conversation(**FULL)
    pieces = talk.say("Hello", stream=True)
    text = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert talk.messages[-1] == Message("assistant", text)
    assert "".join(twin.say("Hello", stream=True)) == model.conversation(**FULL).say("Hello").text


def test_a_full_context_drops_the_oldest_turns_and_says_so(model: LanguageModel) -> None:
    talk = model.conversation("Be kind.", **FULL)
    replies = [talk.say("x" * 60) for _ in range(8)]
    assert replies[0].dropped == 0
    assert replies[-1].dropped >= 2
    assert replies[-1].dropped == talk.dropped
    assert replies[-1].dropped % 2 == 0
    assert "no longer fitted the context" in shown(replies[-1], width=200)
    assert len(talk.messages) == 17
    kept = [talk.messages[0], *talk.messages[1 + talk.dropped : -1]]
    assert replies[-1].text == model.chat(kept, **FULL).text
    with pytest.raises(RequestError, match="the system text and this message take"):
        talk.say("y" * 400)
    with pytest.raises(RequestError, match="this message alone takes"):
        model.conversation(**FULL).say("y" * 400)
    assert len(talk.messages) == 17


def test_a_text_that_is_too_long_is_answered_with_what_can_be_done(model: LanguageModel) -> None:
    """Only where a text is continued can the oldest be forgotten: nothing else has a window that rolls."""
    text = "y" * 400
    hints = {}
    for name, ask in {
        "write": lambda: model.write(text),
        "stream": lambda: model.write(text, stream=True),
        "beams": lambda: model.write(text, beams=2),
        "chat": lambda: model.chat(text),
        "complete": lambda: model.complete([text]),
        "next": lambda: model.next(text),
        "system": lambda: model.conversation(text),
        "system and words": lambda: model.conversation("y" * 150, **FULL).say("z" * 150),
    }.items():
        with pytest.raises(RequestError, match=r"tokens[,;].* context of") as caught:
            ask()
        hints[name] = caught.value.hint
    shorter = "shorten it to at most 255 tokens"
    rolls = f"{shorter}, or have the oldest forgotten: --rolling (in Python: rolling=True)"
    assert hints == {
        "write": rolls,
        "stream": rolls,
        **dict.fromkeys(("beams", "chat", "complete", "next"), shorter),
        "system": "shorten it",
        "system and words": "shorten the system text, or say it in fewer words, or in parts",
    }


def test_a_model_that_cannot_talk_says_what_it_can() -> None:
    silent = LanguageModel(tiny_model(), tiny_tokenizer(talks=False), name="silent")
    for ask in (lambda: silent.chat("hi"), lambda: Dialogue(silent)):
        with pytest.raises(RequestError, match="silent has no chat template") as caught:
            ask()
        assert "write" in (caught.value.hint or "")


def test_what_comes_before_a_text() -> None:
    llama = Tokenizer(
        tiny_tokenizer()._document, {"bos_token": "<|system|>", "eos_token": "<|end|>", "add_bos_token": True}
    )
    assert document_start(llama) == (1,)
    assert document_start(tiny_tokenizer()) == (0,)


def test_published_settings_are_the_defaults() -> None:
    published = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "max_new_tokens": 64, "eos_token_id": 0, "min_p": None}
    found = published_sampling(published)
    assert (found.temperature, found.top_k, found.top_p, found.max_tokens, found.min_p) == (0.6, 20, 0.95, 64, 0.0)
    assert published_sampling({"do_sample": False}).temperature == 0
    with pytest.raises(RequestError, match=r"generation_config.json: temperature must be a number, not 'hot'"):
        published_sampling({"temperature": "hot"})


def test_at_a_prompt_a_result_is_one_line(model: LanguageModel) -> None:
    """What print and a notebook show is long; what Python shows of its own accord was all that a result holds."""
    text = "the sea\n" * 9
    talk = model.conversation()
    found = {
        "Writing": [
            model.write(text, **FULL),
            model.write(text, **FULL, samples=2),
            model.write("", beams=2, max_tokens=9),
        ],
        "Reply": [talk.say(text, **FULL)],
        "Score": [model.score(text)],
        "NextReport": [model.next(text), model.next(text, steps=3)],
        "NextStep": [model.next(text).steps[0]],
        "Dialogue": [talk],
        "Answer": [model.write(text, **FULL).answers[0]],
        "Distribution": [model.next(text).steps[0].distribution],
    }
    for name, results in found.items():
        for result in results:
            assert type(result).__name__ == name
            assert name in repr(result)
            assert "\n" not in repr(result)
            assert len(repr(result)) < 250
    assert repr(talk) == "<Dialogue with tiny: 2 messages>"
    step = model.next("the", top=2).steps[0]
    first = ", ".join(f"{row.text!r} {percent(row.before)}" for row in step.tokens)
    assert repr(step) == f"<NextStep 'the': {first}>"


def test_the_model_shows_what_it_is(model: LanguageModel) -> None:
    assert "parameters" in repr(model)
    assert "256 tokens" in shown(model)
    assert "268 tokens" in model._repr_html_()
    assert read_messages("hi") == (Message("user", "hi"),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": 5}, "there is no device"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99' here"),
        ({"device": "meta"}, "nothing is computed on the device 'meta'"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, not 'int8'"),
        ({"dtype": torch.int64}, "dtype must be one of"),
    ],
)
def test_a_device_or_type_that_is_not_there_is_refused(
    tmp_path: Path, model: LanguageModel, settings: dict, said: str
) -> None:
    folder = save_model(tmp_path / "m", model.model, model.tokenizer, provenance={})
    with pytest.raises(RequestError, match=re.escape(said)):
        chatsmith.load(folder, **settings)
    assert chatsmith.load(folder, dtype="bfloat16").model.dtype is torch.bfloat16
