"""Kernels in Triton, which comes with PyTorch for CUDA. Nothing here imports it before it is asked for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from chatsmith.kernels.loading import switched

if TYPE_CHECKING:
    from torch import Tensor


def serves(weight: Tensor) -> bool:
    """Whether these kernels compute with weights like this one: of 16 bits, on a GPU of compute capability 8 or more.

    CHATSMITH_KERNELS=off leaves them off, as it does the others.
    """
    import torch

    if weight.device.type != "cuda" or weight.dtype not in (torch.bfloat16, torch.float16):
        return False
    able = torch.cuda.get_device_capability(weight.device) >= (8, 0) and find_spec("triton") is not None
    return able and switched() is not None
