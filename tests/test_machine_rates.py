"""Rates are measured once, in a process of its own, and belong to the machine they were measured on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatsmith import machine, machine_rates, measure
from chatsmith.errors import WorkError
from chatsmith.kernels.infer import build
from chatsmith.machine_rates import Kept, Rates
from chatsmith.train.speed import kernel_rate
from patience import PATIENCE

RATES = Rates({"cpu float32": 1e11, "cpu bfloat16": 2e11}, {"cpu": 1e10})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATSMITH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "measure", lambda found: RATES)


@pytest.mark.usefixtures("quick")
def test_what_was_measured_is_kept_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_rates.kept() is None
    found = measure.measure_and_keep(machine.describe())
    assert machine_rates.kept() == found
    assert found.rates == RATES
    assert machine_rates.rates() == found  # nothing is measured again
    monkeypatch.setattr(machine, "usable_cores", lambda root=Path("/"): 4096)
    assert machine_rates.kept() is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"rates": 1}', "[" * 100_000])
def test_a_damaged_file_is_as_none(cache: Path, damage: str) -> None:
    measure.measure_and_keep(machine.describe())
    (cache / "machine-rates.json").write_text(damage)
    assert machine_rates.kept() is None


def test_another_process_measures_so_that_this_one_loads_no_torch(cache: Path) -> None:
    code = (
        "import sys\nfrom chatsmith import machine_rates\n"
        "told = []\nfound = machine_rates.rates(told.append)\n"
        "assert found == machine_rates.rates(told.append) and len(told) == 1, told\n"
        "assert found.rates.flops_per_second['cpu float32'] > 1e8\n"
        "assert found.rates.reading('cpu') == max(found.rates.bytes_per_second.values()) > 1e8\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "False\n", done.stderr
    assert json.loads((cache / "machine-rates.json").read_text())["measured_on"]["cores"]


def test_a_folder_that_is_closed_only_costs_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CHATSMITH_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(measure, "measure", lambda found: RATES)
    assert measure.measure_and_keep(machine.describe()).rates == RATES
    assert machine_rates.kept() is None


def test_a_process_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*arguments: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "first\nno torch here\n")

    monkeypatch.setattr(machine_rates.subprocess, "run", failed)
    with pytest.raises(WorkError, match="could not measure this machine: no torch here"):
        machine_rates.rates()


def test_the_native_kernels_read_too() -> None:
    """Their rate is the bound that our own engine is planned with."""
    found = measure.measure(machine.describe())
    assert ("cpu, native kernels" in found.bytes_per_second) == (build.library() is not None)
    assert found.trains_natively("float32") == (kernel_rate("float32", 0.01) is not None)


def test_a_bound_is_the_best_of_those_who_compute() -> None:
    found = Rates(
        {"cpu float32": 1.0, "cpu float32, native kernels": 3.0, "cpu bfloat16": 2.0, "cuda float32": 9.0},
        {"cpu": 1.0, "cpu, native kernels": 2.0, "cuda": 9.0},
    )
    assert (found.flops("cpu"), found.flops("cpu", "bfloat16"), found.flops("cuda")) == (3.0, 2.0, 9.0)
    assert (found.reading("cpu"), found.reading("cuda")) == (2.0, 9.0)
    assert found.trains_natively("float32")
    assert not found.trains_natively("bfloat16")


def test_kept_rates_read_back() -> None:
    found = Kept({"cores": "2"}, RATES, (machine.Gpu("H100", 80 * 2**30, 132, "9.0"),))
    assert machine_rates._from_text(machine_rates.to_text(found)) == found
