"""The kernels are compiled once, and where they cannot be, one line says why and training goes on without them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatsmith import machine
from chatsmith.kernels import build
from chatsmith.kernels.loading import find_compiler
from patience import PATIENCE

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler on this machine")

PROGRAM = "from chatsmith.kernels import build; print(build.library() is not None, '|', build.status())"


def ask(home: Path, **environment: str) -> str:
    command = [sys.executable, "-c", PROGRAM]
    changed = os.environ | {"XDG_CACHE_HOME": str(home), "CHATSMITH_CACHE": str(home)} | environment
    return subprocess.run(
        command, env=changed, capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout.strip()


def test_where_a_compiler_is_the_kernels_are_built() -> None:
    assert build.library() is not None, build.status()


def test_they_can_be_switched_off(tmp_path: Path) -> None:
    assert ask(tmp_path, CHATSMITH_KERNELS="off") == "False | switched off by CHATSMITH_KERNELS"
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiler_that_fails_is_reported_in_one_line(tmp_path: Path) -> None:
    fake = tmp_path / "broken"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo fake 1.0; exit 0; }\necho "no such processor" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    assert ask(tmp_path, CC=str(fake)) == "False | could not be built: no such processor"
    assert not list(tmp_path.rglob("*.so"))


def test_processes_that_start_together_compile_once(tmp_path: Path) -> None:
    log, counting = tmp_path / "log", tmp_path / "counting"
    counting.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {find_compiler()} "$@"\n')
    counting.chmod(0o755)
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda _: ask(tmp_path, CC=str(counting), CHATSMITH_CFLAGS="-O1"), range(3)))
    assert said == [f"True | built with {counting}"] * 3
    compiled = [line for line in log.read_text().splitlines() if " -c " in line]
    assert len(compiled) == len(build.SOURCES)


def test_the_plain_path_trains_without_kernels(tmp_path: Path) -> None:
    program = """
import torch
from chatsmith.models.decoder import Decoder
from chatsmith.specs import modern
from chatsmith.train.losses import next_token_loss
from chatsmith.train.optimizers import TrainingOptimizer
from chatsmith.train.recipe import Optimizer
model = Decoder(modern(64, 16, 32, 2, 2), dtype=torch.bfloat16)
model.init_weights(0)
stepper = TrainingOptimizer(model, Optimizer(name="muon", learning_rate=0.01))
ids = torch.arange(32).view(2, 16)
losses = []
for _ in range(50):
    loss, count = next_token_loss(model, ids, ids.roll(-1, 1))
    (loss / count).backward()
    stepper.step(1.0)
    losses.append(float(loss.detach() / count))
print(losses[-1] < losses[0] / 2)
"""
    environment = os.environ | {"CHATSMITH_KERNELS": "off"}
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert answer.stdout.strip() == "True"


@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3", "x86-64-v4", "cooperlake", "sapphirerapids"])
def test_the_sources_compile_for_every_processor_without_a_warning(processor: str, tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("another family of processors")
    compiler = find_compiler()
    assert compiler is not None
    flags = [flag for flag in build.FLAGS if flag != "-march=native"]
    strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-O0", f"-march={processor}"]
    for source in build.SOURCES:
        command = [compiler, *flags, *strict, "-c", str(source), "-o", str(tmp_path / "made.o")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "wanted", "multiplies"),
    [
        ("-mno-amx-tile", {"avx2", "fma"}, None),
        ("-march=x86-64-v4", {"avx512"}, True),
        ("-march=x86-64-v3", {"avx2", "fma"}, False),
    ],
)
def test_the_kernels_of_lesser_processors_compute_the_same(
    flags: str, wanted: set[str], multiplies: bool | None, tmp_path: Path
) -> None:
    """The kernels' own tests, run with what a processor without matrix tiles, without the instructions for bfloat16 as
    well, or without AVX-512, would compile: the last alone has no matrix kernels."""
    if platform.machine() != "x86_64" or not wanted <= set(machine.describe().isa):
        pytest.skip("this processor cannot run that code")
    tests = Path(__file__).with_name("test_native.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", str(tests)]
    changed = os.environ | {"CHATSMITH_CFLAGS": flags, "CHATSMITH_CACHE": str(tmp_path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=changed, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "passed" in done.stdout
    ask = "import torch; from chatsmith.kernels import native; print(native.multiplies(torch.zeros(1)))"
    said = subprocess.run(
        [sys.executable, "-c", ask], env=changed, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert multiplies is None or said.stdout.strip() == str(multiplies)
