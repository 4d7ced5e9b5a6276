"""Two hosts: two network namespaces of this machine, joined by one cable, which is cut while they train.

Longer than the processes wait for each other, and than torchrun waits for a sign of life. Needs Linux and the right to
make namespaces (root); skipped, saying so, without. Each takes about a minute.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatsmith.store.state import checkpoints
from chatsmith.train.metrics import read_log
from patience import PATIENCE

from .cases import Layout
from .test_elastic import workers, write
from .test_parity import SOURCE, launch, recipe
from .test_parity import tokens as tokens  # the fixture

pytestmark = pytest.mark.slow
CABLE = "cable0"
ADDRESSES = ("10.77.13.1", "10.77.13.2")
WAIT, CUT = 10, 20
"""Seconds: after which a process gives the other up, and for which the cable is cut. torchrun's own patience is 15."""
STEPS = 60


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces that reach each other by a cable and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` here to make network namespaces with")
    names = (f"chatsmith-{os.getpid()}-a", f"chatsmith-{os.getpid()}-b")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                ip("-n", name, "link", "set", device, "up")
            ip("netns", "exec", name, "true")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(host: str, number: int, path: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """The command of docs/how-to/scale.md, on one of the hosts."""
    words = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=5", "--rdzv-id=run"]
    words += ["--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:29471", f"--rdzv-conf=is_host={number == 0}"]
    words += [f"--local-addr={ADDRESSES[number]}", "-m", "chatsmith", "train", str(path), "--out", str(out)]
    settings = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": CABLE, "CHATSMITH_TIMEOUT": str(WAIT)}
    environment = os.environ | {"PYTHONPATH": str(SOURCE), **settings}
    with log.open("wb") as file:
        command = ["ip", "netns", "exec", host, sys.executable, *words]
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)


def first_checkpoint(out: Path, runs: list[subprocess.Popen[bytes]]) -> None:
    """Return once there is one, or the runs have ended without."""
    while not checkpoints(out) and all(run.poll() is None for run in runs):
        time.sleep(0.02)


def cut(host: str, out: Path) -> None:
    """No cable for a while, in the middle of the run."""
    ip("-n", host, "link", "set", CABLE, "down")
    time.sleep(CUT)
    assert 0 < len(read_log(out)) < STEPS
    ip("-n", host, "link", "set", CABLE, "up")


def check(
    hosts: tuple[str, str], tokens: str, folder: Path, fault: Callable[[list[int], Path], None], says: str
) -> None:
    """Train on both hosts; once there is a checkpoint, `fault` is given torchrun's processes and the run's folder.

    The run must end with the bits of one that was left alone, and one of the hosts have said `says`.
    """
    out, layout = folder / "out", Layout("whole", 2, {"shard": 2})
    path = write(folder / "recipe.toml", tokens, layout.table, schedule={"steps": STEPS})
    logs = [folder / f"host-{number}.log" for number in range(2)]
    runs = [start(host, number, path, out, logs[number]) for number, host in enumerate(hosts)]
    try:
        first_checkpoint(out, runs)
        fault([run.pid for run in runs], out)
        codes = [run.wait(timeout=PATIENCE) for run in runs]
    finally:
        for run in runs:
            run.kill()
    told = [log.read_text() for log in logs]
    assert codes == [0, 0], "\n".join(told)
    assert any(says in text for text in told)
    mapping = {**recipe(tokens, "gpt2", layout, schedule={"steps": STEPS}), "checkpoint": {"steps": 7}}
    launch(2, [{"name": "whole", "recipe": mapping, "out": str(folder / "whole")}], folder)
    assert (out / "model.safetensors").read_bytes() == (folder / "whole" / "model.safetensors").read_bytes()
    found, expected = ([(r["step"], r["loss"]) for r in read_log(folder / name)] for name in ("out", "whole"))
    assert found == expected


def test_a_cable_that_is_cut_for_a_while(hosts: tuple[str, str], tokens: str, tmp_path: Path) -> None:
    check(hosts, tokens, tmp_path, lambda pids, out: cut(hosts[0], out), "lost touch with another")


@pytest.mark.parametrize("host", [0, 1])
def test_a_worker_that_is_killed_on_one_host(host: int, hosts: tuple[str, str], tokens: str, tmp_path: Path) -> None:
    """torchrun counts that as a restart on this host alone; the processes of both must go on with the run."""
    check(hosts, tokens, tmp_path, lambda pids, out: os.kill(workers(pids[host])[0], signal.SIGKILL), "exitcode")
