"""A layout with its bill and its speed, and how both are shown."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.efficiency import StepTime, recomputed_flops_per_token, sent_bytes, step_time
from chatsmith.plan.memory import MemoryBill, memory_of
from chatsmith.plan.parallel import Grid, Layout, Links, Workload
from chatsmith.specs import ModelSpec
from chatsmith.tables import Bar, Cell, Column, Report, Table

_REPLICAS, _STAGES = 4, 8
"""How many the picture draws in full; of more, the first ones and the last, so that it fits 80 columns."""


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What one kind of parallelism sends, for each device and step, and the seconds that computing does not hide."""

    group: Literal["tensor", "context", "pipeline", "data"]
    devices: int
    link: Literal["inside a node", "between nodes"]
    bytes_sent: float
    exposed_seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class LayoutPlan(Report):
    """A layout for a workload on so many devices: whether it fits, and how fast it is predicted to be.

    `model_tflops_per_device` and `mfu` count what the model needs, attention in full (Chowdhery et al. 2022, appendix
    B); `hardware_tflops_per_device` and `hfu` add what is computed again. `bubble` is the share of the step that a
    pipeline stage stands idle. `micro_batches` is how many each replica sees in a step.
    """

    device: str
    devices: int
    devices_per_node: int
    layout: Layout
    spec: ModelSpec
    context_tokens: int
    rows_per_step: int
    micro_batches: int
    memory_bytes: MemoryBill[float]
    memory_total_bytes: float
    device_memory_bytes: float
    step_seconds: StepTime[float]
    step_total_seconds: float
    tokens_per_second: float
    model_tflops_per_device: float
    hardware_tflops_per_device: float
    peak_tflops: float
    mfu: float
    hfu: float
    bubble: float
    links: tuple[LinkUse, ...]

    @property
    def headline(self) -> str:
        """The devices and how fast they are together."""
        return f"on {self.devices:,} × {self.device}: {self.tokens_per_second:,.0f} tokens/s"

    @property
    def fits(self) -> bool:
        """Whether the bill is no larger than the device's memory."""
        return self.memory_total_bytes <= self.device_memory_bytes

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, over all devices."""
        return self.rows_per_step * self.context_tokens

    def tables(self) -> list[Table]:
        """The picture, the speed, the seconds of a step, the links and the memory."""
        return [
            self.picture(),
            self._speed(),
            self._memory(),
            self._seconds(),
            *([self._links()] if self.links else []),
        ]

    def picture(self) -> Table:
        """Replicas beside each other, pipeline stages below each other, and a square for each device of a stage."""
        layout = self.layout
        squares = layout.tensor * layout.context
        cell = "■" * squares if squares <= 8 else f"■×{squares}"
        replicas, stages = _some(layout.data, _REPLICAS), _some(layout.pipeline, _STAGES)
        columns = [Column("stage", "left"), Column("layers", "left")]
        columns += [Column(f"replica {n}" if n else "", "left", code=True) for n in replicas]
        columns.append(Column("held besides", "left"))
        rows: list[tuple[Cell, ...]] = []
        for stage in stages:
            if not stage:
                rows.append(("⋮", "⋮", *("⋮" if n else "" for n in replicas), ""))
                continue
            held = ["embedding"] if stage == 1 else []
            held += ["output head"] if stage == layout.pipeline else []
            cells = [cell if n else "…" for n in replicas]
            spans = [f"{a}–{b}" if b > a else str(a) for a, b in self.layers_of(stage)]
            shown = ", ".join(spans if len(spans) <= 3 else [*spans[:2], "…", spans[-1]])
            rows.append((str(stage), shown, *cells, ", ".join(held)))
        parts = {"data": layout.data, "tensor": layout.tensor, "context": layout.context, "pipeline": layout.pipeline}
        division = " × ".join(f"{name} {size}" for name, size in parts.items() if size > 1) or "nothing divided"
        note = [f"{layout.micro_batch} × {self.context_tokens} tokens at a time, {self.micro_batches} times a step"]
        note += [f"ZeRO stage {layout.zero}"] if layout.zero else []
        note.append({"none": "nothing recomputed", "selective": "attention recomputed", "full": "layers recomputed"}[
            layout.recompute
        ])  # fmt: skip
        note += [f"{layout.interleave} chunks of layers a stage, interleaved"] if layout.interleave > 1 else []
        title = f"{self.devices} × {self.device}, {self.devices_per_node} to a node: {division}"
        return Table(title, tuple(columns), tuple(rows), note="; ".join(note))

    def layers_of(self, stage: int) -> list[tuple[int, int]]:
        """The layers that a pipeline stage holds (both count from 1), as first and last of each chunk."""
        layout, layers = self.layout, self.spec.layers
        chunks = layout.pipeline * layout.interleave
        each = -(-layers // chunks)
        # What is missing from equal chunks is taken from the last ones, one layer each, for the head takes time too.
        full = layers - chunks * (each - 1)
        spans = []
        for chunk in range(stage - 1, chunks, layout.pipeline):
            before = chunk * each - max(0, chunk - full)
            spans.append((before + 1, before + each - (chunk >= full)))
        return [(first, last) for first, last in spans if last >= first]

    def _speed(self) -> Table:
        rows = [
            ("model FLOPs", f"{self.model_tflops_per_device:.1f}", f"{self.mfu:.1%}", "MFU: attention in full"),
            (
                "hardware FLOPs",
                f"{self.hardware_tflops_per_device:.1f}",
                f"{self.hfu:.1%}",
                "HFU: and what is recomputed",
            ),
        ]
        columns = (Column("counted", "left"), Column("TFLOP/s per device"), Column("of peak"), Column("", "left"))
        title = f"{self.tokens_per_second:,.0f} tokens/s, {self.step_total_seconds:.3g} s per step"
        note = f"steps of {self.rows_per_step:,} × {self.context_tokens:,} tokens; peak {self.peak_tflops:g} TFLOP/s"
        return Table(title, columns, tuple(rows), note=note)

    def _memory(self) -> Table:
        bill = {item.name: float(getattr(self.memory_bytes, item.name)) for item in fields(MemoryBill)}
        rows = [
            (name.replace("_", " "), Bar(value / self.device_memory_bytes, f"{value / 1e9:.2f}"))
            for name, value in bill.items()
            if value
        ]
        rows.append(
            ("total", Bar(self.memory_total_bytes / self.device_memory_bytes, f"{self.memory_total_bytes / 1e9:.2f}"))
        )
        title = f"memory of the fullest device, GB of {self.device_memory_bytes / 1e9:g}"
        return Table(title, (Column("", "left"), Column("GB", "left")), tuple(rows), frozenset({len(rows) - 1}))

    def _seconds(self) -> Table:
        spent = {item.name: float(getattr(self.step_seconds, item.name)) for item in fields(StepTime)}
        rows = [
            (
                name.replace("_", " "),
                f"{seconds:.3g}",
                Bar(seconds / self.step_total_seconds, f"{seconds / self.step_total_seconds:.1%}"),
            )
            for name, seconds in spent.items()
            if seconds > 0
        ]
        note = "communication: what computing does not hide"
        return Table(
            "where a step goes", (Column("", "left"), Column("s"), Column("share", "left")), tuple(rows), note=note
        )

    def _links(self) -> Table:
        rows = tuple(
            (use.group, str(use.devices), use.link, f"{use.bytes_sent / 1e9:.3g}", f"{use.exposed_seconds:.3g}")
            for use in self.links
        )
        columns = (
            Column("group", "left"),
            Column("of"),
            Column("link", "left"),
            Column("GB sent"),
            Column("s not hidden"),
        )
        return Table("communication of a device in a step", columns, rows)


def _some(count: int, most: int) -> list[int]:
    """The numbers to draw, from 1; 0 stands for those left out."""
    return list(range(1, count + 1)) if count <= most else [*range(1, most - 1), 0, count]


def make_plan(work: Workload, device: Accelerator, links: Links, layout: Layout) -> LayoutPlan:
    """The bill and the predicted speed of one layout, whether it fits or not."""
    layout.check(work)
    grid = Grid.of([layout])
    bill, spent, sent = memory_of(work, layout), step_time(work, device, links, grid), sent_bytes(work, links, grid)
    seconds: StepTime[float] = StepTime(*(float(getattr(spent, item.name)[0]) for item in fields(spent)))
    total = seconds.total
    model = work.spec.training_flops_per_token(work.context)
    again = recomputed_flops_per_token(work.spec, work.context, layout.recompute)
    rate = work.tokens / total
    peak = (work.fp8 and device.fp8_tflops) or device.training_tflops
    per_device = rate / layout.devices / 1e12
    sizes = {"tensor": layout.tensor, "context": layout.context, "pipeline": layout.pipeline}
    sizes["data"] = layout.data * layout.context
    uses = tuple(
        LinkUse(
            group,  # type: ignore[arg-type]
            size,
            "inside a node" if getattr(sent, f"{group}_inside")[0] else "between nodes",
            float(getattr(sent, group)[0]),
            getattr(seconds, f"{group}_communication"),
        )
        for group, size in sizes.items()
        if size > 1
    )
    return LayoutPlan(
        device=device.name,
        devices=layout.devices,
        devices_per_node=min(links.node, layout.devices),
        layout=layout,
        spec=work.spec,
        context_tokens=work.context,
        rows_per_step=work.rows,
        micro_batches=layout.accumulation(work.rows),
        memory_bytes=bill,
        memory_total_bytes=bill.total,
        device_memory_bytes=device.memory_gb * 1e9,
        step_seconds=seconds,
        step_total_seconds=total,
        tokens_per_second=rate,
        model_tflops_per_device=per_device * model,
        hardware_tflops_per_device=per_device * (model + again),
        peak_tflops=peak,
        mfu=per_device * model / peak,
        hfu=per_device * (model + again) / peak,
        bubble=float(seconds.bubble) / total,
        links=uses,
    )
