"""OpenAI's own client, which checks every field of every response."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="openai is not installed: pip install 'chatsmith[test]'")

HELLO: list[dict[str, str]] = [{"role": "user", "content": "Once upon a time"}]
SETTINGS: dict[str, Any] = {"model": "tiny", "max_tokens": 6, "seed": 1}


@pytest.fixture
def asking(listening: Any) -> Any:
    with openai.OpenAI(api_key="none", base_url=f"{listening.url}/v1", _strict_response_validation=True) as made:
        yield made


@pytest.fixture
def lenient(listening: Any) -> Any:
    with openai.OpenAI(api_key="none", base_url=f"{listening.url}/v1") as made:
        yield made


def test_a_reply_and_its_stream_are_the_same(asking: Any) -> None:
    reply = asking.chat.completions.create(messages=HELLO, logprobs=True, top_logprobs=3, n=2, **SETTINGS)
    assert len(reply.choices) == 2
    assert reply.usage.completion_tokens == sum(len(choice.logprobs.content) for choice in reply.choices)
    said = ["", ""]
    last = None
    for chunk in asking.chat.completions.create(
        messages=HELLO, n=2, stream=True, stream_options={"include_usage": True}, **SETTINGS
    ):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
        last = chunk
    assert said == [choice.message.content for choice in reply.choices]
    assert last is not None
    assert last.usage == reply.usage


def test_texts_and_scores(asking: Any, lenient: Any) -> None:
    # The first token of ids has no probability; as OpenAI's own null there, strict validation would not have it.
    answers = lenient.completions.create(prompt=["The fox", [20, 21]], logprobs=2, echo=True, **SETTINGS)
    [first, second] = answers.choices
    assert first.text.startswith("The fox")
    assert second.logprobs.token_logprobs[0] is None
    for choice in (first, second):
        assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    pieces = lenient.completions.create(prompt="The fox", stream=True, **SETTINGS)
    assert "The fox" + "".join(piece.choices[0].text for piece in pieces) == first.text


def test_vectors_in_base64_are_those_in_numbers(asking: Any, lenient: Any) -> None:
    # The client asks for base64 unless told otherwise, and validates before it decodes: not with strict validation.
    by_default = lenient.embeddings.create(model="tiny", input=["a fox", [5, 6]])
    as_numbers = asking.embeddings.create(model="tiny", input=["a fox", [5, 6]], encoding_format="float")
    as_base64 = lenient.embeddings.create(model="tiny", input=["a fox", [5, 6]], encoding_format="base64")
    for one, other, packed in zip(by_default.data, as_numbers.data, as_base64.data, strict=True):
        assert struct.pack(f"<{len(one.embedding)}f", *one.embedding) == struct.pack(
            f"<{len(other.embedding)}f", *other.embedding
        )
        assert isinstance(packed.embedding, str)


def test_errors_are_the_client_s_own(asking: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        asking.chat.completions.create(messages=HELLO, model="tiny", temperature=3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as missing:
        asking.chat.completions.create(messages=HELLO, model="gpt-4")
    assert missing.value.code == "model_not_found"
    assert [model.id for model in asking.models.list()] == ["tiny"]
    assert asking.models.retrieve("tiny").id == "tiny"


def test_the_asynchronous_client_and_many_at_once(listening: Any) -> None:
    async def one(asking: Any, seed: int) -> str:
        stream = await asking.chat.completions.create(messages=HELLO, stream=True, **SETTINGS | {"seed": seed})
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def everybody() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=f"{listening.url}/v1", _strict_response_validation=True
        ) as asking:
            together = await asyncio.gather(*(one(asking, seed) for seed in range(12)))
            return together, [await one(asking, seed) for seed in range(12)]

    together, alone = asyncio.run(everybody())
    assert together == alone


def test_responses_whole_and_in_events_by_many_at_once(listening: Any) -> None:
    settings = {"model": "tiny", "max_output_tokens": 6}

    async def one(asking: Any, seed: int) -> str:
        stream = await asking.responses.create(input=HELLO, stream=True, extra_body={"seed": seed}, **settings)
        events = [event async for event in stream]
        assert events[-1].type in ("response.completed", "response.incomplete")
        assert [event.sequence_number for event in events] == list(range(len(events)))
        return events[-1].response.output_text

    async def everybody() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=f"{listening.url}/v1", _strict_response_validation=True
        ) as asking:
            together = await asyncio.gather(*(one(asking, seed) for seed in range(12)))
            whole = [
                await asking.responses.create(input=HELLO, extra_body={"seed": seed}, **settings) for seed in range(12)
            ]
            return together, [response.output_text for response in whole]

    together, alone = asyncio.run(everybody())
    assert together == alone
