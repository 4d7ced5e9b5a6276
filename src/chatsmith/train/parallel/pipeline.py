"""The pipeline: stages of layers on a group of processes, and PyTorch's schedules that run micro-batches through them.

GPipe (Huang et al. 2019), 1F1B (Narayanan et al. 2019), interleaved stages (Narayanan et al. 2021) and the schedules
without a bubble (Qi et al. 2023), which go back for the inputs first and for the weights when there is time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, schedules

from chatsmith.errors import RequestError
from chatsmith.train.parallel.place import Place
from chatsmith.train.parallel.stage import Stage
from chatsmith.train.recipe_tables import Parallel

_SCHEDULES = {
    "gpipe": "ScheduleGPipe",
    "1f1b": "Schedule1F1B",
    "interleaved": "ScheduleInterleaved1F1B",
    "zero-bubble": "ScheduleInterleavedZeroBubble",
    "zero-bubble-v": "ScheduleZBVZeroBubble",
}


def stages_of(parallel: Parallel, number: int) -> list[int]:
    """The stages of the process with this number in its pipeline."""
    size, each = parallel.pipeline, parallel.stages
    if parallel.schedule == "zero-bubble-v" and size > 1:
        return [number, 2 * size - 1 - number]
    return [number + size * chunk for chunk in range(each)]


def holder(parallel: Parallel, stage: int) -> int:
    """The process of the pipeline that holds a stage."""
    if parallel.schedule == "zero-bubble-v":
        return min(stage, 2 * parallel.pipeline - 1 - stage)
    return stage % parallel.pipeline


class Pipeline:
    """Runs micro-batches through the stages of which this process holds some."""

    def __init__(self, place: Place, stages: list[Stage], device: torch.device) -> None:
        self._place, self._stages, self._device = place, stages, device
        self._group = place.group("pipeline")
        self._schedule_of = lru_cache(maxsize=8)(self._made)
        name = _SCHEDULES[place.parallel.schedule]
        if not hasattr(schedules, name):
            raise RequestError(f"this PyTorch has no {name}", 'choose parallel.schedule = "1f1b"')
        self._kind: Any = getattr(schedules, name)

    def micro_batches(self, rows: int, most: int) -> tuple[int, int]:
        """How `rows` are cut: at most `most` at a time, and at least as many parts as keep the pipeline busy."""
        parallel = self._place.parallel
        parts = parallel.pipeline * parallel.stages
        each = max(1, min(most, rows // parts))
        number = max(-(-rows // each), parts)
        return each, -(-number // parallel.pipeline) * parallel.pipeline

    def run(self, data: dict[str, Tensor], rows: int, number: int, *, train: bool) -> list[Tensor]:
        """Forward, and back where `train`, over `number` micro-batches of `rows` rows; returns losses, if any here."""
        if not train:
            return self._forward(data, rows)
        schedule = self._schedule_of(rows)(number)
        inputs = data["inputs"]
        rest = {name: tensor for name, tensor in data.items() if name != "inputs"}
        losses: list[Tensor] = []
        first = any(stage.first for stage in self._stages)
        last = any(stage.last for stage in self._stages)
        schedule.step(
            *((inputs,) if first else ()),
            target=data["targets"] if last else None,
            losses=losses if last else None,
            **rest,
        )
        return [loss.detach().reshape(1) for loss in losses]

    def _made(self, rows: int) -> Any:
        """For micro-batches of so many rows: a function of their number that gives a schedule."""
        parallel = self._place.parallel
        numbers = stages_of(parallel, self._place.at("pipeline"))
        count = parallel.pipeline * parallel.stages
        made = [
            PipelineStage(
                stage,
                number,
                count,
                self._device,
                input_args=self._example(stage, rows, first=stage.first),
                output_args=torch.empty(1) if stage.last else self._example(stage, rows, first=False),
                group=self._group,
            )
            for stage, number in zip(self._stages, numbers, strict=True)
        ]

        @lru_cache(maxsize=8)
        def schedule(number: int) -> Any:
            single = issubclass(self._kind, schedules.PipelineScheduleSingle)
            return self._kind(made[0] if single else made, number, loss_fn=_loss, scale_grads=False)

        return schedule

    def _example(self, stage: Stage, rows: int, *, first: bool) -> Tensor:
        """A tensor such as flows into a stage."""
        if first:
            return torch.empty(rows, stage.tokens, dtype=torch.int64, device=self._device)
        tokens = stage.tokens // (self._place.parallel.tensor if stage.sequence else 1)
        width, dtype = stage.model.spec.width, stage.model.compute_dtype
        return torch.empty(rows, tokens, width, dtype=dtype, device=self._device, requires_grad=True)

    @torch.no_grad()
    def _forward(self, data: dict[str, Tensor], rows: int) -> list[Tensor]:
        """Losses without a way back, micro-batch after micro-batch, stage after stage."""
        parallel, here = self._place.parallel, self._place.at("pipeline")
        mine = dict(zip(stages_of(parallel, here), self._stages, strict=True))
        losses = []
        for some in zip(*(column.split(rows) for column in data.values()), strict=True):
            part = dict(zip(data, some, strict=True))
            x = part.pop("inputs")
            for number in range(parallel.pipeline * parallel.stages):
                before = holder(parallel, number - 1) if number else here
                if number in mine:
                    stage = mine[number]
                    if number and before != here:
                        x = self._example(stage, rows, first=False).detach()
                        dist.recv(x, dist.get_global_rank(self._group, before), group=self._group)
                    x = stage(x, **part)
                    after = holder(parallel, number + 1) if not stage.last else here
                    if after != here:
                        dist.send(x.contiguous(), dist.get_global_rank(self._group, after), group=self._group)
                    elif stage.last:
                        losses.append(x)
        return losses


def _loss(output: Tensor, target: Tensor) -> Tensor:
    """The last stage gives its loss already."""
    return output.sum()
