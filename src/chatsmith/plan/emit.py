"""Launch files: what starts `chatsmith train` on every device of a layout, by torchrun, Slurm or SkyPilot.

The layout reaches training as settings of the recipe: the rows at a time as `batch.…`, the division as `parallel.…`.
A process that dies is replaced, and a file that is started again goes on with the run that it finds. Arguments given to
a torchrun or Slurm file replace the program that it starts, so that the machines can be tried out first.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Literal, get_args

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.plan.layout_plan import LayoutPlan
from chatsmith.plan.parallel import Layout

Kind = Literal["torchrun", "slurm", "skypilot"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PORT = 29500
RESTARTS = 3
SHARED, VOLUME = "/shared", "FILL-IN-A-VOLUME"
"""Where machines of a cloud share a volume, and what stands for its name until it is filled in."""
_AGAIN = "# Started again, it goes on from the last checkpoint."
_INSTEAD = '[ $# -eq 0 ] || program=("$@")'  # the file's own arguments replace the program
_RUN = "recipe.toml"  # what a folder holds from the moment on that a run has begun in it

_ONE_DEVICE: dict[str, int | str] = {
    "parallel.layout": "given",
    "parallel.replicate": 0,
    "parallel.shard": 1,
    "parallel.reshard": "true",
    "parallel.tensor": 1,
    "parallel.pipeline": 1,
    "parallel.context": 1,
    "parallel.schedule": "1f1b",
    "parallel.interleave": 0,
    "precision.activation_checkpointing": "false",
}
"""How a recipe says what `settings` leaves out."""

# SkyPilot's names for the devices of the catalogue.
_SKYPILOT = {
    "V100-SXM2-16GB": "V100",
    "V100-SXM2-32GB": "V100-32GB",
    "P100-SXM2-16GB": "P100",
    "A100-PCIe-40GB": "A100",
    "A100-SXM4-40GB": "A100",
    "A100-PCIe-80GB": "A100-80GB",
    "A100-SXM4-80GB": "A100-80GB",
    "A40": "A40",
    "A10": "A10",
    "RTX A6000": "RTXA6000",
    "Quadro RTX 6000": "RTX6000",
    "T4": "T4",
    "RTX 3090": "RTX3090",
    "RTX 4090": "RTX4090",
    "RTX 5090": "RTX5090",
    "RTX 6000 Ada": "RTX6000-Ada",
    "L4": "L4",
    "L40S": "L40S",
    "H100-PCIe-80GB": "H100",
    "H100-SXM5-80GB": "H100",
    "H200-SXM-141GB": "H200",
    "B200-SXM": "B200",
    "MI300X": "MI300X",
}


def settings(plan: LayoutPlan) -> dict[str, int | str]:
    """The recipe's settings that make a run of this layout, by their dotted keys.

    The rows of a recipe are those of a whole step, whatever it is divided over. What is as it would be on one device is
    left out. Replicas divide the optimizer's state (ZeRO stage 1) in any case; where the model itself is divided and
    any state is sharded, its data-parallel group shards gradients as well.
    """
    layout, alone = plan.layout, Layout()
    found: dict[str, int | str] = {
        "batch.micro_batch": layout.micro_batch,
        "batch.accumulation": plan.rows_per_step // layout.micro_batch,
        "batch.context": plan.context_tokens,
    }
    whole = layout.tensor == layout.pipeline == layout.context == 1
    if layout.data > 1 and layout.zero > (1 if whole else 0):
        found["parallel.shard"] = layout.data
        if layout.zero < 3:
            found["parallel.reshard"] = "false"
    for name in ("tensor", "pipeline", "context"):
        if getattr(layout, name) != getattr(alone, name):
            found[f"parallel.{name}"] = getattr(layout, name)
    if layout.interleave > 1:
        found |= {"parallel.schedule": "interleaved", "parallel.interleave": layout.interleave}
    if layout.recompute == "full":
        found["precision.activation_checkpointing"] = "true"
    return found


def _whole_division(plan: LayoutPlan) -> dict[str, int | str]:
    """`settings` with those of one device, too: so nothing of a division that the recipe has shows through."""
    found = settings(plan)
    return found | {key: value for key, value in _ONE_DEVICE.items() if key not in found}


def launch_file(kind: Kind, plan: LayoutPlan, *, recipe: str = "recipe.toml", out: str = "run") -> str:
    """The text of a launch file for this layout, that trains `recipe` into the folder `out`.

    Raises `RequestError` for an unknown kind, a path that is no single line, or a device that these cannot start.
    """
    writers: dict[str, Callable[[LayoutPlan, Sequence[str]], str]] = {
        "torchrun": _torchrun,
        "slurm": _slurm,
        "skypilot": _skypilot,
    }
    if kind not in writers:
        raise RequestError(f"no launch file for {kind!r}", did_you_mean(kind, KINDS))
    if plan.device.startswith(("TPU", "Apple")):
        raise RequestError(f"{plan.device} is not started by torchrun", "launch files are for GPUs")
    for path in (recipe, out):
        if not path or not path.isprintable() or path.startswith("-"):
            raise RequestError(f"{path!r} is not a path for a launch file")
    changes = [word for key, value in _whole_division(plan).items() for word in ("--set", f"{key}={value}")]
    if kind == "skypilot" and _nodes(plan)[0] > 1:
        out = str(PurePosixPath(SHARED) / out)
    return writers[kind](plan, ["-m", "chatsmith", "train", recipe, "--out", out, *changes])


def _nodes(plan: LayoutPlan) -> tuple[int, int]:
    """Nodes, and devices on each: as many as a node has, or the most that divide the devices evenly."""
    each = next(n for n in range(min(plan.devices_per_node, plan.devices), 0, -1) if plan.devices % n == 0)
    return plan.devices // each, each


def _about(plan: LayoutPlan) -> list[str]:
    layout = plan.layout
    groups = {"data": layout.data, "tensor": layout.tensor, "context": layout.context, "pipeline": layout.pipeline}
    divided = " × ".join(f"{name} {size}" for name, size in groups.items() if size > 1) or "nothing divided"
    return [
        f"# {plan.devices} × {plan.device}: {divided}, {layout.micro_batch} × {plan.context_tokens} tokens at a time",
        f"# predicted: {plan.tokens_per_second:,.0f} tokens/s, MFU {plan.mfu:.0%}, "
        f"{plan.memory_total_bytes / 1e9:.0f} of {plan.device_memory_bytes / 1e9:.0f} GB on the fullest device",
    ]


def _program(words: Sequence[str]) -> list[str]:
    """A bash array of the program to start, which goes on with a run that is there."""
    begun = shlex.quote(f"{words[words.index('--out') + 1]}/{_RUN}")
    return ["program=(", *[f"  {line}" for line in _lines(words)], ")", f"[ ! -e {begun} ] || program+=(--resume)"]


def _lines(words: Sequence[str]) -> list[str]:
    """Words quoted for the shell, a setting a line."""
    first = words.index("--set") if "--set" in words else len(words)
    rest = [shlex.join(words[at : at + 2]) for at in range(first, len(words), 2)]
    return [shlex.join(words[:first]), *rest]


def _torchrun(plan: LayoutPlan, words: Sequence[str]) -> str:
    nodes, each = _nodes(plan)
    if nodes == 1:
        start = [f'exec torchrun --standalone --nproc-per-node={each} --max-restarts={RESTARTS} "${{program[@]}}"']
        how = ["# Run it on the machine: bash launch.sh"]
    else:
        how = [
            f"# Run it on each of {nodes} machines, in a folder that all of them share:",
            "# HEAD=first-machine NODE_RANK=0 bash launch.sh, then 1, 2, …",
        ]
        start = [
            f"exec torchrun --nnodes={nodes} --nproc-per-node={each} --max-restarts={RESTARTS} \\",
            '  --node-rank="${NODE_RANK:?number of this machine, from 0}" \\',
            f'  --master-addr="${{HEAD:?address of machine 0}}" --master-port="${{PORT:-{PORT}}}" "${{program[@]}}"',
        ]
    begin = ["#!/usr/bin/env bash", *_about(plan), *how, _AGAIN, "set -euo pipefail"]
    return "\n".join([*begin, *_program(words), _INSTEAD, *start, ""])


def _slurm(plan: LayoutPlan, words: Sequence[str]) -> str:
    nodes, each = _nodes(plan)
    lines = [
        "#!/usr/bin/env bash",
        "#SBATCH --job-name=chatsmith",
        f"#SBATCH --nodes={nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --gpus-per-node={each}",
        "#SBATCH --exclusive",
        "#SBATCH --output=%x-%j.log",
        "#SBATCH --signal=TERM@120",
        *_about(plan),
        "# Hand it in from a folder that all nodes share: sbatch launch.sh",
        "# Two minutes before its time ends, training is told to save and stop.",
        _AGAIN,
        "set -euo pipefail",
        "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110  # seconds that torchrun gives it for that",
        *_program(words),
        _INSTEAD,
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        # A step is given one core of the nodes that the job has for itself, if it does not ask for all.
        'srun --cpus-per-task="$SLURM_CPUS_ON_NODE" \\',
        f'  torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node={each} --max-restarts={RESTARTS} \\',
        f'  --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$head:{PORT}" "${{program[@]}}"',
        "",
    ]
    return "\n".join(lines)


def _skypilot(plan: LayoutPlan, words: Sequence[str]) -> str:
    nodes, each = _nodes(plan)
    device = _SKYPILOT.get(plan.device)
    if device is None:
        raise RequestError(f"SkyPilot rents no {plan.device}", "write a torchrun or slurm file instead")
    run = [
        *_program(words),
        'head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)',
        'torchrun --rdzv-id="$SKYPILOT_TASK_ID" --nnodes="$SKYPILOT_NUM_NODES" --node-rank="$SKYPILOT_NODE_RANK" \\',
        f'  --nproc-per-node="$SKYPILOT_NUM_GPUS_PER_NODE" --max-restarts={RESTARTS} \\',
        f'  --master-addr="$head" --master-port={PORT} "${{program[@]}}"',
    ]
    # A bucket would not do: a checkpoint is renamed when it is whole.
    shared = [
        f"# Fill in first: the name of a volume (no bucket) that {nodes} machines may write at once.",
        "volumes:",
        f"  {SHARED}: {VOLUME}",
    ]
    lines = [
        *_about(plan),
        "# Start it: sky launch -c chatsmith launch.yaml",
        _AGAIN,
        "name: chatsmith",
        f"num_nodes: {nodes}",
        *(shared if nodes > 1 else []),
        "resources:",
        f"  accelerators: {device}:{each}",
        "workdir: .",
        "setup: pip install chatsmith",
        "run: |",
        *[f"  {line}" for line in run],
        "",
    ]
    return "\n".join(lines)
