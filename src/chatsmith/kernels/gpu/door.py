"""Whether the Triton kernels of this room serve. They are imported only behind this door: Triton comes with PyTorch for
CUDA, and with nothing else."""

from __future__ import annotations

from functools import lru_cache
from importlib import util

import torch
from torch import Tensor, nn

_SERVED = (torch.float32, torch.bfloat16, torch.float16)


def ready(x: Tensor) -> bool:
    """Whether the kernels serve tensors like x: plain ones on a GPU, where there is Triton, outside traced graphs."""
    if not x.is_cuda or x.dtype not in _SERVED or torch.compiler.is_compiling():
        return False
    return type(x) in (Tensor, nn.Parameter) and _found()


@lru_cache(maxsize=1)
def _found() -> bool:
    return util.find_spec("triton") is not None
