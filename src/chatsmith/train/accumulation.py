"""Gradients of several backward passes, summed without losing the small ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from chatsmith.train.spare import release


class GradientSums:
    """Float32 sums of bfloat16 gradients: in bfloat16 itself, the 257th equal term would add nothing any more."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._sums: list[Tensor] = []
        self._wide: list[Tensor] = []  # room for vectors in float32, on a GPU
        self._begun = False

    @torch.no_grad()
    def take(self) -> None:
        """Add the gradients that the parameters hold, and clear them."""
        if not self._sums:
            self._sums = [torch.empty_like(parameter, dtype=torch.float32) for parameter in self._parameters]
        held = [(total, p.grad) for total, p in zip(self._sums, self._parameters, strict=True)]
        if self._begun:
            self._add([(total, gradient) for total, gradient in held if gradient is not None])
        else:
            torch._foreach_copy_(self._sums, [torch.zeros_like(t) if g is None else g for t, g in held])
        self._begun = True
        release(self._parameters)

    def _add(self, held: list[tuple[Tensor, Tensor]]) -> None:
        """Add gradients to their sums. On a GPU the vectors go together: they are most of the tensors and next to none
        of the numbers, and a call for each costs as much as a matrix."""
        together = [pair for pair in held if pair[1].is_cuda and pair[1].ndim < 2]
        for total, gradient in held:
            if not (gradient.is_cuda and gradient.ndim < 2):
                total.add_(gradient)
        if together:
            totals, gradients = (list(side) for side in zip(*together, strict=True))
            if len(self._wide) != len(totals):
                self._wide = [torch.empty_like(total) for total in totals]
            torch._foreach_copy_(self._wide, gradients)
            torch._foreach_add_(totals, self._wide)

    @torch.no_grad()
    def put(self) -> None:
        """Give the parameters the sums as their gradients, rounded once, and begin again."""
        rounded = [torch.empty_like(parameter) for parameter in self._parameters]
        torch._foreach_copy_(rounded, self._sums)
        for parameter, gradient in zip(self._parameters, rounded, strict=True):
            parameter.grad = gradient
        self._begun = False
