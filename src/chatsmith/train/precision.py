"""What this machine trains in: its dtype, its kernels of attention, and an allocator that keeps pages between steps."""

from __future__ import annotations

import ctypes
import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from chatsmith.errors import RequestError
from chatsmith.kernels.loading import FULL_RATE, vendor

Compute = Literal["auto", "float32", "bfloat16"]


def compute_dtype(wanted: Compute, device: torch.device) -> torch.dtype:
    """The dtype to train in: bfloat16 where the device multiplies it faster than float32, unless told otherwise."""
    if wanted == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else torch.float32
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]
    except KeyError:
        raise RequestError(f"no precision {wanted!r}", "choose auto, float32 or bfloat16") from None


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums of numbers of a dtype are kept in: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Without its own instructions a CPU emulates bfloat16, which is slower than float32.
    if any(_cpu_says(test) for test in ("_is_amx_tile_supported", "_is_arm_bf16_supported")):
        return True
    return _cpu_says("_is_avx512_bf16_supported") and vendor() == FULL_RATE


def _cpu_says(test: str) -> bool:
    return bool(getattr(torch.cpu, test, bool)())


_HOPPER = (9, 0)
_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def attention_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Within it, attention runs on the fastest kernel that there is for it: from NVIDIA's Hopper on that is cuDNN's,
    which PyTorch would come to last."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < _HOPPER:
        return nullcontext()
    return sdpa_kernel(_ATTENTION, set_priority=True)


_MALLOPT = {
    "M_ARENA_MAX": (-8, 1),
    "M_MMAP_MAX": (-4, 0),
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),
    "M_TOP_PAD": (-2, 2**26),
}


def keep_memory() -> bool:
    """Tell the C library to keep freed memory for the next step rather than give it back to the system.

    glibc returns every block above 32 MiB (often above 128 KiB) at once, and each step then faults its pages in anew:
    up to half the time of an attention call on a CPU. True where it was done (glibc only). Peak memory is unchanged.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(option, value) == 1 for option, value in _MALLOPT.values())
