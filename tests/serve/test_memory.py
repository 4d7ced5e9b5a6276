"""The cache of the server: bounded by a limit, and what is longest out of use makes room."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import chatsmith
from chatsmith.kernels.infer import build
from chatsmith.serve.limits import Limits
from patience import PATIENCE

MEBI = 2**20


def test_the_bound_is_a_limit_and_an_argument(folder: Path) -> None:
    assert Limits.of(["cache_bytes=512MiB"]).cache_bytes == 512 * MEBI
    assert Limits.of(["cache-bytes=2GiB", "body_bytes=4096"]) == Limits(cache_bytes=2**31, body_bytes=4096)
    for wrong in ("cache_bytes=1KiB", "cache_bytes=MiB", "cache_bytes=1.5GiB", "n=1KiB"):
        with pytest.raises(chatsmith.RequestError, match=wrong.partition("=")[0]):
            Limits.of([wrong])
    for backend in ("native", "torch"):
        if backend == "native" and build.library() is None:
            continue
        small, large = (
            chatsmith.load(folder, backend=backend, device="cpu", cache_bytes=size * MEBI) for size in (1, 4)
        )
        assert small.engine.backend.blocks * 4 == large.engine.backend.blocks


def test_random_prompts_are_evicted_and_memory_stays(server: Callable[..., Any], folder: Path) -> None:
    """Ten times more is read than the cache holds."""
    running = server("--limit", "cache_bytes=4MiB")
    status = Path(f"/proc/{running.process.pid}/status")
    if not status.exists():
        pytest.skip("this system does not tell a process's memory")
    chance = random.Random(0)
    spec = chatsmith.load(folder, device="cpu").spec
    per_token = 2 * spec.layers * spec.kv_heads * 32 * 4  # float32; a head's numbers are padded to 32
    prompts = [[chance.randrange(10, 250) for _ in range(480)] for _ in range(10 * 4 * MEBI // (480 * per_token))]

    def ask(client: httpx.Client, ids: list[int]) -> None:
        assert client.post("/v1/completions", json={"prompt": ids, "max_tokens": 1}).status_code == 200

    def metric(client: httpx.Client, name: str) -> int:
        return int(re.findall(rf"^chatsmith_{name} (\d+)$", client.get("/metrics").text, re.MULTILINE)[0])

    def memory() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0]) * 1024

    with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:
        warm = len(prompts) // 4  # two and a half times the cache
        for ids in prompts[:warm]:
            ask(client, ids)
        before = memory()
        for ids in prompts[warm:]:
            ask(client, ids)
        assert memory() - before < 6 * MEBI  # what was read since would take 30 MiB
        assert metric(client, "engine_reused_total") == 0
        assert metric(client, "cache_blocks_held") == 0
        ask(client, prompts[-1])
        reused = metric(client, "engine_reused_total")
        assert reused > 400  # the last is still there
        ask(client, prompts[0])
        assert metric(client, "engine_reused_total") == reused  # the first has made room
