"""The kernels of generation on Arm, without one: cross-compiled, and run by an emulator of the processor.

`make test-arm` runs these; on an Arm machine test_infer.py says the same of the very processor. They want the Debian
packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static, or what other systems call them.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from ctypes import POINTER, Structure, c_int64, c_void_p, cast, sizeof
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chatsmith.kernels import build as training
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.session import Session, _Decoder, _Layer, _Step
from patience import PATIENCE

sys.path.insert(0, str(Path(__file__).parent))
from test_infer import FORMATS, LENGTH, SPECS, check_near, ids_of, session

COMPILER = shutil.which("aarch64-linux-gnu-gcc")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no aarch64-linux-gnu-gcc on this machine"),
    pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64 on this machine"),
    pytest.mark.skipif(build.library() is None, reason=f"no kernels of generation here: {build.status()}"),
]
VARIANTS = {variant.name: variant for variant in build.variants("aarch64")}
# A processor that has what the variant wants and, where there is one, not what the next better variant wants.
PROCESSORS = {"neon": "cortex-a53", "dotprod": "cortex-a76", "i8mm": "max"}
STRICT = ("-Wall", "-Wextra", "-Werror")
CUTS = [[LENGTH], [1, 3, 91, 4, 6, 45]]
HOLDS = 7  # blocks for LENGTH positions


class _Header(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("base", "decoder", "step", "logits")),
        *((name, c_int64) for name in ("bytes", "threads", "steps", "step_bytes", "logits_bytes")),
    ]


class Image:
    """Memory for arm.c: what is put here lies at the address that `put` gives."""

    BASE = 2**36

    def __init__(self) -> None:
        self.memory = bytearray(sizeof(_Header))
        self.moved: dict[int, int] = {}

    def put(self, content: Any) -> int:
        self.memory += bytes(-len(self.memory) % 64)
        at = self.BASE + len(self.memory)
        self.memory += bytes(content)
        return at

    def array(self, array: np.ndarray) -> int:
        """Put an array; `relocated` then knows where its pointers lead."""
        self.moved[array.ctypes.data] = self.put(array.tobytes())
        return self.moved[array.ctypes.data]

    def relocated(self, found: Structure) -> Structure:
        """A copy of a structure whose pointers lead to where its arrays lie in the image."""
        copy = type(found).from_buffer_copy(found)
        for name, kind in type(found)._fields_:
            value = getattr(copy, name)
            if isinstance(value, Structure):
                setattr(copy, name, self.relocated(value))
            elif kind is c_void_p and value is not None:
                setattr(copy, name, self.moved[value])
        return copy


def image_of(run: Session, ids: np.ndarray, threads: int) -> bytes:
    """The decoder of a session and the steps that feed it `ids` in each of CUTS, with blocks in falling order."""
    image = Image()
    for array in run._held:
        if isinstance(array, np.ndarray):
            image.array(array)
    decoder = image.relocated(_Decoder.from_address(run._session))  # a Session in C begins with its decoder
    layers = [image.relocated(decoder.layer[number]) for number in range(decoder.layers)]
    decoder.layer = cast(image.put((_Layer * len(layers))(*layers)), POINTER(_Layer))
    cache_ = image.put(b"\xff" * (run.blocks * run.block_bytes))  # not a number, in every format
    vocabulary = run.spec.vocab_size
    logits = image.put(bytes(len(CUTS) * LENGTH * vocabulary * 4))
    steps, row, held = [], 0, HOLDS * len(run.spec.bands)  # each group of layers has a table of its own
    for which, cuts in enumerate(CUTS):
        table = np.arange((which + 1) * held, which * held, -1, dtype=np.int32)
        at = 0
        for size in cuts:
            rows = np.arange(size, dtype=np.int32)
            arrays = [ids[at : at + size], rows + np.int32(at), np.array([0, size], np.int32), table, rows]
            places = [image.put(array.tobytes()) for array in arrays]
            steps.append(_Step(size, 1, size, HOLDS, *places, logits + row * vocabulary * 4, None, cache_))
            at, row = at + size, row + size
    step, at = image.put((_Step * len(steps))(*steps)), image.put(decoder)
    sizes = (len(image.memory), threads, len(steps), sizeof(_Step), row * vocabulary * 4)
    image.memory[: sizeof(_Header)] = bytes(_Header(image.BASE, at, step, logits, *sizes))
    return bytes(image.memory)


@cache
def system() -> Path:
    """The folder whose `lib` holds the C library of the emulated system."""
    assert COMPILER is not None
    command = [COMPILER, "-print-file-name=libc.so.6"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the driver lies, and the library of every variant."""
    made = tmp_path_factory.mktemp("arm")
    source = Path(__file__).with_name("arm.c")
    assert COMPILER is not None
    subprocess.run([COMPILER, *STRICT, str(source), "-ldl", "-o", str(made / "arm")], check=True, timeout=PATIENCE)
    for variant in VARIANTS.values():
        build.compile_variant(COMPILER, variant, made).rename(made / f"{variant.name}.so")
    return made


def emulate(folder: Path, variant: str, processor: str, image: Path) -> subprocess.CompletedProcess[bytes]:
    command = [EMULATOR, "-cpu", processor, "-L", system(), folder / "arm", folder / f"{variant}.so", image]
    return subprocess.run(list(map(str, command)), capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "qwen3")) for name in SPECS])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_on_arm_are_those_of_torch_and_no_cut_changes_a_bit(
    variant: str, form: str, name: str, folder: Path, tmp_path: Path
) -> None:
    run, same = session(name, form)
    ids = ids_of(name)
    (tmp_path / "image").write_bytes(image_of(run, ids, threads=2))
    done = emulate(folder, variant, PROCESSORS[variant], tmp_path / "image")
    assert done.returncode == 0, done.stderr
    whole, cut = np.frombuffer(done.stdout, np.float32).reshape(len(CUTS), LENGTH, -1)
    assert np.array_equal(whole, cut)
    with torch.inference_mode():
        wanted = same(torch.from_numpy(ids.astype(np.int64))[None])[0].numpy()
    check_near(whole, wanted, form)


@pytest.mark.parametrize(("variant", "processor"), [("dotprod", "cortex-a53"), ("i8mm", "cortex-a76")])
def test_the_emulator_does_refuse_what_a_processor_lacks(
    variant: str, processor: str, folder: Path, tmp_path: Path
) -> None:
    """Else the test above would say nothing of what each variant may use."""
    (tmp_path / "image").write_bytes(image_of(session("llama", "int8")[0], ids_of("llama"), threads=1))
    assert emulate(folder, variant, processor, tmp_path / "image").returncode == -signal.SIGILL


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sources_compile_for_arm_without_a_warning(variant: str, tmp_path: Path) -> None:
    assert COMPILER is not None
    march = VARIANTS[variant].flags
    ours = [flag for flag in build.flags(VARIANTS[variant]) if flag != "-shared"]
    other = [flag for flag in training.FLAGS if not flag.startswith(("-march=native", "-mprefer"))]
    sources = [(ours, path) for path in sorted(build.FOLDER.glob("*.c"))]
    sources += [([*other, "-Wno-unknown-pragmas", *march], path) for path in training.SOURCES]
    for flags, source in sources:
        command = [COMPILER, *flags, *STRICT, "-O0", "-c", str(source), "-o", str(tmp_path / "made.o")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
