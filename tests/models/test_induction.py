"""First weights that look back: what they attend to and what they foretell before any training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from chatsmith.errors import RequestError
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, modern

SPEC = modern(2000, 128, 96, 4, 3)


def begun(count: int, spec: ModelSpec = SPEC, seed: int = 1) -> Decoder:
    model = Decoder(spec)
    model.init_weights(seed, count)
    return model.eval()


def twice(length: int = 30, rows: int = 16) -> Tensor:
    """Rows of random ids, each row's ids then coming again."""
    drawn = torch.randint(0, SPEC.vocab_size, (rows, length), generator=torch.Generator().manual_seed(3))
    return torch.cat([drawn, drawn], 1)


def attention_of(model: Decoder, layer: int, ids: Tensor) -> Tensor:
    """The attention of one layer [B, H, T, T], as softmax of the scores that its mix is given."""
    seen: list[Tensor] = []
    attention = model.blocks[layer].attention
    mix = attention.mix

    def spy(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        later = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).triu(1)
        seen.append(scores.masked_fill(later, -torch.inf).softmax(-1))
        return mix(query, key, value, mask)

    attention.mix = spy
    model.fuses = False
    with torch.no_grad():
        model(ids)
    return seen[0]


def ranks(model: Decoder, ids: Tensor, ahead: int) -> float:
    """Where, from 0 to 1, the id that came `ahead` places later the first time stands among all, in the median."""
    half = ids.shape[1] // 2
    with torch.no_grad():
        logits = model(ids)[:, half : ids.shape[1] - ahead]
    right = logits.gather(-1, ids[:, half + ahead :, None])
    return float((logits > right).float().mean(-1).median())


def test_a_head_of_the_first_layer_looks_back_so_many_places() -> None:
    read = attention_of(begun(3), 0, twice())
    for head in range(3):
        at = [float(read[:, head].diagonal(-back, 1, 2)[:, 5:].mean()) for back in range(6)]
        assert max(range(6), key=at.__getitem__) == head + 1
        assert at[head + 1] > 0.5
    plain = attention_of(begun(0), 0, twice())
    assert float(plain[:, 0].diagonal(-1, 1, 2)[:, 5:].mean()) < 0.15


def test_a_head_of_the_second_finds_where_the_token_stood_before() -> None:
    ids = twice()
    read = attention_of(begun(1), 1, ids)[:, 0]
    found = float(read.diagonal(-29, 1, 2).mean())  # one place after the same token, 30 places ago
    others = [float(read.diagonal(-back, 1, 2).mean()) for back in range(40) if back != 29]
    assert found > 0.2
    assert found > 4 * max(others)
    assert float(attention_of(begun(0), 1, ids)[:, 0].diagonal(-29, 1, 2).mean()) < 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_untrained_model_foretells_what_followed_before(seed: int) -> None:
    assert ranks(begun(1, seed=seed), twice(), 1) < 0.1
    assert 0.3 < ranks(begun(0, seed=seed), twice(), 1) < 0.7


def test_heads_that_share_keys_look_back_too() -> None:
    grouped = replace(modern(2000, 128, 96, 3, 4), kv_heads=2)
    read = attention_of(begun(2, grouped), 0, twice())
    for head, back in ((0, 1), (2, 2)):  # the first query of each group of two
        assert float(read[:, head].diagonal(-back, 1, 2)[:, 5:].mean()) > 0.4


def test_all_other_weights_are_drawn_as_always() -> None:
    plain, model, again = begun(0), begun(1), begun(1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    changed = {
        name for (name, a), b in zip(plain.named_parameters(), model.parameters(), strict=True) if not torch.equal(a, b)
    }
    attention = {f"blocks.{layer}.attention.{part}.weight" for layer in (0, 1) for part in ("value", "output", "query")}
    assert changed == attention | {"embed.weight"} | {f"blocks.{layer}.attention.key.weight" for layer in (0, 1)}
    dim = SPEC.head_dim
    for layer in (0, 1):
        ours, theirs = plain.blocks[layer].attention, model.blocks[layer].attention
        assert torch.equal(ours.query.weight[dim:], theirs.query.weight[dim:])
        assert torch.equal(ours.output.weight[:, dim:], theirs.output.weight[:, dim:])


@pytest.mark.parametrize(
    ("spec", "count", "message"),
    [
        (SPEC, 4, "from 0 to 3 for layers of 3 key/value heads, not 4"),
        (SPEC, -1, "from 0 to 3"),
        (modern(100, 32, 64, 1, 2), 1, "needs two layers"),
        (ModelSpec(vocab_size=97, context=32, width=64, layers=2, heads=2), 1, "needs rotary positions"),
    ],
)
def test_a_shape_without_room_for_them_is_refused(spec: ModelSpec, count: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Decoder(spec).init_weights(1, count)
