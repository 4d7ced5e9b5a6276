"""The library of the native backend, for the best instruction set that this processor has.

It is one shared object per instruction set, of plain C called through ctypes, so that one file serves every Python.
Installing the package compiles all of them with the system's compiler (hatch_build.py) into `built/`; where that was
not possible the one that is wanted is compiled on first use into the cache folder, by the same function and under the
same name. Without a compiler, or with CHATSMITH_KERNELS=off, `library` gives None and the torch backend serves.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from chatsmith.kernels.loading import (
    FULL_RATE,
    SWITCH,
    Found,
    Kernels,
    compiling,
    find_compiler,
    first_line,
    processor,
    vendor,
)
from chatsmith.paths import cache_dir

FOLDER = Path(__file__).parent
BUILT = FOLDER / "built"
_ARM_NAMES = ("aarch64", "arm64")
# Arithmetic may be fused but not reordered or assumed finite: a NaN must stay visible.
_FLAGS = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared", "-pthread", "-fopenmp-simd", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
_SANITIZE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")


@dataclass(frozen=True, slots=True)
class Variant:
    """An instruction set: the compiler's flags for it, and what the processor must have, in /proc/cpuinfo's words."""

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]


def _x86() -> tuple[Variant, ...]:
    v3 = {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"}
    v4 = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"}
    wide = ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512")
    pairs = (*wide, "-mavx512bf16")
    tiles = ("-mamx-tile", "-mamx-int8", "-mamx-bf16")
    return (
        Variant("amx", (*pairs, *tiles), frozenset(v4 | {"avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"})),
        Variant("avx512bf16", pairs, frozenset(v4 | {"avx512_bf16", FULL_RATE})),
        Variant("avx512", wide, frozenset(v4)),
        Variant("avxvnni", ("-march=x86-64-v3", "-mavxvnni"), frozenset(v3 | {"avx_vnni"})),
        Variant("avx2", ("-march=x86-64-v3",), frozenset(v3)),
        Variant("x86-64", ("-march=x86-64",), frozenset()),
    )


def _arm() -> tuple[Variant, ...]:
    matrices = {"asimddp", "i8mm", "bf16"}
    return (
        Variant("i8mm", ("-march=armv8.2-a+dotprod+i8mm+bf16",), frozenset(matrices)),
        Variant("dotprod", ("-march=armv8.2-a+dotprod",), frozenset({"asimddp"})),
        Variant("neon", ("-march=armv8-a",), frozenset()),
    )


def variants(architecture: str | None = None) -> tuple[Variant, ...]:
    """The instruction sets of an architecture (of this machine's when it is left out), best first."""
    name = architecture or platform.machine()
    if name in ("x86_64", "AMD64"):
        return _x86()
    if name in _ARM_NAMES:
        return _arm()
    return (Variant("generic", (), frozenset()),)


def _load(switch: str) -> Found:
    known = {variant.name: variant for variant in variants()}
    if switch and switch not in known:
        return None, f"{SWITCH}={switch} names no instruction set: off, or one of {', '.join(known)}"
    has = _processor()
    chosen = [known[switch]] if switch else [v for v in known.values() if v.needs <= has]
    why = "no instruction set fits"
    for variant in chosen:
        try:
            loaded = ctypes.CDLL(str(find(variant)))
        except (OSError, subprocess.SubprocessError) as error:
            why = first_line(error)
            continue
        if loaded.tiles_allowed():
            return loaded, variant.name
        why = "the system gives no right to use matrix tiles"
    return None, f"could not be built: {why}"


_kernels = Kernels(_load)
library, status = _kernels.library, _kernels.status


def find(variant: Variant) -> Path:
    """The compiled library, made now in the cache folder if installing did not bring it."""
    name = f"{variant.name}-{digest(variant)}.so"
    for folder in (BUILT, cache_dir() / "kernels"):
        if (folder / name).exists():
            return folder / name
    compiler = find_compiler()
    if compiler is None:
        raise OSError("no C compiler found: install gcc for fast generation on the CPU")
    return compile_variant(compiler, variant, cache_dir() / "kernels")


def compile_variant(compiler: str, variant: Variant, folder: Path) -> Path:
    """Compile the library for one instruction set into `folder`, unless it is there; returns its path."""
    path = folder / f"{variant.name}-{digest(variant)}.so"
    with compiling(folder, 0o755 if folder == BUILT else 0o700) as scratch:
        if path.exists():
            return path
        made = scratch / path.name
        command = [compiler, *flags(variant), *map(str, sorted(FOLDER.glob("*.c"))), "-lm", "-o", str(made)]
        subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        os.replace(made, path)
    return path


def flags(variant: Variant) -> tuple[str, ...]:
    """What the compiler is told."""
    return (*_FLAGS, *variant.flags, *(_SANITIZE if os.environ.get("CHATSMITH_SANITIZE") else ()))


def digest(variant: Variant) -> str:
    """Names a library by what it is made of, so that one made of other source is never loaded."""
    sources = sorted([*FOLDER.glob("*.[ch]"), FOLDER.parent / "numbers.h", FOLDER.parent / "vector.h"])
    text = "\0".join([path.read_text(encoding="utf-8") for path in sources] + list(flags(variant)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# What Linux tells a program of an Arm processor: (AT_HWCAP or AT_HWCAP2, bit), from its asm/hwcap.h; and what macOS
# calls the same.
_HWCAPS = {"asimddp": (16, 20), "i8mm": (26, 13), "bf16": (26, 14)}
_SYSCTLS = {"asimddp": b"FEAT_DotProd", "i8mm": b"FEAT_I8MM", "bf16": b"FEAT_BF16"}


def _processor() -> frozenset[str]:
    """What this processor can do, in the words of /proc/cpuinfo."""
    if platform.machine() in _ARM_NAMES:
        has = {"Linux": _linux_has, "Darwin": _macos_has}.get(platform.system(), lambda word: False)
        return frozenset(word for word in _HWCAPS if has(word))
    return frozenset([*processor().split(), vendor()])


def _linux_has(word: str) -> bool:
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
    kind, bit = _HWCAPS[word]
    return bool(ask(kind) >> bit & 1)


def _macos_has(word: str) -> bool:
    answer, size = ctypes.c_int(0), ctypes.c_size_t(4)
    name = b"hw.optional.arm." + _SYSCTLS[word]
    failed = ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(answer), ctypes.byref(size), None, ctypes.c_size_t(0))
    return not failed and answer.value == 1
