"""A training step of GPT-2's shape: tokens per second and peak memory, beside Transformers and nanoGPT.

    python bench/train_step.py --nanogpt ~/nanoGPT              all four sizes, both precisions
    python bench/train_step.py --sizes 1m --rounds 5            only some, and without nanoGPT
    python bench/train_step.py --compile                        the peers under torch.compile, too

Each side trains in a process of its own, which waits while another has its turn; so each has the settings that are
best for it, and its peak of memory is its own. A step is forward, backward, clipping and AdamW on random ids. The
share is 6 operations per weight and 12 per head, position and layer (`ModelSpec.training_flops_per_token`), against
the rate of square matrix products in PyTorch measured just before the sample. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from chatsmith.specs import ModelSpec, modern

THREADS = 2
SAMPLE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Size:
    """A model and the batch of a step."""

    vocab_size: int
    layers: int
    heads: int
    width: int
    rows: int
    context: int

    @property
    def tokens(self) -> int:
        return self.rows * self.context

    def spec(self, shape: str) -> ModelSpec:
        if shape == "modern":
            return modern(self.vocab_size, self.context, self.width, self.layers, self.heads)
        return ModelSpec(self.vocab_size, self.context, self.width, self.layers, self.heads)


SIZES = {
    "1m": Size(1024, 4, 4, 128, 16, 64),
    "10m": Size(8192, 6, 6, 384, 16, 256),
    "124m": Size(50304, 12, 12, 768, 4, 256),
    "124m-long": Size(50304, 12, 12, 768, 1, 1024),
}
Step = Callable[[], float]


# ---- the sides -----------------------------------------------------------------------------------------------------


def chatsmith_step(size: Size, precision: str, shape: str, optimizer: str) -> Step:
    """Our model, loss and optimizer, as the training loop puts them together."""
    from chatsmith.train.precision import keep_memory

    keep_memory()
    import torch

    from chatsmith.models.decoder import Decoder
    from chatsmith.train.losses import next_token_loss
    from chatsmith.train.optimizers import TrainingOptimizer
    from chatsmith.train.recipe import Optimizer

    model = Decoder(size.spec(shape), dtype=getattr(torch, precision))
    model.init_weights(0)
    stepper = TrainingOptimizer(model, Optimizer(name=optimizer, clip=1.0))  # type: ignore[arg-type]
    inputs, targets = _ids(size)

    def step() -> float:
        loss, _ = next_token_loss(model, inputs, targets)
        (loss / size.tokens).backward()
        stepper.step(1.0)
        return float(loss.detach()) / size.tokens

    return step


def transformers_step(size: Size, precision: str, weights: str, compiled: bool) -> Step:
    """Transformers' GPT-2 in a plain loop: SDPA, fused AdamW, no dropout; bfloat16 by autocast as its Trainer does it,
    or with the weights themselves in bfloat16, which is faster and learns less well."""
    import torch
    import transformers

    config = transformers.GPT2Config(
        vocab_size=size.vocab_size,
        n_positions=size.context,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = transformers.GPT2LMHeadModel(config).to(getattr(torch, weights))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    inputs, _ = _ids(size)
    run: Any = torch.compile(model) if compiled else model
    context = _autocast(precision if weights == "float32" else "float32")

    def step() -> float:
        with context():
            loss = run(input_ids=inputs, labels=inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def nanogpt_step(size: Size, precision: str, checkout: str, compiled: bool) -> Step:
    """nanoGPT's model and optimizer as its train.py sets them up on a CPU."""
    import torch

    sys.path.insert(0, checkout)
    with contextlib.redirect_stdout(io.StringIO()):
        from model import GPT, GPTConfig  # type: ignore[import-not-found]

        shape = GPTConfig(size.context, size.vocab_size, size.layers, size.heads, size.width, dropout=0.0, bias=False)
        model = GPT(shape)
        optimizer = model.configure_optimizers(1e-1, 6e-4, (0.9, 0.95), "cpu")
    inputs, targets = _ids(size)
    run = torch.compile(model) if compiled else model
    context = _autocast(precision)

    def step() -> float:
        with context():
            _, loss = run(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def _autocast(precision: str) -> Callable[[], Any]:
    import torch

    if precision == "float32":
        return contextlib.nullcontext
    return lambda: torch.autocast("cpu", dtype=torch.bfloat16)


def _ids(size: Size) -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randint(0, size.vocab_size, (2, size.rows, size.context), generator=generator)
    return inputs, targets


def sides(precision: str, nanogpt: str | None, compiled: bool) -> dict[str, list[str]]:
    """Name → what a worker builds."""
    ours = {
        "chatsmith": ["chatsmith", precision, "gpt2", "adamw"],
        "chatsmith modern": ["chatsmith", precision, "modern", "adamw"],
        "chatsmith modern muon": ["chatsmith", precision, "modern", "muon"],
    }
    peers = {"transformers": ["transformers", precision, "float32"]}
    if precision == "bfloat16":
        peers["transformers, bf16 weights"] = ["transformers", precision, "bfloat16"]
    if nanogpt is not None:
        peers["nanogpt"] = ["nanogpt", precision, nanogpt]
    again = {f"{name}, compiled": [*what, "compiled"] for name, what in peers.items()} if compiled else {}
    return ours | {name: [*what, ""] for name, what in peers.items()} | again


# ---- a worker and its keeper ---------------------------------------------------------------------------------------


def work(size: str, what: list[str]) -> None:
    """Build a side, say so, and then train as many steps as each line asks for: seconds and loss go back."""
    import torch

    torch.set_num_threads(THREADS)
    builder: Callable[..., Step] = {"chatsmith": chatsmith_step, "transformers": transformers_step}.get(
        what[0], nanogpt_step
    )
    arguments: list[Any] = what[1:] if what[0] == "chatsmith" else [*what[1:-1], what[-1] == "compiled"]
    step = builder(SIZES[size], *arguments)
    began = time.perf_counter()
    step()
    print(json.dumps({"first": time.perf_counter() - began}), flush=True)
    for line in sys.stdin:
        count = int(line)
        began = time.perf_counter()
        loss = [step() for _ in range(count)][-1]
        seconds = (time.perf_counter() - began) / count
        print(json.dumps({"seconds": seconds, "loss": loss, "memory": peak_memory()}), flush=True)


def peak_memory() -> int:
    """Bytes this process has had resident at most; getrusage would count what the keeper had when it started us."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """A side in its own process."""

    def __init__(self, size: str, what: list[str]) -> None:
        command = [sys.executable, __file__, "--work", size, *what]
        environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.first_seconds: float = self._answer()["first"]
        self.steps = 1
        self.steps = max(1, round(SAMPLE_SECONDS / self.sample()["seconds"]))

    def sample(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.steps}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise SystemExit(f"a side stopped:\n{self._process.stderr.read()[-2000:]}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


# ---- the contest ---------------------------------------------------------------------------------------------------


def contest(size: str, precision: str, chosen: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """All sides in turns, at one size and precision."""
    workers: dict[str, Worker] = {}
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    print(f"\n{size} {precision}: {SIZES[size].rows} rows of {SIZES[size].context}, {THREADS} threads")
    try:
        for name, what in chosen.items():
            workers[name] = Worker(size, what)
        for number, name in harness.turns(list(chosen), rounds):
            machine = harness.probe()
            sample = workers[name].sample()
            rate = SIZES[size].tokens / sample["seconds"]
            flops = SIZES[size].spec("modern" if "modern" in name else "gpt2").training_flops_per_token()
            share = rate * flops / 1e9 / getattr(machine, precision)
            samples[name].append({**sample, "rate": rate, "share": share, "machine": machine})
            print(f"  round {number + 1}  {name:28}{rate:9.0f} tok/s  {share:4.0%} of GEMM   ({machine})", flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    return _summary({name: worker.first_seconds for name, worker in workers.items()}, samples)


def _summary(first: dict[str, float], samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, taken in samples.items():
        table[name] = {
            "tokens_per_second": harness.spread([sample["rate"] for sample in taken]),
            "share_of_gemm": harness.spread([sample["share"] for sample in taken]),
            "memory_bytes": taken[-1]["memory"],
            "first_step_seconds": first[name],
            "samples": taken,
        }
    peers = {name: row for name, row in table.items() if not name.startswith("chatsmith")}
    best = max(peers, key=lambda name: peers[name]["tokens_per_second"]["median"])
    print(f"  {'median':30}{'tok/s':>9}{'spread':>17}{'GEMM':>7}{'best peer':>11}{'memory':>10}{'first step':>12}")
    for name, row in table.items():
        rate, memory = row["tokens_per_second"], row["memory_bytes"]
        row["times_best_peer"] = rate["median"] / peers[best]["tokens_per_second"]["median"]
        row["memory_beside_transformers"] = memory / table["transformers"]["memory_bytes"]
        between = f"{rate['lowest']:.0f}–{rate['highest']:.0f}"
        print(
            f"  {name:30}{rate['median']:9.0f}{between:>17}{row['share_of_gemm']['median']:7.0%}"
            f"{row['times_best_peer']:10.2f}×{memory / 2**20:7.0f} MB{row['first_step_seconds']:10.1f} s"
        )
    return {"best_peer": best, "sides": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nanogpt", help="a checkout of nanoGPT")
    parser.add_argument("--compile", action="store_true", help="the peers under torch.compile, too")
    parser.add_argument("--out", type=Path, help="write the results to this file, too")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], arguments.work[1:])
        return
    results: dict[str, Any] = {"bench": "train_step", "threads": THREADS, **harness.circumstances(), "contests": {}}
    for size in arguments.sizes:
        for precision in arguments.precisions:
            chosen = sides(precision, arguments.nanogpt, arguments.compile)
            results["contests"][f"{size} {precision}"] = contest(size, precision, chosen, arguments.rounds)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(harness.as_json(results) + "\n", encoding="utf-8")
    print(harness.as_json(results))


if __name__ == "__main__":
    main()
