"""The server, beside llama.cpp's with the same weights: time to the first token, the cost of HTTP, and many streams.

    python bench/serve.py --model DIR                                    our server alone
    python bench/serve.py --model DIR --gguf FILE --llama-server PROGRAM  beside llama.cpp's own server
    python bench/serve.py --model DIR --gguf FILE --peers PYTHON         beside the server of llama-cpp-python

Both servers are driven by aiohttp over streams of /v1/completions, take turns within a round, and rest while the
other works. (httpx takes three times the processor a token, which it takes from the model where there are two cores.)
`overhead` compares tokens of one stream over HTTP with the same tokens asked of the engine in a process of its own,
in turns: read by aiohttp, and by a bare socket, since a client takes its own share of the cores. llama-cpp-python's
server answers one request at a time: what it does with many streams says nothing of llama.cpp's own. Compare within a
round; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness

try:
    import aiohttp
    import httpx
except ImportError as missing:
    raise SystemExit(f"{missing.name} is missing: type  pip install 'chatsmith[bench]'") from None

ENGINE = """
import json, sys, time
from pathlib import Path
import chatsmith
from chatsmith.generate.requests import Request
model = chatsmith.load(Path(sys.argv[1]), device="cpu")
print("ready", flush=True)
for line in sys.stdin:
    text, count = json.loads(line)
    sampling = chatsmith.Sampling(temperature=0.8, seed=1, max_tokens=count)
    request = Request(tuple(model.prompt_ids(text)), sampling, stop_ids=frozenset())
    times = []
    for event in model.engine.stream([request]):
        times.append(time.perf_counter())
    print((times[-1] - times[0]) / (len(times) - 1), flush=True)
"""


PATIENCE = aiohttp.ClientTimeout(total=600)


@dataclass(frozen=True, slots=True)
class Side:
    """A server that runs, and the seconds that it took to be healthy."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    start: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """One stream: seconds to its first token, its tokens, and the seconds between the first and the last."""

    first: float
    tokens: int
    rest: float


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running(name: str, command: list[str], port: int, health: str) -> Iterator[Side]:
    """A server until the block ends."""
    environment = dict(os.environ)
    if name != "chatsmith":
        environment.pop("PYTHONPATH", None)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url + health).status_code == 200:
                    break
            if process.poll() is not None or time.perf_counter() - began > 120:
                raise SystemExit(f"{name} does not start: {' '.join(command)}")
            time.sleep(0.005)
        yield Side(name, process, url, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)


async def stream(client: aiohttp.ClientSession, side: Side, prompt: str, tokens: int) -> Streamed:
    """Ask for a stream and read it to its end. Tokens are counted by chunks, or told by `usage`."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0.8, "seed": 1, "stream": True}
    if side.name == "chatsmith":
        body |= {"stream_options": {"include_usage": True}}
    for _ in range(10):  # llama.cpp's server sometimes closes a connection as a request arrives on it
        with contextlib.suppress(aiohttp.ClientConnectionError):
            return await answer_to(client, side, body)
        await asyncio.sleep(0.1)
    raise SystemExit(f"{side.name} closes its connections, and is {'up' if side.process.poll() is None else 'down'}")


async def answer_to(client: aiohttp.ClientSession, side: Side, body: dict[str, Any]) -> Streamed:
    """One request, read to its end."""
    began = time.perf_counter()
    first = last = 0.0
    chunks = told = 0
    async with client.post(side.url + "/v1/completions", json=body) as answer:
        if answer.status != 200:
            raise SystemExit(f"{side.name}: {(await answer.text())[:300]}")
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            last = time.perf_counter()
            first = first or last
            chunk = json.loads(line[6:])
            chunks += bool(chunk.get("choices"))
            told = (chunk.get("usage") or {}).get("completion_tokens", told)
    return Streamed(first - began, told or chunks, last - first)


def words(seed: int, count: int) -> str:
    """A text of random words, the same for both sides and never the same twice."""
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghijklmnoprstuw", k=chance.randint(2, 7))) for _ in range(count))


def prompt_of(side: Side, seed: int, tokens: int) -> str:
    """Random words of about so many tokens in our vocabulary."""
    text = words(seed, tokens)
    ids = httpx.post(side.url + "/v1/tokenize", json={"text": text}).json()["ids"][:tokens]
    return str(httpx.post(side.url + "/v1/detokenize", json={"ids": ids}).json()["text"])


async def many(side: Side, prompts: list[str], tokens: int) -> tuple[float, list[float]]:
    """Tokens a second over streams that begin together, and the seconds that /health took meanwhile."""
    health: list[float] = []
    async with aiohttp.ClientSession(timeout=PATIENCE, connector=aiohttp.TCPConnector(limit=0)) as client:

        async def watch() -> None:
            while side.name == "chatsmith":
                began = time.perf_counter()
                async with client.get(side.url + "/health") as answer:
                    await answer.read()
                health.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)

        watching = asyncio.ensure_future(watch())
        began = time.perf_counter()
        done = await asyncio.gather(*(stream(client, side, prompt, tokens) for prompt in prompts))
        seconds = time.perf_counter() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return sum(one.tokens for one in done) / seconds, health


async def first_token(side: Side, prompts: list[str]) -> list[float]:
    """Seconds to the first token, one request after the other."""
    async with aiohttp.ClientSession(timeout=PATIENCE) as client:
        return [(await stream(client, side, prompt, 2)).first for prompt in prompts]


def bare(side: Side, prompt: str, tokens: int) -> float:
    """Seconds a token of one stream, read by a socket that only counts chunks."""
    body = json.dumps({"prompt": prompt, "max_tokens": tokens, "temperature": 0.8, "seed": 1, "stream": True}).encode()
    host = side.url.removeprefix("http://")
    name, port = host.split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    first = last = 0.0
    chunks = 0
    with socket.create_connection((name, int(port))) as connection:
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        while b"[DONE]" not in (data := connection.recv(1 << 16)):
            if not data:
                raise SystemExit(f"{side.name} ended a stream early")
            if found := data.count(b"data: {"):
                last = time.perf_counter()
                first = first or last
                chunks += found
    return (last - first) / max(chunks - 1, 1)


async def alone(side: Side, prompt: str, tokens: int) -> float:
    """Seconds a token of one stream."""
    async with aiohttp.ClientSession(timeout=PATIENCE) as client:
        done = await stream(client, side, prompt, tokens)
    return done.rest / max(done.tokens - 1, 1)


def measure(sides: list[Side], engine: subprocess.Popen[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """All of it, in turns; a row per measure and side with the values of all rounds."""
    ours = sides[0]
    rows: list[dict[str, Any]] = []
    by_name = {side.name: side for side in sides}
    seeds = iter(range(10**9))

    def fresh(count: int) -> list[str]:
        return [prompt_of(ours, next(seeds), given.prompt) for _ in range(count)]

    def note(work: str, side: str, values: list[float]) -> None:
        rows.append({"work": work, "side": side, "rounds": values} | harness.spread(values))
        print(f"{work:28} {side:12} {rows[-1]['median']:10.3f} ({min(values):.3f} to {max(values):.3f})", flush=True)

    found: dict[tuple[str, str], list[float]] = {}
    health: list[float] = []
    for _, name in harness.turns(list(by_name), given.rounds):
        side = by_name[name]
        for other in sides:
            other.process.send_signal(signal.SIGCONT if other is side else signal.SIGSTOP)
        ours.process.send_signal(signal.SIGCONT)  # it makes the prompts
        prompts = fresh(given.repeats)
        busy = {count: fresh(count) for count in given.streams}
        if side is not ours:
            ours.process.send_signal(signal.SIGSTOP)
        asyncio.run(first_token(side, prompts[:1]))
        times = asyncio.run(first_token(side, prompts[1:]))
        found.setdefault(("first token, ms", name), []).append(1e3 * statistics.median(times))
        again = asyncio.run(first_token(side, prompts[1:]))
        found.setdefault(("first token, cached, ms", name), []).append(1e3 * statistics.median(again))
        for count, several in busy.items():
            rate, waits = asyncio.run(many(side, several, given.tokens))
            found.setdefault((f"{count} streams, tokens/s", name), []).append(rate)
            health += waits
        if side is ours:
            for reader, value in overhead(side, engine, given, prompts[0]).items():
                found.setdefault((f"overhead a token, {reader}, ms", name), []).append(value)
    for (work, name), values in found.items():
        note(work, name, values)
    if health:
        note("/health under load, p99, ms", "chatsmith", [1e3 * statistics.quantiles(health, n=100)[98]])
    return rows


def overhead(side: Side, engine: subprocess.Popen[str], given: argparse.Namespace, prompt: str) -> dict[str, float]:
    """Milliseconds that a token costs more over HTTP than in the engine, by reader; the medians of turns."""
    assert engine.stdin is not None
    assert engine.stdout is not None
    readers = {
        "aiohttp": lambda: asyncio.run(alone(side, prompt, given.tokens)),
        "socket": lambda: bare(side, prompt, given.tokens),
    }
    differences: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(given.repeats):
        for name, read in readers.items():
            over = read()
            engine.stdin.write(json.dumps([prompt, given.tokens]) + "\n")
            engine.stdin.flush()
            differences[name].append(over - float(engine.stdout.readline()))
    return {name: 1e3 * statistics.median(values) for name, values in differences.items()}


def peer_command(given: argparse.Namespace, port: int) -> tuple[list[str], str] | None:
    """How llama.cpp's server is started here, and where it tells of its health; None where there is none."""
    threads = str(given.threads)
    if given.gguf is None:
        return None
    if given.llama_server is not None:
        slots = max(given.streams)
        command = [str(given.llama_server), "-m", str(given.gguf), "--port", str(port), "-t", threads]
        return [*command, "-np", str(slots), "-c", str(slots * given.context), "--no-webui"], "/health"
    if given.peers is not None:
        command = [given.peers, "-m", "llama_cpp.server", "--model", str(given.gguf), "--port", str(port)]
        return [
            *command,
            "--n_threads",
            threads,
            "--n_ctx",
            str(given.context),
            "--interrupt_requests",
            "false",
        ], "/v1/models"
    return None


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--gguf", type=Path, help="the same weights for llama.cpp")
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's own server")
    parser.add_argument("--peers", help="the Python that has llama-cpp-python with its server")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024, help="tokens of context for a stream of llama.cpp's")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=7, help="requests behind a median")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    port, other = free_port(), free_port()
    command = [sys.executable, "-m", "chatsmith", "serve", str(given.model), "--port", str(port)]
    peer = peer_command(given, other)
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(running("chatsmith", command, port, "/health"))]
        if peer is not None:
            sides.append(stack.enter_context(running("llama.cpp", peer[0], other, peer[1])))
        for side in sides:
            print(f"{'start to healthy, s':28} {side.name:12} {side.start:10.3f}", flush=True)
        engine = subprocess.Popen(
            [sys.executable, "-c", ENGINE, str(given.model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(engine.kill)
        assert engine.stdout is not None
        engine.stdout.readline()
        rows = measure(sides, engine, given)
    about = {
        "circumstances": harness.circumstances(),
        "peer": peer and Path(peer[0][0]).name,
        "client": f"aiohttp {aiohttp.__version__}",
    }
    starts = {side.name: side.start for side in sides}
    settings = {name: value.name if isinstance(value, Path) else str(value) for name, value in vars(given).items()}
    print(harness.as_json(about | {"settings": settings, "start": starts, "rows": rows}))


if __name__ == "__main__":
    main()
