"""Generation on a GPU: the CPU's numbers within rounding, and the same bits for a row in any company."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from chatsmith.generate.engine import Engine
from chatsmith.generate.gpu import GPUBackend
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.torch_backend import TorchBackend
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, modern
from chatsmith.text.bpe import train_tokenizer

GPT = ModelSpec(1000, 256, 256, 3, 4)
SHAPES = {
    "gpt": GPT,
    "banded": replace(GPT, band=40),
    "modern": modern(1000, 256, 256, 3, 8, kv_heads=2, head_dim=64),
    "uneven": modern(1000, 256, 200, 2, 5, kv_heads=1, head_dim=40),
}


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> Decoder:
    made = Decoder(SHAPES[request.param], dtype=torch.bfloat16)
    drawn = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        parameter.data.normal_(0.0, 0.05, generator=drawn)
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.data += 1
    return made.requires_grad_(False).eval()


def requests(count: int, temperature: float = 0.9) -> list[Request]:
    drawn = random.Random(1)
    return [
        Request(
            tuple(drawn.randrange(270) for _ in range(drawn.choice((1, 5, 60, 130)))),
            Sampling(temperature=temperature, seed=number, max_tokens=40),
            stop_ids=frozenset(),
        )
        for number in range(count)
    ]


def engine(model: Decoder, *, rows: int, blocks: int = 2**24, graphs: bool = True) -> Engine:
    on_gpu = Decoder(model.spec, dtype=torch.bfloat16)
    on_gpu.load_state_dict(model.state_dict())
    backend = GPUBackend(on_gpu.to("cuda").requires_grad_(False).eval(), cache_bytes=blocks, graphs=graphs)
    return Engine(backend, train_tokenizer(["the quick brown fox " * 50], vocab_size=300), max_rows=rows)


def test_any_company_gives_the_same_tokens(model: Decoder) -> None:
    asked = requests(40)
    alone = [engine(model, rows=1).complete([one])[0] for one in asked[:6]]
    many = engine(model, rows=33).complete(asked)
    tight = engine(model, rows=12, blocks=1).complete(asked)  # the fewest blocks: some have to make room
    plain = engine(model, rows=7, graphs=False).complete(asked)
    for found in (tight, plain):
        assert [one.ids for one in found] == [one.ids for one in many]
        assert [one.logprobs for one in found] == [one.logprobs for one in many]
    assert [one.ids for one in alone] == [one.ids for one in many[:6]]


def test_the_numbers_are_those_of_the_cpu(model: Decoder) -> None:
    made = engine(model, rows=16)
    exact = Decoder(model.spec)
    exact.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    on_cpu = Engine(TorchBackend(exact.requires_grad_(False).eval()), made.tokenizer)
    texts = [one.prompt for one in requests(8)]
    for found, wanted in zip(made.score_many(texts), on_cpu.score_many(texts), strict=True):
        assert np.abs(found - wanted).max(initial=0.0) < 0.1


def test_company_that_wants_to_see_more_changes_nothing(model: Decoder) -> None:
    asked = requests(16)
    alone = engine(model, rows=16).complete(asked)
    curious = [replace(one, top=2, samples=2) for one in asked]
    mixed = engine(model, rows=24).complete([one for pair in zip(asked, curious, strict=True) for one in pair])
    found = [one for one in mixed if one.request % 2 == 0]
    assert [one.ids for one in found] == [one.ids for one in alone]
    assert [one.logprobs for one in found] == [one.logprobs for one in alone]


def test_what_is_chosen_there_is_what_the_logits_say(model: Decoder) -> None:
    made, asked = engine(model, rows=16), requests(16)
    shown = [replace(one, top=1) for one in asked]  # asks for logits, which are then chosen from on the CPU
    for found, wanted in zip(made.complete(asked), made.complete(shown), strict=True):
        same = sum(a == b for a, b in zip(found.ids, wanted.ids, strict=True))
        assert same == len(found.ids) or found.ids[:same] == wanted.ids[:same]
        assert same > 30  # a clock may be won by another where two are within a rounding
