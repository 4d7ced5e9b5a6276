"""The key/value cache: what each layer has seen, so that a new token costs one step and not a whole pass.

Storage is cut into blocks of some positions, which sequences hold by their numbers (as in vLLM, Kwon et al. 2023): so
memory is given out as answers grow, and answers that begin alike share it. Banded layers have tables of their own, and
let go of blocks that no query can see any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatsmith.errors import RequestError
from chatsmith.kernels import native
from chatsmith.models.summing import telling
from chatsmith.specs import ModelSpec

BLOCK_SIZE = 32
_WITNESSES = 3  # different rows that a machine is asked about
_QUERIES = (8, 6, 4, 3, 2)
"""How many queries of one sequence the plain-torch path may take together, whether it has as many or not."""


def bytes_per_block(spec: ModelSpec, itemsize: int, block_size: int = BLOCK_SIZE) -> int:
    """What one block takes: the keys and values of `block_size` positions in the layers of one group."""
    return 2 * _slots(spec) * spec.kv_heads * spec.head_dim * block_size * itemsize


def _slots(spec: ModelSpec) -> int:
    """Layers in the larger group."""
    return -(-spec.layers // len(spec.bands))


class PagedCache:
    """Keys [blocks, K, D, block_size] and values [blocks, K, block_size, D] for every layer of a group."""

    def __init__(
        self,
        spec: ModelSpec,
        blocks: int,
        *,
        block_size: int = BLOCK_SIZE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if blocks < 1 or block_size < 16 or block_size % 16:
            raise RequestError(f"a cache needs blocks of 16, 32, … positions, not {blocks} of {block_size}")
        self.spec, self.blocks, self.block_size, self.bands = spec, blocks, block_size, spec.bands
        shape = (blocks, spec.kv_heads, spec.head_dim, block_size)
        self.keys = [_zeros(shape, device, dtype) for _ in range(_slots(spec))]
        self.values = [_zeros((*shape[:2], block_size, shape[2]), device, dtype) for _ in range(_slots(spec))]

    def open(
        self, positions: NDArray[np.int32], starts: NDArray[np.int32], tables: NDArray[np.int32], rows: int = 0
    ) -> Pass:
        """A pass over new tokens: their positions [N], where each sequence's begin [S + 1], its blocks [G, S, W].

        `rows` pads the pass to that many rows, which are computed and belong to nobody.
        """
        return Pass(self, positions, starts, tables, rows)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, each (from, to)."""
        if not pairs:
            return
        source, target = (torch.tensor(side, device=self.keys[0].device) for side in zip(*pairs, strict=True))
        for pool in (*self.keys, *self.values):
            pool[target] = pool[source]


@dataclass(frozen=True, slots=True)
class _Group:
    """What a pass needs to know of one group of layers."""

    band: int | None
    slots: Tensor  # [N] where the new keys and values go
    tables: Tensor  # [S, W]
    work: int  # places that queries look at, over all rows


class Pass:
    """One pass of new tokens through the layers; `positions` [1, rows] say where they stand in their sequences."""

    def __init__(
        self,
        cache: PagedCache,
        positions: NDArray[np.int32],
        starts: NDArray[np.int32],
        tables: NDArray[np.int32],
        rows: int = 0,
    ) -> None:
        self._cache = cache
        size, device = cache.block_size, cache.keys[0].device
        self.tokens, self.rows = len(positions), max(rows, len(positions))
        self.longest = int(positions.max()) + 1
        self._at = torch.from_numpy(positions).to(device)
        padded = np.zeros((1, self.rows), np.int64)
        padded[0, : self.tokens] = positions
        self.positions = torch.from_numpy(padded).to(device)
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self._groups = []
        for table, band in zip(tables, cache.bands, strict=True):
            slots = table[owner, positions // size].astype(np.int64) * size + positions % size
            seen = positions + 1 if band is None else np.minimum(positions + 1, band)
            held = torch.from_numpy(np.ascontiguousarray(table)).to(device)
            self._groups.append(_Group(band, torch.from_numpy(slots).to(device), held, int(seen.sum(dtype=np.int64))))
        self._native = native.ready(cache.keys[0])
        share, dim = cache.spec.heads // cache.spec.kv_heads, cache.spec.head_dim
        shape = (share, dim, size, cache.keys[0].dtype, device, torch.get_num_threads())
        span = native.PAGED_TILE if self._native else _span(*shape)
        self._tiles = _tiles(starts, span)
        if self._native:
            self._tile_table = torch.from_numpy(self._tiles)
        else:
            self._gather = _Gather(self._tiles, positions, span, device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store one layer's new key and value [rows, K·D] and look with query [rows, H·D]; returns [rows, H·D]."""
        bands = len(self._cache.bands)
        group, slot = self._groups[layer % bands], layer // bands
        keys, values = self._cache.keys[slot], self._cache.values[slot]
        N = self.tokens
        if self._native:
            native.paged_store(key, value, group.slots, keys, values)
            return native.paged_attention(
                query,
                keys,
                values,
                group.tables,
                self._tile_table,
                self._at,
                band=group.band,
                longest=self.longest,
                work=group.work,
            )
        size = self._cache.block_size
        K, D = self._cache.spec.kv_heads, self._cache.spec.head_dim
        block, place = group.slots // size, group.slots % size
        keys[block, :, :, place] = key[:N].view(N, K, D).to(keys.dtype)
        values[block, :, place] = value[:N].view(N, K, D).to(values.dtype)
        mixed = self._gather.attend(query, keys, values, group)
        if self.rows == N:
            return mixed
        return torch.cat((mixed, mixed.new_zeros(self.rows - N, mixed.shape[1])))


class _Gather:
    """Attention over blocks in plain torch, for devices and machines without the kernel.

    Queries go in tiles of one fixed height against blocks of one fixed width, and what blocks give is added in their
    order: so every product has the same shape, and a query's output the same bits, in whatever company it is computed.
    The height is one at which a query's place in its tile does not matter, either.
    """

    def __init__(self, tiles: NDArray[np.int32], positions: NDArray[np.int32], span: int, device: torch.device) -> None:
        rows = tiles[:, 1, None] + np.arange(span)
        real = np.arange(span) < tiles[:, 2, None]
        rows = np.where(real, rows, tiles[:, 1, None])
        self._rows = torch.from_numpy(rows.astype(np.int64)).to(device)  # [n, span]
        self._at = torch.from_numpy(positions[rows].astype(np.int64)).to(device)
        self._owner = torch.from_numpy(tiles[:, 0].astype(np.int64)).to(device)
        self._flat = torch.from_numpy(np.flatnonzero(real.ravel())).to(device)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, group: _Group) -> Tensor:
        """query [rows, H·D] → [N, H·D]."""
        n, span = self._rows.shape
        K, D, size = keys.shape[1:]
        share = query.shape[1] // (K * D)
        tables = group.tables[self._owner].long()
        W = tables.shape[1]
        tile = query[self._rows].view(n, span, K, share, D).permute(0, 2, 1, 3, 4).reshape(n, 1, K, span * share, D)
        scores = torch.matmul(tile * D**-0.5, keys[tables]).float().view(n, W, K, span, share, size)
        places = torch.arange(W * size, device=query.device).view(W, 1, size)
        distance = self._at[:, None, :, None] - places  # [n, W, span, size]
        seen = distance >= 0 if group.band is None else (distance >= 0) & (distance < group.band)
        scores = scores.masked_fill(~seen[:, :, None, :, None], float("-inf"))
        weights = torch.exp(scores - scores.amax((1, 5), keepdim=True))
        # What lies beyond a sequence may be anything, and nothing times infinity is no nothing.
        held = values[tables].masked_fill(~seen.any(2)[:, :, None, :, None], 0.0)
        parts = torch.matmul(weights.to(values.dtype).view(n, W, K, span * share, size), held).float()
        sums = weights.sum(-1).view(n, W, K, span * share, 1)
        mixed, total = parts[:, 0], sums[:, 0]
        for block in range(1, W):
            mixed, total = mixed + parts[:, block], total + sums[:, block]
        mixed = (mixed / total).to(query.dtype).view(n, K, span, share, D)
        return mixed.permute(0, 2, 1, 3, 4).reshape(n * span, K * share * D)[self._flat]


@lru_cache
def _span(share: int, dim: int, size: int, dtype: torch.dtype, device: torch.device, threads: int) -> int:
    """How many queries go into a tile: a product of so many rows gives each the same bits, wherever it stands.

    Libraries multiply some rows at a time (MKL six, with AVX2), and may sum those that are left over in another order.
    One query has no other place to stand in.
    """
    for span in _QUERIES:
        if all(_places_agree(span, share, *pair, dtype, device) for pair in ((dim, size), (size, dim))):
            return span
    return 1


def _places_agree(span: int, share: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the same `share` rows come out the same at each of `span` places of a tile."""
    rows, weight = (part.to(device, dtype) for part in telling(_WITNESSES * share, inputs, outputs))
    tile = rows.view(1, 1, _WITNESSES, 1, share, inputs).expand(1, 1, _WITNESSES, span, share, inputs)
    blocks = weight.t().repeat(1, 2, _WITNESSES, 1, 1)
    found = torch.matmul(tile.reshape(1, 1, _WITNESSES, span * share, inputs), blocks)
    places = found.view(2, _WITNESSES, span, share, outputs)
    return torch.equal(places, places[:, :, :1].expand_as(places))


def _tiles(starts: NDArray[np.int32], span: int) -> NDArray[np.int32]:
    """The rows of each sequence in tiles of at most `span`: (sequence, first row, rows), as [n, 3]."""
    counts = np.diff(starts)
    if counts.max() == 1:
        return np.stack((np.arange(len(counts)), starts[:-1], counts), axis=1).astype(np.int32)
    found = [
        (sequence, row, min(span, end - row))
        for sequence, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
        for row in range(start, end, span)
    ]
    return np.array(found, np.int32)


def _zeros(shape: tuple[int, ...], device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    """Zeros; on the CPU such that memory is taken only when it is written."""
    dtype = dtype or torch.get_default_dtype()
    if torch.device(device or "cpu").type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    count = int(np.prod(shape))
    return torch.from_numpy(np.zeros(count * dtype.itemsize, np.uint8)).view(dtype).view(shape)
