"""/v1/responses: the answers of /v1/chat/completions in typed items, whole and in events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import chatsmith
from chatsmith.cli import app
from chatsmith.serve.errors import ApiError
from chatsmith.serve.talk import _Stream

HELLO: dict[str, Any] = {"input": "Hello", "max_output_tokens": 12, "seed": 7, "temperature": 1}
JSON = {"content-type": "application/json"}
SHOWN = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}


def post(client: TestClient, path: str = "responses", **body: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream, numbered in their order and called twice by the same name."""
    found = []
    for place, event in enumerate(one for one in text.split("\n\n") if one):
        called, _, data = event.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert found[-1]["type"] == called.removeprefix("event: ")
        assert found[-1]["sequence_number"] == place
    return found


def without_names(response: dict[str, Any]) -> dict[str, Any]:
    """A response but for what is another one every time."""
    items = [{key: value for key, value in item.items() if key != "id"} for item in response["output"]]
    return {**response, "id": "", "created_at": 0, "output": items, "usage": response["usage"]["output_tokens"]}


def test_it_says_what_chat_completions_say(client: TestClient) -> None:
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}]
    asked = {"max_tokens": 12, "seed": 7, "temperature": 1, "logprobs": True, "top_logprobs": 2}
    other = post(client, "chat/completions", messages=messages, **asked)
    found = post(client, instructions="Be brief", metadata={"a": "b"}, **HELLO, **SHOWN)
    [item] = found["output"]
    [part] = item["content"]
    assert part["text"] == other["choices"][0]["message"]["content"]
    assert part["logprobs"] == other["choices"][0]["logprobs"]["content"]
    assert found["replay"] == other["replay"]
    used = other["usage"]
    assert found["usage"]["input_tokens"] == used["prompt_tokens"]
    assert found["usage"]["output_tokens"] == used["completion_tokens"]
    assert found["usage"]["total_tokens"] == used["total_tokens"]
    assert (found["metadata"], found["store"], found["temperature"]) == ({"a": "b"}, False, 1)
    assert 'path="/v1/responses",status="200"} 1' in client.get("/metrics").text


def test_items_are_the_messages_of_a_chat(client: TestClient) -> None:
    first = post(client, **HELLO)
    items = [
        {"role": "developer", "content": "Be brief"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hel"}]},
        *first["output"],
        {"role": "user", "content": "Hello"},
    ]
    said = first["output"][0]["content"][0]["text"]
    roles = (("system", "Be brief"), ("user", "Hel"), ("assistant", said), ("user", "Hello"))
    messages = [{"role": role, "content": content} for role, content in roles]
    other = post(client, "chat/completions", messages=messages, max_tokens=12, seed=7, temperature=1)
    assert post(client, **HELLO | {"input": items})["replay"] == other["replay"]


@pytest.mark.parametrize("more", [{}, SHOWN, {"max_output_tokens": 0}])
def test_a_stream_is_the_same_in_events(client: TestClient, more: dict[str, Any]) -> None:
    whole = post(client, **HELLO | more)
    answer = client.post("/v1/responses", json=HELLO | more | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [kind for kind in kinds if kind != "output_text.delta"] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.done", "content_part.done", "output_item.done", "incomplete"),
    ]
    assert kinds[4 : 4 + len(deltas)] == ["output_text.delta"] * len(deltas)
    last = events[-1]["response"]
    assert without_names(last) == without_names(whole)
    assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    [part] = last["output"][0]["content"]
    assert "".join(event["delta"] for event in deltas) == part["text"] == events[-4]["text"]
    assert [entry for event in deltas for entry in event["logprobs"]] == part["logprobs"] == events[-4]["logprobs"]
    assert bool(part["logprobs"]) == ("include" in more)
    assert events[-2]["item"] == last["output"][0]
    assert {event["item_id"] for event in deltas} <= {last["output"][0]["id"]}


def test_an_answer_that_ends_is_completed(client: TestClient, model: chatsmith.LanguageModel) -> None:
    end = {str(model.tokenizer.specials["<|end|>"]): 100}
    found = post(client, **HELLO, logit_bias=end)
    assert (found["status"], found["incomplete_details"]) == ("completed", None)
    assert found["output"][0]["status"] == "completed"
    streamed = client.post("/v1/responses", json=HELLO | {"logit_bias": end, "stream": True})
    assert events_of(streamed.text)[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
def test_it_can_be_replayed(
    client: TestClient, folder: Path, tmp_path: Path, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    # The answer's text stands in the last event: what Python takes for the end of a line must not end it.
    answer = client.post("/v1/responses", json=HELLO | {"metadata": {"a": "b\u2028data: {"}, "stream": stream})
    saved = tmp_path / "response"
    saved.write_bytes(answer.content)
    assert app.run(["replay", str(saved), "--model", str(folder)]) == 0
    assert "the same, token for token: 12 tokens" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("field", "body", "said"),
    [
        ("input", {"input": None}, "input is missing"),
        ("input", {"input": []}, "input must have from 1 to 128 entries, not 0"),
        ("input", {"input": 3}, "input must be a list, not a number"),
        ("input[0].type", {"input": [{"type": "reasoning"}]}, "must be one of message, function_call, function_call_o"),
        ("input[0].type", {"input": [{"type": []}]}, "must be one of message"),
        ("input[0].role", {"input": [{"role": "tool", "content": "a"}]}, "must be one of user, assistant"),
        ("input[0].content", {"input": [{"role": "user"}]}, "is missing"),
        (
            "input[0].content[0].type",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "a"}]}]},
            "must be input_text or output_text: this model reads nothing else",
        ),
        ("input[0].name", {"input": [{"role": "user", "content": "a", "name": "b"}]}, "is not known"),
        ("input", {"input": "word " * 100_000}, "does not fit the context"),
        (
            "input",
            {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            "input have tools in them, and this model's chat template has no place for them",
        ),
        ("max_output_tokens", {"max_output_tokens": 512}, "the context holds 512"),
        ("max_output_tokens", {"max_output_tokens": 0.5}, "must be a whole number"),
        ("max_tokens", {"max_tokens": 5}, "no field called 'max_tokens'"),
        ("store", {"store": True}, "store must be false: this server keeps no responses"),
        ("background", {"background": True}, "background must be false"),
        ("previous_response_id", {"previous_response_id": "resp_1"}, "cannot be used: this server keeps no responses"),
        ("truncation", {"truncation": "auto"}, "must be one of disabled"),
        ("include", {"include": ["file_search_call.results"]}, "must be one of message.output_text.logprobs"),
        ("top_logprobs", {"top_logprobs": 2}, 'needs include to be ["message.output_text.logprobs"]'),
        ("metadata", {"metadata": {str(place): "" for place in range(17)}}, "at most 16 entries"),
        ("metadata.a", {"metadata": {"a": 3}}, "must be a text"),
        ("text.format.type", {"text": {"format": {"type": "xml"}}}, "must be text, json_object or json_schema"),
        ("text.verbosity", {"text": {"verbosity": "low"}}, "is not known; there are format"),
        ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "a"}}}, "must be an object"),
        ("text", {"text": {"format": {"type": "json_schema", "schema": {"type": "no"}}}}, ""),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}, "must be function"),
        ("tools[0].function", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "is not known"),
        ("tools[0].name", {"tools": [{"type": "function", "name": "a b"}]}, "must have 1 to 64 letters"),
        ("tools", {"tools": [{"type": "function", "name": "f"}]}, "this model's chat template has no place for them"),
        ("tool_choice", {"tool_choice": {"type": "function", "name": "f"}}, "needs tools to choose from"),
        ("tool_choice.mode", {"tool_choice": {"type": "allowed_tools", "mode": "any"}}, "must be auto or required"),
        ("tool_choice.tools", {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "from 1 to"),
        (
            "tool_choice",
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}},
            "needs tools to choose from",
        ),
        ("reasoning.effort", {"reasoning": {"effort": "much"}}, "must be one of none, minimal"),
        ("reasoning.budget", {"reasoning": {"budget": 5}}, "is not known; there are effort, summary"),
        ("stream_options.include_usage", {"stream_options": {"include_usage": True}}, "is not known"),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, field: str, body: dict[str, Any], said: str) -> None:
    if field == "text":
        pytest.importorskip("llguidance")
    answer = client.post("/v1/responses", json=HELLO | body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert said in error["message"]
    assert error["param"] == field


def test_what_clients_send_for_nothing_special_is_taken(client: TestClient) -> None:
    plain = post(client, **HELLO)
    more = {"store": False, "background": False, "previous_response_id": None, "truncation": "disabled", "include": []}
    unused = {"user": "a", "parallel_tool_calls": True, "service_tier": "auto", "tools": [], "text": {"format": None}}
    more["include"] = ["reasoning.encrypted_content"]
    found = post(client, **HELLO, **more, **unused, stream_options={"include_obfuscation": False})
    assert without_names(found) | {"user": None} == without_names(plain)


def test_half_a_character_is_told_again_as_none(client: TestClient) -> None:
    half = "\ud83d"
    form = {"type": "json_schema", "name": "a", "description": half, "schema": {"type": "object", "title": half}}
    body = HELLO | {"metadata": {half: half}, "user": half, "instructions": half, "text": {"format": form}}
    for stream in (False, True):
        answer = client.post("/v1/responses", content=json.dumps(body | {"stream": stream}), headers=JSON)
        assert answer.status_code == 200
        told = answer.json() if not stream else events_of(answer.text)[0]["response"]
        assert told["text"]["format"]["schema"]["title"] == told["user"] == told["instructions"] == "\ufffd"


def test_a_number_beyond_all_is_refused(client: TestClient) -> None:
    for form in ('{"type": "json_object", "a": 1e999}', '{"type": "json_schema", "description": 1e999, "schema": {}}'):
        body = '{"input": "a", "text": {"format": ' + form + "}}"
        answer = client.post("/v1/responses", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "text.format")


def test_a_key_is_asked_for(application: Callable[..., Any]) -> None:
    from chatsmith.serve.keys import Keys

    keys = Keys()
    key = keys.new("alice")
    with application(keys=keys) as client:
        assert client.post("/v1/responses", json=HELLO).status_code == 401
        found = client.post("/v1/responses", json=HELLO, headers={"authorization": f"Bearer {key}"})
        assert found.status_code == 200


def test_an_error_in_the_middle_is_an_event(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise ApiError(503, "the answer took more than 3 s", code="timeout")

    monkeypatch.setattr(_Stream, "_pieces", broken)
    events = events_of(client.post("/v1/responses", json=HELLO | {"stream": True}).text)
    assert [event["type"] for event in events[2:]] == ["error", "response.failed"]
    assert (events[2]["message"], events[2]["code"]) == ("the answer took more than 3 s", "timeout")
    failed = events[3]["response"]
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": "the answer took more than 3 s"}


@pytest.fixture
def asking(client: TestClient) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(
        api_key="none", base_url="http://localhost/v1", http_client=client, _strict_response_validation=True
    )


def test_openai_s_client_reads_it(asking: Any) -> None:
    settings = {"model": "tiny", "max_output_tokens": 8, "extra_body": {"seed": 3}}
    found = asking.responses.create(input="Hello", **settings, **SHOWN)
    assert found.status == "incomplete"
    assert found.usage.output_tokens == len(found.output[0].content[0].logprobs) == 8
    said = ""
    for event in asking.responses.create(input="Hello", stream=True, **settings):
        said += event.delta if event.type == "response.output_text.delta" else ""
    assert said == found.output_text
    with asking.responses.stream(input="Hello", **settings) as stream:
        told = [event for event in stream if event.type == "response.output_text.delta"]
    assert told[-1].snapshot == said
    again = asking.responses.create(
        input=[{"role": "user", "content": "Hello"}, *found.output, {"role": "user", "content": "a"}], **settings
    )
    assert again.usage.input_tokens > found.usage.input_tokens
    with pytest.raises(Exception, match="store must be false"):
        asking.responses.create(input="Hello", store=True, **settings)


def test_openai_s_client_has_the_form_that_it_asked_for(asking: Any) -> None:
    pytest.importorskip("llguidance")
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Yes", yes=(bool, ...))
    settings = {"model": "tiny", "input": "Hello", "max_output_tokens": 40, "temperature": 0}
    found = asking.responses.parse(text_format=model, **settings)
    assert isinstance(found.output_parsed.yes, bool)
    assert (found.status, found.text.format.name) == ("completed", "Yes")
    with asking.responses.stream(text_format=model, **settings) as stream:
        assert stream.get_final_response().output_parsed == found.output_parsed
    loose = asking.responses.create(text={"format": {"type": "json_object"}}, **settings)
    assert loose.output_text.startswith("{")
