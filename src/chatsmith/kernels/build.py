"""Compile the kernels for this very machine, once, and load them.

A C compiler turns the C files here into a small library in the cache folder, in a few seconds, the first time a CPU is
asked to train; its name holds a digest of the source, the compiler and the processor. Without a compiler (or with
CHATSMITH_KERNELS=off) `library` gives None, and the plain-torch path computes the same. CHATSMITH_CFLAGS adds flags for
the compiler, the last ones it is given.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from chatsmith.paths import cache_dir

SOURCES = sorted(Path(__file__).parent.glob("*.c"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
# Arithmetic may be fused but not reordered or assumed finite: a NaN must stay visible.
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"),
    *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The loaded kernels, or None where they cannot be built or are switched off."""
    return _load()[0]


def status() -> str:
    """One line on whether the kernels are in use, and why not if not."""
    return _load()[1]


@lru_cache(maxsize=1)
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("CHATSMITH_KERNELS", "").lower() in ("off", "0", "no"):
        return None, "switched off by CHATSMITH_KERNELS"
    compiler = find_compiler()
    if compiler is None:
        return None, "no C compiler found: install gcc for faster training on the CPU"
    try:
        path = _built(compiler)
        _open_threads()
        return ctypes.CDLL(str(path)), f"built with {compiler}"
    except (OSError, subprocess.SubprocessError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__]
        return None, f"could not be built: {lines[0]}"


def find_compiler() -> str | None:
    """The C compiler to use: $CC, else gcc, else cc."""
    for name in (os.environ.get("CC"), "gcc", "cc"):
        if name and (path := shutil.which(name)):
            return path
    return None


def _built(compiler: str) -> Path:
    """The compiled library, made now if this source, compiler and processor have not met before."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCES, *HEADERS)]
    flags = (*FLAGS, *shlex.split(os.environ.get("CHATSMITH_CFLAGS", "")))
    parts = (*texts, version, " ".join(flags), _processor())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    folder = cache_dir() / "kernels"
    path = folder / f"kernels-{digest}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            # One compiler per file, side by side: the whole takes as long as the longest.
            objects = [Path(scratch, source.stem + ".o") for source in SOURCES]
            compile_ = [
                [compiler, *flags, "-c", str(source), "-o", str(made)]
                for source, made in zip(SOURCES, objects, strict=True)
            ]
            with ThreadPoolExecutor() as pool:
                list(pool.map(_run, compile_))
            made = Path(scratch, "kernels.so")
            _run([compiler, *flags, "-shared", *map(str, objects), "-lm", "-o", str(made)])
            os.replace(made, path)
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def _processor() -> str:
    """What -march=native depends on: the flags of the first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _open_threads() -> None:
    """Make PyTorch's own OpenMP visible to the kernels, so that one pool of threads serves both."""
    import torch

    if hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return
    for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return
    ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
