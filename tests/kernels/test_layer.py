"""A whole layer in one call, each way, against float64; by any number of threads, and for sizes that take the kernels'
longer ways: rows that cannot be shared out evenly, sums in parts, widths that no vector divides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from chatsmith.kernels import build, layer, native
from chatsmith.models import fused
from chatsmith.models.decoder import Block
from chatsmith.models.dropout import Dropout
from chatsmith.models.layers import Rotary
from chatsmith.specs import ModelSpec, modern

pytestmark = pytest.mark.skipif(
    not native.multiplies(torch.zeros(1)), reason=f"the matrix kernels want AVX-512 with bfloat16: {build.status()}"
)


def gpt2(width: int, heads: int, ffn_width: int = 0, band: int | None = None) -> ModelSpec:
    return ModelSpec(8, 512, width, 1, heads, ffn_width=ffn_width, band=band)


CASES = {
    "gpt2": (gpt2(96, 3), 4, 50),
    "rows to share unevenly": (gpt2(96, 3), 3, 45),
    "one row": (gpt2(96, 6), 1, 130),
    "modern": (modern(8, 512, 96, 1, 6, kv_heads=3), 4, 50),
    "llama, uneven": (replace(modern(8, 512, 80, 1, 4), qk_norm=False), 5, 33),
    "no vector divides": (modern(8, 512, 50, 1, 3, head_dim=18, ffn_width=70, kv_heads=1), 3, 61),
    "banded": (gpt2(96, 3, band=16), 2, 70),
    "sums in parts": (gpt2(64, 2, ffn_width=4200), 2, 24),
    "many rows": (gpt2(32, 1), 5, 420),
}
Result = tuple[Tensor, Tensor, dict[str, Tensor]]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(spec: ModelSpec, B: int, T: int, dtype: torch.dtype, drops: float = 0.0) -> Result:
    """Output of a layer, slope of its input and slopes of its weights, the same draw for each dtype."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int, spread: float = 1.0) -> Tensor:
        # of the numbers that bfloat16 has, so that every dtype computes the same
        return (torch.randn(*shape, generator=generator) * spread).bfloat16().to(dtype)

    block = Block(replace(spec, dropout=drops), 0, dtype=dtype)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(draw(*parameter.shape, spread=0.1) + (1.0 if parameter.ndim == 1 else 0.0))
    x, slope = draw(B, T, spec.width).requires_grad_(), draw(B, T, spec.width)
    noise = torch.randint(-(2**62), 2**62, (B, T), generator=generator) if drops else None
    angles = None
    if spec.positions == "rotary":
        cosine, sine = Rotary(spec).tables(T, x.device)
        angles = (cosine[:T], sine[:T])
    first = fused.windows(x, spec.band, None)
    if dtype == torch.float64:
        at = torch.arange(T)
        seen = (at[None, :, None] >= at) & (at >= (torch.zeros(B, T) if first is None else first)[:, :, None])
        y = block(x, angles, seen[:, None], None, noise)
    else:
        dropout = None if noise is None else Dropout(noise, drops)
        y = fused.layer(block, block.spec, x, angles, first, dropout)
    y.backward(slope)
    assert x.grad is not None
    return y.detach(), x.grad, {name: p.grad for name, p in block.named_parameters() if p.grad is not None}


def near(mine: Tensor, exact: Tensor, what: str) -> None:
    rough = 2e-5 if mine.dtype == torch.float32 else 0.03
    assert (mine.double() - exact).norm() <= rough * exact.norm(), what


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_layer_is_what_float64_says_and_does_not_depend_on_the_threads(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "SMALL_PRODUCT", 0)  # however small, all threads take part
    spec, B, T = CASES[case]
    assert layer.suits(spec, torch.zeros(B, T, spec.width, dtype=dtype))
    y64, dx64, slopes64 = run(spec, B, T, torch.float64)
    results: list[Result] = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y, dx, slopes = run(spec, B, T, dtype)
        near(y, y64, "y")
        near(dx, dx64, "dx")
        assert slopes.keys() == slopes64.keys()
        whole = sum(float(slope.norm()) ** 2 for slope in slopes64.values()) ** 0.5
        for name, slope in slopes.items():
            # Beside its own size a slope may be rounding alone, as that of a key's bias is: it is zero by theory.
            if slopes64[name].norm() > 0.01 * whole:
                near(slope, slopes64[name], name)
        results.append((y, dx, slopes))
    for y, dx, slopes in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(dx, results[0][1])
        assert all(torch.equal(slope, results[0][2][name]) for name, slope in slopes.items() if "norm" not in name)


@pytest.mark.parametrize("case", ["gpt2", "llama, uneven"])
def test_dropout_in_a_layer(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "SMALL_PRODUCT", 0)
    spec, B, T = CASES[case]
    y64, dx64, slopes64 = run(spec, B, T, torch.float64, drops=0.3)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y, dx, slopes = run(spec, B, T, torch.float32, drops=0.3)
        near(y, y64, "y")
        near(dx, dx64, "dx")
        for name in ("attention.output.weight", "ffn.down.weight", "attention.query.weight", "ffn_norm.weight"):
            near(slopes[name], slopes64[name], name)


def test_a_nan_stays_visible() -> None:
    spec, B, T = CASES["modern"]
    x = torch.zeros(B, T, spec.width)
    x[2, 7, 3] = float("nan")
    block = Block(spec, 0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(0.1)
        y = fused.layer(block, spec, x, None, None)
    assert y[2, 7:].isnan().all()
    assert y[[0, 1, 3]].isfinite().all()


def test_what_a_layer_leaves_is_one_room_that_nobody_else_sees() -> None:
    spec = gpt2(32, 2)
    block = Block(spec, 0)
    x = torch.randn(2, 8, 32)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(0.1)
        alone = fused.layer(block, spec, x, None, None)
    y = fused.layer(block, spec, x.requires_grad_(), None, None)
    assert torch.equal(y, alone)
    assert y.untyped_storage().nbytes() > 2 * alone.untyped_storage().nbytes()  # with what the way back needs
    y.mul_(2.0)  # a view would refuse this
    y.sum().backward()
    slopes = [parameter.grad for parameter in block.parameters()]
    assert all(slope is not None and slope.is_contiguous() and slope.data_ptr() % 64 == 0 for slope in slopes)
    assert len({slope.untyped_storage().data_ptr() for slope in slopes if slope is not None}) == 1
