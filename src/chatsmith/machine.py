"""What this machine is and how fast it measures: cores, instruction sets, memory, GPUs, matrix and memory rates.

Counts are those a process may use: the CPU affinity mask and the cgroup quota both bound `cores`, the cgroup limit
bounds `memory`, so that a container of two cores on a machine of ninety-six plans for two. Nothing here imports torch
until a rate or the GPUs are asked for. `root` is the folder that holds `proc` and `sys` (another one in tests).
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from chatsmith.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    import torch

_ROOT = Path("/")
_MAX_PROC_BYTES = 8 * 2**20  # /proc/cpuinfo of a 1,000-core machine is about 2 MB

# What a kernel can be built for, and the kernel's names for it (x86 "flags", Arm "Features").
_ISA = {
    "avx2": {"avx2"},
    "fma": {"fma"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "bf16"},
    "fp16": {"avx512_fp16", "asimdhp"},
    "amx": {"amx_tile"},
    "neon": {"asimd", "neon"},
    "dotprod": {"asimddp"},
    "i8mm": {"i8mm"},
    "sve": {"sve"},
    "sve2": {"sve2"},
}
# Arm processors give numbers instead of a name (implementer 0x41 is Arm itself).
_ARM_PARTS = {
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse N1",
    ("0x41", "0xd40"): "Neoverse V1",
    ("0x41", "0xd49"): "Neoverse N2",
    ("0x41", "0xd4f"): "Neoverse V2",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes this process may use in all, and bytes it could take now without swapping."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA or ROCm device: its memory in bytes, its processors and its compute capability."""

    name: str
    memory: int
    processors: int
    capability: str


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as far as it can be read without measuring; `installed_cores` counts those others hold too."""

    cpu: str
    architecture: str
    system: str
    cores: int
    installed_cores: int
    isa: tuple[str, ...]
    memory: Memory
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Something optional: what it is for, whether it is here, and the command that adds it."""

    name: str
    purpose: str
    found: bool
    command: str


def describe(*, gpus: bool = False, root: Path = _ROOT) -> Machine:
    """This machine; `gpus=True` loads torch (2 to 4 seconds) to ask it which devices it can use."""
    info = _cpu_fields(root)
    return Machine(
        cpu=_cpu_name(info),
        architecture=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        cores=usable_cores(root),
        installed_cores=os.cpu_count() or 1,
        isa=_isa(info),
        memory=memory(root),
        gpus=find_gpus() if gpus else (),
    )


def usable_cores(root: Path = _ROOT) -> int:
    """Cores this process may keep busy: the affinity mask, cut down to whole cores of the cgroup quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for folder in _cgroups("cpu", root) if (quota := _cpu_quota(folder)) is not None]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def memory(root: Path = _ROOT) -> Memory:
    """Memory in bytes, bounded by the cgroup limit where there is one (pages of cached files count as available)."""
    fields = dict(line.split(":", 1) for line in _read(root / "proc/meminfo").splitlines() if ":" in line)
    if "MemTotal" in fields:
        total = int(fields["MemTotal"].split()[0]) * 1024
        available = int(fields.get("MemAvailable", fields["MemTotal"]).split()[0]) * 1024
    else:
        total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _cgroups("memory", root):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        if limit is None or limit >= total:
            continue
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
        stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if len(line.split()) == 2)
        total, available = limit, min(available, max(0, limit - used + int(stat.get("inactive_file", 0))))
    return Memory(total, available)


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs torch can use (loads torch)."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(p.name, p.total_memory, p.multi_processor_count, f"{p.major}.{p.minor}") for p in found)


def may_have_gpu(root: Path = _ROOT) -> bool:
    """Whether a driver for GPUs is loaded. Without one there is none that torch could use, and no need to ask it."""
    return any((root / "dev" / name).exists() for name in ("nvidiactl", "kfd", "dxg"))


def compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would use ($CXX, g++, clang++ or c++), or None."""
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def optional_parts() -> tuple[Part, ...]:
    """Everything optional, found or not, each with the command that adds it. Imports none of it."""

    def extra(name: str, modules: tuple[str, ...], purpose: str) -> Part:
        found = all(util.find_spec(module) is not None for module in modules)
        return Part(name, purpose, found, f'pip install "chatsmith[{name}]"')

    headers = (Path(sysconfig.get_path("include")) / "Python.h").exists()
    mac = sys.platform == "darwin"
    return (
        extra("data", ("pyarrow", "zstandard"), "Parquet and .zst files"),
        extra("docs", ("pypdf",), "PDF files"),
        extra("track", ("tensorboard",), "TensorBoard logs while training"),
        extra("plot", ("matplotlib",), "training curves as PNG"),
        extra("constrain", ("llguidance",), "answers of a given form: JSON schema, regular expression, grammar"),
        extra("serve", ("h11", "starlette", "uvicorn"), "chatsmith serve: a page to talk on, and an API"),
        *([extra("float8", ("torchao",), "training in 8 bits on a GPU")] if may_have_gpu() else []),
        Part(
            "C++ compiler",
            "torch.compile: faster training",
            compiler() is not None,
            "xcode-select --install" if mac else "apt-get install g++",
        ),
        Part(
            "Python headers",
            "torch.compile: faster training",
            headers,
            "install Python from python.org" if mac else "apt-get install python3-dev",
        ),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries a result depends on; read from metadata, nothing is imported."""
    found = {"python": platform.python_version()}
    for name in ("chatsmith", "torch", "numpy", "tokenizers", "tiktoken", "safetensors", "transformers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def measure_gemm(
    dtype: str = "float32", seconds: float = 0.5, threads: int | None = None, device: str = "cpu"
) -> float:
    """The best rate of a square matrix multiply in FLOP/s: what a model's step can be measured against.

    Tries 256 to 2048 cubed (1024 to 8192 on a GPU) for `seconds` in all and keeps the fastest single run, so that
    a neighbour's load spoils it least. `threads` is this process's usable cores unless given.
    """
    import torch

    kind = _dtype(dtype)
    sizes = (256, 1024, 1536, 2048) if device == "cpu" else (1024, 2048, 4096, 8192)
    share = seconds / len(sizes)
    best = 0.0
    with using_threads(threads), torch.inference_mode():
        for size in sizes:
            work = 2.0 * size**3
            # A precision that this machine emulates: a larger product only takes longer. The smallest one may be as
            # slow because its two threads were kept from meeting, so it alone does not decide.
            if best and work / best > (8 if size == sizes[1] else 2) * seconds:
                break
            left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
            out = torch.empty(size, size, dtype=kind, device=device)
            best = max(best, work / _best_time(partial(torch.mm, left, right, out=out), share, device))
    return best


def measure_peak(compute: str = "auto", seconds: float = 0.5) -> float:
    """The matrix rate in FLOP/s that training can be measured against, on the device it would use.

    `compute` is the precision of the layers; for "auto" it is the faster of float32 and bfloat16.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = ("float32", "bfloat16") if compute == "auto" else (compute,)
    return max(measure_gemm(kind, seconds, device=device) for kind in kinds)


def measure_bandwidth(seconds: float = 0.3, threads: int | None = None, device: str = "cpu") -> float:
    """The best rate of reading memory in bytes/s, by the largest of far more floats than any cache holds."""
    import torch

    size = 2**28 if device == "cpu" else 2**30
    size = max(2**22, min(size, memory().available // 8)) if device == "cpu" else size
    with using_threads(threads), torch.inference_mode():
        values = torch.ones(size // 4, dtype=torch.float32, device=device)
        return size / _best_time(partial(torch.max, values), seconds, device)


def _best_time(work: Callable[[], object], seconds: float, device: str) -> float:
    import torch

    def once() -> float:
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        return max(time.perf_counter() - start, 1e-9)

    best = once()  # this one also loads the kernels
    end = time.perf_counter() + (seconds if best < 4 * seconds else 0.0)
    while time.perf_counter() < end:
        best = min(best, once())
    return best


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads (None: one for each usable core), and with as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dtype(name: str) -> torch.dtype:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if name not in known:
        raise RequestError(f"no measurement for dtype {name!r}", did_you_mean(name, known))
    return known[name]


def _read(path: Path) -> str:
    """The text of a small system file; empty where it is missing or closed to us."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_PROC_BYTES)
    except OSError:
        return ""


def _number(*paths: Path) -> int | None:
    """The first of these files that holds a whole number; None when none does ("max" means no limit)."""
    return next((int(text) for path in paths if (text := _read(path).strip()).isdecimal()), None)


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the control groups that bind this process, innermost first, for cgroup v2 and v1."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, group = parts
        if controllers == "":
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        inside = Path(group.lstrip("/"))
        # In a container the path is often the host's and does not exist inside: the mount itself is then our group.
        yield from dict.fromkeys(base / part for part in [inside, *inside.parents] if (base / part).is_dir())


def _cpu_quota(folder: Path) -> float | None:
    """Cores granted by one cgroup; None without a quota."""
    text = _read(folder / "cpu.max").split()
    if len(text) == 2 and text[0].isdecimal() and text[1].isdecimal() and int(text[1]):
        return int(text[0]) / int(text[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _cpu_fields(root: Path) -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo."""
    first = _read(root / "proc/cpuinfo").strip().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpu_name(info: dict[str, str]) -> str:
    if "model name" in info:
        return " ".join(info["model name"].split())
    known = _ARM_PARTS.get((info.get("CPU implementer", ""), info.get("CPU part", "")))
    return known or platform.processor() or platform.machine()


def _isa(info: dict[str, str]) -> tuple[str, ...]:
    has = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(name for name, flags in _ISA.items() if has & flags)
