"""Whether the Triton kernels of this room serve. They are imported only behind this door: Triton comes with PyTorch for
CUDA, and with nothing else."""

from __future__ import annotations

from functools import lru_cache
from importlib import util

import torch
from torch import Tensor, nn

from chatsmith.kernels.loading import switched

_SERVED = (torch.float32, torch.bfloat16, torch.float16)


def ready(x: Tensor) -> bool:
    """Whether the kernels serve tensors like x: plain ones on a GPU, where there is Triton, outside traced graphs."""
    if not x.is_cuda or x.dtype not in _SERVED or torch.compiler.is_compiling():
        return False
    return type(x) in (Tensor, nn.Parameter) and _found()


def generates(weight: Tensor) -> bool:
    """Whether the kernels of generation compute with weights like this one: of 16 bits, on a GPU of compute capability
    8 or more."""
    if weight.dtype not in (torch.bfloat16, torch.float16) or not ready(weight):
        return False
    return torch.cuda.get_device_capability(weight.device) >= (8, 0)


@lru_cache(maxsize=1)
def _found() -> bool:
    return switched() is not None and util.find_spec("triton") is not None
