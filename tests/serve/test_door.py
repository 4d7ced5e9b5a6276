"""Who may come in, what is refused and how it is said, before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from chatsmith.errors import RequestError
from chatsmith.serve.fields import CHAT, FIELDS, NEXT, PATHS, read
from chatsmith.serve.guard import POLICY
from chatsmith.serve.keys import Key, Keys
from chatsmith.serve.launch import is_local, launch
from chatsmith.serve.limits import Limits
from chatsmith.serve.rates import Rates
from chatsmith.serve.server import bind

SAY = [{"role": "user", "content": "x"}]


def refused(client: TestClient, status: int, body: Any = None, path: str = CHAT, **more: Any) -> dict[str, Any]:
    answer = client.post(path, json=body, **more) if body is not None else client.post(path, **more)
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", True),
        ("n", 9),
        ("n", 1.0),
        ("n", "1"),
        ("temperature", 2.5),
        ("temperature", "hot"),
        ("temperature", False),
        ("top_p", 0),
        ("top_k", -2),
        ("max_tokens", 10**30),
        ("max_tokens", 512),
        ("seed", 2**63),
        ("stop", ["a"] * 5),
        ("stop", "a" * 65),
        ("stop", [""]),
        ("stop", 5),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"999999": 1}),
        ("logit_bias", {str(one): 1 for one in range(301)}),
        ("top_logprobs", 21),
        ("top_logprobs", 1),
        ("stream", 1),
        ("messages", []),
        ("messages", SAY * 129),
        ("messages", "hello"),
        ("tool_choice", "required"),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("prefix_ids", [10**9]),
        ("prefix_ids", [True]),
        ("no_such_field", 1),
        ("repetition_penalty", 5e-324),
    ],
)
def test_a_wrong_field_is_named(client: TestClient, field: str, value: Any) -> None:
    assert refused(client, 400, {"messages": SAY, "max_tokens": 4} | {field: value})["param"] == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "root", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "tool", "content": "x"}, "messages"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": "x", "path": "/etc/passwd"}, "messages[0].path"),
    ],
)
def test_a_wrong_message_is_named(client: TestClient, message: Any, field: str) -> None:
    assert refused(client, 400, {"messages": [message]})["param"] == field


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff\xfe", "byte 0 is no UTF-8"),
        (b"\xef\xbb\xbf{}", "a byte order mark"),
        (b'{"temperature": NaN}', "NaN is not a number"),
        (b'{"temperature": -Infinity}', "Infinity is not a number"),
        (b'{"temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}', "temperature must be from"),
        (b'{"n": 1, "n": 2}', "twice"),
        (b'{"n": ' + b"9" * 5000 + b"}", "a number in it has thousands of digits"),
        (b"[" * 33 + b"]" * 33, "more than 32 levels"),
        (b"[" * 400_000 + b"]" * 400_000, "levels"),
    ],
)
def test_a_body_that_is_no_request(client: TestClient, body: bytes, said: str) -> None:
    error = refused(client, 400, content=body, headers={"content-type": "application/json"})
    assert said in error["message"]


def test_half_a_character_is_no_fault_of_ours(client: TestClient) -> None:
    body = b'{"text": "a \\ud83d b"}'
    answer = client.post("/v1/tokenize", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_many_answers_of_nothing_are_refused(client: TestClient) -> None:
    nothing = {"n": 2, "max_tokens": 0}
    assert refused(client, 400, {"messages": SAY, **nothing})["param"] == "n"
    assert refused(client, 400, {"prompt": "x", **nothing}, "/v1/completions")["param"] == "n"


def test_too_long_a_body_is_not_read(application: Callable[..., Any]) -> None:
    with application(limits=Limits(body_bytes=2048)) as client:
        assert refused(client, 413, {"text": "a" * 3000}, "/v1/tokenize")["code"] == "body_too_long"
        for announced in ("2049", "9" * 30):
            headers = {"content-type": "application/json", "content-length": announced}
            assert refused(client, 413, path="/v1/tokenize", content=b"{", headers=headers)["code"] == "body_too_long"


def test_only_json_is_taken(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        refused(client, 415, content=b"{}", headers={"content-type": kind})


def test_only_its_own_names_and_pages(application: Callable[..., Any]) -> None:
    with application(hosts=["models.example"]) as client:
        for host, status in (
            ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("models.example", 200),
            ("MODELS.example.", 200),
            ("evil.example", 403), ("localhost.evil.example", 403), ("", 403), ("127.0.0.1@evil.example", 403),
        ):  # fmt: skip
            assert client.get("/health", headers={"host": host}).status_code == status, host
        for origin, status in (("http://localhost:1", 200), ("https://evil.example", 403), ("null", 403)):
            assert client.get("/v1/models", headers={"origin": origin}).status_code == status
        preflight = client.options(CHAT, headers={"origin": "https://evil.example"})
        assert preflight.status_code == 403
        assert not any(name.startswith("access-control") for name in preflight.headers)


def test_pages_of_the_sites_that_are_named(application: Callable[..., Any], tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    good = {"authorization": f"Bearer {keys.new('alice')}"}
    page = {"origin": "https://app.example:8443"}
    with application(keys=keys, origins=["https://App.example:8443"]) as client:
        asked = client.options(CHAT, headers=page | {"access-control-request-method": "POST"})
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == page["origin"]
        assert "authorization" in asked.headers["access-control-allow-headers"]
        for headers, status in ((page | good, 200), (page, 401)):
            answer = client.get("/v1/models", headers=headers)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, page["origin"])
            assert answer.headers["vary"] == "origin"
        for origin in ("https://app.example", "http://app.example:8443", "https://evil.example", "null"):
            other = client.get("/v1/models", headers=good | {"origin": origin})
            assert other.status_code == 403
            assert "access-control-allow-origin" not in other.headers
        for path in ("/conversations", "/metrics", "/"):  # what is said on the page is nobody else's
            assert client.get(path, headers=good | page).status_code == 403


@pytest.mark.parametrize("origin", ["*", "https://*.example", "app.example", "https://app.example/", "null", "file://"])
def test_what_is_no_origin(application: Callable[..., Any], origin: str) -> None:
    with pytest.raises(RequestError, match="is no origin of pages"), application(origins=[origin]):
        pass


def test_a_name_may_be_given_with_its_port(application: Callable[..., Any]) -> None:
    with application(hosts=["models.example:8443", "", "::1"]) as client:
        assert client.get("/health", headers={"host": "models.example:8443"}).status_code == 200
        assert client.get("/health", headers={"host": ""}).status_code == 403


def test_without_a_key_only_what_is_open(application: Callable[..., Any], tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    key = keys.new("alice")
    assert key not in (tmp_path / "keys.json").read_text()
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    with application(keys=keys) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/").status_code in (200, 404)
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/limits", "/nothing", "/healthx", "/conversations"):
            assert client.get(path).status_code == 401, path
        for path in PATHS:
            assert client.post(path, json={}).status_code == 401
        assert client.post("/health").status_code == 401
        for given in ("Bearer wrong", "Bearer", key, f"Basic {key}", "Bearer é"):
            headers = {"authorization": given.encode("latin-1")}
            assert client.get("/v1/models", headers=headers).status_code == 401  # type: ignore[arg-type]
        good = {"authorization": f"Bearer {key}"}
        assert client.get("/v1/models", headers=good).status_code == 200
        keys.remove("alice")
        assert client.get("/v1/models", headers=good).status_code == 401


def test_keys_have_names_of_their_own(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    made = {keys.new(name) for name in ("a", "b")}
    assert len(made) == 2
    assert [key.name for key in Keys(tmp_path / "keys.json").all()] == ["a", "b"]
    for name in ("a", "", "x" * 65, "a\nb"):
        with pytest.raises(RequestError):
            keys.new(name)
    with pytest.raises(RequestError, match="no key called"):
        keys.remove("c")


def test_as_many_keys_as_there_may_be_are_read_again(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    kept = tuple(Key("\U0001f511" * 59 + f"{number:05}", "0" * 64, "0000", 10**10) for number in range(10_000))
    keys._write(kept)
    assert Keys(tmp_path / "keys.json").all() == kept


def test_a_key_has_so_much_a_minute(application: Callable[..., Any], tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    headers = {"authorization": f"Bearer {keys.new('alice')}"}
    with application(keys=keys, limits=Limits(requests_per_minute=2)) as client:
        body = {"prompt": "a", "max_tokens": 1}
        for _ in range(2):
            assert client.post("/v1/completions", json=body, headers=headers).status_code == 200
        late = client.post("/v1/completions", json=body, headers=headers)
        assert late.status_code == 429
        assert 1 <= int(late.headers["retry-after"]) <= 31
        assert client.get("/v1/models", headers=headers).status_code == 200


def test_who_is_refused_pays_nothing(application: Callable[..., Any], tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    headers = {"authorization": f"Bearer {keys.new('alice')}"}
    with application(keys=keys, limits=Limits(running=1, waiting=1, tokens_per_minute=100)) as client:
        for path, name in (("completions", "prompt"), ("embeddings", "input")):
            many = {name: ["a" * 10] * 16}
            for _ in range(4):
                late = client.post(f"/v1/{path}", json=many, headers=headers)
                assert (late.status_code, late.json()["error"]["code"]) == (429, "queue_full")


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(RequestError, match="no host called 'aaa"):
        bind("a" * 70, 0)


def test_buckets_fill_evenly() -> None:
    now = [0.0]
    rates = Rates(Limits(requests_per_minute=60, tokens_per_minute=600), lambda: now[0])
    rates.tokens("a", 500)
    with pytest.raises(Exception, match="try again in 11 s"):
        rates.tokens("a", 200)
    rates.tokens("b", 600)
    now[0] = 10.0
    rates.tokens("a", 200)
    rates.give_back("a", 150)
    rates.tokens("a", 150)
    for _ in range(60):
        rates.request("a")
    with pytest.raises(Exception, match="requests a minute"):
        rates.request("a")


def test_every_answer_says_what_a_browser_may_do(client: TestClient) -> None:
    for path in ("/health", "/v1/models", "/nothing", "/"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_no_file_but_the_page_s_own(client: TestClient) -> None:
    for path in (
        "/page/../limits.py",
        "/page/..%2flimits.py",
        "/page/%2e%2e/limits.py",
        "/page/none.js",
        "/page/",
        "/etc",
    ):
        assert client.get(path).status_code == 404, path


def test_a_path_that_is_not_there_is_answered_with_the_one_that_is_meant(client: TestClient) -> None:
    for asked, meant in (
        ("/chat/completions", "did you mean /v1/chat/completions?"),
        ("/v1/v1/responses", "did you mean /v1/responses?"),
        ("/models", "did you mean /v1/models?"),
        ("/v1/completions/", "did you mean /v1/completions?"),
        ("/v1/images/generations", "/openapi.json lists what there is"),
        ("/v1/files", "/openapi.json lists what there is"),
    ):
        answer = client.post(asked, json={})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"there is nothing at {asked}; {meant}"


def test_limits_can_be_set_and_are_checked() -> None:
    assert Limits.of(["n=4", "request-seconds=2.5"]) == Limits(n=4, request_seconds=2.5)
    with pytest.raises(RequestError, match="limit n needs a number") as caught:
        Limits.of(["n"])
    assert caught.value.hint == f"for example n={Limits().n}"
    for wrong in ("m=4", "n", "n=x", "n=0", "n=1.5", "request_seconds=nan"):
        with pytest.raises(RequestError):
            Limits.of([wrong])
    with pytest.raises(RequestError, match="cache_bytes must be from 1,048,576 to"):
        Limits.of(["cache_bytes=10"])
    assert {name for name, _, _ in Limits().rows()} >= {"body_bytes", "waiting", "tokens_per_minute"}


def test_another_address_needs_keys(folder: Path) -> None:
    assert is_local("127.0.0.1")
    assert is_local("::1")
    assert not is_local("0.0.0.0")
    with pytest.raises(RequestError, match="no key yet") as caught:
        launch(folder, host="0.0.0.0", port=0)
    assert "--insecure" in str(caught.value)


def test_openapi_and_validation_come_from_one_table(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    for path in PATHS:
        schema = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == {field.name for field in FIELDS if path in field.paths}
        assert schema["additionalProperties"] is False
    assert json.dumps(described)
    assert all(field.text for field in FIELDS)


def test_null_means_not_given() -> None:
    bounds = {"context": 8, "vocab_size": 8, "body_bytes": 100, "temperature": 2, "next_count": 9}
    fields = read(NEXT, {"text": "a", "temperature": None, "count": None}, bounds)
    assert fields["temperature"] is None
    assert fields["count"] == 20


def test_a_request_has_only_so_long(application: Callable[..., Any]) -> None:
    body = {"prompt": "a", "max_tokens": 400, "logit_bias": {str(token): -100 for token in range(5)}}
    with application(limits=Limits(request_seconds=0.001)) as client:
        assert refused(client, 503, body, "/v1/completions")["code"] == "timeout"
        assert client.get("/health").status_code == 200


def test_a_text_that_cannot_fit_is_not_even_encoded(client: TestClient) -> None:
    long = "a" * 500_000
    for path, body in (
        ("/v1/completions", {"prompt": long}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": long}]}),
        ("/v1/next", {"text": long}),
        ("/v1/embeddings", {"input": long}),
    ):
        assert refused(client, 400, body, path)["code"] == "context_length_exceeded"


def test_a_method_that_a_path_does_not_take_is_named_before_its_body(client: TestClient) -> None:
    assert client.post("/v1/limits").status_code == 405
    assert client.post("/v1/completions", content=b"{}").status_code == 415
