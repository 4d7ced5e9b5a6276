"""Tensors that lie in pieces: each file holds rectangles of some tensors, and any rectangle can be read again.

So a checkpoint that many processes wrote, each what it held, is read by any other number of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatsmith.errors import WorkError
from chatsmith.store.weights import Weights

_MAX_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a tensor of `whole` shape, whose first number stands at `at` in it."""

    whole: tuple[int, ...]
    at: tuple[int, ...]

    @classmethod
    def read(cls, value: Any) -> Piece:
        """From JSON; `WorkError` where it is none."""
        try:
            whole, at = (tuple(part) for part in value)
            sound = all(type(n) is int and 0 <= n < 2**63 for n in (*whole, *at)) and len(whole) == len(at)
        except (TypeError, ValueError):
            sound = False
        if not sound or len(whole) > _MAX_DIMENSIONS:
            raise WorkError(f"a checkpoint describes a piece of a tensor as {str(value)[:80]}")
        return cls(whole, at)


class PiecedTensors(Mapping[str, Tensor]):
    """The tensors of some files by name. `pieces` says of each file which of its entries are less than a tensor."""

    def __init__(self, files: Sequence[Path], pieces: Mapping[str, Mapping[str, Piece]] | None = None) -> None:
        self._parts: dict[str, list[tuple[Weights, Piece, tuple[int, ...]]]] = defaultdict(list)
        for file in files:
            weights = Weights([file])
            described = (pieces or {}).get(file.name, {})
            for name, info in weights.tensors.items():
                piece = described.get(name, Piece(info.shape, (0,) * len(info.shape)))
                ends = [start + size for start, size in zip(piece.at, info.shape, strict=False)]
                if len(piece.at) != len(info.shape) or any(a > b for a, b in zip(ends, piece.whole, strict=True)):
                    raise WorkError(f"{file}: {name} does not lie where the checkpoint says")
                self._parts[name].append((weights, piece, info.shape))
        for name, parts in self._parts.items():
            if len({piece.whole for _, piece, _ in parts}) > 1:
                raise WorkError(f"the pieces of {name} are of tensors of several shapes")

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, name: str) -> Tensor:
        whole = self.shape(name)
        weights, _, shape = self._parts[name][0]
        if shape == whole:
            return weights.read(name)
        return self.piece(name, (0,) * len(whole), whole)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the whole tensor."""
        return self._parts[name][0][1].whole

    def piece(self, name: str, at: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The rectangle of `shape` whose first number stands at `at`; `WorkError` where some of it is missing."""
        if not self.shape(name):
            return self[name]  # a count, which every process that counted has written
        found: Tensor | None = None
        covered = 0
        for weights, piece, size in self._parts[name]:
            begin = [max(a, b) for a, b in zip(at, piece.at, strict=True)]
            end = [min(a + m, b + n) for a, m, b, n in zip(at, shape, piece.at, size, strict=True)]
            if any(a >= b for a, b in zip(begin, end, strict=True)):
                continue
            stored = weights.read(name)
            if found is None:
                found = torch.empty(tuple(shape), dtype=stored.dtype)
            source = stored[tuple(slice(a - b, e - b) for a, b, e in zip(begin, piece.at, end, strict=True))]
            found[tuple(slice(a - b, e - b) for a, b, e in zip(begin, at, end, strict=True))] = source
            covered += source.numel()
        wanted = torch.Size(tuple(shape)).numel()
        if found is None or covered != wanted:
            raise WorkError(f"the checkpoint holds {covered} of {wanted} numbers of {name}")
        return found


class Under(Mapping[str, Tensor]):
    """The tensors whose names begin with `prefix`, by the rest of their names."""

    def __init__(self, tensors: PiecedTensors, prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._tensors if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._prefix + name]

    def piece(self, name: str, at: Sequence[int], shape: Sequence[int]) -> Tensor:
        """As `PiecedTensors.piece`."""
        return self._tensors.piece(self._prefix + name, at, shape)
