"""A server in a process of its own: clients that leave, that read slowly or never finish asking, and its end."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from patience import PATIENCE

# No ending token: the answers are as long as they may be.
LONG = {"prompt": "Once", "max_tokens": 480, "logit_bias": {str(token): -100 for token in range(5)}}
RESPONSE = {"input": "Once", "max_output_tokens": 480, "logit_bias": LONG["logit_bias"]}


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def counted(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"chatsmith_{name} ")))


def answered(url: str) -> int:
    """How many of the requests that tests here make have been answered, or left."""
    text = httpx.get(f"{url}/metrics", timeout=PATIENCE).text
    answers = r'^chatsmith_requests_total\{path="/v1/(?:completions|responses)",.*\} (\d+)$'
    return sum(map(int, re.findall(answers, text, re.MULTILINE)))


def raw(port: int, body: dict[str, Any], stream: bool = True, path: str = "completions") -> socket.socket:
    """A connection that has asked for a stream, or for a whole answer."""
    made = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    data = json.dumps(body | {"stream": stream}).encode()
    made.sendall(
        f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        + f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return made


def test_who_leaves_frees_the_place(server: Callable[..., Any]) -> None:
    running = server()
    for path, body in (("completions", LONG), ("responses", RESPONSE)) * 15:
        made = raw(running.port, body, path=path)
        assert made.recv(200).startswith(b"HTTP/1.1 200 ")
        made.close()
    made = raw(running.port, LONG | {"n": 8}, stream=False)  # one that waits for a whole answer, and leaves
    time.sleep(0.05)
    made.close()
    wait_for(lambda: answered(running.url) == 31)  # before, some may not even have been read
    assert counted(running.url, "answers_running") == 0
    assert counted(running.url, "cache_blocks_held") == 0
    assert counted(running.url, "failures_total") == 0
    made_before = counted(running.url, "engine_made_total")
    good = httpx.post(f"{running.url}/v1/completions", json=LONG | {"max_tokens": 5}, timeout=PATIENCE)
    assert good.json()["usage"]["completion_tokens"] == 5
    assert counted(running.url, "engine_made_total") == made_before + 5
    assert running.stop() == 0


def test_a_full_line_says_when_to_come_back(server: Callable[..., Any]) -> None:
    running = server("--limit", "running=1", "--limit", "waiting=1")
    streams = [raw(running.port, LONG | {"n": 8}) for _ in range(2)]
    wait_for(lambda: counted(running.url, "answers_waiting") >= 1)
    late = httpx.post(f"{running.url}/v1/completions", json=LONG, timeout=PATIENCE)
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) >= 1
    assert late.json()["error"]["code"] == "queue_full"
    assert httpx.get(f"{running.url}/health", timeout=PATIENCE).status_code == 200
    for stream in streams:
        stream.close()
    wait_for(lambda: counted(running.url, "answers_running") == 0)
    assert (
        httpx.post(f"{running.url}/v1/completions", json=LONG | {"max_tokens": 2}, timeout=PATIENCE).status_code == 200
    )


def test_slow_askers_and_slow_readers_are_dropped(server: Callable[..., Any]) -> None:
    running = server("--limit", "header_seconds=1", "--limit", "reader_seconds=1")
    slow = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
    body = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)
    body.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    assert b"408" in body.recv(4096)
    assert closed(slow)
    # Small buffers on this side, and much to read: the server's side fills.
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", running.port))
    data = json.dumps(LONG | {"stream": True, "n": 8, "logprobs": 20}).encode()
    for _ in range(2):
        reader.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
    wait_for(lambda: counted(running.url, "engine_made_total") > 0)
    wait_for(lambda: counted(running.url, "connections") == 1 and counted(running.url, "answers_running") == 0)
    assert counted(running.url, "cache_blocks_held") == 0
    assert counted(running.url, "failures_total") == 0


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_connection_too_many_is_told_when_to_come_back(server: Callable[..., Any]) -> None:
    running = server("--limit", "connections_per_address=2")
    kept = [socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) for _ in range(2)]
    for held in kept:
        held.sendall(b"GET /health HTTP/1.1\r\n")
    for _ in range(2):
        one = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)
        one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda one=one: one.recv(4096), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in head
        assert json.loads(body)["error"]["code"] == "too_many_connections"
    late = [socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) for _ in range(70)]
    assert all(closed(one) for one in late)  # those that say nothing are cut, and those beyond what is answered
    for held in kept:
        held.close()
    wait_for(lambda: counted(running.url, "connections") == 1)
    assert httpx.get(f"{running.url}/health", timeout=PATIENCE).status_code == 200


def test_too_long_headers_are_refused(server: Callable[..., Any]) -> None:
    running = server()
    for end, status in ((b"\r\n\r\n", b"431"), (b"", b"431")):  # whole ones, and such as never end
        made = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)
        made.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 20_000 + end)
        assert status in made.recv(4096).split(b"\r\n")[0]
    assert httpx.get(f"{running.url}/health", timeout=PATIENCE).status_code == 200


def test_what_is_no_http_is_answered_like_all_else(server: Callable[..., Any]) -> None:
    running = server()
    for said in (b"garbage\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n"):  # the second names no host
        made = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)
        made.sendall(said)
        head, _, body = b"".join(iter(lambda made=made: made.recv(4096), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"x-content-type-options: nosniff" in head
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{running.url}/health", timeout=PATIENCE).status_code == 200


def test_asked_to_end_it_says_what_it_was_saying(server: Callable[..., Any]) -> None:
    running = server()
    found: list[str] = []

    def read() -> None:
        with httpx.stream(
            "POST", f"{running.url}/v1/completions", json=LONG | {"stream": True}, timeout=PATIENCE
        ) as answer:
            for line in answer.iter_lines():
                found.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: len(found) > 2)
    assert running.stop() == 0
    reader.join(PATIENCE)
    assert "data: [DONE]" in found


def test_an_end_does_not_wait_for_ever(server: Callable[..., Any]) -> None:
    running = server("--limit", "drain_seconds=1")
    streams = [raw(running.port, LONG | {"n": 8}) for _ in range(8)]
    for stream in streams:
        stream.recv(10)
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began < 20
    for stream in streams:
        stream.close()


def test_nothing_that_was_said_is_logged(server: Callable[..., Any]) -> None:
    running = server()
    secret = "a-very-secret-word"
    httpx.post(f"{running.url}/v1/completions", json={"prompt": secret, "max_tokens": 1}, timeout=PATIENCE)
    httpx.post(f"{running.url}/v1/completions", json={"prompt": [secret, 5], "n": secret}, timeout=PATIENCE)
    running.stop()
    assert secret not in running.process.stderr.read()


def test_the_native_server_needs_no_torch(folder: Any) -> None:
    import subprocess
    import sys

    import pytest

    from chatsmith.kernels.infer import build

    if build.library() is None:
        pytest.skip("no native kernels here")
    code = (
        "import sys; from pathlib import Path; import chatsmith.serve.launch, chatsmith.serve.app as a;"
        f"import chatsmith.language_model as m; a.create_app(m.load(Path({str(folder)!r})));"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
