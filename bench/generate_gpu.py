"""Generation on a GPU: one step and whole answers, beside the memory's rate and Transformers.

    python bench/generate_gpu.py --vocabulary DIR                 GPT-3 1.3B in bfloat16, 1, 8 and 64 answers at a time
    python bench/generate_gpu.py --vocabulary DIR --size 125m --streams 1 64 --rounds 7

Weights are random. A step is timed by the device's own clock, over replays of its graph; its share of the bandwidth is
the bytes of the weights that a token reads, against a copy of 4 GiB timed just before (bytes read and written). Answers
go through the engine from ids to text, greedily: 32 tokens of prompt, 128 new ones; what counts is new tokens over all
the time from asking to the last one. Transformers answers the same prompts with `generate`, in bfloat16: eager with its
growing cache, and with a static cache and compiled where that runs. Sides take turns. The last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import harness
from chatsmith.generate.backend import Draws, Step
from chatsmith.generate.engine import Engine
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, preset

if TYPE_CHECKING:
    from chatsmith.generate.gpu import GPUBackend

SIZES = {"125m": "gpt3-125m", "1.3b": "gpt3-1.3b"}
PROMPT, TOKENS = 32, 128
Answer = Callable[[np.ndarray], int]


def made(spec: ModelSpec) -> Decoder:
    """Random weights, drawn on the GPU."""
    model = Decoder(spec, device="cuda", dtype=torch.bfloat16).eval().requires_grad_(False)
    drawn = torch.Generator("cuda").manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.02, generator=drawn)
    return model


def device_seconds(work: Callable[[], object], times: int = 50) -> float:
    """What one of `times` calls takes on the device."""
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / times


def bandwidth() -> float:
    """Bytes per second of a copy of 4 GiB, read and written."""
    source = torch.ones(2**30, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / device_seconds(lambda: target.copy_(source), 10)


def one_step(backend: GPUBackend, streams: int) -> float:
    """Seconds of a step of so many answers, 100 tokens long, on the device."""
    held = 100 // backend.block_size + 1
    tables = np.arange(streams * held, dtype=np.int32).reshape(1, streams, held)
    ids, at = np.zeros(streams, np.int32), np.full(streams, 100, np.int32)
    rows = np.arange(streams + 1, dtype=np.int32)
    step = Step(ids, at, rows, tables, rows[:-1])
    keys, temperatures = np.zeros(streams, np.uint64), np.ones(streams, np.float32)
    draws = Draws(rows[:-1], keys, temperatures, backend.spec.vocab_size)
    return device_seconds(backend.replay(step, draws))


def chatsmith(backend: GPUBackend, vocabulary: Path, streams: int) -> Answer:
    """Through the engine."""
    engine = Engine(backend, harness.vocabulary(vocabulary), max_rows=streams)
    settings = Sampling(temperature=0.0, max_tokens=TOKENS)

    def answer(prompts: np.ndarray) -> int:
        engine.forget()
        asked = [Request(tuple(ids), settings, stop_ids=frozenset()) for ids in prompts.tolist()]
        return sum(len(done.ids) for done in engine.complete(asked))

    return answer


def transformers(spec: ModelSpec, compiled: bool) -> Answer:
    """By `generate`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": spec.width, "n_layer": spec.layers, "n_head": spec.heads, "n_positions": spec.context}
    config = GPT2Config(vocab_size=spec.vocab_size, **sizes)
    with torch.device("cuda"):
        model = GPT2LMHeadModel(config).to(torch.bfloat16).eval()
    how: dict[str, Any] = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
    if compiled:
        how["cache_implementation"] = "static"

    @torch.inference_mode()
    def answer(prompts: np.ndarray) -> int:
        ids = torch.from_numpy(prompts).to("cuda")
        found = model.generate(ids, attention_mask=torch.ones_like(ids), **how)
        torch.cuda.synchronize()
        return int(found.shape[1] - prompts.shape[1]) * len(prompts)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1.3b")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocabulary", type=Path, required=True, help="the folder of GPT-2's vocabulary")
    parser.add_argument("--compiled", action="store_true", help="also Transformers compiled, which takes minutes")
    given = parser.parse_args()
    harness.require_gpu()
    from chatsmith.generate.gpu import GPUBackend

    spec = preset(SIZES[given.size])
    model = made(spec)
    read = sum(p.nbytes for p in model.parameters()) - model.positions.weight.nbytes
    backend = GPUBackend(model, cache_bytes=8 * 2**30)
    about = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, **harness.circumstances()}
    results: dict[str, Any] = {"circumstances": about, "size": given.size, "steps": {}, "answers": {}}
    for streams in given.streams:
        rows = []
        for _ in range(given.rounds):
            limit, seconds = bandwidth(), one_step(backend, streams)
            rows.append({"seconds": seconds, "bandwidth": limit, "share": read / seconds / limit})
        results["steps"][streams] = rows
        share, step = (statistics.median(row[name] for row in rows) for name in ("share", "seconds"))
        print(f"{given.size} step of {streams:3}: {step * 1e6:6.0f} µs, {share:.0%} of the bandwidth", flush=True)
    plain = {"transformers": transformers(spec, False)}
    if given.compiled:
        plain["transformers, compiled"] = transformers(spec, True)
    for streams in given.streams:
        sides = {"chatsmith": chatsmith(backend, given.vocabulary, streams), **plain}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        drawn = np.random.default_rng(0)
        for number, name in harness.turns(list(sides), given.rounds + 1):
            prompts = drawn.integers(0, 50000, (streams, PROMPT))
            begin = time.perf_counter()
            count = sides[name](prompts)
            if number:  # the first one compiles and allocates
                rates[name].append(count / (time.perf_counter() - begin))
        results["answers"][streams] = rates
        for name, found in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["chatsmith"], found, strict=True))
            print(
                f"{given.size} {streams:3} answers  {name:24}{statistics.median(found):9.0f} tokens/s "
                f"[{min(found):.0f}, {max(found):.0f}]   chatsmith is {ratio:.2f}x of it",
                flush=True,
            )
    print(harness.as_json(results))


if __name__ == "__main__":
    main()
