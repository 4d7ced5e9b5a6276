"""Where a process stands in a layout: its coordinates, and the groups it talks to.

Ranks are placed in Megatron's order (Narayanan et al. 2021, section 3): tensor groups closest together, then context,
then data, and pipeline stages furthest apart, so that what talks most is nearest. `plan.parallel` prices this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from chatsmith.train.parallel.layouts import AXES
from chatsmith.train.recipe_tables import Parallel


@dataclass(frozen=True)
class Place:
    """The coordinates of this process in a layout, and the meshes of its groups. Building one is collective."""

    parallel: Parallel
    mesh: DeviceMesh

    @classmethod
    def make(cls, parallel: Parallel, device_type: str) -> Place:
        """The place of this process in a filled layout of all processes."""
        sizes = tuple(getattr(parallel, name) for name in AXES)
        return cls(parallel, init_device_mesh(device_type, sizes, mesh_dim_names=AXES))

    def at(self, axis: str) -> int:
        """The coordinate along an axis."""
        return self.mesh.get_local_rank(axis)

    def group(self, axis: str) -> dist.ProcessGroup:
        """The processes that differ from this one along an axis only."""
        return self.mesh.get_group(axis)

    @property
    def replicas(self) -> int:
        """Groups of processes that read different rows."""
        return self.parallel.replicate * self.parallel.shard

    @property
    def replica(self) -> int:
        """Which of them this process belongs to."""
        return self.at("replicate") * self.parallel.shard + self.at("shard")

    @cached_property
    def sharding(self) -> DeviceMesh:
        """The processes that weights are sharded over: those of different rows, and those of parts of one row."""
        inner = self.mesh["shard", "context"]._flatten("sharding") if self.parallel.context > 1 else self.mesh["shard"]
        if self.parallel.replicate == 1:
            return inner
        outer = ("replicate", "sharding" if self.parallel.context > 1 else "shard")
        return self.mesh[outer]
