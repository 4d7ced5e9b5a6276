"""A hostile crowd at the server, with good clients among it: nothing may break, leak, or keep the good ones out.

    python bench/soak.py --model DIR                 10 minutes
    python bench/soak.py --model DIR --seconds 60    what CI runs

Slow headers, slow bodies, slow readers, streams that are left, malformed and oversized bodies, wrong hosts, and floods
past the line, all at once. After every case a good request must be answered. Then streams are left in the middle until
a thousand have been (`--aborts`). At the end: no failure of the server, no status of 500 or above but 503, no place and
no block held, and memory as after the worst of every case and the first tenth (20 seconds at least), within 2%. Where
it grew by more, the crowd comes again, twice at most: a leak grows each time, what the allocator holds on to does not.
Exits with 1 where any of this does not hold. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

import harness

# With one seed the answers are the same: others would fill the cache of prefixes, which is memory by design.
ENDLESS = {"seed": 1, "prompt": "Once", "max_tokens": 120, "logit_bias": {str(token): -100 for token in range(5)}}
ROUNDS, GROWTH = 3, 1.02
LIMITS = ("header_seconds=2", "reader_seconds=2", "running=4", "waiting=8")


class Crowd:
    """Everybody who asks, and what they were told."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.chance = port, random.Random(seed)
        self.url = f"http://127.0.0.1:{port}"
        self.told: Counter[str] = Counter()
        self.cases: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.left = 0  # streams that had begun

    def cases_by_name(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every kind of ill behaviour."""
        return {
            "leaves a stream": self.leave,
            "leaves in the line": self.leave_at_once,
            "slow headers": lambda: self.trickle(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-A: "),
            "slow body": lambda: self.trickle(self.head(10_000)),
            "slow reader": self.read_slowly,
            "malformed": self.malformed,
            "oversized": self.oversized,
            "flood": self.flood,
        }

    def head(self, length: int, host: str = "localhost") -> bytes:
        lines = ("POST /v1/completions HTTP/1.1", f"Host: {host}", "Content-Type: application/json")
        return "\r\n".join((*lines, f"Content-Length: {length}", "\r\n")).encode()

    @contextlib.asynccontextmanager
    async def connection(self, small: bool = False) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**12 if small else 2**16)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, body: bytes, host: str = "localhost") -> bytes:
        """A raw request; the status line that comes back."""
        async with self.connection() as (reader, writer):
            writer.write(self.head(len(body), host) + body)
            with contextlib.suppress(OSError):
                line: bytes = await asyncio.wait_for(reader.readline(), 60)
                self.note(line)
                return line
        return b""

    def note(self, line: bytes) -> None:
        found = re.match(rb"HTTP/1.1 (\d+)", line)
        status = found[1].decode() if found else "none"
        self.told[status] += 1
        if status >= "500" and status not in ("503", "none"):
            self.wrong.append(f"status {status}")

    async def leave(self) -> None:
        body = json.dumps(ENDLESS | {"stream": True, "n": 2}).encode()
        async with self.connection() as (reader, writer):
            writer.write(self.head(len(body)) + body)
            for line in range(self.chance.randrange(12)):
                told = await asyncio.wait_for(reader.readline(), 60)
                self.left += line == 0 and b" 200 " in told

    async def leave_until(self, aborts: int) -> None:
        """Leave streams until so many that had begun were left."""
        while self.left < aborts and not self.wrong:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.leave()

    async def leave_at_once(self) -> None:
        body = json.dumps(ENDLESS | {"stream": self.chance.random() < 0.5}).encode()
        async with self.connection() as (_, writer):
            writer.write(self.head(len(body)) + body[: self.chance.choice((len(body), len(body) // 2))])
            await writer.drain()
            await asyncio.sleep(self.chance.random() / 20)

    async def trickle(self, beginning: bytes) -> None:
        async with self.connection() as (reader, writer):
            writer.write(beginning)
            with contextlib.suppress(OSError):
                for _ in range(100):
                    writer.write(b"a")
                    await writer.drain()
                    if reader.at_eof() or writer.transport.is_closing():
                        break
                    await asyncio.sleep(0.1)
                else:
                    self.wrong.append("a connection that trickles was kept")

    async def read_slowly(self) -> None:
        body = json.dumps(ENDLESS | {"stream": True, "n": 4, "logprobs": 20}).encode()
        async with self.connection(small=True) as (reader, writer):
            writer.transport.get_extra_info("socket").setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
            writer.write(self.head(len(body)) + body)
            with contextlib.suppress(OSError, ValueError):
                await asyncio.wait_for(reader.read(16), 60)
                await asyncio.sleep(4)

    async def malformed(self) -> None:
        bodies = (b"", b"{", b"[" * 9000, b"\xff", b'{"prompt": NaN}', b'{"prompt": "a", "n": true}', b'{"prompt": {}}')
        await self.send(self.chance.choice(bodies))
        await self.send(b"{}", host="evil.example")
        async with self.connection() as (reader, writer):
            writer.write(self.chance.randbytes(200) + b"\r\n\r\n")
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(reader.read(100), 5)

    async def oversized(self) -> None:
        await self.send(json.dumps({"prompt": "a" * 2**20}).encode())
        await self.send(json.dumps({"prompt": "a" * 2**18}).encode())
        async with self.connection() as (reader, writer):
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 2**17 + b"\r\n\r\n")
            with contextlib.suppress(OSError):
                self.note(await reader.readline())

    async def flood(self) -> None:
        body = json.dumps(ENDLESS | {"max_tokens": 20}).encode()
        await asyncio.gather(*(self.send(body) for _ in range(24)))

    async def good(self, client: httpx.AsyncClient) -> None:
        """A good request; told to come back, it does."""
        body = ENDLESS | {"max_tokens": 4}
        for _ in range(600):
            answer = await client.post(f"{self.url}/v1/completions", json=body)
            # The whole crowd comes from one address, and may have all the connections that one may have.
            crowded = answer.status_code == 503 and answer.json()["error"]["code"] == "too_many_connections"
            if answer.status_code != 429 and not crowded:
                break
            await asyncio.sleep(0.1)
        if answer.status_code != 200 or answer.json()["usage"]["completion_tokens"] != 4:
            self.wrong.append(f"a good request was answered with {answer.status_code}")
        self.told["good"] += answer.status_code == 200

    async def behave(self, name: str) -> None:
        """One case."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            await self.cases_by_name()[name]()
        self.cases[name] += 1

    async def do_the_worst(self) -> None:
        """Every case by eight at once; what is over in a moment again and again, so that each thread of the server has
        had its share."""
        for name in self.cases_by_name():
            for _ in range(8 if name in ("malformed", "oversized") else 1):
                await asyncio.gather(*(self.behave(name) for _ in range(8)))

    async def behave_badly(self, until: float) -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            while time.monotonic() < until:
                name = self.chance.choice(list(self.cases_by_name()))
                await self.behave(name)
                try:
                    await self.good(client)
                except httpx.HTTPError as error:
                    self.wrong.append(f"a good request failed after {name}: {type(error).__name__}")


def memory(process: subprocess.Popen[str]) -> int:
    """Bytes that the server has in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024


async def soak(crowd: Crowd, process: subprocess.Popen[str], seconds: float, aborts: int) -> dict[str, Any]:
    """The crowd for so many seconds, and until so many streams were left; what was found."""
    warm = min(max(seconds / 10, 20), seconds / 2)
    # What is kept for good is there before memory is read: the tokenizer that is fast, built after some thousand
    # characters, and what the allocator holds on to of the most that was in use at a time.
    for _ in range(2):
        httpx.post(f"{crowd.url}/v1/tokenize", json={"text": "Once " * 500}).raise_for_status()
    await crowd.do_the_worst()
    await asyncio.gather(*(crowd.behave_badly(time.monotonic() + warm) for _ in range(8)))
    await asyncio.gather(*(crowd.leave_until(aborts // 2) for _ in range(4)))  # the cache of prefixes fills, by design
    read = [memory(process)]
    for _ in range(ROUNDS):
        target = aborts if len(read) == 1 else crowd.left + aborts // 2  # as many again
        await asyncio.gather(*(crowd.behave_badly(time.monotonic() + seconds - warm) for _ in range(8)))
        await asyncio.gather(*(crowd.leave_until(target) for _ in range(4)))
        await asyncio.sleep(3)
        read.append(memory(process))
        if read[-1] <= GROWTH * read[-2] or crowd.wrong:
            break
    else:
        crowd.wrong.append(f"memory grew in each of {ROUNDS} rounds, in bytes: {', '.join(f'{n:,}' for n in read)}")
    text = httpx.get(f"{crowd.url}/metrics").text
    values = dict(re.findall(r"^chatsmith_(\w+) ([\d.e+]+)$", text, re.MULTILINE))
    for name in ("answers_running", "answers_waiting", "cache_blocks_held", "failures_total"):
        if float(values[name]):
            crowd.wrong.append(f"{name} is {values[name]}")
    counts = {"cases": dict(crowd.cases), "told": dict(crowd.told), "memory": read, "aborts": crowd.left}
    return counts | {"wrong": sorted(set(crowd.wrong))}


def main() -> int:
    """Start a server, let the crowd in, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder; a small one makes more cases")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--aborts", type=int, default=1000, help="streams to leave at least")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    command = [sys.executable, "-m", "chatsmith", "serve", str(given.model), "--port", "0"]
    command += [word for limit in LIMITS for word in ("--limit", limit)]
    with tempfile.TemporaryDirectory() as data:
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"CHATSMITH_DATA": data}
        )
        try:
            assert process.stderr is not None
            port = int(re.findall(r":(\d+)/", process.stderr.readline())[0])
            found = asyncio.run(soak(Crowd(port, given.seed), process, given.seconds, given.aborts))
        finally:
            process.terminate()
            code = process.wait(60)
    if code:
        found["wrong"].append(f"the server ended with {code}")
    print(harness.as_json({"circumstances": harness.circumstances(), "seconds": given.seconds} | found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
