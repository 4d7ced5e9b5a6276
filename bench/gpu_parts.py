"""What the parts of a training step reach on a GPU: products, attention by each kernel, the loss, and starting a model.

    python bench/gpu_parts.py                         about half a minute
    python bench/gpu_parts.py --parts products loss

Times are medians by the device's own clock, after calls that do not count. Rates of attention count what is computed
under the causal mask: half of the squares. The last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import harness
import runs
from chatsmith import machine
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec
from chatsmith.train.losses import head_loss

DEVICE = torch.device("cuda")
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def milliseconds(work: Callable[[], object], calls: int = 12) -> float:
    """The median time of a call."""
    for _ in range(3):
        work()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(torch.bfloat16)


def products(size: runs.Size) -> dict[str, Any]:
    """A layer's products, with queries, keys and values apart and as one, and the head's: TFLOP/s forwards, of the
    input's slope, and of the weight's."""
    E, rows = size.spec.width, size.micro_batch * size.spec.context
    found = {}
    for name, outputs, inputs in (
        ("query", E, E),
        ("query, key, value", 3 * E, E),
        ("up", size.spec.ffn_width, E),
        ("down", E, size.spec.ffn_width),
        ("head", size.spec.vocab_size, E),
    ):
        n = min(rows, 8192) if name == "head" else rows
        x, weight, slope = _random(n, inputs), _random(outputs, inputs), _random(n, outputs)
        work = 2e-9 * n * outputs * inputs
        ways = (lambda: F.linear(x, weight), lambda: torch.mm(slope, weight), lambda: torch.mm(slope.t(), x))  # noqa: B023
        found[name] = [work / milliseconds(way) for way in ways]
        print(f"  {name:20}" + "".join(f"{rate:8.0f}" for rate in found[name]) + "   TFLOP/s", flush=True)
    return found


def attention(size: runs.Size) -> dict[str, Any]:
    """Causal attention and its way back, by each kernel, over heads as a layer lays them out."""
    spec, B = size.spec, min(16, size.micro_batch)
    T, H, D = spec.context, spec.heads, spec.head_dim
    found = {}
    for name, kernel in KERNELS.items():
        parts = [_random(B, T, H * D).view(B, T, H, D).transpose(1, 2).requires_grad_() for _ in range(3)]
        slope = _random(B, T, H * D).view(B, T, H, D).transpose(1, 2)
        work = 2e-9 * B * H * T * T * D  # both products, and half of the squares

        def forward(parts: list[Tensor] = parts, kernel: SDPBackend = kernel) -> Tensor:
            with sdpa_kernel(kernel):
                return F.scaled_dot_product_attention(*parts, is_causal=True)

        def both(parts: list[Tensor] = parts, slope: Tensor = slope, forward: Any = forward) -> None:
            torch.autograd.grad(forward(), parts, slope)

        try:
            there, way = milliseconds(forward), milliseconds(both)
        except RuntimeError as error:
            print(f"  {name:8} {str(error).splitlines()[0]}")
            continue
        out = forward()
        laid = out.transpose(1, 2).is_contiguous()
        back = [g.transpose(1, 2).is_contiguous() for g in torch.autograd.grad(out, parts, slope)]
        found[name] = {"forward_ms": there, "back_ms": way - there, "output_laid_as_read": laid, "slopes": back}
        print(
            f"  {name:8}{there:8.2f} ms ({work / there:4.0f} TFLOP/s), back {way - there:8.2f} ms "
            f"({2.5 * work / (way - there):4.0f}); output by tokens: {laid}, slopes: {back}",
            flush=True,
        )
    return found


def loss(size: runs.Size) -> dict[str, Any]:
    """The loss over the vocabulary: right beside float64, its time, and the time of its products alone."""
    from chatsmith.kernels.gpu.cross_entropy import cross_entropy_

    spec = size.spec
    rows = min(16384, size.micro_batch * spec.context)
    targets = torch.randint(0, spec.vocab_size, (rows,), device=DEVICE)
    targets[7] = -100
    worst = {}
    for dtype in (torch.bfloat16, torch.float32):
        logits = 4 * torch.randn(512, spec.vocab_size, device=DEVICE).to(dtype)
        exact = logits.double().requires_grad_()
        F.cross_entropy(exact, targets[:512], reduction="sum").backward()
        wanted = F.cross_entropy(exact.detach(), targets[:512], reduction="none")
        given = cross_entropy_(logits, targets[:512])
        assert exact.grad is not None
        worst[str(dtype)] = [
            float((given - wanted).abs().max()),
            float((logits - exact.grad).norm() / exact.grad.norm()),
        ]
    logits = _random(8192, spec.vocab_size)
    spent = milliseconds(lambda: cross_entropy_(logits, targets[:8192]))
    moved = 2 * logits.numel() * 2e-9
    hidden, weight = _random(rows, spec.width).requires_grad_(), _random(spec.vocab_size, spec.width).requires_grad_()
    whole = milliseconds(lambda: head_loss(hidden, weight, targets).backward())
    work = 6e-9 * rows * spec.vocab_size * spec.width
    print(f"  error of losses, and of slopes (share): {worst}")
    print(f"  kernel {spent:.3f} ms for 8192 rows: {moved / spent * 1e3:.0f} GB/s read once and written once")
    print(f"  whole loss of {rows} rows {whole:.2f} ms: {work / whole:.0f} TFLOP/s", flush=True)
    return {"errors": worst, "kernel_ms": spent, "whole_ms": whole}


def start(spec: ModelSpec) -> dict[str, Any]:
    """Drawing a model's first weights, as `train` does: on the CPU, and then to the device."""
    began = time.perf_counter()
    model = Decoder(spec, device=DEVICE, dtype=torch.float32)
    model.init_weights(0)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    print(f"  {spec.parameters / 1e6:.0f}M weights in {seconds:.1f} s")
    return {"parameters": spec.parameters, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=runs.SIZES, default=["gpt2-124m", "gpt3-1.3b"])
    parts = ("gemm", "products", "attention", "loss", "start")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    asked = parser.parse_args()
    harness.require_gpu()
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(0)}
    if "gemm" in asked.parts:
        found["gemm"] = machine.measure_gemm("bfloat16", 0.5, device="cuda")
        found["bandwidth"] = machine.measure_bandwidth(0.2, device="cuda")
        print(f"square products {found['gemm'] / 1e12:.0f} TFLOP/s, reading {found['bandwidth'] / 1e9:.0f} GB/s")
    each = {"products": products, "attention": attention, "loss": loss}
    for name in asked.sizes:
        for part in (part for part in asked.parts if part in each):
            print(f"{name}, {part}:", flush=True)
            found[f"{name} {part}"] = each[part](runs.SIZES[name])
    if "start" in asked.parts:
        print("first weights:")
        found["start"] = start(runs.SIZES["gpt2-124m"].spec)
    print(harness.as_json(found))


if __name__ == "__main__":
    main()
