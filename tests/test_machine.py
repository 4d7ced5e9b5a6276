"""The machine as a process sees it: real values here, and container limits in made-up /proc and /sys trees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from chatsmith import machine
from chatsmith.errors import RequestError

GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_is_described_plainly() -> None:
    found = machine.describe()
    assert found.cpu
    assert 1 <= found.cores <= found.installed_cores
    assert 0 < found.memory.available <= found.memory.total
    assert found.gpus == ()


def test_affinity_bounds_the_cores() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no CPU affinity on this system")
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); from chatsmith import machine; print(machine.usable_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1)])
def test_cgroup_v2_quota_counts_whole_cores(tmp_path: Path, quota: str, cores: int) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": quota + "\n"})
    assert machine.usable_cores(root) == cores


def test_a_quota_on_an_outer_group_binds_too(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
            "sys/fs/cgroup/outer/cpu.max": "100000 100000\n",
        },
    )
    assert machine.usable_cores(root) == 1


def test_cgroup_v1_quota(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/box\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
        },
    )
    assert machine.usable_cores(root) == 1


def test_no_quota_leaves_the_cores_alone(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert machine.usable_cores(root) == machine.usable_cores(tmp_path / "nothing")


def test_the_cgroup_limit_bounds_memory_and_cached_files_count_as_free(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 67108864 kB\nMemFree: 1 kB\nMemAvailable: 33554432 kB\n",
            "proc/self/cgroup": "0::/box\n",
            "sys/fs/cgroup/box/memory.max": str(4 * GIB),
            "sys/fs/cgroup/box/memory.current": str(3 * GIB),
            "sys/fs/cgroup/box/memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
        },
    )
    assert machine.memory(root) == machine.Memory(total=4 * GIB, available=3 * GIB)


def test_without_a_limit_memory_is_the_machines(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n",
            "proc/self/cgroup": "0::/box\n",
            "sys/fs/cgroup/box/memory.max": "max\n",
        },
    )
    assert machine.memory(root) == machine.Memory(total=8 * GIB, available=4 * GIB)


X86 = "processor : 0\nmodel name : AMD  EPYC 9B14\nflags : fpu avx2 fma avx512f avx512_vnni avx512_bf16 amx_tile\n"
ARM = "processor : 0\nFeatures : fp asimd asimdhp asimddp sve i8mm bf16\nCPU implementer : 0x41\nCPU part : 0xd40\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name", "isa"),
    [
        (X86, "AMD EPYC 9B14", {"avx2", "fma", "avx512", "vnni", "bf16", "amx"}),
        (ARM, "Neoverse V1", {"neon", "fp16", "dotprod", "sve", "i8mm", "bf16"}),
    ],
)
def test_processor_and_instruction_sets(tmp_path: Path, cpuinfo: str, name: str, isa: set[str]) -> None:
    found = machine.describe(root=tree(tmp_path, {"proc/cpuinfo": cpuinfo + "\n" + cpuinfo}))
    assert found.cpu == name
    assert set(found.isa) == isa


@pytest.mark.parametrize("gpu", [False, True])
def test_every_optional_part_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    monkeypatch.setattr(machine, "may_have_gpu", lambda: gpu)
    parts = {part.name: part for part in machine.optional_parts()}
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"all", "test", "clients", "lint", "bench"}  # those for users
    assert set(parts) == {*extras - (set() if gpu else {"float8"}), "C++ compiler", "Python headers"}
    assert all(part.command and part.purpose for part in parts.values())
    assert parts["data"].command == 'pip install "chatsmith[data]"'


def test_a_missing_compiler_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert machine.compiler() is None
    assert not {part.name: part for part in machine.optional_parts()}["C++ compiler"].found


def test_rates_are_plausible_and_leave_the_thread_count_alone() -> None:
    import torch

    before = torch.get_num_threads()
    start = time.process_time()
    rate = machine.measure_gemm("float32", seconds=0.1, threads=1)
    bandwidth = machine.measure_bandwidth(seconds=0.1, threads=1)
    assert time.process_time() - start < 5
    assert 1e8 < rate < 1e14
    assert 1e8 < bandwidth < 1e13
    assert torch.get_num_threads() == before


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        machine.measure_gemm("float23")
    assert "float32" in (caught.value.hint or "")
