"""Dropout (Srivastava et al. 2014) whose choices are a function of where a number stands, not of who computes it.

Each token of a step brings a random number, its `noise`. What is dropped of its vector follows from that number, the
place in the model and the feature, through a hash. So a step drops the same numbers however its rows are divided over
micro-batches and processes, when a layer is computed again for the way back, and after a run was resumed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LANES = 4  # a word of 64 bits decides on four features
_LEVELS = 2**16  # so rates are rounded to 1/65536
# SplitMix64 (Steele et al. 2014): the step from word to word, and the rounds (shift, factor) that mix a word's bits.
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


class Dropout(NamedTuple):
    """Dropout at one or more places of a model, those numbered from `place`; noise int64 [B, T]."""

    noise: Tensor
    place: int
    rate: float

    @property
    def scale(self) -> float:
        """What is kept grows by this, so that sums stay as large."""
        return _LEVELS / (_LEVELS - self._dropped)

    @property
    def _dropped(self) -> int:
        """How many of the levels are dropped."""
        return min(round(self.rate * _LEVELS), _LEVELS - 1)

    def kept(self, part: int, width: int) -> Tensor:
        """Which of the numbers [B, T, width] are kept at place `place` + `part`: bool."""
        token = _mixed(self.noise + _signed((self.place + part) * _STEP))
        words = torch.arange(-(-width // _LANES), device=token.device) * _signed(_STEP)
        lanes = _mixed(token[..., None] + words).view(torch.int16)
        return lanes[..., :width] >= self._dropped - _LEVELS // 2

    def thin(self, x: Tensor, part: int) -> Tensor:
        """x [B, T, E] with numbers dropped."""
        return torch.where(self.kept(part, x.shape[-1]), x * self.scale, 0.0)


def fresh_noise(like: Tensor) -> Tensor:
    """Noise for ids [B, T], drawn from PyTorch's generator."""
    return torch.randint(-(2**63), 2**63 - 1, like.shape, device=like.device)


def _mixed(x: Tensor) -> Tensor:
    """Each word of a fresh tensor with its bits mixed, in place."""
    for shift, factor in _ROUNDS:
        x.bitwise_xor_(_down(x, shift)).mul_(_signed(factor))
    return x.bitwise_xor_(_down(x, _LAST_SHIFT))


def _down(x: Tensor, shift: int) -> Tensor:
    """x shifted right with zeros coming in: PyTorch shifts the sign in."""
    return (x >> shift).bitwise_and_(2 ** (64 - shift) - 1)


def _signed(number: int) -> int:
    """The number modulo 2^64, as a signed one."""
    return (number + 2**63) % 2**64 - 2**63
