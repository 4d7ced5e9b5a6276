"""What a machine can do, by its memory and its measured rates."""

from __future__ import annotations

import pytest

from chatsmith import machine
from chatsmith.machine_rates import Kept, Rates
from chatsmith.plan.budget import achieved_share
from chatsmith.plan.fits import fits_here, this_device
from chatsmith.plan.memory_here import training_memory
from chatsmith.plan.scaling import optimal_tokens
from chatsmith.specs import PRESETS

HERE = machine.Machine("Abacus", "x86_64", "Linux", 2, 2, (), machine.Memory(16 * 10**9, 10 * 10**9))
CPU = Kept({}, Rates({"cpu float32": 1e11, "cpu bfloat16": 3e11}, {"cpu": 2e10}))
GPU = Kept(
    {},
    Rates({"cpu float32": 1e11, "cuda bfloat16": 4e14, "cuda float32": 4e13}, {"cpu": 2e10, "cuda": 2e12}),
    (machine.Gpu("H100", 80 * 2**30, 132, "9.0"),),
)


def test_the_processor_is_used_where_there_is_no_gpu() -> None:
    device = this_device(HERE, CPU)
    assert (device.memory_bytes, device.flops_per_second, device.bandwidth_bytes_per_second) == (10e9, 3e11, 2e10)
    device = this_device(HERE, GPU)
    assert (device.name, device.flops_per_second, device.bandwidth_bytes_per_second) == ("H100", 4e14, 2e12)


def test_small_sizes_train_and_large_ones_do_not() -> None:
    sizes = fits_here(HERE, CPU).sizes
    assert len(sizes) == len(PRESETS)
    assert [size.parameters for size in sizes] == sorted(size.parameters for size in sizes)
    assert next(size.name for size in sizes if size.trains) == "gpt2-124m"
    for size in sizes:
        assert size.trains == (size.training_bytes <= 10e9)
        assert (size.training_seconds is not None) == size.trains
        assert size.training_bytes > 14 * size.parameters  # two-byte weights and gradients, masters, two moments
    larger = {size.name for size in fits_here(HERE, GPU).sizes if size.trains}
    assert larger > {size.name for size in sizes if size.trains}


def test_what_our_own_kernels_reach_is_the_bound() -> None:
    flops = CPU.rates.flops_per_second | {"cpu bfloat16, native kernels": 9e11}
    native = Kept({}, Rates(flops, {"cpu": 2e10, "cpu, native kernels": 3e10}))
    device = this_device(HERE, native)
    assert (device.flops_per_second, device.bandwidth_bytes_per_second) == (9e11, 3e10)
    for size in fits_here(HERE, native).sizes:  # and what training takes is what they keep
        spec = PRESETS[size.name]
        context = min(spec.context, 2048)
        wanted = training_memory(spec, 1, context, path="fused", optimizer="adamw", threads=2).total
        assert size.training_bytes == wanted


def test_the_time_is_the_compute_over_the_measured_rate() -> None:
    spec = PRESETS["gpt2-124m"]
    [size] = fits_here(HERE, CPU, {"gpt2-124m": spec}).sizes
    flops = optimal_tokens(spec.parameters) * spec.training_flops_per_token(1024)
    assert size.training_seconds == pytest.approx(flops / 3e11 / achieved_share(768))


def test_it_is_drawn_with_what_was_measured() -> None:
    assert repr(fits_here(HERE, CPU)) == f"<FitsReport of {len(PRESETS)} sizes on 2 cores of Abacus; print() draws it>"
    text = str(fits_here(HERE, CPU))
    assert "2 cores of Abacus: 10 GB of memory, read at 20 GB/s; matrices at 300 GFLOP/s" in text
    assert "✗" in text
