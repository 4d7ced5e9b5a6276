"""Which device computes, and in which numbers."""

from __future__ import annotations

from typing import Any

import torch

from chatsmith.arguments import short
from chatsmith.errors import RequestError


def device_of(asked: Any = None) -> torch.device:
    """The device that was asked for; without one the GPU where there is one, else the CPU.

    Raises `RequestError` for what is no device, or is not here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked is None:
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise RequestError(f"there is no device {short(asked)}", 'for example "cpu", "cuda" or "cuda:1"') from None
    if device.type == "cuda" and (device.index or 0) >= gpus:
        here = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "no GPU that PyTorch can use"
        raise RequestError(f"there is no device {str(device)!r} here: this machine has {here}", "leave device out")
    if device.type == "meta":
        raise RequestError("nothing is computed on the device 'meta'", "leave device out")
    return device


_NUMBERS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype_of(asked: Any) -> torch.dtype | None:
    """The type of number that was asked for, by PyTorch's object or its name; None stays None.

    Raises `RequestError` for what models are not computed in.
    """
    if asked is None:
        return None
    for name, dtype in _NUMBERS.items():
        if asked is dtype or asked == name:
            return dtype
    raise RequestError(f"dtype must be one of {', '.join(_NUMBERS)}, not {short(asked)}", "or leave it out")
