"""Gradients of several backward passes, summed without losing the small ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class GradientSums:
    """Float32 sums of bfloat16 gradients: in bfloat16 itself, the 257th equal term would add nothing any more."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._sums: list[Tensor] = []

    @torch.no_grad()
    def take(self) -> None:
        """Add the gradients that the parameters hold, and clear them."""
        if not self._sums:
            self._sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in self._parameters]
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad)
                parameter.grad = None

    @torch.no_grad()
    def put(self) -> None:
        """Give the parameters the sums as their gradients, rounded once, and begin again at zero."""
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            parameter.grad = total.to(parameter.dtype)
        torch._foreach_zero_(self._sums)
