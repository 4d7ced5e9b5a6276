"""How well the planner predicts published training runs.

    python bench/plan_validation.py            errors on the papers fitted on, and on those kept apart
    python bench/plan_validation.py --rows     every row, and why a row is left out
    python bench/plan_validation.py --fit      fit the constants again, to the fitted half
    python bench/plan_validation.py --cross    leave one paper out at a time, and fit to the others
    python bench/plan_validation.py --bare     leave out what papers tell beyond the columns of the table of runs

The runs are `facts/training_runs.csv` in $CHATSMITH_SHARED (else the folder `shared` beside the checkout). A paper
belongs to the fitted half or to the tested half by a hash of its name, so nobody chose which.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import math
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chatsmith.plan.accelerators import Accelerator, catalogue
from chatsmith.plan.efficiency import PHYSICS, Physics, recomputed_flops_per_token, step_time
from chatsmith.plan.layout import candidates
from chatsmith.plan.memory import memory_bill
from chatsmith.plan.parallel import (
    FLOAT16_MEGATRON,
    MIXED,
    RECOMPUTE,
    Grid,
    Links,
    Workload,
    default_rows,
    links_of,
)
from chatsmith.specs import ModelSpec
from harness import as_json

_TIMES = ("s per step", "device-hours")
_ALSO_TOLD: dict[str, dict[str, float]] = {
    # configs/20B.yml of EleutherAI/gpt-neox; one 200 Gbit/s adapter for two devices (section 2.3 of the paper).
    "Black et al. 2022": {"micro_batch": 4, "network": 12.5e9},
    # train/tr11-176B-ml/README.md of bigscience-workshop/bigscience: MBS=2; four 100 Gbit/s links for eight devices.
    "BigScience 2022": {"micro_batch": 2, "network": 6.25e9},
    # 400 Gbit/s for eight devices; 569 B tokens in 139,200 steps.
    "Wu et al. 2023": {"rows": 2048, "network": 6.25e9},
}
"""What a paper or its configuration tells of the layout and the network, and the file has no column for. The rest stays
as the planner would have it: the rows at a time that are fastest, and the network that is usual."""
FLASH_SINCE = 2023
"""Runs published before this year wrote their attention scores to memory: FlashAttention is of May 2022."""


class NotUsableError(Exception):
    """Why a row cannot be predicted."""


@dataclass(frozen=True)
class Run:
    """A row made ready: what ran, on what, and what was published, in the row's own convention and as tokens per second
    and device. `laid_out` says whether the row tells how the work was divided."""

    name: str
    paper: str
    laid_out: bool
    work: Workload
    device: Accelerator
    links: Links
    grid: Grid
    count: int
    tokens_per_second: float
    published: float
    convention: str

    @property
    def fitted(self) -> bool:
        """Whether the constants may be fitted to it."""
        return hashlib.sha256(self.paper.encode()).digest()[0] % 2 == 1

    def predict(self, physics: Physics) -> float:
        """Tokens per second and device of the fastest layout that agrees with the row."""
        seconds = step_time(self.work, self.device, self.links, self.grid, physics).total
        return self.work.tokens / float(seconds.min()) / self.count

    def error(self, physics: Physics) -> float:
        """Predicted speed over published speed, less one: the same in TFLOP/s, MFU or tokens per second."""
        return self.predict(physics) / self.tokens_per_second - 1

    def predicted(self, physics: Physics) -> float:
        """The prediction in the row's own convention."""
        faster = 1 + self.error(physics)
        return self.published / faster if self.convention in _TIMES else self.published * faster


def paper(source: str) -> str:
    """The paper or repository of a row's source: the text before any table, section or file."""
    if found := re.match(r"[\w.-]+/[\w.-]+", source):
        return found[0]
    return re.split(r"[(,;:]| Table| sec\.| README| fact sheet| release notes", source)[0].strip()


def _number(row: dict[str, str], key: str) -> float | None:
    return float(row[key]) if row[key].strip() else None


def _need(row: dict[str, str], key: str, what: str) -> float:
    value = _number(row, key)
    if value is None:
        raise NotUsableError(f"{what} not in the row")
    return value


def read(row: dict[str, str]) -> Run:
    """One row of the file, or `NotUsableError`."""
    device = _device(row["hardware"])
    _check_possible(row, device)
    if row["run_kind"] == "projection":
        raise NotUsableError("a projection, not a measurement")
    notes = f"{row['tflops_convention']} {row['notes']}"
    for sign, reason in (
        ("circular", "its rate follows from an assumed device count"),
        ("upper bound", "its hours are an upper bound"),
        ("lower bound", "its tokens are a lower bound"),
        ("whole pipeline", "its hours hold more than pretraining"),
        ("includes tokenizer", "its hours hold more than pretraining"),
        ("treat as a plan", "a plan, not a measurement"),
        ("include long-context stages", "its hours hold stages of several lengths"),
    ):
        if sign in notes:
            raise NotUsableError(reason)
    if row["active_params"]:
        raise NotUsableError("a mixture of experts")
    if "encoder" in notes or row["model"].startswith(("BERT", "Transformer")):
        raise NotUsableError("not a decoder")
    width, layers = int(_need(row, "d_model", "the width")), int(_need(row, "n_layers", "the number of layers"))
    heads, context = int(_need(row, "n_heads", "the number of heads")), int(_need(row, "seq_len", "the context"))
    count = int(_need(row, "n_accelerators", "the device count"))
    vocabulary = int(_number(row, "vocab_size") or 50304)
    spec = _spec(width, layers, heads, context, vocabulary, _need(row, "params", "the size"))
    replicas = int(_number(row, "dp") or count / (_number(row, "tp") or 1) / (_number(row, "pp") or 1))
    told = _ALSO_TOLD.get(paper(row["source"]), {})
    rows = _number(row, "global_batch_seqs") or told.get("rows") or default_rows(spec, context)
    if rows % replicas:  # a published batch is rounded, a default one knows no device count
        rows = replicas * max(1, round(rows / replicas))
    rows = int(rows)
    year = next(iter(re.findall(r"\b20[12]\d\b", row["source"])), None)
    flash = year is None or int(year) >= FLASH_SINCE
    work = Workload(
        spec,
        context,
        rows,
        attention="materialised" if not flash or row["activation_recompute"] == "selective" else "flash",
        sequence_parallel=flash or "seq. parallel" in row["model"],
        overlap_tensor=flash,
        precision=FLOAT16_MEGATRON if "fp16 mixed" in row["precision"] else MIXED,
        fp8="fp8" in row["precision"],
    )
    rate, published, convention = _published(row, work, count)
    reached, peak = rate * spec.training_flops_per_token(context) / 1e12, device.training_tflops
    if reached > (device.fp8_tflops or peak if work.fp8 else peak):
        raise NotUsableError(f"impossible: {reached:.0f} TFLOP/s on a device of {peak:.0f}")
    links = links_of(device)
    links = dataclasses.replace(links, between=told.get("network", links.between))
    laid_out = any(row[column] for column in ("dp", "pp", "sharding"))
    return Run(row["id"], paper(row["source"]), laid_out, work, device, links,
               _grid(row, work, device, links, count), count, rate, published, convention)  # fmt: skip


def _check_possible(row: dict[str, str], device: Accelerator) -> None:
    """Refuse a row whose tokens, hours and size alone mean more than the device's peak."""
    hours, tokens = _number(row, "accelerator_hours"), _number(row, "tokens")
    size = _number(row, "active_params") or _number(row, "params")
    peak = device.fp8_tflops if "fp8" in row["precision"] else device.training_tflops
    if hours and tokens and size and peak:
        rate = 6 * size * tokens / (hours * 3600) / 1e12
        if rate > peak:
            raise NotUsableError(f"impossible: 6ND alone is {rate:.0f} TFLOP/s on a device of {peak:.0f}")


def _device(name: str) -> Accelerator:
    """The catalogue's device; of several that a short name stands for, the linked one, and the one with most memory."""
    chip, _, size = name.partition("-")
    found = [
        device
        for device in catalogue().values()
        if device.name.split("-")[0] == chip and (not size or device.name.endswith(f"-{size}"))
    ]
    if not found:
        raise NotUsableError(f"hardware {name!r} is not in the catalogue")
    return max(found, key=lambda device: (device.form != "PCIe", device.memory_gb))


def _spec(width: int, layers: int, heads: int, context: int, vocabulary: int, parameters: float) -> ModelSpec:
    """A shape of that many parameters: what the width does not explain is feed-forward."""
    if width % heads:
        raise NotUsableError(f"{heads} heads do not divide a width of {width}")
    inner = (parameters - vocabulary * width) / layers - 4 * width**2
    near = round(inner / (2 * width) / 128) * 128
    ffn = 4 * width if abs(near - 4 * width) < 0.06 * 4 * width or near <= 0 else near
    return ModelSpec(vocabulary, context, width, layers, heads, ffn_width=ffn, dropout=0.0)


def _published(row: dict[str, str], work: Workload, count: int) -> tuple[float, float, str]:
    """Tokens per second and device; and the figure the row states, with its convention."""
    if rate := _number(row, "tokens_per_s_per_accel"):
        return rate, rate, "tokens/s per device"
    if (seconds := _number(row, "step_time_s")) and row["global_batch_seqs"]:
        return work.tokens / seconds / count, seconds, "s per step"
    model = work.spec.training_flops_per_token(work.context)
    stated = row["tflops_convention"]
    if reported := _number(row, "tflops_per_gpu_reported"):
        if "model FLOPs" in stated:
            return reported * 1e12 / model, reported, "model TFLOP/s"
        if "incl" in stated or "recompute" in stated:
            again = recomputed_flops_per_token(work.spec, work.context, "full")
            return reported * 1e12 / (model + again), reported, "hardware TFLOP/s"
    peak = _need(row, "peak_tflops_16bit", "the peak") * 1e12
    if share := _number(row, "mfu_model"):
        return share * peak / model, share, "MFU"
    if (share := _number(row, "hfu")) and row["activation_recompute"] in RECOMPUTE:
        again = recomputed_flops_per_token(work.spec, work.context, row["activation_recompute"])  # type: ignore[arg-type]
        return share * peak / (model + again), share, "HFU"
    hours, tokens = _number(row, "accelerator_hours"), _number(row, "tokens")
    if hours and tokens:
        return tokens / (hours * 3600), hours, "device-hours"
    raise NotUsableError("no measured rate whose convention is stated")


def _grid(row: dict[str, str], work: Workload, device: Accelerator, links: Links, count: int) -> Grid:
    """The layouts that agree with the row and fit the device."""
    given: dict[str, int] = {}
    for key, column in (("tensor", "tp"), ("pipeline", "pp"), ("data", "dp")):
        if value := _number(row, column):
            given[key] = int(value)
    told = _ALSO_TOLD.get(paper(row["source"]), {})
    if "micro_batch" in told:
        given["micro_batch"] = int(told["micro_batch"])
    stated = re.search(r"CP=(\d+)", row["sharding"])
    given["context"] = int(stated[1]) if stated else 1
    sharding = row["sharding"].upper()
    if any(sign in sharding for sign in ("FULL_SHARD", "ZERO-3", "FSDP")) and "pipeline" not in given:
        given |= {"zero": 3, "pipeline": 1}
        given.setdefault("tensor", 1)
    elif "SHARD_GRAD_OP" in sharding:
        given |= {"zero": 2, "pipeline": 1, "tensor": 1}
    if row["activation_recompute"] in RECOMPUTE:
        given["recompute"] = RECOMPUTE.index(row["activation_recompute"])  # type: ignore[arg-type]
    elif "recompute" in row["tflops_convention"] and "no recompute" not in row["tflops_convention"]:
        given["recompute"] = RECOMPUTE.index("full")
    grid = candidates(work, count, links, given)
    if not len(grid.data):
        raise NotUsableError(f"no layout of {count} devices agrees with {given}")
    total = memory_bill(work, grid).total
    # What was run did fit: where the bill says otherwise it is a little too large, and the smallest are taken.
    return grid.only(total <= max(device.memory_gb * 1e9, 1.05 * float(total.min())))


def shared() -> Path:
    """Where the published runs lie."""
    chosen = os.environ.get("CHATSMITH_SHARED")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared"
    return folder / "facts" / "training_runs.csv"


def load(path: Path) -> tuple[list[Run], dict[str, str]]:
    """The usable runs, and the others by name with the reason."""
    runs, left = [], {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                runs.append(read(row))
            except NotUsableError as reason:
                left[row["id"]] = str(reason)
    return runs, left


# ---- fitting ---------------------------------------------------------------------------------------------------------

PRIOR = Physics(matmul=0.80, power=1.0, traffic=1.3, flash=0.6, link=0.75, overlap=0.6, hop=5e-6, launch=60e-6)
_SPREAD = 0.7
"""How far from its prior a constant may lie: a factor of two is one deviation. Only what no run tells stays there."""


def _weights(runs: Sequence[Run]) -> np.ndarray:
    """A paper with many rows counts as the square root of them, so that none speaks for all."""
    sizes: dict[str, int] = defaultdict(int)
    for run in runs:
        sizes[run.paper] += 1
    return np.array([sizes[run.paper] ** -0.25 for run in runs])


def _to_free(physics: Physics) -> np.ndarray:
    x = np.array(dataclasses.astuple(physics))
    names = [item.name for item in dataclasses.fields(Physics)]
    return np.array([math.log(v / (1 - v)) if n in _SHARES else math.log(v) for n, v in zip(names, x, strict=True)])


_SHARES = ("matmul", "flash", "link", "overlap")


def _from_free(free: np.ndarray) -> Physics:
    names = [item.name for item in dataclasses.fields(Physics)]
    return Physics(*(1 / (1 + math.exp(-v)) if n in _SHARES else math.exp(v) for n, v in zip(names, free, strict=True)))


def fit(runs: Sequence[Run], rounds: int = 25) -> Physics:
    """Levenberg–Marquardt on the logarithm of predicted over published, large errors counted linearly (Huber)."""
    start = free = _to_free(PRIOR)
    weights, damping = _weights(runs), 1e-2

    def residuals(x: np.ndarray) -> np.ndarray:
        physics = _from_free(x)
        errors = np.array([math.log1p(run.error(physics)) for run in runs])
        huber = np.sqrt(np.minimum(1.0, 0.15 / np.maximum(np.abs(errors), 1e-9)))
        return np.concatenate([weights * errors * huber / 0.08, (x - start) / _SPREAD])

    now = residuals(free)
    for _ in range(rounds):
        slope = np.stack([(residuals(free + step) - now) / 1e-4 for step in 1e-4 * np.eye(len(free))], axis=1)
        gram = slope.T @ slope
        move = np.linalg.solve(gram + damping * np.diag(np.diag(gram)), -slope.T @ now)
        then = residuals(free + move)
        if then @ then < now @ now:
            free, now, damping = free + move, then, damping / 3
        else:
            damping *= 5
    return _from_free(free)


# ---- reporting -------------------------------------------------------------------------------------------------------


def summary(errors: Iterable[float]) -> dict[str, float]:
    """Median and 90th percentile of the absolute error, the median error, and how many."""
    errors = list(errors)
    sizes = sorted(map(abs, errors))
    return {
        "median": statistics.median(sizes),
        "p90": float(np.quantile(sizes, 0.9)),
        "bias": statistics.median(errors),
        "rows": len(sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--cross", action="store_true")
    parser.add_argument("--bare", action="store_true")
    asked = parser.parse_args()
    if asked.bare:
        _ALSO_TOLD.clear()
    path = shared()
    if not path.is_file():
        print(f"skipped: no {path}; set CHATSMITH_SHARED to the folder that holds facts/training_runs.csv")
        return
    runs, left = load(path)
    physics = fit([run for run in runs if run.fitted and run.laid_out]) if asked.fit else PHYSICS
    if asked.fit:
        print(physics)
    errors = {run.name: run.error(physics) for run in runs}
    if asked.rows:
        print(f"     {'run':42} {'published':>11} {'predicted':>11}")
        for run in sorted(runs, key=lambda r: (r.paper, r.name)):
            mark = "fit " if run.fitted else "test"
            figures = f"{run.published:11,.4g} {run.predicted(physics):11,.4g} {run.convention:20}"
            print(f"{mark if run.laid_out else 'free'} {run.name:42} {figures} {errors[run.name]:+7.1%}")
        for name, reason in left.items():
            print(f"left out: {name:38} {reason}")
    by_paper: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_paper[run.paper].append(run)
    for name, group in sorted(by_paper.items(), key=lambda item: not item[1][0].fitted):
        part = summary(errors[run.name] for run in group)
        half = "fit " if group[0].fitted else "test"
        worst = max(abs(errors[run.name]) for run in group)
        print(f"{half} {name[:46]:46} {len(group):3} rows  median {part['median']:6.1%}"
              f"  worst {worst:6.1%}  bias {part['bias']:+6.1%}")  # fmt: skip
    parts = {
        "fitted": [run for run in runs if run.laid_out and run.fitted],
        "tested": [run for run in runs if run.laid_out and not run.fitted],
        "both": [run for run in runs if run.laid_out],
        "layout unknown": [run for run in runs if not run.laid_out],
    }
    results: dict[str, object] = {name: summary(errors[run.name] for run in part) for name, part in parts.items()}
    if asked.cross:
        found = []
        known = [run for run in runs if run.laid_out]
        for name in sorted({run.paper for run in known}):
            others = fit([run for run in known if run.paper != name])
            found += [run.error(others) for run in known if run.paper == name]
        results["left out in turn"] = summary(found)
    for half, part in results.items():
        print(f"{half:18} {part['rows']:4} rows: median {part['median']:.1%}, 90th percentile {part['p90']:.1%}, "
              f"median error {part['bias']:+.1%}")  # type: ignore[index]  # fmt: skip
    print(as_json({"physics": dataclasses.asdict(physics), **results, "left_out": len(left)}))


if __name__ == "__main__":
    main()
