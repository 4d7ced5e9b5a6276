"""The key/value cache: what each layer has seen, so that a new token costs one step and not a whole pass.

Rows are ragged: each has its own length. Storage is one block per layer, [B, K, S, D], written in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chatsmith.errors import RequestError
from chatsmith.specs import ModelSpec


class KVCache:
    """Keys and values of `batch` rows with room for `capacity` positions each.

    `lengths` [B] counts the positions that hold something. A pass appends T tokens to every row, at the row's own
    length; when the tokens of a pass are ragged (prompts padded at the end to a common T), give `counts` [B] to
    `begin`: a row then keeps only its first `counts` new positions and the padding is overwritten by what comes next.
    """

    def __init__(
        self,
        spec: ModelSpec,
        batch: int,
        capacity: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if batch < 1 or capacity < 1:
            raise RequestError(f"a cache needs at least one row and one position, not {batch} × {capacity}")
        shape = (batch, spec.kv_heads, capacity, spec.head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(spec.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(spec.layers)]
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)
        self.capacity = capacity
        self._places = self.lengths[:, None]
        self._uniform: int | None = 0
        self._end = 0

    @property
    def batch(self) -> int:
        """The number of rows."""
        return self.lengths.shape[0]

    def begin(self, tokens: int, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Open a pass that adds `tokens` positions per row; returns the places of queries [B, T] and of keys [B, S]."""
        longest = int(self.lengths.max())
        if longest + tokens > self.capacity:
            raise RequestError(f"the cache has room for {self.capacity} positions, and {longest + tokens} are needed")
        self._uniform = longest if bool((self.lengths == longest).all()) else None
        self._end = longest + tokens
        self._places = self.lengths[:, None] + torch.arange(tokens, device=self.lengths.device)
        self._counts = counts
        self._tokens = tokens
        return self._places, torch.arange(self._end, device=self.lengths.device)[None]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values [B, K, T, D]; returns all of them so far, [B, K, S, D]."""
        keys, values = self.keys[layer], self.values[layer]
        if self._uniform is not None:
            keys[:, :, self._uniform : self._end] = key
            values[:, :, self._uniform : self._end] = value
        else:
            index = self._places[:, None, :, None].expand_as(key)
            keys.scatter_(2, index, key.to(keys.dtype))
            values.scatter_(2, index, value.to(values.dtype))
        return keys[:, :, : self._end], values[:, :, : self._end]

    def commit(self) -> None:
        """Close the pass: the rows are now longer by what it added."""
        self.lengths += self._tokens if self._counts is None else self._counts.to(self.lengths)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows [B'] (repeats allowed, so one prefill can serve many samples), in this order."""
        self.keys = [block.index_select(0, rows) for block in self.keys]
        self.values = [block.index_select(0, rows) for block in self.values]
        self.lengths = self.lengths.index_select(0, rows)

    def truncate(self, lengths: Tensor) -> None:
        """Forget positions beyond `lengths` [B]; a row never grows by this."""
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))

    def merge(self, other: KVCache) -> None:
        """Add the rows of another cache after ours; the longer of the two capacities holds for all."""
        capacity = max(self.capacity, other.capacity)
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for layer, block in enumerate(mine):
                mine[layer] = torch.cat((_widen(block, capacity), _widen(theirs[layer], capacity)))
        self.lengths = torch.cat((self.lengths, other.lengths))
        self.capacity = capacity

    def reserve(self, capacity: int) -> None:
        """Make room for at least `capacity` positions per row, keeping what is there."""
        if capacity > self.capacity:
            self.keys = [_widen(block, capacity) for block in self.keys]
            self.values = [_widen(block, capacity) for block in self.values]
            self.capacity = capacity


def _widen(block: Tensor, capacity: int) -> Tensor:
    if block.shape[2] == capacity:
        return block
    wider = block.new_zeros(*block.shape[:2], capacity, block.shape[3])
    wider[:, :, : block.shape[2]] = block
    return wider
