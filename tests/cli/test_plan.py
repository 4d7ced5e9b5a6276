"""`chatsmith plan`"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatsmith import machine_rates
from chatsmith.machine_rates import Kept, Rates
from patience import PATIENCE

ARTICLE = ("plan", "gpt3-175b", "--tokens", "300B", "--on", "v100", "--tflops", "28", "--price", "1.50")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was measured before."""
    rates = Rates({"cpu float32": 1e11, "cpu bfloat16": 1e12}, {"cpu": 2e10})
    monkeypatch.setattr(machine_rates, "rates", lambda note=None: Kept({}, rates))


def test_the_well_known_article(run: Callable[..., Any]) -> None:
    ran = run(*ARTICLE)
    assert ran.code == 0
    for words in ("174,604,259,328 parameters", "355.9 years", "$4.68 million", "355.6 years", "$4.6M", "700 GB"):
        assert words in ran.out
    ran = run("plan", "gpt3-175b", "--tokens", "300B", "--on", "rtx8000", "--tflops", "15")
    assert "663.8 years" in ran.out
    assert "665 years" in ran.out
    assert "does not follow" in ran.out


def test_explained(run: Callable[..., Any]) -> None:
    ran = run(*ARTICLE, "--explain")
    for source in (
        "Table D.1",
        "Chowdhery et al. 2022",
        "Korthikanti et al. 2022",
        "Narayanan et al. 2021",
        "3,117,933 h",
    ):
        assert source in ran.out


def test_it_loads_no_torch() -> None:
    code = (
        "import sys\nfrom chatsmith.cli import app\n"
        f"codes = [app.run(list({ARTICLE!r})), app.run(['plan', '--compare', 'gpt2-124m']),"
        " app.run(['plan', 'gpt3-13b', '--layout', '--on', 'h100', '--count', '64']),"
        " app.run(['plan', '--table', 'gpt3']), app.run(['plan', '--budget', '100', '--on', 'h100'])]\n"
        "assert codes == [0] * 5, codes\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    "arguments",
    [
        ("gpt2-124m",),
        ("gpt3-175b", "--on", "h100", "--count", "64", "--run", "--batch", "8", "--explain"),
        ("gpt2-124m", "--run"),
        ("gpt2-124m", "--compare", "--count", "8"),
        ("gpt2-124m", "--on", "h100", "--on", "a100"),
        ("gpt3-13b", "--layout", "--on", "h100", "--count", "64", "--batch-tokens", "1M"),
        ("bert-base", "--tokens", "128B", "--on", "tpu-v2", "--count", "16", "--days", "30"),
        ("--budget", "10k", "--on", "h100", "--fit", "kaplan", "--fit", "besiroglu"),
        ("--days", "30", "--on", "mi300x", "--count", "8"),
        ("--table", "gpt3"),
        ("--fits",),
    ],
    ids=" ".join,
)
def test_everything_prints_and_has_json(run: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    ran = run("plan", *arguments)
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 100  # nothing is cut or broken in a pipe
    assert "…" not in ran.out.replace("… as a causal kernel", "").replace("… in closed form", "").replace("  …  ", "")
    ran = run("plan", *arguments, "--json")
    assert ran.code == 0, ran.err
    assert isinstance(json.loads(ran.out), dict)


@pytest.mark.usefixtures("measured")
def test_what_this_machine_can_do(run: Callable[..., Any]) -> None:
    found = json.loads(run("plan", "--fits", "--json").out)
    sizes = {size["name"]: size for size in found["sizes"]}
    assert sizes["gpt2-124m"]["trains"]
    assert not sizes["gpt3-175b"]["trains"]
    assert sizes["gpt3-175b"]["training_seconds"] is None
    speeds = sizes["gpt2-124m"]["tokens_per_second"]
    assert speeds["f32"] < speeds["bf16"] < speeds["int8"] < speeds["int4"]
    [one] = json.loads(run("plan", "gpt2-124m", "--fits", "--json").out)["sizes"]
    assert one["tokens_per_second"] == speeds


def test_a_launch_file_for_a_recipe(run: Callable[..., Any]) -> None:
    recipe = str(Path(__file__).resolve().parents[2] / "recipes" / "gpt3-125m.toml")
    ran = run("plan", recipe, "--on", "h100", "--count", "16", "--emit", "slurm")
    assert ran.code == 0, ran.err
    assert f"train {recipe}" in ran.out
    assert "#SBATCH --nodes=2" in ran.out


def test_the_plot_is_written(run: Callable[..., Any], tmp_path: Path) -> None:
    ran = run("plan", "gpt2-124m", "--plot", tmp_path / "plan.svg")
    assert ran.code == 0
    assert "wrote" in ran.err
    assert (tmp_path / "plan.svg").read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "no model was named"),
        (("gpt3-175b", "--tokens", "-5"), "tokens must be a number"),
        (("gpt3-175b", "--tokens", "1e400"), "tokens must be a number"),
        (("gpt3-175b", "--on", "h100", "--count", "0"), "count must be a number"),
        (("gpt3-17b",), "no model called"),
        (("gpt3-175b", "--on", "h1000"), "no accelerator called"),
        (("gpt3-125m", "--tokens", "300B", "--on", "a100", "--count", "8", "--days", "1"), "above its peak"),
        (("gpt3-175b", "--emit", "slurm", "--on", "h100"), "a layout needs a number of devices"),
        (("gpt3-175b", "--emit", "cron"), "emit"),
        (("nosuch.toml",), "no file nosuch.toml"),
        (("--table", "gpt4"), "no table called"),
        (("gpt2-124m", "--table", "gpt3"), "takes no model"),
        (("bert-base", "--fits"), "this machine is planned for decoders"),
        (("gpt2-124m", "--run", "--on", "h100", "--on", "a100"), "generating is for one kind of device"),
    ],
)
def test_nonsense_is_one_line_and_exit_2(run: Callable[..., Any], arguments: tuple[str, ...], problem: str) -> None:
    ran = run("plan", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    first, *rest = ran.err.splitlines()
    assert first.startswith("error: ")
    assert problem in first
    assert len(rest) <= 1
    assert "Traceback" not in ran.err
