"""The catalogue: what the rows say, how they are found, and devices of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatsmith.errors import RequestError
from chatsmith.plan.accelerators import Accelerator, catalogue, find_accelerator, load_accelerators
from chatsmith.plan.prices import all_prices, price_range, prices_of


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("v100", "V100-SXM2-16GB"),
        ("V100-PCIe", "V100-PCIe-16GB"),
        ("a100", "A100-SXM4-80GB"),
        ("A100-40GB", "A100-SXM4-40GB"),
        ("h100", "H100-SXM5-80GB"),
        ("rtx8000", "Quadro RTX 8000"),
        ("RTX 8000", "Quadro RTX 8000"),
        ("tpu v4", "TPU v4"),
        ("tpu-v5e", "TPU v5e"),
        ("mi300x", "MI300X"),
        ("4090", "RTX 4090"),
    ],
)
def test_devices_are_found_in_any_spelling(said: str, name: str) -> None:
    assert find_accelerator(said).name == name


def test_peaks_are_dense() -> None:
    peaks = {
        name: find_accelerator(name).training_tflops for name in ("v100", "a100", "h100", "b200", "mi300x", "l40s")
    }
    assert peaks == {"v100": 125, "a100": 312, "h100": 989.4, "b200": 2250, "mi300x": 1307.4, "l40s": 362}
    assert find_accelerator("v100").training_precision == "fp16"
    assert find_accelerator("v100").peak_tflops("bf16") is None


def test_every_row_has_a_source_a_date_and_what_planning_needs() -> None:
    for device in catalogue().values():
        assert device.source
        assert re.fullmatch(r"20\d\d(-\d\d){0,2}", device.as_of), device.name
        assert device.memory_gb > 0
        assert device.bandwidth_gb_s > 0
        assert device.training_tflops > 0
    for price in all_prices():
        assert price.accelerator in catalogue()
        assert price.provider
        assert price.source
        assert re.fullmatch(r"20\d\d(-\d\d){0,2}", price.as_of), price
        assert 0.05 < price.usd_per_hour < 50
        assert price.checked in ("source", "second hand", "no")
        assert price.kind in ("listed", "cited")


def test_no_two_devices_share_a_name() -> None:
    words = [re.sub("[^a-z0-9]", "", w.lower()) for d in catalogue().values() for w in (d.name, *d.aliases)]
    assert len(words) == len(set(words))


def test_an_unknown_device_gives_the_nearest() -> None:
    with pytest.raises(RequestError, match="no accelerator called 'h10'") as error:
        find_accelerator("h10")
    assert "h100" in str(error.value.hint)


def test_devices_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[accelerator]]\nname = "Abacus"\nbf16_tflops = 3\nmemory_gb = 12\nbandwidth_gb_s = 100\naliases = ["h100"]\n'
    )
    [mine] = load_accelerators(file)
    assert (mine.training_tflops, mine.memory_gb) == (3, 12)
    assert find_accelerator("abacus", [mine]) is mine
    assert find_accelerator("h100", [mine]) is mine
    assert find_accelerator("h100").name == "H100-SXM5-80GB"


_START = "[[accelerator]]\nname = 'x'\nmemory_gb = 1\nbandwidth_gb_s = 1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no accelerators"),
        ("[accelerator]\nname = 'x'\n", "holds no accelerators"),
        ("[[accelerator]]\nname = 'x'\nbf16 = 1\n", "unknown key bf16"),
        ("[[accelerator]]\nname = 'x'\nmemory_gb = 1\n", "bandwidth_gb_s is missing"),
        (f"{_START}\n", "x has no peak rate"),
        (f"{_START.replace('x', ' ')}\nbf16_tflops = 1\n", "needs a name"),
        (f"{_START}\nbf16_tflops = -1\n", "bf16_tflops must be between"),
        (f"{_START}\nbf16_tflops = 1e300\n", "bf16_tflops must be between"),
        (f"{_START}\nbf16_tflops = inf\n", "must be a finite number"),
        (f"{_START}\nbf16_tflops = 'many'\n", "must be a number"),
    ],
)
def test_a_wrong_file_of_devices_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(RequestError, match=problem) as error:
        load_accelerators(file)
    assert "\n" not in error.value.message


def test_the_best_precision_that_there_is() -> None:
    assert Accelerator("x", 1.0, 1.0, fp32_tflops=1.0).training_precision == "fp32"
    assert Accelerator("x", 1.0, 1.0, fp32_tflops=1.0, fp16_tflops=2.0).training_precision == "fp16"


def test_the_price_is_the_middle_of_recent_listings() -> None:
    found = price_range("H100-SXM5-80GB")
    assert found is not None
    newest = max(int(price.as_of[:4]) for price in prices_of("H100-SXM5-80GB") if price.kind == "listed")
    assert int(found.middle.as_of[:4]) >= newest - 1
    assert found.low_usd_per_hour <= found.middle.usd_per_hour <= found.high_usd_per_hour
    assert found.listings > 3
    assert price_range("P100-SXM2-16GB") is None
    cited = price_range("H800-SXM")  # nobody lists it: then what a paper assumed counts
    assert cited is not None
    assert cited.middle.kind == "cited"


def test_a_price_says_who_and_when() -> None:
    for price in all_prices():
        assert price.provider in price.describe()
        assert price.as_of in price.describe()
        assert ("unchecked" in price.describe()) == (price.checked == "no")
