"""Numbers as people give them and as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.plan.quantities import (
    bytes_text,
    duration_text,
    energy_text,
    flops_text,
    rate_text,
    read_count,
    read_number,
    short,
    speed_text,
    usd_text,
)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("300B", 300e9), ("1.4T", 1.4e12), ("1.4 t", 1.4e12), ("2M", 2e6), ("10k", 1e4), ("3e11", 3e11), ("10G", 1e10),
        ("300_000", 3e5), ("1,000,000", 1e6), (300, 300.0), (3e11, 3e11), ("+5", 5.0), ("7.", 7.0),
    ],
)  # fmt: skip
def test_numbers(said: str | float, number: float) -> None:
    assert read_number(said, "tokens", 1, 1e18, "--tokens 300B") == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize(
    "said",
    ["-5", "0", "1e400", "-1e400", "inf", "nan", "many", "", "B", "30x", "3 0", "1e999999999", "9" * 200, 10**400,
     -(10**400), float("inf"), float("nan"), True, None, [], "1e19", "٣"],
)  # fmt: skip
def test_nonsense_is_one_line(said: object) -> None:
    with pytest.raises(RequestError, match="tokens must be a number from 1 to 1e18") as error:
        read_number(said, "tokens", 1, 1e18, "--tokens 300B")  # type: ignore[arg-type]
    assert "\n" not in error.value.message
    assert len(error.value.message) < 120
    assert error.value.hint == "for example --tokens 300B"


@given(st.text())
def test_any_text_is_a_number_within_bounds_or_refused(text: str) -> None:
    try:
        number = read_number(text, "tokens", 1, 1e18, "--tokens 300B")
    except RequestError:
        return
    assert 1 <= number <= 1e18


def test_counts_are_whole() -> None:
    assert read_count("8", "count", 100, "--count 8") == 8
    assert read_count("1k", "count", 1e6, "--count 8") == 1000
    with pytest.raises(RequestError, match=r"count must be a whole number, not 2\.5"):
        read_count("2.5", "count", 100, "--count 8")
    with pytest.raises(RequestError, match="count must be a number from 1 to 100"):
        read_count("0", "count", 100, "--count 8")


def test_what_people_read() -> None:
    assert [short(n) for n in (174604259328, 300e9, 999_999, 12, 0)] == ["174.6 B", "300 B", "1 M", "12", "0"]
    assert flops_text(3.14288e23) == "3.143e23"
    assert flops_text(5.0) == "5.000e00"
    assert [usd_text(n) for n in (4.6647e6, 12340.4, 672, 19.8, 0.034, 3e12, 0)] == [
        "$4.66 million", "$12,340", "$672", "$19.80", "$0.034", "$3 trillion", "$0.00",
    ]  # fmt: skip
    days = 86400.0
    assert [duration_text(s) for s in (355.93 * 365 * days, 33.8 * days, 1.5 * days, 1800, 2.5)] == [
        "355.9 years", "33.8 days", "36 hours", "30 minutes", "2.5 seconds",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (698.417e9, 4.718592e6, 12)] == ["698.4 GB", "4.719 MB", "12 bytes"]
    assert [energy_text(n) for n in (935_000, 12.4, 2.5e6)] == ["935 MWh", "12.4 kWh", "2.5 GWh"]
    assert [rate_text(n) for n in (28, 0.141, 989.4)] == ["28 TFLOP/s", "141 GFLOP/s", "989.4 TFLOP/s"]
    assert [speed_text(n) for n in (0.3894, 74.66, 1929.4)] == ["0.389", "74.7", "1,929"]


@given(st.floats(1e-300, 1e300))
def test_nothing_prints_a_raw_exponent(number: float) -> None:
    for text in (short, usd_text, duration_text, bytes_text, energy_text, rate_text, speed_text):
        assert "e+" not in text(number)
