"""The promise of a backend: a row's logits are the same bits in any company, blocks and parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chatsmith.errors import RequestError
from chatsmith.generate import rows
from chatsmith.generate.backend import Floats, Step
from chatsmith.generate.rows import Product, Rows, lay_across
from chatsmith.generate.torch_backend import TorchBackend
from chatsmith.models import attention, cache
from chatsmith.models.cache import PagedCache
from chatsmith.specs import ModelSpec, modern
from patience import PATIENCE
from tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]

SPECS = {
    "modern": modern(vocab_size=320, context=100, width=64, layers=2, heads=4, kv_heads=2),
    "gpt2": ModelSpec(vocab_size=320, context=100, width=48, layers=2, heads=4),
    "banded": ModelSpec(vocab_size=320, context=100, width=48, layers=3, heads=4, band=37),
    "odd head": modern(vocab_size=320, context=100, width=60, layers=2, heads=2, head_dim=22, ffn_width=96),
}
Part = tuple[list[int], int, np.ndarray]


def step(parts: list[Part]) -> Step:
    """New tokens, the place of the first, and blocks [G, W], of each sequence."""
    starts = np.cumsum([0, *(len(ids) for ids, _, _ in parts)]).astype(np.int32)
    positions = np.concatenate([np.arange(at, at + len(ids)) for ids, at, _ in parts]).astype(np.int32)
    ids = np.array([token for ids, _, _ in parts for token in ids], np.int32)
    tables = np.ascontiguousarray(np.stack([table for _, _, table in parts], axis=1))
    return Step(ids, positions, starts, tables, np.arange(len(ids), dtype=np.int32))


def backend(spec: ModelSpec, dtype: torch.dtype, across: bool) -> TorchBackend:
    from chatsmith.models.decoder import Decoder

    model = Decoder(spec)
    model.init_weights(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0) if weight.ndim == 2 else weight.add_(0.1)
    model = model.to(dtype).eval()
    if across:
        lay_across(model)
    return TorchBackend(model, cache_bytes=2**24)


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "plain torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("across", [False, True], ids=["along", "across"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_row_has_the_same_bits_in_any_company(
    spec: ModelSpec, dtype: torch.dtype, across: bool, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        for module in (cache.native, attention.native):
            monkeypatch.setattr(module, "ready", lambda x: False)
    made, rng = backend(spec, dtype, across), np.random.default_rng(0)
    texts = [rng.integers(0, 320, int(count)).tolist() for count in (100, 3, 40, 65, 33, 9)]
    free = rng.permutation(made.blocks).astype(np.int32)

    def table() -> np.ndarray:
        nonlocal free
        mine, free = free[: 4 * len(made.bands)], free[4 * len(made.bands) :]
        return mine.reshape(len(made.bands), 4)

    whole: list[Floats] = [made.logits(step([(text, 0, table())])) for text in texts]
    with torch.inference_mode():
        for text, found in zip(texts, whole, strict=True):
            expected = made.model(torch.tensor([text]))[0].float().numpy()
            assert np.abs(found - expected).max() < (1e-3 if dtype == torch.float32 else 0.05) * np.abs(expected).max()
    held = table()
    for at, token in enumerate(texts[0]):
        [row] = made.logits(step([([token], at, held)]))
        np.testing.assert_array_equal(row, whole[0][at])
    tables, places = [table() for _ in texts], [0] * len(texts)
    while any(place < len(text) for place, text in zip(places, texts, strict=True)):
        going = [n for n in rng.permutation(len(texts)) if places[n] < len(texts[n]) and rng.random() < 0.7]
        parts = []
        for number in going:
            count = int(rng.choice([1, 1, 2, 5, 40]))
            parts.append((texts[number][places[number] : places[number] + count], places[number], tables[number]))
        if not parts:
            continue
        found = made.logits(step(parts))
        for number, (ids, place, _) in zip(going, parts, strict=True):
            np.testing.assert_array_equal(found[: len(ids)], whole[number][place : place + len(ids)])
            found = found[len(ids) :]
            places[number] += len(ids)


def test_a_pass_is_cut_where_so_many_rows_would_have_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SIZES", (1, 2, 4, 8))
    monkeypatch.setattr(rows, "_REFERENCES", (8, 4, 2, 1))
    made = backend(SPECS["modern"], torch.float32, True)
    table = np.arange(4, dtype=np.int32)[None]
    text = list(range(5, 55))
    cut = made.logits(step([(text[:20], 0, table), (text[:13], 0, table + 4)]))
    monkeypatch.undo()
    np.testing.assert_allclose(cut[:20], made.logits(step([(text[:20], 0, table + 8)])), rtol=1e-3, atol=1e-4)


def test_rows_are_padded_to_what_agrees() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 24, generator=generator)
    asked = Rows([Product.of(weight, False, torch.float32)])
    for count in (1, 2, 5, 30):
        assert asked.fit(count) >= count
    x = torch.randn(30, 24, generator=generator)
    whole = asked.apply(lambda part: part @ weight.t(), x)
    assert whole.shape == (30, 40)
    torch.testing.assert_close(whole, x @ weight.t())


def test_a_bias_that_is_added_first_for_one_row_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MKL does it with AVX2: added to zeros, sums that begin with the bias are those that end with it."""

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        first = bias is not None and len(x) == 1
        total = bias.expand(len(x), -1).clone() if first else x.new_zeros(len(x), len(weight))
        for place in range(x.shape[1]):
            total += x[:, place, None] * weight[:, place]
        return total if bias is None or first else total + bias

    monkeypatch.setattr(rows, "F", SimpleNamespace(linear=linear))
    monkeypatch.setattr(rows, "_known", {})
    weight = torch.zeros(40, 24)
    assert Rows([Product.of(weight, False, torch.float32)]).fit(1) == 1
    assert Rows([Product.of(weight, True, torch.float32)]).fit(1) == 2


def test_rows_that_a_library_leaves_over_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """MKL with AVX2 multiplies six rows at a time, and sums those that are left over in another order."""
    real = torch.matmul

    def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        whole = x.shape[-2] - x.shape[-2] % 6
        left = real(x[..., whole:, :].flip(-1), y.flip(-2))
        return torch.cat((real(x[..., :whole, :], y), left), -2)

    monkeypatch.setattr(cache.native, "ready", lambda x: False)
    monkeypatch.setattr(torch, "matmul", matmul)
    cache._span.cache_clear()
    try:
        assert cache._span(1, 12, 32, torch.float32, torch.device("cpu"), 1) == 6
        made = backend(SPECS["gpt2"], torch.float32, True)
        text, table = list(range(5, 55)), np.arange(4, dtype=np.int32)[None]
        whole = made.logits(step([(text, 0, table)]))
        for at, token in enumerate(text):
            np.testing.assert_array_equal(made.logits(step([([token], at, table + 4)]))[0], whole[at])
    finally:
        cache._span.cache_clear()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this PyTorch multiplies without MKL")
def test_the_bits_are_the_same_with_what_mkl_takes_on_lesser_processors() -> None:
    """The tests of a row's company, with the matrix kernels that MKL has for AVX2."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "any_company and gpt2 and float32",
    ]
    changed = os.environ | {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    done = subprocess.run(command, env=changed, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:]


def test_copies_of_blocks() -> None:
    made = backend(SPECS["banded"], torch.float32, False)
    for pool in (*made.cache.keys, *made.cache.values):
        pool.copy_(torch.randn_like(pool))
    before = [pool.clone() for pool in made.cache.keys]
    made.copy([(1, 5), (2, 6)])
    made.copy([])
    for old, new in zip(before, made.cache.keys, strict=True):
        assert torch.equal(new[5], old[1])
        assert torch.equal(new[6], old[2])
        assert torch.equal(new[7:], old[7:])


def test_new_weights_are_noticed() -> None:
    model = tiny_model()
    made = TorchBackend(model, cache_bytes=1)
    before = made.version
    assert made.version == before
    with torch.no_grad():
        model.norm.weight.add_(1.0)
    assert made.version != before
    model.train()
    assert made.version != made.version


def test_a_cache_of_no_size_is_refused() -> None:
    with pytest.raises(RequestError, match="a cache needs blocks of 16, 32"):
        PagedCache(SPECS["gpt2"], 0)
    with pytest.raises(RequestError, match="a cache needs blocks of 16, 32"):
        PagedCache(SPECS["gpt2"], 4, block_size=20)
