"""The optimizer of a divided model: it steps the part of every weight that this process holds.

AdamW goes number by number, so it steps parts as it would the whole. Muon wants whole matrices: their momentum stays
divided, and is gathered for the product alone.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from chatsmith.errors import WorkError
from chatsmith.store.pieces import Piece
from chatsmith.train.optimizers import Part, TrainingOptimizer, is_inner_matrix, norm_of, orthogonalise
from chatsmith.train.parallel.place import Place
from chatsmith.train.parallel.replicas import gathered_masters
from chatsmith.train.parallel.stage import Stage
from chatsmith.train.recipe_tables import Optimizer as Settings

_TIED = "embed.weight"


@dataclass(frozen=True)
class _Divided:
    """A weight [whole] that this process holds a part of; `local` shares the part's memory."""

    name: str
    weight: DTensor
    local: nn.Parameter
    at: tuple[int, ...]
    copy_of_tied: bool

    @classmethod
    def of(cls, name: str, weight: DTensor, copy_of_tied: bool) -> _Divided:
        local = nn.Parameter(weight.to_local().detach())
        shape, at = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
        if tuple(local.shape) != tuple(shape):
            raise WorkError(f"{name}: this PyTorch lays out parts of weights in a way that is not known here")
        return cls(name, weight, local, tuple(at), copy_of_tied)

    @property
    def copies(self) -> int:
        """How many processes hold this very part."""
        mesh = self.weight.device_mesh
        return math.prod(mesh.size(axis) for axis, p in enumerate(self.weight.placements) if p.is_replicate())

    @property
    def first(self) -> bool:
        """Whether this process speaks for the part: it is the first of those that hold it."""
        coordinates: Sequence[int] = self.weight.device_mesh.get_coordinate() or ()
        held = zip(coordinates, self.weight.placements, strict=True)
        return not self.copy_of_tied and all(at == 0 for at, placement in held if placement.is_replicate())

    def whole(self, part: Tensor) -> Tensor:
        """The tensor of which every process holds such a part. Collective."""
        spec = self.weight
        divided = DTensor.from_local(
            part, spec.device_mesh, spec.placements, run_check=False, shape=spec.shape, stride=spec.stride()
        )
        return divided.full_tensor()

    def part(self, whole: Tensor) -> Tensor:
        """This process' part of a whole tensor."""
        return whole[tuple(slice(a, a + n) for a, n in zip(self.at, self.local.shape, strict=True))]


class DividedOptimizer(TrainingOptimizer):
    """Steps the stages of this process, from gradients that sharding has summed."""

    def __init__(self, stages: Sequence[Stage], settings: Settings, place: Place) -> None:
        self._place = place
        self._divided = [
            _Divided.of(name, cast(DTensor, weight), name == _TIED and stage.last and not stage.first)
            for stage in stages
            for name, weight in stage.model.named_parameters()
        ]
        inner = [d for d in self._divided if settings.name == "muon" and is_inner_matrix(d.name, d.weight)]
        chosen = {d.name for d in inner}
        # A process may hold nothing of a small weight; Muon gathers its matrices, and wants everyone there.
        rest = [(d.name, d.local) for d in self._divided if d.name not in chosen and d.local.numel()]
        super().__init__(rest, settings)
        self.parameters = [d.local for d in self._divided]
        shapes: dict[torch.Size, list[_Divided]] = defaultdict(list)
        for d in inner:
            shapes[d.weight.shape].append(d)
        self._parts += [_DividedMuon(group, settings, stages[0].model.dtype) for group in shapes.values()]
        self._ties = _Ties(stages, self._divided, place)

    def gradient_norm(self) -> Tensor:
        """The norm of the gradients of all processes together, every number counted once."""
        square = torch.zeros((), dtype=torch.float64)
        for copies, group in self._by_copies().items():
            gradients = [d.local.grad for d in group if d.local.grad is not None and d.local.numel()]
            if gradients:
                square += float(norm_of(gradients)) ** 2 / copies
        dist.all_reduce(square)
        return square.sqrt()

    def _by_copies(self) -> dict[int, list[_Divided]]:
        groups: dict[int, list[_Divided]] = defaultdict(list)
        for d in self._divided:
            if not d.copy_of_tied:
                groups[d.copies].append(d)
        return groups

    @torch.no_grad()
    def step(self, factor: float, gradient_scale: float = 1.0) -> float:
        """As on one process."""
        for d in self._divided:
            gradient = d.weight.grad
            local = None if gradient is None else gradient.to_local()  # type: ignore[attr-defined]
            d.local.grad = torch.zeros_like(d.local) if local is None else local
        self._ties.sum_gradients()
        return super().step(factor, gradient_scale)

    def zero_grad(self) -> None:
        """Release all gradients."""
        for d in self._divided:
            d.weight.grad = d.local.grad = None

    def masters(self) -> dict[str, Tensor]:
        """The float32 weights of the whole model in the first process; none in the others. Collective."""
        mine = [(d.name, d.at, d.local.detach()) for d in self._divided if d.first and d.local.numel()]
        found: list[dict[str, torch.Size] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(found, {d.name: d.weight.shape for d in self._divided})
        return gathered_masters(mine, {name: size for some in found for name, size in (some or {}).items()})

    def state_tensors(self) -> dict[str, Tensor]:
        """What this process speaks for; with `pieces` of all processes, every tensor a resumed run needs."""
        spoken = {d.name for d in self._divided if d.first and d.local.numel()}
        return {key: tensor for key, tensor in super().state_tensors().items() if _parameter(key) in spoken}

    def pieces(self) -> Mapping[str, Piece]:
        """Which of the state tensors are parts of larger ones."""
        known = {d.name: Piece(tuple(d.weight.shape), d.at) for d in self._divided}
        return {key: known[_parameter(key)] for key, tensor in self.state_tensors().items() if tensor.ndim}

    def copies(self) -> dict[str, list[Tensor]]:
        """Parts of weights by what they are copies of."""
        groups: dict[str, list[Tensor]] = defaultdict(list)
        stage = self._place.at("pipeline")
        for d in self._divided:
            tied = d.name == _TIED and self._ties.apart
            if tied or (d.copies > 1 and not d.copy_of_tied):
                where = "both ends" if tied else str(stage)
                groups[f"{where} {d.at if d.weight.ndim else ()} {d.name}"].append(d.local.detach())
        return groups

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back this process' parts, whatever layout the state was written under."""
        at = {d.name: d.at for d in self._divided}
        read = getattr(tensors, "piece", None) or partial(_piece, tensors)
        for part in self._parts:
            for key, tensor in part.state():
                if key not in tensors:
                    raise WorkError(f"the checkpoint does not fit this model: {key} is missing")
                if tensor.numel():
                    tensor.copy_(read(key, at[_parameter(key)] if tensor.ndim else (), tensor.shape))


def _piece(tensors: Mapping[str, Tensor], name: str, at: Sequence[int], shape: Sequence[int]) -> Tensor:
    return tensors[name][tuple(slice(a, a + n) for a, n in zip(at, shape, strict=True))]


def _parameter(key: str) -> str:
    """The weight that a state tensor belongs to."""
    return key.split(".", 1)[1]


class _DividedMuon(Part):
    """Muon on matrices of one whole shape [out, in], of which this process holds parts; orthogonalised in `compute`."""

    def __init__(self, divided: list[_Divided], settings: Settings, compute: torch.dtype) -> None:
        super().__init__([(d.name, d.local) for d in divided], settings)
        self._divided, self._compute = divided, compute
        rows, columns = divided[0].weight.shape
        self._stretch = max(1.0, rows / columns) ** 0.5
        self.momentum = self.exact.like()
        # Of a matrix that is cut twice every process would say that gathering takes two exchanges.
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)

    def step(self, factor: float, scale: float) -> None:
        settings = self.settings
        rate = settings.muon_learning_rate * factor
        gradients = [gradient.mul(scale) for gradient in self.gradients()]
        torch._foreach_lerp_(self.momentum, gradients, 1 - settings.momentum)
        ahead = torch._foreach_lerp(gradients, self.momentum, settings.momentum)
        whole = torch.stack([d.whole(part) for d, part in zip(self._divided, ahead, strict=True)])
        update = orthogonalise(whole.to(self._compute)).to(whole.dtype)
        torch._foreach_mul_(self.exact.whole, 1 - rate * settings.weight_decay)
        parts = [d.part(matrix) for d, matrix in zip(self._divided, update.unbind(), strict=True)]
        torch._foreach_add_(self.exact.whole, parts, alpha=-rate * self._stretch)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, master, momentum in zip(self.names, self.exact.whole, self.momentum, strict=True):
            yield f"master.{name}", master
            yield f"momentum.{name}", momentum


class _Ties:
    """An embedding that the first stage reads and the last one multiplies by: two copies, stepped alike."""

    def __init__(self, stages: Sequence[Stage], divided: Sequence[_Divided], place: Place) -> None:
        pipelined = place.parallel.pipeline * place.parallel.stages > 1
        tied = [d for d in divided if d.name == _TIED] if pipelined and stages[0].model.spec.tied else []
        self._first = next((d.local for d in tied if not d.copy_of_tied), None)
        self._last = next((d.local for d in tied if d.copy_of_tied), None)
        self._peer: int | None = None
        if (self._first is None) != (self._last is None):
            group = place.group("pipeline")
            # The last stage is on the last process, unless the stages are laid out in a V; then both are on the first.
            other = 0 if self._first is None else dist.get_world_size(group) - 1
            self._peer = dist.get_global_rank(group, other)

    @property
    def apart(self) -> bool:
        """Whether the copies lie on two processes, one of them this one's."""
        return self._peer is not None

    def sum_gradients(self) -> None:
        """Give both copies the sum of their gradients, added in one order."""
        mine = self._first if self._first is not None else self._last
        if mine is None or mine.grad is None:
            return
        if self._peer is None:
            if self._first is not None and self._last is not None and self._last.grad is not None:
                mine.grad = mine.grad + self._last.grad
                self._last.grad = mine.grad
            return
        theirs, own = torch.empty_like(mine.grad), mine.grad.contiguous()
        requests = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, own, self._peer), dist.P2POp(dist.irecv, theirs, self._peer)]
        )
        for request in requests:
            request.wait()
        mine.grad = own + theirs if self._first is not None else theirs + own
