"""The room of a large gradient, kept from step to step.

The output head's gradient is the largest tensor that comes and goes with a step: 154 MB for GPT-2. Small things settle
in the gap that it leaves, and then it no longer fits there.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

_LARGE_BYTES = 2**25
_spare: list[Tensor] = []  # one at most


def release(parameters: Iterable[nn.Parameter]) -> None:
    """Let go of the gradients of all parameters; the room of the last large one is kept."""
    for parameter in parameters:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None and _worth_keeping(gradient):
            _spare[:] = [gradient]


def room_like(weight: Tensor) -> Tensor | None:
    """The room that is kept, if a gradient of `weight` fits it; it is the caller's from then on."""
    while _spare:
        room = _spare.pop()
        if (room.shape, room.dtype, room.device) == (weight.shape, weight.dtype, weight.device):
            return room
    return None


def _worth_keeping(gradient: Tensor) -> bool:
    plain = type(gradient) is Tensor and gradient.device.type == "cpu" and gradient.is_contiguous()
    return plain and gradient.nbytes >= _LARGE_BYTES
