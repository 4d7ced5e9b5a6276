"""The optimizers' steps: each takes lists of weights, gradients and averages, and changes them where they lie."""

from __future__ import annotations

from ctypes import c_int64

import torch
from torch import Tensor

from chatsmith.kernels import build
from chatsmith.kernels.native import call, multiplies, scratch_space, threads_for


class Addresses:
    """Where lists of contiguous tensors lie: table [lists, tensors] of addresses and counts [tensors] of numbers.

    The tensors are the caller's to keep alive while the table is read.
    """

    def __init__(self, *lists: list[Tensor]) -> None:
        self.numbers = sum(tensor.numel() for tensor in lists[0])
        self.table = torch.tensor([[tensor.data_ptr() for tensor in tensors] for tensors in lists])
        self.counts = torch.tensor([tensor.numel() for tensor in lists[0]])

    def replace(self, index: int, tensors: list[Tensor]) -> None:
        """Put other tensors of the same sizes in the place of one list."""
        self.table[index] = torch.tensor([tensor.data_ptr() for tensor in tensors])


def adamw_(
    dtype: torch.dtype,
    at: Addresses,
    *,
    rate: float,
    betas: tuple[float, ...],
    epsilon: float,
    decay: float,
    step: int,
    scale: float,
) -> None:
    """One AdamW step of weights of `dtype` from gradients times `scale`; `at` lists weights, gradients, both averages,
    and for bfloat16 the weights' lower halves."""
    corrections = (1 - betas[0] ** step, 1 - betas[1] ** step)
    numbers = [float(number) for number in (rate, *betas, epsilon, decay, *corrections, scale)]
    call("adamw", dtype, (at.table, at.counts), len(at.counts), *numbers, threads_for(at.numbers))


def sum_of_squares(tensors: list[Tensor]) -> float:
    """The sum of the squares of all numbers of contiguous tensors of one dtype."""
    at = Addresses(tensors)
    threads = threads_for(at.numbers)
    squares = torch.empty(threads, dtype=torch.float64)
    call("squares", tensors[0].dtype, (at.table, at.counts, squares), len(tensors), threads)
    return float(squares.sum())


def orthogonalises(shape: tuple[int, ...], weight: Tensor) -> bool:
    """Whether `muon_` serves weights [rows, columns] of this shape, like `weight`."""
    return multiplies(weight) and shape[0] % 2 == 0 and shape[1] % 2 == 0


def muon_(
    dtype: torch.dtype,
    at: Addresses,
    shape: tuple[int, int],
    *,
    rounds: int,
    rate: float,
    decay: float,
    momentum: float,
    scale: float,
    stretch: float,
) -> None:
    """One Muon step of weights of `dtype` and of one shape, from gradients times `scale`: orthogonalised in `dtype`,
    applied times rate · stretch, decayed by rate · decay. `at` lists weights, gradients, momenta, and for bfloat16 the
    weights' lower halves."""
    library = build.library()
    assert library is not None
    threads = min(torch.get_num_threads(), len(at.counts))
    library.muon_scratch.restype = c_int64
    space = library.muon_scratch(c_int64(shape[0]), c_int64(shape[1]), c_int64(dtype.itemsize)) + 64
    numbers = [float(number) for number in (rate * stretch, 1 - rate * decay, momentum, scale)]
    call("muon", dtype, (at.table, scratch_space(threads * space)), len(at.counts), *shape, rounds, *numbers, threads)
