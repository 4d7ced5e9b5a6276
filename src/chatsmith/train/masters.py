"""The float32 numbers that an optimizer steps, for weights that the model may hold in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chatsmith.train.precision import sum_dtype

_HALF = 0x8000  # half of the last place of a bfloat16, in the bits of a float32


class Masters:
    """The master of each weight: the weight itself where it is float32, else what it is rounded from.

    `halved` ones take two bytes: a bfloat16 weight is the upper half of its master, rounded (ties away from zero), and
    `lower` holds what is missing of the bits. The weights are then part of their masters: they are not to be changed
    but by `put` and the kernels. Others are tensors of their own, `whole`.
    """

    def __init__(self, weights: Sequence[nn.Parameter], halved: bool) -> None:
        self.weights = list(weights)
        dtype = self.weights[0].dtype
        self.lower: list[Tensor] = []
        self.whole: list[Tensor] = []
        self._own = dtype == torch.float32
        if halved and dtype == torch.bfloat16:
            self.lower = [torch.zeros_like(weight, dtype=torch.int16) for weight in self.weights]
        else:
            self.whole = [w.detach() if self._own else w.detach().to(sum_dtype(dtype)) for w in self.weights]

    def like(self) -> list[Tensor]:
        """Zeros of the masters' shapes and dtype."""
        wide = sum_dtype(self.weights[0].dtype)
        return [torch.zeros_like(weight, dtype=wide, requires_grad=False) for weight in self.weights]

    def get(self, index: int) -> Tensor:
        """One master: the very numbers that are stepped, or a copy where they are halved."""
        return joined(self.weights[index].detach(), self.lower[index]) if self.lower else self.whole[index]

    @torch.no_grad()
    def put(self, index: int, master: Tensor) -> None:
        """Set one master; its weight follows with `publish`."""
        if self.lower:
            halve(master, self.weights[index], self.lower[index])
        else:
            self.whole[index].copy_(master)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the model's own weights from the masters."""
        if not self._own and not self.lower:
            torch._foreach_copy_([weight.data for weight in self.weights], self.whole)


def halve(master: Tensor, upper: Tensor, lower: Tensor) -> None:
    """Write a float32 tensor as a bfloat16 one and the int16 rest of its bits."""
    bits = master.contiguous().view(torch.int32)
    rounded = (bits + _HALF) >> 16
    upper.view(torch.int16).copy_(rounded)
    lower.copy_(bits - (rounded << 16))


def joined(upper: Tensor, lower: Tensor) -> Tensor:
    """The float32 tensor that `halve` wrote."""
    return ((upper.view(torch.int16).to(torch.int32) << 16) + lower).view(torch.float32)
