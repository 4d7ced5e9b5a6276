"""Attention over a paged cache on a GPU, in Triton: a program for each new token and key/value head.

A pool of one layer holds keys and values as [blocks, K, BLOCK, D]. A program walks through what its token sees in tiles
of fixed places, and adds what they give in their order: a token has the same bits in any company.

Shapes: R rows (new tokens), H heads that share K key/value heads, D numbers of a head.
"""

from __future__ import annotations

import triton
import triton.language as tl

from chatsmith.kernels.gpu.leap import leap

BLOCK = 32
"""Positions in a block."""
TILE = 128  # positions that a program looks at together
WARPS = 4


@triton.jit
def _turned(
    base, count, gain, cosine, sine, position, epsilon, D,
    HEADS: tl.constexpr, HALF: tl.constexpr, ROTARY: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """`count` heads of D numbers at `base`, as their two halves [HEADS, HALF]: normed and turned where asked for."""
    heads, half = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    mask = (heads < count) & (half < D // 2)
    first = tl.load(base + heads * D + half, mask, other=0.0).to(tl.float32)
    second = tl.load(base + heads * D + D // 2 + half, mask, other=0.0).to(tl.float32)
    if NORMED:
        squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
        scale = tl.rsqrt(squares / D + epsilon)[:, None]
        first *= scale * tl.load(gain + half, half < D // 2, other=0.0).to(tl.float32)
        second *= scale * tl.load(gain + D // 2 + half, half < D // 2, other=0.0).to(tl.float32)
    if ROTARY:
        at = position * (D // 2) + half
        c = tl.load(cosine + at, half < D // 2, other=0.0)
        s = tl.load(sine + at, half < D // 2, other=0.0)
        first, second = first * c - second * s, second * c + first * s
    return first, second, heads * D + half, mask


@triton.jit
def _place(
    mine, head, block, place, keys, values, cosine, sine, query_gain, key_gain, position, epsilon,
    H, K, D, SHARE: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    ROTARY: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """Turn the queries of one head's group where they lie, and put its key and value into the cache."""
    to = ((block.to(tl.int64) * K + head) * BLOCK + place) * D
    if ROTARY or NORMED:
        base = mine + head * SHARE * D
        a, b, at, mask = _turned(
            base, SHARE, query_gain, cosine, sine, position, epsilon, D, HEADS, HALF, ROTARY, NORMED
        )
        # Every thread has read its numbers before any writes over them.
        tl.debug_barrier()
        tl.store(base + at, a.to(mine.dtype.element_ty), mask)
        tl.store(base + at + D // 2, b.to(mine.dtype.element_ty), mask)
    a, b, at, mask = _turned(
        mine + (H + head) * D, 1, key_gain, cosine, sine, position, epsilon, D, 1, HALF, ROTARY, NORMED
    )
    tl.store(keys + to + at, a.to(keys.dtype.element_ty), mask)
    tl.store(keys + to + at + D // 2, b.to(keys.dtype.element_ty), mask)
    a, b, at, mask = _turned(
        mine + (H + K + head) * D, 1, key_gain, cosine, sine, position, epsilon, D, 1, HALF, False, False
    )
    tl.store(values + to + at, a.to(values.dtype.element_ty), mask)
    tl.store(values + to + at + D // 2, b.to(values.dtype.element_ty), mask)


@triton.jit
def place_kernel(
    qkv, keys, values, positions, owners, tables, cosine, sine, query_gain, key_gain, epsilon,
    H, K, D, W, SHARE: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    ROTARY: tl.constexpr, NORMED: tl.constexpr, LEAP: tl.constexpr,
):  # fmt: skip
    """Turn all queries in qkv [R, (H + 2K)·D], and put all keys and values into the cache: a program for a row's head."""
    leap(LEAP)
    row, head = tl.program_id(0), tl.program_id(1)
    position = tl.load(positions + row)
    block = tl.load(tables + tl.load(owners + row) * W + position // BLOCK)
    _place(
        qkv + row.to(tl.int64) * ((H + 2 * K) * D), head, block, position % BLOCK, keys, values, cosine, sine,
        query_gain, key_gain, position, epsilon, H, K, D, SHARE, HEADS, HALF, BLOCK, ROTARY, NORMED,
    )  # fmt: skip


@triton.jit
def attend_kernel(
    qkv, keys, values, positions, owners, tables, cosine, sine, query_gain, key_gain, mixed, scale, epsilon, band,
    H, K, D, W, SHARE: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr, ROTARY: tl.constexpr, NORMED: tl.constexpr, PLACE: tl.constexpr, PRECISION: tl.constexpr,
    LEAP: tl.constexpr,
):  # fmt: skip
    """mixed [R, H·D] from the queries in qkv; with PLACE, where no row sees another's new key, the placing as well."""
    leap(LEAP)
    row, head = tl.program_id(0), tl.program_id(1)
    position, owner = tl.load(positions + row), tl.load(owners + row)
    mine = qkv + row.to(tl.int64) * ((H + 2 * K) * D)
    if PLACE:
        block = tl.load(tables + owner * W + position // BLOCK)
        _place(
            mine, head, block, position % BLOCK, keys, values, cosine, sine, query_gain, key_gain, position, epsilon,
            H, K, D, SHARE, HEADS, HALF, BLOCK, ROTARY, NORMED,
        )  # fmt: skip
        tl.debug_barrier()
    heads, dims = tl.arange(0, HEADS), tl.arange(0, 2 * HALF)
    asked = (heads < SHARE)[:, None] & (dims < D)[None, :]
    query = tl.load(mine + (head * SHARE + heads)[:, None] * D + dims[None, :], asked, other=0.0)
    peak = tl.full((HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    sums = tl.zeros((HEADS, 2 * HALF), tl.float32)
    first = tl.maximum(position - band + 1, 0)
    for start in range(first // TILE * TILE, position + 1, TILE):
        places = start + tl.arange(0, TILE)
        seen = (places <= position) & (places >= first)
        blocks = tl.load(tables + owner * W + places // BLOCK, seen, other=0)
        base = ((blocks.to(tl.int64) * K + head) * BLOCK + places % BLOCK) * D
        held = seen[:, None] & (dims < D)[None, :]
        key = tl.load(keys + base[:, None] + dims[None, :], held, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        less = tl.exp(peak - higher)
        value = tl.load(values + base[:, None] + dims[None, :], held, other=0.0)
        total = total * less + tl.sum(weights, 1)
        sums = sums * less[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        peak = higher
    out = mixed + row.to(tl.int64) * (H * D) + (head * SHARE + heads)[:, None] * D + dims[None, :]
    tl.store(out, (sums / total[:, None]).to(mixed.dtype.element_ty), asked)


@triton.jit
def embed_kernel(ids, positions, table, places, x, E, WIDE: tl.constexpr, LEARNED: tl.constexpr, LEAP: tl.constexpr):
    """x [R, E] in float32: the embedding of each id, and that of its position where those are learned."""
    leap(LEAP)
    row = tl.program_id(0)
    at = tl.arange(0, WIDE)
    mask = at < E
    found = tl.load(table + tl.load(ids + row).to(tl.int64) * E + at, mask, other=0.0).to(tl.float32)
    if LEARNED:
        found += tl.load(places + tl.load(positions + row).to(tl.int64) * E + at, mask, other=0.0).to(tl.float32)
    tl.store(x + row.to(tl.int64) * E + at, found, mask)
