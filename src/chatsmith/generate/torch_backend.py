"""The engine's backend for any model and device: a `Decoder` in torch, over a paged cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from chatsmith.generate.backend import CACHE_BYTES, Floats, Step
from chatsmith.generate.rows import Rows
from chatsmith.models.cache import BLOCK_SIZE, PagedCache, bytes_per_block
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec


class TorchBackend:
    """Computes steps with `model`, whose keys and values take at most `cache_bytes` (memory is taken as it is used).

    One whole context always fits.
    """

    block_size = BLOCK_SIZE
    step_tokens = 512

    def __init__(self, model: Decoder, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.model = model
        self._looks = 0
        blocks = cache_bytes // bytes_per_block(model.spec, model.dtype.itemsize)
        least = len(model.spec.bands) * -(-model.spec.context // BLOCK_SIZE)
        self.cache = PagedCache(model.spec, max(blocks, least), device=model.device, dtype=model.dtype)
        self.blocks, self.bands = self.cache.blocks, self.cache.bands
        self._rows = Rows.of(model.blocks[0].modules(), model.dtype)
        self._head_rows = Rows.of([model.embed if model.spec.tied else model.head], model.dtype)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def name(self) -> str:
        return f"torch on {self.model.device.type} in {str(self.model.dtype).removeprefix('torch.')}"

    @property
    def version(self) -> int:
        # Our optimizers write weights where torch does not count it: while training, every look is at other weights.
        self._looks += self.model.training
        return self._looks + sum(parameter._version for parameter in self.model.parameters())

    def logits(self, step: Step) -> Floats:
        hidden = self._run(step)
        if not len(hidden):
            return np.zeros((0, self.spec.vocab_size), np.float32)
        with torch.inference_mode():
            return _to_numpy(self._head_rows.apply(self.model.logits, hidden))

    def hidden(self, step: Step) -> Floats:
        return _to_numpy(self._run(step))

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.cache.copy(pairs)

    @torch.inference_mode()
    def _run(self, step: Step) -> Tensor:
        """The states [R, E] of the wanted rows."""
        found = [self._pass(part) for part in _parts(step, self._rows)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _pass(self, step: Step) -> Tensor:
        N = len(step.ids)
        rows = self._rows.fit(N)
        device = self.model.device
        ids = np.zeros((1, rows), np.int64)
        ids[0, :N] = step.ids
        opened = self.cache.open(step.positions, step.starts, step.tables, rows)
        with _evaluating(self.model):
            hidden = self.model.hidden(torch.from_numpy(ids).to(device), cache=opened)[0]
        if len(step.wanted) == rows:
            return hidden
        return hidden[torch.from_numpy(step.wanted.astype(np.int64)).to(device)]


def _parts(step: Step, rows: Rows) -> Iterator[Step]:
    """The step, in parts where so many rows at once would not keep their bits."""
    if rows.fit(len(step.ids)):
        yield step
        return
    size = max(part for part in range(rows.reference, 0, -1) if rows.fit(part))
    for start in range(0, len(step.ids), size):
        yield step.cut(start, min(start + size, len(step.ids)))


def _to_numpy(rows: Tensor) -> Floats:
    found: Floats = rows.float().cpu().contiguous().numpy()
    return found


@contextmanager
def _evaluating(model: Decoder) -> Iterator[None]:
    """Without dropout, whatever mode the model is in; its mode afterwards is what it was before."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
