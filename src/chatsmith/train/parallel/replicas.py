"""Replicas: every process has the whole model and reads its own rows; each weight is stepped by the one that owns it.

Gradients are summed in float32 where their weight is owned, and the stepped weight goes back to all: what an all-reduce
would send, but each process keeps averages of its own weights only (ZeRO stage 1, Rajbhandari et al. 2020), and Muon's
products are computed once. Layers run as on one process, fused kernels included. What is sent is copied a few buckets
at a time, so that it takes no room that grows with the model.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chatsmith.store.pieces import Piece
from chatsmith.train.optimizers import TrainingOptimizer, norm_of
from chatsmith.train.precision import sum_dtype
from chatsmith.train.recipe_tables import Optimizer as Settings
from chatsmith.train.spare import release

Named = list[tuple[str, nn.Parameter]]
_BUCKET_NUMBERS = 2**20  # sent together; 4 MB in float32, which takes far longer than to begin
_AT_ONCE = 8  # buckets under way


def owners(named: Named, size: int) -> list[Named]:
    """The parameters that each of `size` processes owns: about as many numbers each, the same on every process."""
    shares: list[Named] = [[] for _ in range(size)]
    held = [0] * size
    for name, parameter in sorted(named, key=lambda item: -item[1].numel()):
        least = held.index(min(held))
        shares[least].append((name, parameter))
        held[least] += parameter.numel()
    return shares


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a weight's numbers, in the order in which they lie."""

    parameter: nn.Parameter
    begin: int
    size: int

    def of(self, tensor: Tensor) -> Tensor:
        """These numbers of a tensor of the weight's shape; they share its memory."""
        return tensor.view(-1)[self.begin : self.begin + self.size]

    def gradient(self) -> Tensor:
        """The weight's gradient, as one piece of memory; of zeros where none reached it."""
        gradient = self.parameter.grad
        if gradient is None or not gradient.is_contiguous():
            gradient = torch.zeros_like(self.parameter) if gradient is None else gradient.contiguous()
            self.parameter.grad = gradient
        return gradient


Bucket = list[Slice]
Exchange = tuple[dist.Work, Callable[[], object]]
"""What is under way, and what to do once it is done."""


def buckets(shares: Sequence[Named]) -> list[tuple[int, Bucket]]:
    """The numbers of all weights in buckets of bounded size, each with its owner; the owners take turns."""
    found: list[list[tuple[int, Bucket]]] = []
    for owner, share in enumerate(shares):
        own: list[Bucket] = []
        room = 0
        for _, parameter in share:
            begin, end = 0, parameter.numel()
            while begin < end:
                if room == 0:
                    own.append([])
                    room = _BUCKET_NUMBERS
                size = min(room, end - begin)
                own[-1].append(Slice(parameter, begin, size))
                begin, room = begin + size, room - size
        found.append([(owner, bucket) for bucket in own])
    return [bucket for turn in zip_longest(*found) for bucket in turn if bucket is not None]


def _one_after_another(exchanges: Iterable[Exchange]) -> None:
    """Begin the exchanges in turn, and finish them in turn: only a few are under way, so that their copies are few."""
    under_way: deque[Exchange] = deque()
    for exchange in exchanges:
        under_way.append(exchange)
        if len(under_way) == _AT_ONCE:
            _finish(under_way.popleft())
    while under_way:
        _finish(under_way.popleft())


def _finish(exchange: Exchange) -> None:
    work, then = exchange
    work.wait()
    then()


class ReplicaOptimizer(TrainingOptimizer):
    """The optimizer of a model that every process of the run holds a copy of."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self._rank, size = dist.get_rank(), dist.get_world_size()
        self.every = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        shares = owners(self.every, size)
        self._buckets = buckets(shares)
        super().__init__(shares[self._rank], settings)

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
        release(parameter for _, parameter in self.every)

    def _sum_gradients(self) -> None:
        """Put the sums of all processes' gradients where their weights are owned."""
        _one_after_another(self._sum(owner, bucket) for owner, bucket in self._buckets)

    def _sum(self, owner: int, bucket: Bucket) -> Exchange:
        wide = sum_dtype(bucket[0].parameter.dtype)
        flat = torch.cat([part.of(part.gradient()).to(wide) for part in bucket])
        work = dist.reduce(flat, owner, async_op=True)

        def finish() -> None:
            if owner == self._rank:
                for part, summed in zip(bucket, _cut(flat, bucket), strict=True):
                    part.of(part.gradient()).copy_(summed)

        return work, finish

    def _spread(self) -> None:
        """Give every process the weights that were stepped elsewhere."""
        _one_after_another(self._give(owner, bucket) for owner, bucket in self._buckets)

    def _give(self, owner: int, bucket: Bucket) -> Exchange:
        weights = [part.of(part.parameter.detach()) for part in bucket]
        own = owner == self._rank
        flat = torch.cat(weights) if own else weights[0].new_empty(sum(part.size for part in bucket))
        work = dist.broadcast(flat, owner, async_op=True)
        return work, lambda: None if own else torch._foreach_copy_(weights, _cut(flat, bucket))

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


def _cut(flat: Tensor, bucket: Bucket) -> list[Tensor]:
    return list(flat.split([part.size for part in bucket]))


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
