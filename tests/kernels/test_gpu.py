"""The GPU's kernels without a GPU: interpreted on the CPU they give what PyTorch gives, and they compile for Hopper.

On a GPU itself they are tested in tests/gpu.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

_INTERPRETED = """
import torch
from torch.nn import functional as F
from chatsmith.kernels.gpu.cross_entropy import cross_entropy_

generator = torch.Generator().manual_seed(0)
for vocab_size in (90, 4096, 8200):
    for dtype, rough in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        logits = (4 * torch.randn(6, vocab_size, generator=generator)).to(dtype)
        targets = torch.randint(0, vocab_size, (6,), generator=generator)
        targets[1], targets[2], targets[3] = -100, vocab_size, vocab_size - 1
        logits[4] *= 100  # one chance of nearly 1, and others that underflow
        logits[5, : vocab_size - 9] -= 200  # all that are likely come last
        exact = logits.double().requires_grad_()
        wanted = F.cross_entropy(exact, targets.masked_fill(targets == vocab_size, -100), reduction="none")
        wanted.sum().backward()
        found = cross_entropy_(logits, targets)
        assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-5), (found, wanted)
        assert (logits - exact.grad).norm() < rough * exact.grad.norm()
        assert not logits[1:3].any()
        assert torch.isfinite(logits).all()
"""

_COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from chatsmith.kernels.gpu.cross_entropy import _row

for kind in ("*bf16", "*fp32"):
    types = {"logits": kind, "targets": "*i64", "losses": "*fp32", "stride": "i32"}
    sizes = {"COLUMNS": 50304, "BLOCK": 4096}
    source = ASTSource(_row, {**types, **dict.fromkeys(sizes, "constexpr")}, constexprs=sizes)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert ".target sm_90" in made.asm["ptx"]
    assert ".local" not in made.asm["ptx"]  # nothing that did not fit into registers
"""


_DECODER_COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from chatsmith.kernels.gpu.thin import _thin

for rows, outputs, depth, capability in ((8, 16, 128, 90), (8, 16, 128, 80), (64, 32, 64, 90)):
    types = dict.fromkeys(("x", "weight", "bias", "y"), "*bf16") | dict.fromkeys(("R", "N", "K"), "i32")
    sizes = {"gate": None, "ACTIVATION": "gelu_tanh", "BIAS": True, "ADD": False, "ROWS": rows, "OUTPUTS": outputs}
    sizes |= {"DEPTH": depth, "PARTS": 4, "SLICE": 512, "EVEN": True, "PRECISION": "tf32"}
    sizes["LEAP"] = capability == 90
    even = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(_thin.arg_names) if name in types}
    source = ASTSource(_thin, {**types, **dict.fromkeys(sizes, "constexpr")}, constexprs=sizes, attrs=even)
    made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
    ptx = made.asm["ptx"]
    assert ".local" not in ptx
    assert "mma.sync" in ptx  # and not those of groups of warps, which may sum in another order
    assert "cp.async" in ptx
    assert "wgmma" not in ptx
"""


def _run(command: list[str], interpreted: str, tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": interpreted, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("script", "interpreted"), [(_INTERPRETED, "1"), (_COMPILED, "0")])
def test_the_loss_kernel(script: str, interpreted: str, tmp_path: Path) -> None:
    _run(["-c", script], interpreted, tmp_path)


def test_the_kernels_of_generation_give_what_torch_gives(tmp_path: Path) -> None:
    _run([str(Path(__file__).with_name("interpreted_decoder.py"))], "1", tmp_path)


def test_the_kernels_of_generation_compile(tmp_path: Path) -> None:
    _run(["-c", _DECODER_COMPILED], "0", tmp_path)
