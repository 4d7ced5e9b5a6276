"""Training on one GPU: tokens per second, shares of its matrix rate and of its published peak, memory beside the plan.

    python bench/train_gpu.py                                   GPT-2 124M and 1.5B, GPT-3 1.3B, bfloat16, compiled
    python bench/train_gpu.py --float8 gpt3-1.3b                this size once more, the layers' products in 8 bits
    python bench/train_gpu.py --sizes gpt2-124m --profile 25    which kernels a step's time goes to

A size is a run of the loop, log and all, on random ids from random weights, which are drawn on the device. Steps are
timed between two moments when the device has nothing left to do. Shares count PaLM's operations (Chowdhery et al. 2022,
appendix B: 6 per weight and 12 per head, position and layer; causal masking is not taken off, nothing that is computed
again is added). The matrix rate is the best of square bfloat16 products before and after the steps, in the same
process. Memory is the most that PyTorch had allocated. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

import harness
import runs
from chatsmith import machine
from chatsmith.errors import ChatsmithError
from chatsmith.models.decoder import Decoder
from chatsmith.plan.memory import RESERVED, memory_of
from chatsmith.plan.parallel import Layout, Workload
from chatsmith.specs import ModelSpec
from chatsmith.train import loop
from chatsmith.train.callbacks import Callback, Moment
from chatsmith.train.parallel.automatic import accelerator
from chatsmith.train.parallel.process import from_environment
from chatsmith.train.precision import keep_memory

ATTENTION = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


class Enough(Exception):
    """The steps that were wanted are done."""


class Laps(Callback):
    """Times `steps` steps after `warm` others, or traces the kernels of the last one; then ends the run."""

    def __init__(self, warm: int, steps: int, kernels: int, device: torch.device) -> None:
        self._warm, self._steps, self._kernels, self._cuda = warm, steps, kernels, device.type == "cuda"
        self._trace: profile | None = None
        self._created, self._began = time.perf_counter(), 0.0
        self.losses: list[float] = []
        self.first_seconds = self.seconds = 0.0
        self.memory = 0
        self.table = ""

    def on_step(self, moment: Moment) -> None:
        self.losses.append(moment.record.loss)
        done = len(self.losses)
        if done == 1:
            self.first_seconds = self._now() - self._created
        if done == self._warm:
            if self._cuda:
                torch.cuda.reset_peak_memory_stats()
            self._began = self._now()
        if done == self._warm + self._steps:
            self.seconds = (self._now() - self._began) / self._steps
            self.memory = torch.cuda.max_memory_allocated() if self._cuda else machine.memory().total
            if not self._kernels:
                raise Enough
            activity = ProfilerActivity.CUDA if self._cuda else ProfilerActivity.CPU
            self._trace = profile(activities=[activity], acc_events=True)
            self._trace.start()
        if self._trace is not None and done > self._warm + self._steps:
            self._now()
            self._trace.stop()
            by = "self_device_time_total" if self._cuda else "self_cpu_time_total"
            self.table = _kernel_table(self._trace, by, self._kernels)
            raise Enough

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def _kernel_table(trace: profile, by: str, count: int) -> str:
    """The kernels that took longest, each with its share and how often it was called."""
    found = sorted(trace.key_averages(), key=lambda event: -getattr(event, by))
    total = sum(getattr(event, by) for event in found)
    lines = [f"  {total / 1e3:.1f} ms in kernels"]
    for event in found[:count]:
        spent = getattr(event, by)
        lines.append(f"  {spent / total:6.1%} {spent / 1e3:9.2f} ms {event.count:6}×  {event.key[:110]}")
    return "\n".join(lines)


def drawn(spec: ModelSpec, device: torch.device) -> Decoder:
    """A model of random float32 weights, drawn where they are wanted."""
    model = Decoder(spec, device=device, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, 0.0, 0.02)
        else:
            torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    return model


def planned(size: runs.Size) -> int:
    """Bytes that the planner expects PyTorch to allocate in bfloat16."""
    work = Workload(size.spec, size.spec.context, size.rows, here=True)
    return int(memory_of(work, Layout(micro_batch=size.micro_batch)).total - RESERVED)


def measure(name: str, asked: argparse.Namespace, float8: bool) -> dict[str, Any]:
    """One size, alone on the device."""
    size, process = runs.SIZES[name], from_environment()
    if asked.micro_batch:
        accumulation = asked.accumulation or max(1, size.rows // asked.micro_batch)
        size = replace(size, micro_batch=asked.micro_batch, accumulation=accumulation)
    gpu = process.device.type
    changes = {
        "optimizer": {"name": asked.optimizer},
        "precision": {"compute": asked.precision, "compile": "off" if asked.eager else "on", "float8": float8},
    }
    recipe = runs.recipe_of(size, changes)
    rates = [machine.measure_gemm(asked.precision, 0.4, device=gpu)]
    laps = Laps(asked.warm, asked.steps, asked.profile, process.device)
    with tempfile.TemporaryDirectory() as folder:
        model = drawn(size.spec, process.device)
        trainer = runs.trainer_of(size, model, recipe, process, Path(folder), [laps])
        with suppress(Enough):
            trainer.run()
        del model, trainer
    torch._dynamo.reset()  # else the next size's layers, which have the same code, would be compiled for any shape
    gc.collect()
    torch.cuda.empty_cache()
    rates.append(machine.measure_gemm(asked.precision, 0.4, device=gpu))
    return _report(name, size, asked, laps, max(rates), float8)


def _report(
    name: str, size: runs.Size, asked: argparse.Namespace, laps: Laps, rate: float, float8: bool
) -> dict[str, Any]:
    known = accelerator(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None
    peak = known.peak_tflops("bf16") if known else None
    flops = size.tokens * size.spec.training_flops_per_token() / laps.seconds
    plan = planned(size) if asked.precision == "bfloat16" else 0
    result = {
        "parameters": size.spec.parameters,
        "micro_batch": size.micro_batch,
        "rows": size.rows,
        "context": size.spec.context,
        "seconds_per_step": laps.seconds,
        "tokens_per_second": size.tokens / laps.seconds,
        "tflops": flops / 1e12,
        "gemm_tflops": rate / 1e12,
        "share_of_gemm": flops / rate,
        "share_of_peak": flops / 1e12 / peak if peak else None,
        "first_step_seconds": laps.first_seconds,
        "memory_bytes": laps.memory,
        "planned_bytes": plan,
        "losses": laps.losses,
    }
    how = ", ".join(
        [
            asked.precision,
            *(["float8"] if float8 else []),
            "eager" if asked.eager else "compiled",
            asked.attention,
        ]
    )
    of_peak = f", {flops / 1e12 / peak:.1%} of the published {peak:.0f}" if peak else ""
    print(
        f"\n{name} ({size.spec.parameters / 1e6:.0f}M), {size.micro_batch} × {size.accumulation} rows of "
        f"{size.spec.context}, {how}\n"
        f"  {result['tokens_per_second']:.0f} tok/s, {laps.seconds * 1e3:.1f} ms a step: {flops / 1e12:.0f} TFLOP/s, "
        f"{flops / rate:.1%} of the measured {rate / 1e12:.0f}{of_peak}\n"
        f"  memory {laps.memory / 1e9:.1f} GB, planned {plan / 1e9:.1f}; first step {laps.first_seconds:.0f} s; "
        f"loss {laps.losses[0]:.3f} → {laps.losses[-1]:.3f}",
        flush=True,
    )
    if laps.table:
        print(laps.table, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=runs.SIZES, default=runs.ON_A_GPU)
    parser.add_argument("--warm", type=int, default=2, help="steps before the clock runs")
    parser.add_argument("--steps", type=int, default=6, help="steps that are timed")
    parser.add_argument("--micro-batch", type=int, help="rows at a time (default: the size's)")
    parser.add_argument("--accumulation", type=int, help="micro-batches of a step (default: the size's rows)")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--float8", nargs="*", choices=runs.SIZES, default=[], help="sizes that follow in 8 bits")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--attention", choices=("auto", *ATTENTION), default="auto")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="the N kernels that a step spends most on")
    asked = parser.parse_args()
    harness.require_gpu()
    keep_memory()
    if asked.attention != "auto":
        kernels = [ATTENTION[asked.attention], SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        loop.attention_kernels = lambda device: sdpa_kernel(kernels, set_priority=True)
    about = harness.circumstances()
    if torch.cuda.is_available():
        about["device"] = torch.cuda.get_device_name(0)
    print(f"{about.get('device', about['cpu'])}, torch {torch.__version__}, commit {about['commit']}", flush=True)
    found = {}
    for name, float8 in [*((name, False) for name in asked.sizes), *((name, True) for name in asked.float8)]:
        try:
            found[f"{name}{' float8' if float8 else ''}"] = measure(name, asked, float8)
        except (ChatsmithError, RuntimeError) as error:  # the others are worth knowing still
            print(f"\n{name}: {type(error).__name__}: {error}", flush=True)
    print(harness.as_json({"circumstances": about, "settings": vars(asked), "sizes": found}))


if __name__ == "__main__":
    main()
