"""What `auto` trains in: bfloat16 where the processor multiplies it faster than float32."""

from __future__ import annotations

import pytest
import torch

from chatsmith.train import precision


@pytest.mark.parametrize(
    ("has", "maker", "wanted"),
    [
        ({"_is_amx_tile_supported", "_is_avx512_bf16_supported"}, "GenuineIntel", torch.bfloat16),
        ({"_is_avx512_bf16_supported"}, "GenuineIntel", torch.float32),
        ({"_is_avx512_bf16_supported"}, "AuthenticAMD", torch.bfloat16),
        ({"_is_arm_bf16_supported"}, "", torch.bfloat16),
        (set(), "AuthenticAMD", torch.float32),
    ],
)
def test_bfloat16_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, has: set[str], maker: str, wanted: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "_cpu_says", has.__contains__)
    monkeypatch.setattr(precision, "vendor", lambda: maker)
    assert precision.compute_dtype("auto", torch.device("cpu")) is wanted
    assert precision.compute_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
