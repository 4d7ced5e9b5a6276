"""A token from each row of logits, on the GPU that made them: the choice of `generate.noise`, in two kernels.

The race of exponential clocks is the same, number for number: its bits are those of SplitMix64 at the same key. What
differs is the order in which weights are summed, so a choice differs only where two clocks are that close.
"""

from __future__ import annotations

import triton
import triton.language as tl

from chatsmith.kernels.gpu.leap import leap

AT_ONCE = 2048
"""Logits that a program looks at."""


@triton.jit
def _exponential(key, count):
    """Standard exponential numbers, the `count`-th of each key, from 1; never 0."""
    x = key + count.to(tl.uint64) * 0x9E3779B97F4A7C15
    x ^= x >> 30
    x *= 0xBF58476D1CE4E5B9
    x ^= x >> 27
    x *= 0x94D049BB133111EB
    x ^= x >> 31
    uniform = ((x >> 11).to(tl.float64) + 0.5) * 1.1102230246251565e-16
    return -tl.log(uniform)


@triton.jit
def look_kernel(
    logits, keys, temperatures, peaks, tokens, totals, races, blocks, V, STRIDE,
    RACE: tl.constexpr, BLOCKS: tl.constexpr, LEAP: tl.constexpr,
):  # fmt: skip
    """What one part of a row of logits [R, STRIDE] has to offer, for each of the P parts: all outputs are [R, P].

    The largest logit and its token; the sum of the weights, the largest exactly 1; and among its blocks of RACE logits
    the fastest, with its speed in terms of those weights.
    """
    leap(LEAP)
    row, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    block = part * BLOCKS + tl.arange(0, BLOCKS)
    places = block[:, None] * RACE + tl.arange(0, RACE)[None, :]
    z = tl.load(logits + row.to(tl.int64) * STRIDE + places, places < V, other=float("-inf"))
    peak = tl.max(tl.max(z, 1), 0)
    token = tl.min(tl.min(tl.where(z == peak, places, V), 1), 0)
    out = row * parts + part
    tl.store(peaks + out, peak)
    tl.store(tokens + out, token)
    tl.store(totals + out, tl.sum(tl.sum(tl.exp(z - peak), 1), 0))
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        key = tl.load(keys + row).to(tl.uint64, bitcast=True)
        mass = tl.sum(tl.exp((z - peak) / temperature), 1).to(tl.float64)
        speed = mass / _exponential(key, block + 1)
        fastest = tl.max(speed, 0)
        tl.store(races + out, fastest)
        tl.store(blocks + out, tl.min(tl.where(speed == fastest, block, 2**30), 0))


@triton.jit
def choose_kernel(
    logits, keys, temperatures, peaks, tokens, totals, races, blocks, chosen, logprobs, V, STRIDE, P,
    RACE: tl.constexpr, PARTS: tl.constexpr, LEAP: tl.constexpr,
):  # fmt: skip
    """The token of each row of logits [R, STRIDE], from what its P parts offer, and its log probability.

    At a temperature of 0 it is the likeliest, among equals the lowest. The log probability of a row that is not finite
    is NaN.
    """
    leap(LEAP)
    row = tl.program_id(0)
    part = tl.arange(0, PARTS)
    offers, there = row * P + part, part < P
    highest = tl.load(peaks + offers, there, other=float("-inf"))
    peak = tl.max(highest, 0)
    shares = tl.where(there, tl.load(totals + offers, there, other=0.0) * tl.exp(highest - peak), 0.0)
    total = tl.sum(shares, 0)
    token = tl.min(tl.where(highest == peak, tl.load(tokens + offers, there, other=V), V), 0)
    temperature = tl.load(temperatures + row)
    z = logits + row.to(tl.int64) * STRIDE
    if temperature > 0:
        speeds = tl.load(races + offers, there, other=0.0) * tl.exp((highest - peak) / temperature).to(tl.float64)
        fastest = tl.max(speeds, 0)
        block = tl.min(tl.where((speeds == fastest) & there, tl.load(blocks + offers, there, other=0), 2**30), 0)
        block = tl.minimum(block, tl.cdiv(V, RACE) - 1)  # a row of NaNs has no fastest
        inner = tl.arange(0, RACE)
        places = block * RACE + inner
        some = tl.load(z + places, places < V, other=float("-inf"))
        key = tl.load(keys + row).to(tl.uint64, bitcast=True)
        weights = tl.exp((some - peak) / temperature).to(tl.float64)
        speed = weights / _exponential(key, tl.cdiv(V, RACE) + inner + 1)
        token = tl.min(tl.where(speed == tl.max(speed, 0), places, V), 0)
    token = tl.minimum(token, V - 1)
    # A NaN among the logits is one in the total; at an infinite peak, peak − peak is one.
    tl.store(chosen + row, token)
    tl.store(logprobs + row, tl.load(z + token) - peak - tl.log(total))
