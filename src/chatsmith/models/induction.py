"""First weights that look back: induction heads laid into a decoder before it learns.

An induction head (Olsson et al. 2022, "In-context Learning and Induction Heads") finds where the present token stood
before and repeats what followed it. Two layers make one: a head of the first writes beside each token which one stands
some places before it; a head of the second looks for the place that has the present token written beside it, and
repeats the token that stands there. From random weights a small model comes upon that late, or never: all of its parts
have to be there before any of them helps. Here the first weights of a few heads are drawn so that they do it in the
rough (as "mimetic initialization" does for other patterns: Trockman and Kolter 2023). The model keeps its shape and
its number of weights, and training is as free to change these as all others.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from chatsmith.models import rotary
from chatsmith.models.attention import Attention
from chatsmith.specs import ModelSpec

_DRAWN = 0.02  # the deviation of a drawn matrix, which the sizes here are multiples of
_COMMON = 0.3  # what all embeddings have in common, beside a deviation of their own: the same at every place
_FIXED = 10.0  # the length of that part of a query or key which is the same everywhere, beside the drawn part's
_KEPT = 0.1  # what is kept of drawn weights where others are laid over them
_WRITTEN, _COPIED = 1.0, 3.0  # the length of what heads of the two layers add to the stream, in embeddings
# Radians a place. Pairs that turn faster than the first tell one place from the next; those that turn slower than the
# second are the same at the two ends of a line or a list, so that a token is known again there.
_FAST, _SLOW = 0.1, 0.01


@torch.no_grad()
def lay(spec: ModelSpec, embedding: Tensor, blocks: nn.ModuleList, count: int, generator: torch.Generator) -> None:
    """Lay `count` induction heads into drawn weights: embedding [V, E] and the attention of the first two `blocks`.

    The nth repeats what stood n places after an earlier occurrence of the present token.
    """
    first, second = (cast(Attention, block.attention) for block in blocks[:2])
    width, dim = spec.width, spec.head_dim
    common = torch.randn(width, generator=generator).sign()
    _add(embedding, slice(None), _COMMON * _DRAWN * common)
    # The norm before a layer makes vectors of √E numbers' length; this much of each is in the common direction.
    share = _COMMON / math.hypot(1.0, _COMMON)
    fixed = _FIXED * _DRAWN * math.sqrt(dim / width) / share
    # Orthonormal rows times this are as long as drawn ones.
    length = _DRAWN * math.sqrt(width)
    group = spec.heads // spec.kv_heads
    turn = _turn(spec)
    slow = (turn < max(_SLOW, float(turn.min()) * 2)).float().repeat(2)[:, None]
    for pair in range(count):
        keys, queries = (slice(at * dim, (at + 1) * dim) for at in (pair, pair * group))
        key, query = _looking_back(turn, pair + 1)
        _add(first.key.weight, keys, torch.outer(key, common) * fixed)
        _add(first.query.weight, queries, torch.outer(query, common) * fixed)
        read, written, copied = (nn.init.orthogonal_(torch.empty(dim, width), generator=generator) for _ in range(3))
        _lay(first.value.weight, keys, slow * read * length)
        _lay(second.query.weight, queries, slow * read * length)
        _lay(second.key.weight, keys, slow * written * length)
        _lay(second.value.weight, keys, copied * length)
        for attention, rows, embeddings in ((first, slow * written, _WRITTEN), (second, copied, _COPIED)):
            _lay(attention.output.weight.T, queries, rows * (embeddings / math.sqrt(dim)))


def _turn(spec: ModelSpec) -> Tensor:
    """How far each pair of a head turns from one place to the next [D/2], in radians."""
    cosine, sine = (torch.from_numpy(table) for table in rotary.angles(spec, 2))
    return torch.atan2(sine[1], cosine[1])


def _looking_back(turn: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """A key and a query [D] of length 1 that match best where the key stands so many places before the query."""
    fast = (turn > min(_FAST, float(turn.max()) / 2)).float()
    key = torch.cat([fast, torch.zeros_like(fast)])
    query = torch.cat([fast * torch.cos(places * turn), -fast * torch.sin(places * turn)])
    return key / fast.norm(), query / fast.norm()


def _add(weight: Tensor, rows: slice, more: Tensor) -> None:
    weight[rows] += more.to(weight)


def _lay(weight: Tensor, rows: slice, over: Tensor) -> None:
    weight[rows] *= _KEPT
    _add(weight, rows, over)
