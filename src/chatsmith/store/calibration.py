"""Rounding the matrices of a decoder by what they are multiplied with when it reads a text (GPTQ: Frantar et al. 2022).

One layer is in memory at a time. It reads the text as the layers before it, rounded already, leave it; the moments of
what enters each of its matrices are summed on the way, the matrices are rounded by them, and the text goes through the
rounded layer on to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chatsmith.errors import RequestError
from chatsmith.kernels.infer.matrix import Matrix, as_floats
from chatsmith.models.decoder import Decoder
from chatsmith.models.devices import device_of
from chatsmith.specs import ModelSpec
from chatsmith.store.packing import Entry, Format, Read, entries, pieces

_LONGEST = 2048  # tokens of a row that is read
_AT_ONCE = 4096  # tokens of a pass


class Calibration:
    """Rounds the layers of a decoder, in their order, to what keeps their products on `ids` closest.

    `read` gives parameters by name; a pass computes in float32 on `device` (None: a GPU where there is one). `progress`
    is told of each layer. Raises `RequestError` for a text of fewer than two tokens.
    """

    def __init__(
        self,
        spec: ModelSpec,
        read: Read,
        ids: Sequence[int],
        form: Format,
        *,
        device: str | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        length = min(spec.context, _LONGEST, len(ids))
        if length < 2:
            raise RequestError("a text of fewer than two tokens is too short to calibrate on", "give a longer one")
        self.spec, self.form = spec, form
        self._read, self._progress = read, progress
        self._device = device_of(device)
        self._model = Decoder(spec, device="meta").eval()
        self._model.fuses = False  # whose parts are computed one by one
        self._blocks = list(self._model.blocks.children())
        self._layer = -1
        self._moments: dict[str, Tensor] = {}
        self._model.embed.weight = self._parameter("embed.weight")
        if spec.positions == "learned":
            self._model.positions.weight = self._parameter("positions.weight")
        rows = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
        with torch.no_grad():
            self._states = [self._model.enter(part.to(self._device)) for part in rows.split(max(1, _AT_ONCE // length))]
        self._model.embed.to(device="meta")

    def rounded(self, entry: Entry, values: NDArray[Any]) -> Matrix:
        """The matrix of this entry of a layer, whose own numbers are `values`. Entries come in the order of a step."""
        layer = int(entry.name.split(".")[1])
        if layer != self._layer:
            self._go_to(layer)
        moments = self._moments.pop(_module(entry.sources[0]))
        matrix = self.form.rounded(values, moments.cpu().numpy())
        for source, piece in zip(entry.sources, pieces(entry, matrix.numbers()), strict=True):
            name = _module(source)
            self._blocks[layer].get_submodule(name).weight = self._kept(piece)
        return matrix

    def _go_to(self, layer: int) -> None:
        """Send the text through the layer before, rounded as it is by now, and through this one for its moments."""
        if self._layer >= 0:
            self._states = [self._through(x) for x in self._states]
            self._blocks[self._layer].to(device="meta")
        self._progress(f"layer {layer + 1} of {self.spec.layers}: rounded by what it reads")
        self._layer = layer
        block = self._blocks[layer]
        self._model.blocks = nn.ModuleDict({str(layer): block})  # type: ignore[assignment]
        known = {name: self._parameter(f"blocks.{layer}.{name}") for name, _ in block.named_parameters()}
        block.load_state_dict(known, assign=True)
        matrices = {
            _module(entry.sources[0])
            for entry in entries(self.spec)
            if entry.role == "layer" and entry.name.startswith(f"blocks.{layer}.")
        }
        self._moments = {}
        hooks = [block.get_submodule(name).register_forward_pre_hook(self._sum_to(name)) for name in matrices]
        for x in self._states:
            self._through(x)
        for hook in hooks:
            hook.remove()

    def _sum_to(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            found = x.T @ x
            self._moments[name] = found if name not in self._moments else self._moments[name].add_(found)

        return add

    @torch.no_grad()
    def _through(self, x: Tensor) -> Tensor:
        return self._model.through(x, x.shape[1])

    def _parameter(self, name: str) -> nn.Parameter:
        return self._kept(as_floats(self._read(name)))

    def _kept(self, values: NDArray[Any]) -> nn.Parameter:
        return nn.Parameter(torch.from_numpy(np.array(values, np.float32)).to(self._device), requires_grad=False)


def _module(source: str) -> str:
    """The linear map that holds a parameter, as its layer calls it: blocks.3.ffn.up.weight is that of ffn.up."""
    return source.split(".", 2)[2].rpartition(".")[0]
