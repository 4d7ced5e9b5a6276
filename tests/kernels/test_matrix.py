"""Weights in panels: nothing is lost on the way there and back, and rounding stays within its step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError, WorkError
from chatsmith.kernels.infer.matrix import KINDS, Kind, from_bfloat16, in_panels, plain, to_bfloat16
from chatsmith.store.quantise import GROUPS, quantised


def random(rows: int, inputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, inputs)).astype(np.float32)


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_bfloat16_is_rounded_as_torch_does(bits: list[int]) -> None:
    x = np.array(bits, np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    wanted = torch.from_numpy(x.copy()).to(torch.bfloat16)
    assert np.array_equal(from_bfloat16(to_bfloat16(x)), wanted.float().numpy())


@given(rows=st.integers(1, 40), inputs=st.integers(1, 150), kind=st.sampled_from(KINDS), group=st.sampled_from(GROUPS))
@settings(max_examples=60, deadline=None)
def test_a_matrix_comes_back_within_half_a_step(rows: int, inputs: int, kind: Kind, group: int) -> None:
    weight = random(rows, inputs, seed=rows * 1000 + inputs)
    for symmetric in (True, False):
        packed = quantised(weight, kind, group=group, symmetric=symmetric)
        back = packed.numbers()
        assert back.shape == weight.shape
        assert packed.depth % 64 == 0
        assert packed.weight.nbytes % 64 == 0
        worst = {"f32": 0.0, "f16": 2e-3, "bf16": 1.6e-2, "int8": 0.02, "int4": 0.7}[kind]
        assert np.abs(back - weight).max() <= worst


def test_the_order_of_a_panel_is_the_documented_one() -> None:
    values = (np.arange(32)[:, None] * 64 + np.arange(64)).astype(np.uint16)
    halves = in_panels(values, "bf16")
    assert halves.shape == (2, 32, 16, 2)
    assert halves[1, 5, 3].tolist() == [19 * 64 + 10, 19 * 64 + 11]
    small = (np.arange(16)[:, None] + np.arange(64)).astype(np.uint8) % 16
    bytes_ = in_panels(small, "int4")
    assert bytes_.shape == (1, 8, 16, 4)
    assert bytes_[0, 2, 7, 1] == small[7, 17] | small[7, 21] << 4


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_zeros_and_the_largest_number_of_a_group_are_kept(kind: Kind) -> None:
    weight = np.zeros((16, 128), np.float32)
    weight[3, 70] = -5.0
    back = quantised(weight, kind, group=32).numbers()
    assert np.abs(back - weight).max() < 0.03
    assert (back[weight == 0] == 0).all()


def test_a_zero_of_its_own_helps_numbers_of_one_sign() -> None:
    weight = np.abs(random(32, 128)) + 1
    errors = [np.square(quantised(weight, "int4", symmetric=sym).numbers() - weight).mean() for sym in (True, False)]
    assert errors[1] < errors[0] / 2


def test_bits_per_weight_are_those_promised() -> None:
    weight = random(256, 512)
    bits = {
        ("int8", 128): 8.125, ("int8", 64): 8.25, ("int4", 32): 4.375, ("int4", 64): 4.25, ("bf16", 64): 16,
    }  # fmt: skip
    for (kind, group), wanted in bits.items():
        assert quantised(weight, kind, group=group).nbytes * 8 / weight.size == wanted  # type: ignore[arg-type]


def test_plain_kinds_are_exact_when_the_numbers_fit() -> None:
    weight = random(16, 64).astype(np.float16).astype(np.float32)
    assert np.array_equal(plain(weight, "f16").numbers(), weight)
    halves = to_bfloat16(weight)
    assert np.array_equal(plain(halves, "bf16").numbers(), from_bfloat16(halves))


@pytest.mark.parametrize(("kind", "symmetric"), [("int8", True), ("int4", True), ("int4", False)])
def test_moments_keep_the_products_rather_than_the_weights(kind: Kind, symmetric: bool) -> None:
    weight, mixing = random(700, 160), random(160, 160)
    x = random(2000, 160) @ (mixing * np.exp(random(160, 1)))
    x[:, 5] = 0  # an input that never was

    def missed(moments: np.ndarray | None) -> tuple[float, float]:
        back = quantised(weight, kind, group=32, symmetric=symmetric, moments=moments).numbers()
        return float(np.square(x @ (back - weight).T).mean()), float(np.abs(back - weight)[:, 5].max())

    (plain_error, plain_unused), (error, unused) = missed(None), missed(x.T @ x)
    assert error < plain_error / 2
    assert unused == plain_unused  # rounded to nearest, as it was


def test_inputs_that_have_nothing_to_do_with_each_other_are_rounded_to_nearest() -> None:
    weight = random(64, 200)
    moments = np.diag(np.linspace(0.1, 3, 200))
    assert np.array_equal(quantised(weight, "int4", moments=moments).numbers(), quantised(weight, "int4").numbers())


def test_moments_that_float32_blurred_are_damped_more_and_such_as_are_none_are_named() -> None:
    weight, x = random(16, 64), random(500, 64) * np.logspace(0, 6, 64, dtype=np.float32)
    blurred = (x.T @ x) * (1 + 1e-3 * np.random.default_rng(1).standard_normal((64, 64)))
    blurred = (blurred + blurred.T) / 2 - 0.05 * np.diag(np.full(64, np.trace(blurred) / 64))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(blurred + 0.01 * np.trace(blurred) / 64 * np.eye(64))
    assert np.isfinite(quantised(weight, "int4", group=32, moments=blurred).numbers()).all()
    with pytest.raises(WorkError, match="are not finite, or far too large"):
        quantised(weight, "int4", group=32, moments=np.full((64, 64), np.nan))


def test_another_group_is_refused() -> None:
    with pytest.raises(RequestError, match="32, 64, 128 weights, not 48"):
        quantised(random(16, 96), "int4", group=48)
