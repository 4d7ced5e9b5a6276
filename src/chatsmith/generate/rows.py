"""How many rows to multiply at once, so that a row's product has the same bits in whatever company it comes.

A matrix library picks its kernel by the number of rows: the same row times the same weights may come out different in
its last bits among two rows and among twenty, and a token may flip where two are that close. So a pass is padded to a
number of rows that was seen to give the very bits of the reference. What is asked is this machine, at run time, with
numbers made so that any other order of summing shows: terms that cancel, over a range of 2²⁴.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatsmith.models.summing import telling

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_REFERENCES = (32, 16, 8, 4, 2, 1)  # alone, a row has no company to depend on
_WITNESSES = 3  # different rows that are asked about


@dataclass(frozen=True, slots=True)
class Product:
    """A kind of product: weights [outputs, inputs] with or without a bias, in one layout, dtype and place."""

    outputs: int
    inputs: int
    bias: bool
    across: bool  # whether the weights lie with the outputs side by side
    dtype: torch.dtype
    device: torch.device
    threads: int

    @classmethod
    def of(cls, weight: Tensor, bias: bool, dtype: torch.dtype) -> Product:
        """What multiplies by `weight`, in `dtype`."""
        across = weight.stride(0) == 1 and weight.dtype == dtype
        outputs, inputs = weight.shape
        return cls(outputs, inputs, bias, across, dtype, weight.device, torch.get_num_threads())


class _Probe:
    """One kind of product, tried with numbers whose sum depends on its order."""

    def __init__(self, kind: Product) -> None:
        rows, weight = telling(_WITNESSES, kind.inputs, min(kind.outputs, 64))
        self.rows = rows.to(kind.device, kind.dtype)
        weight = weight.to(kind.device, kind.dtype)
        weight = weight.repeat(-(-kind.outputs // len(weight)), 1)[: kind.outputs]
        self.weight = weight.t().contiguous().t() if kind.across else weight
        # Some kernels begin their sums with the bias and some end them so: zeros would not show that. But the last bits
        # of a sum in bfloat16 are hidden by any other bias.
        biases = (torch.zeros(kind.outputs), torch.linspace(1, 2, kind.outputs))
        self.biases = [bias.to(kind.device, kind.dtype) for bias in biases] if kind.bias else [None]

    def __call__(self, rows: int) -> Tensor | None:
        """The products of the witnesses [n, outputs]; None where a row's place among `rows` matters."""
        found = []
        for row, bias in itertools.product(self.rows, self.biases):
            products = F.linear(row.expand(rows, -1).contiguous(), self.weight, bias)
            if not torch.equal(products, products[:1].expand_as(products)):
                return None
            found.append(products[0])
        return torch.stack(found)


# What this process has found out: for each product and reference, the sizes that agree with it.
_known: dict[tuple[Product, int], dict[int, bool]] = {}


def _agrees(product: Product, reference: int, sizes: Iterable[int]) -> dict[int, bool]:
    """Which sizes give the bits that the reference gives."""
    known = _known.setdefault((product, reference), {})
    missing = [size for size in (reference, *sizes) if size not in known]
    if missing:
        probe = _Probe(product)
        expected = probe(reference)
        for size in missing:
            found = None if expected is None else probe(size)
            known[size] = found is not None and expected is not None and torch.equal(found, expected)
    return known


class Rows:
    """The numbers of rows at which some products keep the bits of a row."""

    def __init__(self, products: Iterable[Product]) -> None:
        self._products = tuple(dict.fromkeys(products))
        self.reference = next(size for size in _REFERENCES if self._all_agree(size, size))
        self._fits: dict[int, int] = {}

    @classmethod
    def of(cls, modules: Iterable[nn.Module], dtype: torch.dtype) -> Rows:
        """For all linear maps among the modules."""
        pairs = ((getattr(module, "weight", None), getattr(module, "bias", None)) for module in modules)
        return cls(
            Product.of(weight, bias is not None, dtype)
            for weight, bias in pairs
            if isinstance(weight, Tensor) and weight.ndim == 2
        )

    def _all_agree(self, reference: int, size: int) -> bool:
        return all(_agrees(product, reference, (size,))[size] for product in self._products)

    def fit(self, rows: int) -> int:
        """The fewest rows to compute for `rows` of them; 0 where they must be cut into parts of `reference` rows."""
        if rows not in self._fits:
            sizes = (size for size in SIZES if size >= rows)
            self._fits[rows] = next((size for size in sizes if self._all_agree(self.reference, size)), 0)
        return self._fits[rows]

    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """function(x) for x [n, E], row by row the same bits for any n; the function maps rows to rows."""
        n = len(x)
        fit = self.fit(n) if n <= SIZES[-1] else 0
        if not fit:
            parts = [self.apply(function, part) for part in x.split(min(self.reference, SIZES[-1]))]
            return torch.cat(parts)
        if fit == n:
            return function(x)
        return function(torch.cat((x, x.new_zeros(fit - n, x.shape[1]))))[:n]


def lay_across(module: nn.Module) -> None:
    """Lay the weights of linear maps with their outputs side by side, in place: shapes and numbers stay.

    Two rows then cost what one does, and have the bits that many have, where a library's kernels for thin products
    would read the weights the other way and sum in another order.
    """
    for part in module.modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 2 and weight.is_contiguous():
            weight.data = weight.data.t().contiguous().t()
