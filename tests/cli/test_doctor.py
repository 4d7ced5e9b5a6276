"""`chatsmith doctor`"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from chatsmith import machine


def test_quick_shows_the_machine_and_how_to_add_what_is_missing(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = machine.Part("plot", "training curves", False, 'pip install "chatsmith[plot]"')
    monkeypatch.setattr(machine, "optional_parts", lambda: (missing,))
    ran = run("doctor", "--quick")
    assert ran.code == 0
    assert "cores" in ran.out
    assert 'pip install "chatsmith[plot]"' in ran.out


def test_json_has_the_measured_rates(run: Callable[..., Any]) -> None:
    ran = run("doctor", "--json")
    found = json.loads(ran.out)
    assert found["machine"]["cores"] == machine.usable_cores()
    assert found["rates"]["flops_per_second"]["cpu float32"] > 1e8
    assert found["rates"]["bytes_per_second"]["cpu"] > 1e8
    assert {part["name"] for part in found["parts"]} >= {"data", "docs", "track", "plot"}
