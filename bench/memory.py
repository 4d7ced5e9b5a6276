"""The resident memory of a GPT-3 1.3B that generates: under 1 GB at int4, under 1.6 GB at int8.

    python bench/memory.py                              both formats; makes the models first, a few minutes and 2.2 GB
    python bench/memory.py --models DIR                 keep the models here, and use those that are there
    python bench/memory.py --vocabulary DIR             with GPT-2's vocabulary, as a real model of that size has it

Weights are random, drawn and packed one matrix after the other, so that making them never holds the model in float32.
Each figure comes from a process of its own: it opens the folder, reads a prompt and writes tokens through the engine.
VmHWM is the most that was ever resident: its own memory and every page of the mapped weights that was touched. The goal
counts for a talk of 160 tokens; a full context is shown beside it, for the cache grows with every token: with keys and
values in bfloat16, and in int8, which is asked for. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.generate.backend import CacheKind
from chatsmith.specs import preset
from chatsmith.store.packing import Format, parameter_shapes

SIZE = "gpt3-1.3b"
FORMATS = {"int4": Format("int4", 32), "int8": Format("int8", 128)}
GOALS = {"int4": 1.0e9, "int8": 1.6e9}
WRITTEN = 128


def draw(shape: tuple[int, ...], name: str) -> NDArray[np.float32]:
    """A parameter as training begins with it, the same whenever it is asked for."""
    if len(shape) == 1:
        return (np.zeros if name.endswith("bias") else np.ones)(shape, np.float32)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    values *= np.float32(0.02)
    return values


def prepare(folder: Path, name: str, vocabulary: Path | None) -> None:
    """Write a packed folder with random weights."""
    import harness
    from chatsmith.store.packed import save_packed
    from chatsmith.store.packing import packed_parts

    spec = preset(SIZE)
    shapes = parameter_shapes(spec)
    parts = packed_parts(spec, lambda parameter: draw(shapes[parameter], parameter), FORMATS[name])
    save_packed(folder, spec, parts, FORMATS[name], harness.vocabulary(vocabulary), provenance={})


def resident() -> dict[str, int]:
    """What the kernel says of this process's memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(VmHWM|Rss\w+):\s+(\d+) kB", status)}


def generate(folder: Path, tokens: int, cache: CacheKind, threads: int) -> dict[str, Any]:
    """Open a model, read a prompt and write the last WRITTEN of so many tokens; memory at each stage, and the rates."""
    from chatsmith.generate.batch import Batch
    from chatsmith.generate.native import NativeBackend
    from chatsmith.generate.requests import Request
    from chatsmith.generate.sampling import Sampling
    from chatsmith.store.parts import load_parts

    imported = resident()
    loaded = load_parts(folder)
    backend = NativeBackend(loaded.spec, loaded.parts, cache=cache, threads=threads)
    batch = Batch(backend, loaded.tokenizer)
    opened = resident()
    prompt = np.random.default_rng(0).integers(0, loaded.tokenizer.vocab_size, tokens - WRITTEN).tolist()
    batch.add(Request(tuple(prompt), Sampling(temperature=1, seed=0, max_tokens=WRITTEN), stop_ids=frozenset()))
    moments = [time.perf_counter()]
    while batch.busy:
        moments += [time.perf_counter()] * len(batch.step())
    if "torch" in sys.modules:
        raise RuntimeError("the native path has loaded torch")
    if len(moments) != WRITTEN + 1:
        raise RuntimeError(f"{len(moments) - 1} tokens were written, not {WRITTEN}")
    return {
        "backend": backend.name,
        "prompt": len(prompt),
        "written": WRITTEN,
        "decode_tokens_per_second": (WRITTEN - 1) / (moments[-1] - moments[1]),
        "prefill_tokens_per_second": len(prompt) / (moments[1] - moments[0]),
        "imported": imported,
        "opened": opened,
        "resident": resident(),
    }


def measure(folder: Path, name: str, tokens: int, cache: CacheKind, threads: int) -> dict[str, Any]:
    """`generate` in a process of its own, beside the goal."""
    command = [sys.executable, __file__, "--inside", str(folder), "--contexts", str(tokens), "--caches", cache]
    command += ["--threads", str(threads)]
    row: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    spec = preset(SIZE)
    row |= {"format": name, "cache": cache, "tokens": tokens, "goal_bytes": GOALS[name]}
    row["weight_bytes"] = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    numbers = spec.head_dim * 2 if cache == "bf16" else spec.head_dim + 2
    row["cache_bytes"] = tokens * spec.layers * 2 * spec.kv_heads * numbers
    peak = row["resident"]["VmHWM"]
    row["met"] = peak <= GOALS[name]
    print(
        f"{SIZE} {name}, cache {cache}, {tokens} tokens: {peak / 1e9:.3f} GB resident at most"
        f" (goal {GOALS[name] / 1e9} GB: {'met' if row['met'] else 'NOT met'});"
        f" weights {row['weight_bytes'] / 1e9:.3f}, cache {row['cache_bytes'] / 1e9:.3f} GB;"
        f" {row['decode_tokens_per_second']:.1f} tokens/s"
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument(
        "--contexts", nargs="+", type=int, default=[160, 2048], help="tokens, read and written together"
    )
    parser.add_argument("--caches", nargs="+", choices=("bf16", "int8"), default=["bf16", "int8"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=Path, help="keep the models here and use those that are there")
    parser.add_argument("--vocabulary", type=Path, help="the folder of GPT-2's vocabulary")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if min(given.contexts) <= WRITTEN or max(given.contexts) > preset(SIZE).context:
        parser.error(f"--contexts go from {WRITTEN + 1} to {preset(SIZE).context}")
    if given.inside:
        print(json.dumps(generate(given.inside, given.contexts[0], given.caches[0], given.threads)))
        return
    import harness  # loads torch, which the measured process must not

    results: dict[str, Any] = {"circumstances": harness.circumstances(), "threads": given.threads, "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.formats:
            folder = (given.models or Path(scratch)) / f"{SIZE}-{name}"
            if not folder.exists():
                prepare(folder, name, given.vocabulary)
            results["rows"] += [
                measure(folder, name, tokens, cache, given.threads)
                for tokens in given.contexts
                for cache in given.caches
            ]
    print(harness.as_json(results))


if __name__ == "__main__":
    main()
