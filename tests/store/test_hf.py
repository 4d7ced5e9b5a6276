"""config.json of the known families, in the spellings that are about, and what we refuse to guess at."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.errors import RequestError
from chatsmith.models.decoder import Decoder
from chatsmith.specs import PRESETS, ModelSpec, RopeScaling
from chatsmith.store.hf import config_to_spec, family, read_config, spec_to_config
from chatsmith.store.layouts import layout

GPT2_PUBLISHED = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_type": "cls_index",
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
LLAMA31_PUBLISHED = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}
QWEN3_IN_THE_NEW_SPELLING = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "layer_types": ["full_attention"] * 28,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_published_configs_are_the_presets() -> None:
    assert config_to_spec(GPT2_PUBLISHED) == replace(PRESETS["gpt2-124m"], dropout=0.1)
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    assert config_to_spec(LLAMA31_PUBLISHED) == replace(PRESETS["llama3-8b"], context=131072, rope_scaling=scaling)
    assert config_to_spec(QWEN3_IN_THE_NEW_SPELLING) == PRESETS["qwen3-0.6b"]


@pytest.mark.parametrize("spec", PRESETS.values(), ids=PRESETS.keys())
def test_every_preset_survives_its_config(spec: ModelSpec) -> None:
    for chosen in (spec, replace(spec, band=128), replace(spec, dropout=0.25)):
        assert config_to_spec(json.loads(json.dumps(spec_to_config(chosen)))) == chosen


@pytest.mark.parametrize("name", ["gpt2-124m", "gpt3-175b", "llama3-8b", "qwen3-0.6b"])
def test_transformers_builds_the_same_tensors_at_full_size(name: str) -> None:
    """On the meta device: names, shapes and counts of what would be stored, 175 billion parameters included."""
    spec = PRESETS[name]
    config = spec_to_config(spec)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config), attn_implementation="eager"
        )
    assert type(model).__name__ == config["architectures"][0]
    assert model.num_parameters() == spec.parameters
    shapes = {key: tuple(p.shape) for key, p in Decoder(spec, device="meta").state_dict().items()}
    stored = {entry.name: entry.shape(shapes) for entry in layout(family(spec), shapes)}
    assert stored == {key: tuple(p.shape) for key, p in model.named_parameters()}


@pytest.mark.parametrize("old", [LLAMA31_PUBLISHED, QWEN3_IN_THE_NEW_SPELLING, GPT2_PUBLISHED])
def test_what_transformers_writes_today_reads_the_same(old: dict[str, Any], tmp_path: Path) -> None:
    transformers.AutoConfig.for_model(**deepcopy(old)).save_pretrained(tmp_path)
    assert read_config(tmp_path) == config_to_spec(old)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_missing_keys_have_the_defaults_of_the_family(family: str) -> None:
    defaults = transformers.AutoConfig.for_model(family).to_dict()
    assert config_to_spec({"model_type": family}) == config_to_spec(defaults)


REFUSED = {
    "no type": ({"hidden_size": 8}, "no model of type None"),
    "another type": ({"model_type": "qwen2"}, "no model of type 'qwen2'"),
    "type that is a list": ({"model_type": []}, "no model of type"),
    "quantised": (LLAMA31_PUBLISHED | {"quantization_config": {"bits": 4}}, "quantised"),
    "yarn": (LLAMA31_PUBLISHED | {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
    "rope by layer": (LLAMA31_PUBLISHED | {"rope_scaling": {"full_attention": {"rope_theta": 1e4}}}, "between layers"),
    "half rotary": (LLAMA31_PUBLISHED | {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "sliding": (QWEN3_IN_THE_NEW_SPELLING | {"use_sliding_window": True}, "sliding-window"),
    "sliding layers": (QWEN3_IN_THE_NEW_SPELLING | {"layer_types": ["sliding_attention"]}, "sliding-window"),
    "relu": (GPT2_PUBLISHED | {"activation_function": "relu"}, "'relu' is not supported"),
    "scaled by layer": (GPT2_PUBLISHED | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    "size that is text": (GPT2_PUBLISHED | {"n_embd": "768"}, "n_embd must be a whole number"),
    "size that is true": (GPT2_PUBLISHED | {"n_layer": True}, "n_layer must be a whole number"),
    "huge": (GPT2_PUBLISHED | {"n_layer": 10**9}, "layers must be a whole number from 1 to"),
    "uneven": (GPT2_PUBLISHED | {"n_head": 7}, "width 768 is not divisible by heads 7"),
    "theta that is text": (LLAMA31_PUBLISHED | {"rope_theta": "big"}, "rope_theta must be a number"),
    "own, unknown key": (spec_to_config(replace(PRESETS["gpt2-124m"], band=4)) | {"wdith": 3}, "unknown key wdith"),
}


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_we_cannot_follow_is_refused_by_name(config: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        config_to_spec(config, "models/x/config.json")
    assert words in caught.value.message
    assert caught.value.message.count("models/x/config.json") == 1


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers())
keys = st.sampled_from(sorted({*GPT2_PUBLISHED, *LLAMA31_PUBLISHED, *QWEN3_IN_THE_NEW_SPELLING, "n_inner", "band"}))


@settings(max_examples=400)
@given(
    st.sampled_from([GPT2_PUBLISHED, LLAMA31_PUBLISHED, QWEN3_IN_THE_NEW_SPELLING]),
    st.dictionaries(keys, values | st.dictionaries(keys, values, max_size=3), max_size=4),
)
def test_any_config_gives_a_spec_or_one_clear_line(base: dict[str, Any], changes: dict[str, Any]) -> None:
    try:
        spec = config_to_spec(base | changes)
    except RequestError as error:
        message = error.message
    else:
        message = ""
        assert config_to_spec(spec_to_config(spec)) == spec
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not valid JSON"), ("[" * 100_000, "not valid JSON"), ("[1]", "does not hold a JSON object")],
)
def test_a_damaged_config_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RequestError, match=words):
        read_config(tmp_path)


def test_a_folder_without_a_model_says_what_a_model_folder_is(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no folder") as caught:
        read_config(tmp_path / "nowhere")
    assert "path of a model folder" in (caught.value.hint or "")
    (tmp_path / "run").mkdir()
    with pytest.raises(RequestError, match=r"no config\.json"):
        read_config(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="there is no folder") as caught:
        read_config(tmp_path / "rum")
    assert caught.value.hint == f"did you mean {tmp_path / 'run'}?"
    with pytest.raises(RequestError) as caught:
        read_config(tmp_path)
    assert caught.value.hint == f"did you mean {tmp_path / 'run'}?"
    with pytest.raises(RequestError, match="is a file, not a model folder"):
        read_config(tmp_path / "run" / "config.json")
