"""Replicas: every process has the whole model and reads its own rows; each weight is stepped by the one that owns it.

Gradients are summed in float32 where their weight is owned, and the stepped weight goes back to all: what an all-reduce
would send, but each process keeps averages of its own weights only (ZeRO stage 1, Rajbhandari et al. 2020), and Muon's
products are computed once. Layers run as on one process, fused kernels included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chatsmith.store.pieces import Piece
from chatsmith.train.optimizers import TrainingOptimizer, norm_of
from chatsmith.train.recipe_tables import Optimizer as Settings

Named = list[tuple[str, nn.Parameter]]


def owners(named: Named, size: int) -> list[Named]:
    """The parameters that each of `size` processes owns: about as many numbers each, the same on every process."""
    shares: list[Named] = [[] for _ in range(size)]
    held = [0] * size
    for name, parameter in sorted(named, key=lambda item: -item[1].numel()):
        least = held.index(min(held))
        shares[least].append((name, parameter))
        held[least] += parameter.numel()
    return shares


class ReplicaOptimizer(TrainingOptimizer):
    """The optimizer of a model that every process of the run holds a copy of."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self._rank, size = dist.get_rank(), dist.get_world_size()
        self.every = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._shares = owners(self.every, size)
        super().__init__(self._shares[self._rank], settings)

    def gradient_norm(self) -> Tensor:
        """The norm of the gradients of all processes together."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        square = float(norm_of(gradients)) ** 2 if gradients else 0.0
        total = torch.tensor(square, dtype=torch.float64)
        dist.all_reduce(total)
        return total.sqrt()

    @torch.no_grad()
    def step(self, factor: float, gradient_scale: float = 1.0) -> float:
        """As on one process, from the sum of all processes' gradients."""
        self._sum_gradients()
        norm = super().step(factor, gradient_scale)
        if math.isfinite(norm):
            self._spread()
        return norm

    def zero_grad(self) -> None:
        """Release all gradients."""
        for _, parameter in self.every:
            parameter.grad = None

    def _sum_gradients(self) -> None:
        """Put the sums of all processes' gradients where their weights are owned."""
        flats, waits = [], []
        for owner, share in enumerate(self._shares):
            if not share:
                continue
            parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for _, p in share]
            wide = torch.float64 if parts[0].dtype == torch.float64 else torch.float32
            flats.append(torch.cat([part.to(wide) for part in parts]))
            waits.append(dist.reduce(flats[-1], owner, async_op=True))
        for wait in waits:
            wait.wait()
        at = 0
        for owner, share in enumerate(self._shares):
            if share and owner == self._rank:
                for (_, parameter), part in zip(share, _cut(flats[at], share), strict=True):
                    parameter.grad = part.to(parameter.dtype)
            at += bool(share)

    def _spread(self) -> None:
        """Give every process the weights that were stepped elsewhere."""
        sent = []
        for owner, share in enumerate(self._shares):
            if share:
                flat = torch.cat([parameter.detach().flatten() for _, parameter in share])
                sent.append((owner, share, flat, dist.broadcast(flat, owner, async_op=True)))
        for owner, share, flat, wait in sent:
            wait.wait()
            if owner != self._rank:
                torch._foreach_copy_([parameter.data for _, parameter in share], _cut(flat, share))

    def masters(self) -> dict[str, Tensor]:
        """The float32 weights of the whole model in the first process; none in the others. Collective."""
        return gathered_masters([(name, (0,) * m.ndim, m) for name, m in self.own_masters().items()], self.shapes())

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every weight of the model."""
        return {name: parameter.shape for name, parameter in self.every}

    def pieces(self) -> Mapping[str, Piece]:
        """Which of the state tensors are parts of larger ones: none, a process holds whole weights."""
        return {}

    def copies(self) -> dict[str, list[Tensor]]:
        """Weights by what they are copies of: all processes hold the same."""
        return {"the model": [parameter.detach() for _, parameter in self.every]}

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back the state of what is owned, and give everyone its weights."""
        super().load_state_tensors(tensors)
        self._spread()


def _cut(flat: Tensor, share: Named) -> list[Tensor]:
    parts = flat.split([parameter.numel() for _, parameter in share])
    return [part.view(parameter.shape) for part, (_, parameter) in zip(parts, share, strict=True)]


def gathered_masters(
    parts: list[tuple[str, tuple[int, ...], Tensor]], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Whole tensors of these shapes from the parts (name, place of its first number, numbers) that processes hold.

    In the first process; empty in the others. Collective.
    """
    own = [(name, at, part.detach().cpu()) for name, at, part in parts]
    lead = dist.get_rank() == 0
    found: list[list[tuple[str, tuple[int, ...], Tensor]] | None] = [None] * dist.get_world_size()
    dist.gather_object(own, found if lead else None)
    if not lead:
        return {}
    whole: dict[str, Tensor] = {}
    for name, at, part in (item for some in found for item in some or []):
        target = whole.setdefault(name, torch.empty(shapes[name], dtype=part.dtype))
        target[tuple(slice(a, a + n) for a, n in zip(at, part.shape, strict=True))] = part
    return {name: whole[name] for name in shapes}
