"""Sharding: every weight, gradient and average cut over a group, and made whole while a layer runs (FSDP2, ZeRO)."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from chatsmith.train.parallel.stage import Stage


def shard(stage: Stage, mesh: DeviceMesh, compute: torch.dtype, *, reshard: bool) -> None:
    """Cut the weights of `stage` in place over the last axis of `mesh`; copies along the first, if it has two.

    Weights stay float32 and are rounded to `compute` where they are gathered; gradients are summed in float32, over
    the processes and over micro-batches. They are summed, not averaged: a loss is divided by the whole step's tokens.
    """
    low = compute if compute in (torch.bfloat16, torch.float16) else None
    policy = MixedPrecisionPolicy(
        param_dtype=low, reduce_dtype=torch.float32 if low else None, cast_forward_inputs=False
    )
    for block in stage.model.blocks.children():
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    # What is left, embedding and head, is wanted at both ends of a pass.
    fully_shard(stage, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    stage.model.compute_dtype = compute
    if stage.model.fuses is None:
        stage.model.fuses = True  # a layer's weights are whole, plain and of this dtype while it runs
