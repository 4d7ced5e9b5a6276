"""Numbers whose products show in what order they were summed.

A matrix library picks its kernel by the shape of a product, and another kernel may sum in another order: the last bits
then differ. Which shapes agree is asked of the machine itself, with terms that cancel, over a range of 2²⁴: any other
order gives another sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SEED = 0


def telling(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Rows [rows, inputs] and weights [outputs, inputs] in float32, the same at each call."""
    generator = torch.Generator().manual_seed(_SEED)
    half = max(inputs // 2, 1)
    # Pairs of terms cancel, w·x + (−w)·x, far apart from each other and of very different sizes.
    size = torch.exp2(24 * torch.rand(outputs, half, generator=generator) - 12)
    left = torch.randn(outputs, half, generator=generator) * size
    weight = torch.cat((left, -left, torch.randn(outputs, 1, generator=generator)), dim=1)[:, :inputs]
    order = torch.randperm(weight.shape[1], generator=generator)
    x = torch.randn(rows, half, generator=generator)
    x = torch.cat((x, x, torch.randn(rows, 1, generator=generator)), dim=1)[:, :inputs]
    return x[:, order], weight[:, order]
