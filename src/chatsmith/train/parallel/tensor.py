"""Tensor parallelism: every layer divided over a group (Shoeybi et al. 2019), with its norms and residuals, too, where
`sequence` (Korthikanti et al. 2022).

Queries, keys, values and the first maps of the feed-forward are cut by their outputs, the maps back by their inputs,
the embedding and the head by the vocabulary. What flows between layers is a plain tensor: whole on every process, or
that process' part of the tokens. A weight is a DTensor, so sharding and checkpoints know which part it is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from chatsmith.models.decoder import Decoder

_WHOLE: Placement = Replicate()
_TOKENS: Placement = Shard(1)
_LAST: Placement = Shard(2)
_BY_OUTPUT: dict[str, Placement] = {"weight": Shard(0), "bias": Shard(0)}
_BY_INPUT: dict[str, Placement] = {"weight": Shard(1)}


def tensor_parallel(model: Decoder, mesh: DeviceMesh, *, sequence: bool) -> None:
    """Divide `model` in place over `mesh`; its layers then take and give tensors [B, T, E], or with `sequence` the
    part [B, T/t, E] of this process."""
    between = _TOKENS if sequence else _WHOLE
    block: Any
    for block in model.blocks.children():
        _divide(block.attention_norm, mesh, {}, between, between, between)
        _gather(block.attention, mesh, between)
        for part in (block.attention.query, block.attention.key, block.attention.value):
            _divide(part, mesh, _BY_OUTPUT, _WHOLE, _WHOLE, _LAST)
        for norm in (block.attention.query_norm, block.attention.key_norm):
            if norm is not None:
                _divide(norm, mesh, {}, Shard(2), Shard(2), Shard(2))  # of [B, T, H, D] each has some heads
        _divide(block.attention.output, mesh, _BY_INPUT, _LAST, _LAST, between)
        _divide(block.ffn_norm, mesh, {}, between, between, between)
        _gather(block.ffn, mesh, between)
        for name in ("gate", "up"):
            if hasattr(block.ffn, name):
                _divide(getattr(block.ffn, name), mesh, _BY_OUTPUT, _WHOLE, _WHOLE, _LAST)
        _divide(block.ffn.down, mesh, _BY_INPUT, _LAST, _LAST, between)
    if hasattr(model, "embed"):
        _divide(model.embed, mesh, {"weight": Shard(0)}, _WHOLE, _WHOLE, between)
    if hasattr(model, "positions"):
        _divide(model.positions, mesh, {}, _WHOLE, between, between)
    if hasattr(model, "norm"):
        _divide(model.norm, mesh, {}, between, between, between)
    if hasattr(model, "head"):
        _distribute(model.head, mesh, {"weight": Shard(0)})
    model.fuses = False  # the kernels of a whole layer want the whole of its weights


def _distribute(module: nn.Module, mesh: DeviceMesh, placements: dict[str, Placement]) -> None:
    """Make the module's own weights DTensors, replicated unless said otherwise; every process holds all of them now."""
    for name, weight in list(module.named_parameters(recurse=False)):
        where = [placements.get(name, _WHOLE)]
        module.register_parameter(name, nn.Parameter(distribute_tensor(weight, mesh, where, src_data_rank=None)))


def _gather(module: nn.Module, mesh: DeviceMesh, given: Placement) -> None:
    """Give a module the whole of its input, once for all that reads it there."""

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return _as(inputs[0], mesh, given, _WHOLE), *inputs[1:]

    module.register_forward_pre_hook(before)


def _divide(
    module: nn.Module,
    mesh: DeviceMesh,
    weights: dict[str, Placement],
    given: Placement,
    wanted: Placement,
    gives: Placement,
) -> None:
    """Divide a module's weights; its input, placed as `given`, is made `wanted`, and its output `gives`, locally."""
    _distribute(module, mesh, weights)

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return _as(inputs[0], mesh, given, wanted), *inputs[1:]

    def after(_: nn.Module, inputs: tuple[Any, ...], output: DTensor) -> Tensor:
        return _placed(output, gives).to_local()

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _as(x: Tensor, mesh: DeviceMesh, given: Placement, wanted: Placement) -> DTensor:
    known = x if isinstance(x, DTensor) else DTensor.from_local(x, mesh, [given], run_check=False)
    return _placed(known, wanted)


def _placed(x: DTensor, wanted: Placement) -> DTensor:
    """x, moved only if it must be: PyTorch would do as much work, back and forth, for a tensor that is there."""
    return x if x.placements == (wanted,) else x.redistribute(placements=[wanted])
