"""The counts of every family, to the unit, and against models built by others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.counts import Shape
from chatsmith.errors import RequestError
from chatsmith.specs import PRESETS, ModelSpec
from chatsmith.specs_families import FAMILY_PRESETS, EncoderDecoderSpec, EncoderSpec, RecurrentSpec, shape, shape_names

# Devlin et al. 2019 and Dai et al. 2019 as released; Vaswani et al. 2017, Table 3, with 37,000 pieces.
COUNTS = {
    "bert-base": 109_482_240,
    "bert-base-cased": 108_310_272,
    "bert-large": 335_141_888,
    "transformer-base": 63_045_632,
    "transformer-big": 214_171_648,
    "transformer-xl-wt103-base": 151_107_538,
    "transformer-xl-wt103-large": 284_121_930,
    "transformer-xl-enwik8-base": 41_055_436,
}


@pytest.mark.parametrize("name", FAMILY_PRESETS)
def test_every_preset_counts_exactly(name: str) -> None:
    assert shape(name).parameters == COUNTS[name]
    assert sum(shape(name).parameter_terms.values()) == COUNTS[name]


def test_the_layers_of_transformer_xl_large_are_those_of_the_paper() -> None:
    terms = shape("transformer-xl-wt103-large").parameter_terms
    layers = sum(terms[name] for name in ("attention", "relative positions", "feed-forward", "norms"))
    assert layers == 245_534_720


def test_pretraining_heads_of_bert() -> None:
    bert = FAMILY_PRESETS["bert-base"]
    assert isinstance(bert, EncoderSpec)
    masked, both = (replace(bert, heads_on_top=heads).parameters for heads in ("masked", "pretraining"))
    assert masked - bert.parameters == 622_650
    assert both - masked == 1_538


@pytest.mark.parametrize("heads", ["none", "masked", "pretraining"])
def test_bert_counts_as_transformers_builds_it(heads: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=1234, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=100,
        max_position_embeddings=77, type_vocab_size=2,
    )  # fmt: skip
    kinds = {
        "none": transformers.BertModel,
        "masked": transformers.BertForMaskedLM,
        "pretraining": transformers.BertForPreTraining,
    }
    with torch.device("meta"):
        model = kinds[heads](config)
    ours = EncoderSpec(1234, 77, 48, 3, 4, 100, pooler=heads != "masked", heads_on_top=heads)  # type: ignore[arg-type]
    assert ours.parameters == sum(parameter.numel() for parameter in model.parameters())


@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([(4, 4), (4, 2), (2, 1)]),
    head_dim=st.sampled_from([2, 8]),
    ffn=st.integers(1, 40),
    vocabulary=st.integers(2, 60),
    context=st.integers(1, 20),
    norm=st.sampled_from(["layer", "rms"]),
    activation=st.sampled_from(["gelu", "swiglu"]),
    flags=st.tuples(*[st.booleans()] * 4),
    positions=st.sampled_from(["learned", "rotary"]),
)
def test_a_decoder_counts_as_it_is_built(
    layers: int, heads: tuple[int, int], head_dim: int, ffn: int, vocabulary: int, context: int, norm: str,
    activation: str, flags: tuple[bool, ...], positions: str,
) -> None:  # fmt: skip
    torch = pytest.importorskip("torch")
    from chatsmith.models.decoder import Decoder

    attention_bias, ffn_bias, qk_norm, tied = flags
    spec = ModelSpec(
        vocabulary, context, 16, layers, heads[0], heads[1], head_dim, ffn, norm=norm, activation=activation,  # type: ignore[arg-type]
        positions=positions, attention_bias=attention_bias, ffn_bias=ffn_bias, qk_norm=qk_norm, tied=tied,  # type: ignore[arg-type]
    )  # fmt: skip
    with torch.device("meta"):
        model = Decoder(spec)
    weights = {id(parameter): parameter for parameter in model.parameters()}
    assert spec.parameters == sum(parameter.numel() for parameter in weights.values())
    matrices = [parameter for parameter in weights.values() if parameter.dim() == 2]
    looked_up = (context * 16 if positions == "learned" else 0) + (0 if tied else vocabulary * 16)
    assert spec.matmul_parameters == sum(parameter.numel() for parameter in matrices) - looked_up


@pytest.mark.parametrize("name", shape_names())
def test_training_takes_six_flops_for_each_multiplied_weight_and_more_for_attention(name: str) -> None:
    found: Shape = shape(name)
    one, many = found.training_flops_per_token(1), found.training_flops_per_token(64)
    if isinstance(found, RecurrentSpec):
        assert one > many  # short segments compute the keys of the memory again and again
    else:
        assert one < many
    if isinstance(found, ModelSpec):
        assert one == pytest.approx(6 * found.matmul_parameters + 12 * found.layers * found.heads * found.head_dim)


def test_a_banded_layer_sees_its_band() -> None:
    dense = PRESETS["gpt3-125m"]
    banded = replace(dense, band=128)
    per_key = 12 * dense.heads * dense.head_dim * (dense.layers // 2)
    assert dense.training_flops_per_token() - banded.training_flops_per_token() == per_key * (2048 - 128)


def test_an_encoder_and_a_decoder_share_the_tokens() -> None:
    spec = EncoderDecoderSpec(100, 8, 16, 1, 1, 2, 32)
    # by hand, for 8 source and 8 target tokens: three attention blocks, two feed-forwards, one output
    flops = 3 * (8 * 2 * 16 * 64 + 2 * 2 * 8 * 8 * 16) + 2 * (8 * 2 * 2 * 16 * 32) + 8 * 2 * 16 * 100
    assert spec.training_flops_per_token() == pytest.approx(3 * flops / 16)


def test_nonsense_is_refused() -> None:
    with pytest.raises(RequestError, match="width 100 is not divisible by heads 3"):
        EncoderSpec(10, 10, 100, 1, 3)
    with pytest.raises(RequestError, match="layers must be a whole number from 1"):
        EncoderDecoderSpec(10, 10, 64, 0, 1, 2)
    with pytest.raises(RequestError, match="cutoffs must rise within the vocabulary"):
        RecurrentSpec(100, 8, 16, 1, 2, 8, 32, 8, (50, 20))
    with pytest.raises(RequestError, match="no width for the last of the clusters"):
        RecurrentSpec(100, 8, 16, 1, 2, 8, 32, 8, (10, 20, 30), 4)
    with pytest.raises(RequestError, match="no preset called 'bert-bse'") as error:
        shape("bert-bse")
    assert error.value.hint is not None
    assert "bert-base" in error.value.hint
