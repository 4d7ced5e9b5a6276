"""What replicas send, bucket by bucket; that layouts give the same is in `test_parity`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chatsmith.train.parallel import replicas
from chatsmith.train.parallel.replicas import buckets, owners


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("room", [7, 64, 10**6])
def test_every_number_is_sent_once_from_buckets_of_bounded_size(
    size: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_BUCKET_NUMBERS", room)
    shapes = [(5, 9), (3,), (1,), (20, 4), (11,), (2, 2, 2)]
    named = [(str(number), nn.Parameter(torch.zeros(shape))) for number, shape in enumerate(shapes)]
    shares = owners(named, size)
    of = {id(parameter): owner for owner, share in enumerate(shares) for _, parameter in share}
    found = buckets(shares)
    with torch.no_grad():
        for owner, bucket in found:
            assert 0 < sum(part.size for part in bucket) <= room
            assert {of[id(part.parameter)] for part in bucket} == {owner}
            for part in bucket:
                part.of(part.parameter).add_(1)
    assert all(bool((parameter == 1).all()) for _, parameter in named)
    # Owners take turns, so that all of them send at once.
    turns = [owner for owner, _ in found][: len(set(of.values()))]
    assert sorted(turns) == sorted(set(of.values()))


def test_a_gradient_that_lies_in_pieces_is_put_together() -> None:
    weight = nn.Parameter(torch.zeros(3, 4))
    [[(_, [part])]] = [buckets([[("weight", weight)]])]
    assert part.gradient().eq(0).all()  # none reached it
    weight.grad = torch.arange(12.0).view(4, 3).t()
    assert part.of(part.gradient()).tolist() == weight.grad.flatten().tolist()
    assert weight.grad.is_contiguous()
