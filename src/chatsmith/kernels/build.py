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
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chatsmith.kernels.loading import Found, Kernels, compiling, find_compiler, processor
from chatsmith.paths import cache_dir

SOURCES = sorted(Path(__file__).parent.glob("*.c"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
# Arithmetic may be fused but not reordered or assumed finite: a NaN must stay visible.
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"),
    *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)


def _load(_: str) -> Found:
    compiler = find_compiler()
    if compiler is None:
        return None, "no C compiler found: install gcc for faster training on the CPU"
    path = _built(compiler)
    _open_threads()
    return ctypes.CDLL(str(path)), f"built with {compiler}"


_kernels = Kernels(_load)
library, status = _kernels.library, _kernels.status


def _built(compiler: str) -> Path:
    """The compiled library, made now if this source, compiler and processor have not met before."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCES, *HEADERS)]
    flags = (*FLAGS, *shlex.split(os.environ.get("CHATSMITH_CFLAGS", "")))
    parts = (*texts, version, " ".join(flags), processor())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    folder = cache_dir() / "kernels"
    path = folder / f"kernels-{digest}.so"
    if path.exists():
        return path
    with compiling(folder) as scratch:
        if path.exists():
            return path
        # One compiler per file, side by side: the whole takes as long as the longest.
        objects = [scratch / f"{source.stem}.o" for source in SOURCES]
        compile_ = [
            [compiler, *flags, "-c", str(source), "-o", str(made)]
            for source, made in zip(SOURCES, objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, compile_))
        made = scratch / "kernels.so"
        _run([compiler, *flags, "-shared", *map(str, objects), "-lm", "-o", str(made)])
        os.replace(made, path)
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)


def _open_threads() -> None:
    """Make PyTorch's own OpenMP visible to the kernels, so that one pool of threads serves both."""
    import torch

    if hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return
    for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return
    ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
