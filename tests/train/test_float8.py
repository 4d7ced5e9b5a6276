"""Layers in 8 bits keep their parameters and names, train much as before, and are refused where they cannot be had."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from chatsmith.errors import MissingExtra, RequestError
from chatsmith.models.decoder import Decoder
from chatsmith.settings import from_mapping
from chatsmith.specs import ModelSpec
from chatsmith.train.float8 import float8_layers
from chatsmith.train.losses import next_token_loss
from chatsmith.train.recipe import Recipe
from chatsmith.train.run import train

SPEC = ModelSpec(vocab_size=96, context=16, width=32, layers=2, heads=2)


def made(spec: ModelSpec = SPEC) -> Decoder:
    model = Decoder(spec)
    model.init_weights(0)
    return model


def test_emulated_layers_keep_their_weights_and_lose_little() -> None:
    pytest.importorskip("torchao")
    plain, rounded = made(), made()
    before = {name: id(parameter) for name, parameter in rounded.named_parameters()}
    float8_layers(rounded, emulate=True)
    assert {name: id(parameter) for name, parameter in rounded.named_parameters()} == before
    ids = torch.randint(0, 96, (4, 17), generator=torch.Generator().manual_seed(1))
    found = []
    for model in (plain, rounded):
        loss, count = next_token_loss(model, ids[:, :-1], ids[:, 1:])
        (loss / count).backward()
        found.append((float(loss.detach() / count), model.blocks[0].ffn.up.weight.grad))  # type: ignore[union-attr]
    assert found[1][0] == pytest.approx(found[0][0], abs=0.01)
    assert found[1][0] != found[0][0]  # that it was rounded at all
    assert (found[1][1] - found[0][1]).norm() < 0.1 * found[0][1].norm()


def test_a_device_without_8_bits_is_named() -> None:
    with pytest.raises(
        RequestError, match="needs an NVIDIA GPU of the Ada or Hopper generation or later; the CPU is not one"
    ):
        float8_layers(made())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this device may multiply in 8 bits")
def test_a_run_is_refused_before_anything_is_read_or_written(tmp_path: Path) -> None:
    asked = {"data": {"sources": [{"path": str(tmp_path / "nothing.txt")}]}, "schedule": {"steps": 1}}
    asked |= {"model": {"width": 32, "layers": 1, "heads": 2}, "precision": {"float8": True}}
    with pytest.raises(RequestError, match="needs an NVIDIA GPU"):
        train(from_mapping(Recipe, asked, "test"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_widths_that_the_hardware_does_not_take() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(RequestError, match="multiples of 16, and 24 is not"):
        float8_layers(made(ModelSpec(vocab_size=96, context=16, width=24, layers=1, heads=2)), emulate=True)


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("torchao"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="torchao") as raised:
        float8_layers(made(), emulate=True)
    assert 'pip install "chatsmith[float8]"' in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"precision": {"float8": True, "compute": "float32"}}, "goes with compute"),
        ({"precision": {"float8": True}, "parallel": {"tensor": 2}}, "parallel.tensor = 2"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(changes: dict[str, Any], what: str) -> None:
    base = {
        "data": {"sources": [{"path": "texts"}]},
        "model": {"width": 32, "layers": 1, "heads": 2},
        "schedule": {"steps": 1},
    }
    with pytest.raises(RequestError, match=what):
        from_mapping(Recipe, base | changes, "test")
