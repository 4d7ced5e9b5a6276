"""Each kernel against float64 arithmetic, for both dtypes, odd sizes and any number of threads; NaN stays visible."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from chatsmith.kernels import build, native

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no kernels here: {build.status()}")
matrices = pytest.mark.skipif(
    not native.multiplies(torch.zeros(1)), reason="the matrix kernels want AVX-512 with bfloat16"
)
DTYPES = [torch.float32, torch.bfloat16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(*shape: int, dtype: torch.dtype, seed: int = 0, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1000 + sum(shape))
    return (torch.randn(*shape, generator=generator) * spread).to(dtype)


def close(mine: Tensor, exact: Tensor, wide: float = 1.0) -> None:
    """Within a few roundings of the dtype, measured against the size of the whole result."""
    unit = torch.finfo(mine.dtype).eps
    difference = (mine.double() - exact.double()).abs().max().item()
    allowed = wide * (16 if mine.dtype == torch.float32 else 4)  # float32 shows how sums grow, bfloat16 hides it
    assert difference <= allowed * unit * max(exact.double().abs().max().item(), 0.1)


SIZES = [(1, 2, 1), (7, 6, 33), (12, 32, 32), (61, 130, 70), (200, 18, 257), (385, 64, 96)]


@matrices
@every_dtype
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_linear_maps_and_their_slopes(dtype: torch.dtype, rows: int, inputs: int, outputs: int, threads: int) -> None:
    x, weight = draw(rows, inputs, dtype=dtype), draw(outputs, inputs, dtype=dtype, seed=1)
    bias, more = draw(outputs, dtype=dtype, seed=2), draw(rows, outputs, dtype=dtype, seed=3)
    slope, less = draw(rows, outputs, dtype=dtype, seed=4), draw(rows, inputs, dtype=dtype, seed=5)
    close(native.linear(x, weight), x.double() @ weight.double().T)
    close(native.linear(x, weight, bias, more), x.double() @ weight.double().T + bias.double() + more.double())
    close(native.linear_input(slope, weight), slope.double() @ weight.double())
    close(native.linear_input(slope, weight, less.clone()), slope.double() @ weight.double() + less.double())
    exact = slope.double().T @ x.double()
    close(native.linear_weight(slope, x), exact)
    for made, room in (
        (lambda out: native.linear(x, weight, out=out), torch.empty(rows, outputs, dtype=dtype)),
        (lambda out: native.linear_weight(slope, x, out=out), torch.empty(outputs, inputs, dtype=dtype)),
    ):
        assert made(room).data_ptr() == room.data_ptr()
        assert torch.equal(room, made(None))
    held = draw(outputs, inputs, dtype=dtype, seed=6)
    expected = exact + held.double()
    assert native.linear_weight(slope, x, held) is held
    close(held, expected)


@matrices
@every_dtype
def test_sums_longer_than_the_cache_are_taken_in_parts(dtype: torch.dtype, threads: int) -> None:
    x, weight = draw(30, 9000, dtype=dtype), draw(40, 9000, dtype=dtype, seed=1)
    close(native.linear(x, weight), x.double() @ weight.double().T, wide=4)
    close(
        native.linear_input(x, draw(9000, 40, dtype=dtype)), x.double() @ draw(9000, 40, dtype=dtype).double(), wide=4
    )
    tall, other = draw(5001, 34, dtype=dtype), draw(5001, 50, dtype=dtype, seed=1)
    held = draw(34, 50, dtype=dtype, seed=2)
    expected = tall.double().T @ other.double() + held.double()
    close(native.linear_weight(tall, other, held), expected, wide=4)


@matrices
@every_dtype
def test_a_product_does_not_depend_on_the_threads(dtype: torch.dtype) -> None:
    x, weight, slope = draw(500, 96, dtype=dtype), draw(320, 96, dtype=dtype), draw(500, 320, dtype=dtype)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append((native.linear(x, weight), native.linear_input(slope, weight), native.linear_weight(slope, x)))
    for (one, two), part in itertools.product(itertools.pairwise(results), range(3)):
        assert torch.equal(one[part], two[part])


@matrices
@every_dtype
def test_nan_and_infinity_pass_through_products(dtype: torch.dtype) -> None:
    x, weight = draw(40, 64, dtype=dtype), draw(48, 64, dtype=dtype)
    x[3, 5], x[7, 1] = float("nan"), float("inf")
    y = native.linear(x, weight)
    assert y[3].isnan().all()
    assert not y[7].isfinite().any()
    assert y[[0, 1, 2, 4, 5, 6, 8]].isfinite().all()


@every_dtype
@pytest.mark.parametrize("width", [1, 3, 16, 130])
@pytest.mark.parametrize("layer", [True, False], ids=["layer", "rms"])
def test_norms(dtype: torch.dtype, width: int, layer: bool, threads: int) -> None:
    x, gain = draw(300, width, dtype=dtype, spread=2.0), draw(width, dtype=dtype, seed=1)
    bias = draw(width, dtype=dtype, seed=2) if layer else None
    exact = [t.double().requires_grad_() for t in (x, gain, bias) if t is not None]
    if layer:
        expected = F.layer_norm(exact[0], (width,), exact[1], exact[2], 1e-2)
    else:
        expected = F.rms_norm(exact[0], (width,), exact[1], 1e-2)
    y, kept = native.norm(x, gain, bias, 1e-2)
    close(y, expected)
    slope, add = draw(300, width, dtype=dtype, seed=3), draw(300, width, dtype=dtype, seed=4)
    expected.backward(slope.double())
    dx, d_gain, d_bias = native.norm_back(slope, x, gain, kept, add)
    assert exact[0].grad is not None
    close(dx, exact[0].grad + add.double(), wide=4)
    for mine, theirs in zip((d_gain, d_bias), exact[1:], strict=False):
        assert mine is not None
        assert theirs.grad is not None
        close(mine, theirs.grad, wide=8)


@every_dtype
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("turned", ["no", "by place", "by row"])
def test_heads(dtype: torch.dtype, normed: bool, turned: str, threads: int) -> None:
    B, T, H, D = 3, 37, 5, 22
    x, gain = draw(B, T, H * D, dtype=dtype), draw(D, dtype=dtype, seed=1) if normed else None
    shape = (B, T, D // 2) if turned == "by row" else (T, D // 2)
    angle = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 6
    angles = None if turned == "no" else (angle.cos(), angle.sin())
    y, scale = native.heads(x, D, gain, angles, 1e-3)
    exact = x.double().requires_grad_()
    wide_gain = None if gain is None else gain.double().requires_grad_()
    split = exact.view(B, T, H, D)
    if wide_gain is not None:
        split = F.rms_norm(split, (D,), wide_gain, 1e-3)
    if angles is not None:
        cosine, sine = (table.double().unsqueeze(-2) for table in angles)
        a, b = split.chunk(2, -1)
        split = torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)
    close(y, split.reshape(B, T, H * D))
    slope = draw(B, T, H * D, dtype=dtype, seed=2)
    split.reshape(B, T, H * D).backward(slope.double())
    dx, d_gain = native.heads_back(slope.clone(), x, D, gain, angles, scale)
    assert exact.grad is not None
    close(dx, exact.grad, wide=4)
    if wide_gain is not None and d_gain is not None:
        assert wide_gain.grad is not None
        close(d_gain, wide_gain.grad, wide=8)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, dim: int, first: Tensor | None) -> Tensor:
    B, T, _ = query.shape
    q, k, v = (x.view(B, T, -1, dim).transpose(1, 2) for x in (query, key, value))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    at = torch.arange(T)
    seen = (at[None, :, None] >= at) & (at >= (torch.zeros(B, T) if first is None else first)[:, :, None])
    scores = (q @ k.mT) * dim**-0.5
    mixed = torch.softmax(scores.masked_fill(~seen[:, None], float("-inf")), -1) @ v
    return mixed.transpose(1, 2).reshape(B, T, -1)


@matrices
@every_dtype
@pytest.mark.parametrize("time", [1, 2, 31, 64, 97, 203])
@pytest.mark.parametrize(("heads", "groups", "dim"), [(4, 4, 32), (3, 1, 20), (4, 2, 66)])
def test_attention(dtype: torch.dtype, time: int, heads: int, groups: int, dim: int) -> None:
    query = draw(2, time, heads * dim, dtype=dtype)
    key, value = draw(2, time, groups * dim, dtype=dtype, seed=1), draw(2, time, groups * dim, dtype=dtype, seed=2)
    slope = draw(2, time, heads * dim, dtype=dtype, seed=3)
    window = (torch.arange(time) - torch.tensor([[5], [11]])).clamp(min=0).to(torch.int32)
    for first in (None, window):
        exact = [x.double().requires_grad_() for x in (query, key, value)]
        expected = plain_attention(*exact, dim, first)  # type: ignore[arg-type, misc]
        expected.backward(slope.double())
        output, kept = native.attention(query, key, value, dim, first)
        close(output, expected, wide=2)
        slopes = native.attention_back(slope, query, key, value, dim, first, kept)
        for mine, theirs in zip(slopes, exact, strict=True):
            assert theirs.grad is not None
            close(mine, theirs.grad, wide=8)


@matrices
@every_dtype
def test_attention_shows_nan_wherever_it_is_seen(dtype: torch.dtype) -> None:
    query, key, value = (draw(1, 90, 32, dtype=dtype, seed=seed) for seed in range(3))
    value[0, 70, 4] = float("nan")
    query[0, 80, 0] = float("nan")
    output, _ = native.attention(query, key, value, 16)
    # Queries are taken in blocks, and a weight of nothing times NaN is NaN: those of the same block may show it, too.
    assert output[0, :60].isfinite().all()
    assert output[0, 80, :16].isnan().all()
    assert output[0, 70:, 4].isnan().all()


@every_dtype
def test_activations(dtype: torch.dtype, threads: int) -> None:
    x, up = draw(20011, dtype=dtype, spread=4.0), draw(20011, dtype=dtype, seed=1)
    slope = draw(20011, dtype=dtype, seed=2)
    for mine, back, exact_function, inputs in (
        (native.gelu_tanh, native.gelu_tanh_back, lambda v: F.gelu(v, approximate="tanh"), (x,)),
        (native.swiglu, native.swiglu_back, lambda g, u: F.silu(g) * u, (x, up)),
    ):
        exact = [t.double().requires_grad_() for t in inputs]
        expected = exact_function(*exact)
        expected.backward(slope.double())
        close(mine(*inputs), expected)  # type: ignore[operator]
        *slopes, again = back(slope, *inputs)  # type: ignore[operator]
        assert torch.equal(again, mine(*inputs))  # type: ignore[operator]
        for got, wanted in zip(slopes, exact, strict=True):
            assert wanted.grad is not None
            close(got, wanted.grad)


@every_dtype
def test_activations_at_the_ends_of_the_range_and_at_nan(dtype: torch.dtype) -> None:
    x = torch.tensor([-float("inf"), -3e4, -90.0, -0.0, 90.0, 3e4, float("inf"), float("nan")], dtype=dtype)
    y = native.swiglu(x, torch.ones_like(x))
    assert y[1:4].abs().max() < 1e-30
    assert torch.equal(y[4:7], x[4:7])
    assert y[7].isnan()
    assert native.gelu_tanh(x)[7].isnan()
    strange = torch.tensor([0x7F800001, 0x7FC01FFF], dtype=torch.int32).view(torch.float32)
    assert native.swiglu(strange, torch.ones(2)).isnan().all()


@every_dtype
@pytest.mark.parametrize("columns", [1, 17, 1000])
def test_cross_entropy(dtype: torch.dtype, columns: int, threads: int) -> None:
    logits = draw(70, columns, dtype=dtype, spread=5.0)
    targets = torch.randint(0, columns, (70,), generator=torch.Generator().manual_seed(0))
    targets[::7] = -100
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact, targets, reduction="none", ignore_index=-100)
    expected.sum().backward()
    losses = native.cross_entropy_(logits, targets)
    assert torch.allclose(losses.double(), expected, atol=1e-5, rtol=1e-5)
    assert exact.grad is not None
    close(logits, exact.grad, wide=4)
    assert native.cross_entropy_(torch.full((1, 8), float("nan"), dtype=dtype), torch.tensor([3])).isnan().all()
