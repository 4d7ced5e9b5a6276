"""Shapes from the config.json of BERT and Transformer-XL."""

from __future__ import annotations

from typing import Any

import pytest

from chatsmith.errors import RequestError
from chatsmith.specs import PRESETS
from chatsmith.specs_families import FAMILY_PRESETS
from chatsmith.store.hf import spec_to_config
from chatsmith.store.hf_families import config_to_shape

BERT: dict[str, Any] = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512,
    "type_vocab_size": 2, "hidden_act": "gelu",
}  # fmt: skip
TRANSFORMER_XL: dict[str, Any] = {
    "model_type": "transfo-xl", "vocab_size": 267735, "cutoffs": [20000, 40000, 200000], "d_model": 1024,
    "d_embed": 1024, "n_head": 16, "d_head": 64, "d_inner": 4096, "div_val": 4, "n_layer": 18, "tgt_len": 384,
    "mem_len": 384,
}  # fmt: skip


def test_shapes_are_those_of_the_presets() -> None:
    assert config_to_shape(BERT) == FAMILY_PRESETS["bert-base"]
    assert config_to_shape(TRANSFORMER_XL) == FAMILY_PRESETS["transformer-xl-wt103-large"]
    assert config_to_shape(spec_to_config(PRESETS["llama3-8b"])) == PRESETS["llama3-8b"]


def test_what_stands_on_top_of_bert() -> None:
    plain = config_to_shape(BERT).parameters
    pretraining = config_to_shape(BERT | {"architectures": ["BertForPreTraining"]}).parameters
    masked = config_to_shape(BERT | {"architectures": ["BertForMaskedLM"]}).parameters
    assert pretraining - plain == 622_650 + 1_538
    assert pretraining - masked == 1_538 + 768 * 769  # that head does without the pooler


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (BERT | {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (BERT | {"num_attention_heads": 7}, "width 768 is not divisible by heads 7"),
        (BERT | {"hidden_size": "wide"}, "hidden_size must be a whole number"),
        (BERT | {"num_hidden_layers": -1}, "layers must be a whole number"),
        (TRANSFORMER_XL | {"cutoffs": "many"}, "cutoffs must be whole numbers"),
        (TRANSFORMER_XL | {"cutoffs": [3, 2]}, "cutoffs must rise"),
        (TRANSFORMER_XL | {"d_embed": 512}, "d_embed"),
        ({"model_type": "gpt5"}, "no model of type 'gpt5'\n  known: gpt2, llama, qwen3, chatsmith, bert, transfo-xl"),
        ({}, "no model of type None"),
    ],
)
def test_what_cannot_be_followed_is_named(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as error:
        config_to_shape(config, "here.json")
    assert "here.json" in error.value.message
