"""Training as it runs: tokens per second, share of the matrix rate, memory beside the plan, what sharing a step costs.

    python bench/train.py                             on a CPU 10m, on GPUs GPT-2 124M, 1.5B and GPT-3 1.3B
    python bench/train.py --sizes 10m 124m --rounds 7
    python bench/train.py --sizes gpt2-1558m --precision bfloat16

The sides are whole runs of the loop, log and all, in processes of their own; each waits between two steps while another
has its turn. On a CPU they are one process with all threads, as many processes with one thread each (data parallel),
and one process that writes a checkpoint in each sample, in the background or waited for. The share is PaLM's (Chowdhery
et al. 2022, appendix B: 6 operations per weight and 12 per head, position and layer) of the rate of square products
measured just before the sample. CPU seconds per step are the kernel's count, which other work on the machine disturbs
less than the clock. What a checkpoint costs is the time of a sample with one less that of the sample without in the
same round. Memory is the most a process had resident (on a GPU, allocated) beyond what it had before the model was
made. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
import runs
from chatsmith import machine
from chatsmith.plan.memory import RESERVED, memory_of
from chatsmith.plan.memory_here import training_memory
from chatsmith.plan.parallel import FLOAT32, MIXED, Layout, Workload
from chatsmith.train.callbacks import Callback, Moment

DEFAULT_MINUTES = 10.0
"""Between checkpoints, where a recipe says nothing."""


@dataclass(frozen=True, slots=True)
class Side:
    """How a size is trained: processes, threads of each, and whether a checkpoint is written in each sample."""

    processes: int
    threads: int
    checkpoint: str = "none"


def sides(devices: int, checkpoints: bool) -> dict[str, Side]:
    """Those of this machine: `devices` GPUs, or none."""
    if devices:
        several = {f"{devices} GPUs": Side(devices, 1)} if devices > 1 else {}
        saving = {"one GPU, background checkpoint": Side(1, 1, "background")} if checkpoints else {}
        return {"one GPU": Side(1, 1), **several, **saving}
    cores = machine.usable_cores()
    both = {"one process": Side(1, cores), f"{cores} processes": Side(cores, 1)}
    if not checkpoints:
        return both
    return both | {"background checkpoint": Side(1, cores, "background"), "checkpoint": Side(1, cores, "waited for")}


# ---- a process of a side -------------------------------------------------------------------------------------------


class Turns(Callback):
    """Holds a run after the steps it was let go for, and says how long they took."""

    def __init__(self, steps: int, folder: Path, saves: bool) -> None:
        self._left, self._folder, self._saves = steps, folder, saves
        self._began, self._computing = time.perf_counter(), 0.0
        self._from = 0

    def on_step(self, moment: Moment) -> None:
        record = moment.record
        self._computing += (record.tokens - self._tokens_before(record)) / record.tokens_per_second
        self._left -= 1
        if self._left:
            return
        seconds = time.perf_counter() - self._began
        self._say(seconds, record.step, record.loss)
        word = sys.stdin.readline()
        if not word.strip():
            os.kill(os.getpid(), signal.SIGKILL)  # the end: nothing of this run is to be kept
        self._left, self._computing, self._from = int(word), 0.0, record.step
        self._began = time.perf_counter()

    def _tokens_before(self, record: Any) -> int:
        return int(record.tokens - record.tokens / record.step)

    def _say(self, seconds: float, step: int, loss: float) -> None:
        import torch

        from chatsmith.store.state import checkpoints

        durable = not self._saves or not self._from or any(str(self._from) in p.name for p in checkpoints(self._folder))
        told = {"seconds": seconds, "computing": self._computing, "step": step, "loss": loss, "durable": durable}
        if torch.cuda.is_available():
            told["allocated"] = torch.cuda.max_memory_allocated()
        print(json.dumps(told), flush=True)


def work(asked: dict[str, Any]) -> None:
    """Train by the loop, on random ids, until the keeper lets go."""
    import torch

    from chatsmith.models.decoder import Decoder
    from chatsmith.train.parallel.process import from_environment, met
    from chatsmith.train.precision import keep_memory

    size, side, folder = runs.SIZES[asked["size"]], Side(**asked["side"]), Path(asked["folder"])
    saves = side.checkpoint != "none"
    every = {"steps": size.steps, "background": side.checkpoint == "background"} if saves else {"minutes": runs.NEVER}
    changes = {
        "threads": side.threads,
        "optimizer": {"name": asked["optimizer"]},
        "precision": {"compute": asked["precision"], "compile": asked["compile"]},
        "checkpoint": every,
        "parallel": {"replicate": side.processes},
    }
    recipe, process = runs.recipe_of(size, changes), from_environment()
    with met(process):
        torch.set_num_threads(side.threads)
        keep_memory()
        (folder / f"before-{process.rank}").write_text(str(resident(os.getpid())["VmRSS"]))
        model = Decoder(size.spec, device=process.device, dtype=torch.float32)
        model.init_weights(0)
        runs.trainer_of(size, model, recipe, process, folder, [Turns(size.steps, folder, saves)]).run()


def resident(pid: int) -> dict[str, int]:
    """What the kernel says of a process' memory, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(VmHWM|VmRSS):\s+(\d+) kB", status)}


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, its threads together."""
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


# ---- its keeper ----------------------------------------------------------------------------------------------------


class Run:
    """The processes of a side."""

    def __init__(self, size: str, side: Side, folder: Path, settings: dict[str, str]) -> None:
        folder.mkdir()
        asked = json.dumps({"size": size, "side": asdict(side), "folder": str(folder), **settings})
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder, self._steps = folder, runs.SIZES[size].steps
        self._log = (folder / "errors").open("wb")
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(side.threads)}
        self._processes = []
        for rank in range(side.processes):
            numbers = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": side.processes,
                "LOCAL_WORLD_SIZE": side.processes,
            }
            environment = os.environ | shared | {name: str(number) for name, number in numbers.items()}
            command = [sys.executable, __file__, "--work", asked]
            pipe = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
            self._processes.append(
                subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, env=environment, text=True)
            )
        self.first_seconds: float = self._answer()["seconds"]

    def sample(self) -> dict[str, Any]:
        """As many steps as a sample has."""
        lead, before = self._processes[0], [cpu_seconds(p.pid) for p in self._processes]
        assert lead.stdin is not None
        lead.stdin.write(f"{self._steps}\n")
        lead.stdin.flush()
        told = self._answer()
        if not told["durable"]:
            raise SystemExit("a checkpoint took longer than a sample: more steps in it are needed")
        spent = sum(cpu_seconds(p.pid) for p in self._processes) - sum(before)
        return {**told, "cpu_seconds_per_step": spent / self._steps, "memory": self.memory()}

    def memory(self) -> list[int]:
        """Bytes of each process beyond what it had before there was a model."""
        before = [int((self._folder / f"before-{rank}").read_text()) for rank in range(len(self._processes))]
        return [resident(p.pid)["VmHWM"] - had for p, had in zip(self._processes, before, strict=True)]

    def _answer(self) -> dict[str, Any]:
        out = self._processes[0].stdout
        assert out is not None
        line = out.readline()
        if not line:
            raise SystemExit(f"a side stopped:\n{(self._folder / 'errors').read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End it where it stands."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._log.close()


def predicted(size: runs.Size, side: Side, precision: str, optimizer: str, gpu: bool) -> int:
    """Bytes that the planner expects on each device, or in each process."""
    if side.processes == 1 and not gpu:
        kept = training_memory(
            size.spec,
            size.micro_batch,
            weight_bytes=2 if precision == "bfloat16" else 4,
            optimizer=optimizer,  # type: ignore[arg-type]
            accumulate=size.accumulation > 1,
            threads=side.threads,
        )
        return kept.total
    half = precision == "bfloat16"
    work = Workload(size.spec, size.spec.context, size.rows, precision=MIXED if half else FLOAT32, here=half)
    rows = min(size.micro_batch, size.rows // side.processes)
    layout = Layout(data=side.processes, micro_batch=rows, zero=1 if side.processes > 1 else 0)
    return int(memory_of(work, layout).total - RESERVED)


def contest(
    name: str, chosen: dict[str, Side], rounds: int, settings: dict[str, str], gpu: bool, scratch: Path
) -> dict[str, Any]:
    """All sides of one size in turns."""
    size, going = runs.SIZES[name], dict[str, Run]()
    samples: dict[str, list[dict[str, Any]]] = {side: [] for side in chosen}
    print(
        f"\n{name}: {size.spec.parameters / 1e6:.0f}M parameters, {size.rows} rows of {size.spec.context} a step, "
        f"{size.steps} steps a sample, {settings['precision']}, {settings['optimizer']}"
    )
    try:
        for side, how in chosen.items():
            if gpu and going:
                break  # one run at a time has the memory of a GPU
            going[side] = Run(name, how, scratch / f"{name} {side}", settings)
        for number, side in harness.turns(list(chosen), rounds) if not gpu else _one_by_one(list(chosen), rounds):
            if side not in going:
                for other in going.values():
                    other.stop()
                going = {side: Run(name, chosen[side], scratch / f"{name} {side}", settings)}
            about = harness.probe()
            sample = going[side].sample()
            rate = size.tokens * size.steps / sample["seconds"]
            peak = getattr(about, settings["precision"]) * 1e9 * (chosen[side].processes if gpu else 1)
            share = rate * size.spec.training_flops_per_token() / peak
            more = {"rate": rate, "share": share, "first_seconds": going[side].first_seconds, "machine": about}
            samples[side].append({**sample, **more})
            print(
                f"  round {number + 1}  {side:24}{rate:10.0f} tok/s {share:5.0%} of GEMM "
                f"{sample['cpu_seconds_per_step']:7.2f} CPU s/step   ({about})",
                flush=True,
            )
    finally:
        for run in going.values():
            run.stop()
    return _summary(size, chosen, samples, settings, gpu)


def _one_by_one(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """Every round of a side before the next side: a GPU has memory for one."""
    return [(number, name) for name in names for number in range(rounds)]


def _summary(
    size: runs.Size,
    chosen: dict[str, Side],
    samples: dict[str, list[dict[str, Any]]],
    settings: dict[str, str],
    gpu: bool,
) -> dict[str, Any]:
    first = next(iter(samples))
    table: dict[str, Any] = {}
    print(f"  {'median':26}{'tok/s':>9}{'spread':>17}{'GEMM':>6}{'of one':>8}{'CPU s':>7}{'memory':>10}{'planned':>10}")
    for name, taken in samples.items():
        plan = predicted(size, chosen[name], settings["precision"], settings["optimizer"], gpu)
        held = taken[-1]["allocated"] if gpu else max(taken[-1]["memory"])
        ratios = [one["rate"] / other["rate"] for one, other in zip(taken, samples[first], strict=True)]
        row = {
            "tokens_per_second": harness.spread([s["rate"] for s in taken]),
            "share_of_gemm": harness.spread([s["share"] for s in taken]),
            "rate_of_first_side": harness.spread(ratios),
            "cpu_seconds_per_step": harness.spread([s["cpu_seconds_per_step"] for s in taken]),
            "between_steps": harness.spread([1 - s["computing"] / s["seconds"] for s in taken]),
            "memory_bytes": held,
            "planned_bytes": plan,
            "samples": taken,
        }
        table[name] = row
        rate, share = row["tokens_per_second"], row["share_of_gemm"]["median"]
        print(
            f"  {name:26}{rate['median']:9.0f}{rate['lowest']:8.0f}–{rate['highest']:<8.0f}{share:6.0%}"
            f"{row['rate_of_first_side']['median']:8.2f}{row['cpu_seconds_per_step']['median']:7.2f}"
            f"{held / 1e6:8.0f}MB{plan / 1e6:8.0f}MB"
        )
    between = table[first]["between_steps"]
    print(
        f"  between steps, log and all: {between['median']:.2%} ({between['lowest']:.2%} to {between['highest']:.2%})"
    )
    costs = {
        name: harness.spread(
            [saved["seconds"] - plain["seconds"] for saved, plain in zip(taken, samples[first], strict=True)]
        )
        for name, taken in samples.items()
        if chosen[name].checkpoint != "none"
    }
    for name, cost in costs.items():
        print(
            f"  {name}: {cost['median']:+.2f} s each ({cost['lowest']:+.2f} to {cost['highest']:+.2f}), "
            f"{cost['median'] / (60 * DEFAULT_MINUTES):.2%} of the time at one in {DEFAULT_MINUTES:g} minutes"
        )
    return {"sides": table, "checkpoint_seconds": costs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=runs.SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--no-checkpoints", action="store_true", help="leave out the sides that write checkpoints")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(json.loads(asked.work))
        return
    import torch

    devices = torch.cuda.device_count()
    settings = {"precision": asked.precision, "optimizer": asked.optimizer, "compile": "on" if devices else "off"}
    about = harness.circumstances()
    if devices:
        about["device"] = torch.cuda.get_device_name(0)
    print(json.dumps(about, indent=1))
    results: dict[str, Any] = {"circumstances": about, "settings": settings, "sizes": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name in asked.sizes or (runs.ON_A_GPU if devices else runs.ON_A_CPU):
            chosen = sides(devices, not asked.no_checkpoints)
            results["sizes"][name] = contest(name, chosen, asked.rounds, settings, devices > 0, Path(scratch))
    print(harness.as_json(results))


if __name__ == "__main__":
    main()
