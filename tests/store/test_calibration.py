"""Rounding by what the layers read: the moments are those of the text, and the model stays closer to itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chatsmith.errors import RequestError
from chatsmith.kernels.infer.matrix import Matrix
from chatsmith.models.decoder import Decoder
from chatsmith.store.calibration import Calibration
from chatsmith.store.folder import decoder_of
from chatsmith.store.packing import Entry, Format, packed_parts, unpacked
from tiny import tiny_model

INT4 = Format("int4", group=32)


def text(tokens: int, seed: int = 0) -> list[int]:
    """Tokens of which some are far likelier than others, as in a language."""
    return [int(token) for token in np.random.default_rng(seed).zipf(1.3, tokens) % 268]


def rounded(model: Decoder, form: Format, ids: list[int] | None) -> Decoder:
    known = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    round_ = None if ids is None else Calibration(model.spec, known.__getitem__, ids, form, device="cpu").rounded
    parts = dict(packed_parts(model.spec, known.__getitem__, form, round_))
    return decoder_of(model.spec, unpacked(model.spec, parts))


@torch.no_grad()
def divergence(model: Decoder, other: Decoder) -> float:
    ids = torch.tensor(text(16 * 64, seed=1)).view(16, 64)
    first, second = (torch.log_softmax(each(ids).double(), -1) for each in (model, other))
    return float((first.exp() * (first - second)).sum(-1).mean())


@pytest.mark.parametrize("kind", ["gpt2", "banded", "qwen3"])
@pytest.mark.parametrize("form", [INT4, Format("int4", group=32, symmetric=False)])
def test_a_text_that_was_not_read_is_told_more_faithfully(kind: str, form: Format) -> None:
    model = tiny_model(kind)
    with torch.no_grad():  # inputs that are as different in size as those of trained models
        for name, parameter in model.named_parameters():
            if name.endswith(("attention_norm.weight", "ffn_norm.weight")):
                parameter.mul_(torch.linspace(-1, 1, parameter.numel()).exp())
    plain = divergence(model, rounded(model, form, None))
    assert divergence(model, rounded(model, form, text(2000))) < 0.7 * plain


def test_each_matrix_is_rounded_by_what_enters_it_after_the_layers_before_were_rounded() -> None:
    """The moments that the second layer is rounded by, against those seen in a decoder whose first layer is rounded."""
    model, ids = tiny_model(), text(640)
    known = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    calibration = Calibration(model.spec, known.__getitem__, ids, INT4, device="cpu")
    seen: dict[str, np.ndarray] = {}

    def spy(entry: Entry, values: np.ndarray) -> Matrix:
        matrix = calibration.rounded(entry, values)
        if entry.name == "blocks.1.attention.qkv":
            seen.update({name: moments.numpy().copy() for name, moments in calibration._moments.items()})
        return matrix

    parts = dict(packed_parts(model.spec, known.__getitem__, INT4, spy))
    half = dict(known) | {name: value for name, value in unpacked(model.spec, parts) if name.startswith("blocks.0.")}
    judge = decoder_of(model.spec, half.items())
    judge.fuses = False
    found: dict[str, torch.Tensor] = {}
    for name in ("attention.output", "ffn.gate", "ffn.down"):
        module = judge.blocks[1].get_submodule(name)
        module.register_forward_pre_hook(lambda _, given, name=name: found.__setitem__(name, given[0].flatten(0, 1)))
    with torch.no_grad():
        judge(torch.tensor(ids).view(-1, 64))
    for name in ("attention.output", "ffn.gate", "ffn.down"):
        wanted = (found[name].T @ found[name]).numpy()
        np.testing.assert_allclose(seen[name], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_int8_and_rows_that_are_no_whole_context_are_fine() -> None:
    model = tiny_model("gpt2")
    assert divergence(model, rounded(model, Format("int8"), text(100))) < 1e-3
    assert divergence(model, rounded(model, Format("int8"), text(7))) < 1e-3


def test_a_text_of_one_token_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(RequestError, match="fewer than two tokens"):
        Calibration(model.spec, lambda name: model.state_dict()[name].numpy(), [3], INT4)
