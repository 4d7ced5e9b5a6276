"""config.json and `ModelSpec`, both ways, for the families that other programs know.

Written: GPT-2, Llama and Qwen3 exactly as Transformers spells them (the older spelling of the rotary settings, which
every version reads). A shape that equals no family is written as model type "chatsmith", with the fields of the spec
under their own names. Read: those, in the older spelling (rope_theta, rope_scaling) and that of Transformers 5
(rope_parameters). What a config asks for and our decoder does not do is refused by name, never passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from chatsmith.arguments import is_finite
from chatsmith.errors import RequestError, did_you_mean, nearest
from chatsmith.settings import from_mapping, to_mapping
from chatsmith.specs import Activation, ModelSpec, RopeScaling

CONFIG = "config.json"
_MAX_CONFIG_BYTES = 4 * 2**20
_CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
OWN_FAMILY = "chatsmith"
_GELU: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
}


def family(spec: ModelSpec) -> str:
    """The model type to store a spec as: "gpt2", "llama", "qwen3", or "chatsmith" when it equals no family."""
    if spec.architecture is None or (spec.architecture != "gpt2" and spec.width % spec.heads):
        return OWN_FAMILY  # Transformers wants hidden_size divisible by the heads even where head_dim is given
    return spec.architecture


def spec_to_config(spec: ModelSpec) -> dict[str, Any]:
    """The config.json of a spec, without token ids and dtype."""
    kind = family(spec)
    if kind == OWN_FAMILY:
        return {"architectures": ["ChatsmithDecoder"], "model_type": OWN_FAMILY} | to_mapping(spec)
    config: dict[str, Any] = {"architectures": [_CLASSES[kind]], "model_type": kind, "vocab_size": spec.vocab_size}
    if kind == "gpt2":
        config |= {
            "n_positions": spec.context,
            "n_embd": spec.width,
            "n_layer": spec.layers,
            "n_head": spec.heads,
            "n_inner": spec.ffn_width,
            "activation_function": "gelu_new" if spec.activation == "gelu_tanh" else "gelu",
            "layer_norm_epsilon": spec.norm_epsilon,
            "attn_pdrop": spec.dropout,
            "embd_pdrop": spec.dropout,
            "resid_pdrop": spec.dropout,
        }
    else:
        config |= {
            "max_position_embeddings": spec.context,
            "hidden_size": spec.width,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "head_dim": spec.head_dim,
            "intermediate_size": spec.ffn_width,
            "hidden_act": "silu",
            "rms_norm_eps": spec.norm_epsilon,
            "rope_theta": spec.rope_theta,
            "rope_scaling": _scaling_to_config(spec.rope_scaling),
            "attention_bias": spec.attention_bias,
            "attention_dropout": spec.dropout,
        }
        config |= {"mlp_bias": False} if kind == "llama" else {"use_sliding_window": False}
    return config | {"tie_word_embeddings": spec.tied}


def _scaling_to_config(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def read_config(folder: Path) -> ModelSpec:
    """The spec of a model folder, read from its config.json alone."""
    return config_to_spec(load_json(Path(folder) / CONFIG), str(Path(folder) / CONFIG))


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file; `RequestError` when it is missing, too large or malformed."""
    try:
        size = path.stat().st_size
        if size > _MAX_CONFIG_BYTES:
            raise RequestError(f"{path} is {size} bytes; a configuration has at most {_MAX_CONFIG_BYTES}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not path.parent.exists():
            raise RequestError(f"there is no folder {path.parent}", _missing_hint(path.parent)) from None
        raise RequestError(f"no {path.name} in {path.parent}", _missing_hint(path.parent)) from None
    except NotADirectoryError:
        raise RequestError(f"{path.parent} is a file, not a model folder", _file_hint(path.parent)) from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not valid JSON: {error}", "copy or download it again") from None
    if not isinstance(value, dict):
        raise RequestError(f"{path} does not hold a JSON object", "copy or download it again")
    return value


def _file_hint(file: Path) -> str:
    if file.suffix == ".gguf":
        return f"make a folder of it first: chatsmith convert {file} {file.stem} --to int8"
    return "give the path of a model folder (one with config.json and model.safetensors)"


def _missing_hint(folder: Path) -> str:
    if not folder.is_dir():
        beside = [one.name for one in folder.parent.glob("*") if os.path.isfile(one / CONFIG)]
        if near := nearest(folder.name, beside):
            return f"did you mean {folder.parent / near[0]}?"
        return "give the path of a model folder (one with config.json and model.safetensors)"
    inside = sorted(p.name for p in folder.iterdir() if (p / CONFIG).is_file())
    if inside:
        return f"did you mean {folder / inside[0]}?"
    return "a model folder holds config.json and model.safetensors; this one does not"


def config_to_spec(config: Mapping[str, Any], where: str = CONFIG, others: Iterable[str] = ()) -> ModelSpec:
    """The spec that a config.json describes; raises `RequestError` naming the key that we cannot follow.

    `others` are the families that the caller knows besides; a family that nobody knows is told of all.
    """
    kind = config.get("model_type")
    readers: dict[str, Callable[[ConfigReader], ModelSpec]] = {
        "gpt2": _read_gpt2,
        "llama": lambda reader: _read_llama(reader, qk_norm=False),
        "qwen3": lambda reader: _read_llama(reader, qk_norm=True),
        OWN_FAMILY: _read_own,
    }
    if not isinstance(kind, str) or kind not in readers:
        hint = ("add model_type, one of " if kind is None else "known: ") + ", ".join((*readers, *others))
        raise RequestError(f"{where}: chatsmith has no model of type {kind!r}", hint)
    reader = ConfigReader(config, where)
    quantised = config.get("quantization_config")
    if quantised is not None and not (isinstance(quantised, dict) and quantised.get("quant_method") == OWN_FAMILY):
        raise RequestError(f"{where}: these weights are quantised (quantization_config)", "use the unquantised model")
    try:
        return readers[kind](reader)
    except RequestError as error:
        raise error if where in error.message else RequestError(f"{where}: {error.message}", error.hint) from None


class ConfigReader:
    """Typed access to a config; a wrong type names the file and the key."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def size(self, key: str, default: int) -> int:
        """A whole number; a missing or null one is the family's default."""
        value = self.config.get(key)
        if value is None:
            return default
        if type(value) is not int:
            raise RequestError(f"{self.where}: {key} must be a whole number, not {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.config.get(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not is_finite(value):
            raise RequestError(f"{self.where}: {key} must be a number, not {value!r}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.config.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise RequestError(f"{self.where}: {key} must be true or false, not {value!r}")
        return value

    def refuse(self, key: str, wanted: Any) -> None:
        """Raise when `key` is there and has another value than the one that our decoder follows."""
        value = self.config.get(key)
        if value is not None and value != wanted:
            raise RequestError(f"{self.where}: {key} = {value!r} is not supported (only {wanted!r})")


def _read_own(reader: ConfigReader) -> ModelSpec:
    beside = {"architectures", "model_type", "dtype", "bos_token_id", "eos_token_id", "pad_token_id"}
    beside |= {"quantization_config"}
    fields = {key: value for key, value in reader.config.items() if key not in beside}
    return from_mapping(ModelSpec, fields, reader.where)


def _read_gpt2(reader: ConfigReader) -> ModelSpec:
    reader.refuse("scale_attn_weights", True)
    reader.refuse("scale_attn_by_inverse_layer_idx", False)
    reader.refuse("add_cross_attention", False)
    name = reader.config.get("activation_function", "gelu_new")
    if not isinstance(name, str) or name not in _GELU:
        raise RequestError(f"activation_function {name!r} is not supported", did_you_mean(str(name), _GELU))
    width = reader.size("n_embd", 768)
    return ModelSpec(
        vocab_size=reader.size("vocab_size", 50257),
        context=reader.size("n_positions", 1024),
        width=width,
        layers=reader.size("n_layer", 12),
        heads=reader.size("n_head", 12),
        ffn_width=reader.size("n_inner", 4 * width),
        norm_epsilon=reader.number("layer_norm_epsilon", 1e-5),
        activation=_GELU[name],
        tied=reader.flag("tie_word_embeddings", True),
        dropout=reader.number("resid_pdrop", 0.1),
    )


def _read_llama(reader: ConfigReader, *, qk_norm: bool) -> ModelSpec:
    """Llama, and Qwen3, which adds norms on queries and keys. A missing key has the default of the family."""
    reader.refuse("hidden_act", "silu")
    kinds = reader.config.get("layer_types") or []
    dense = isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds)
    if reader.flag("use_sliding_window", False) or not dense:
        raise RequestError("sliding-window attention (use_sliding_window, layer_types) is not supported")
    context = reader.size("max_position_embeddings", 32768 if qk_norm else 2048)
    theta, scaling = _read_rotary(reader, context)
    heads = reader.size("num_attention_heads", 32)
    return ModelSpec(
        vocab_size=reader.size("vocab_size", 151936 if qk_norm else 32000),
        context=context,
        width=reader.size("hidden_size", 4096),
        layers=reader.size("num_hidden_layers", 32),
        heads=heads,
        kv_heads=reader.size("num_key_value_heads", heads),
        head_dim=reader.size("head_dim", 128 if qk_norm else 0),
        ffn_width=reader.size("intermediate_size", 22016 if qk_norm else 11008),
        norm="rms",
        norm_epsilon=reader.number("rms_norm_eps", 1e-6),
        activation="swiglu",
        positions="rotary",
        rope_theta=theta,
        rope_scaling=scaling,
        attention_bias=reader.flag("attention_bias", False),
        ffn_bias=not qk_norm and reader.flag("mlp_bias", False),
        qk_norm=qk_norm,
        tied=reader.flag("tie_word_embeddings", False),
        dropout=reader.number("attention_dropout", 0.0),
    )


def _read_rotary(reader: ConfigReader, context: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from rope_parameters (Transformers 5) or from rope_theta and rope_scaling (before)."""
    settings = reader.config.get("rope_scaling") or reader.config.get("rope_parameters") or {}
    if not isinstance(settings, dict) or any(isinstance(value, dict) for value in settings.values()):
        raise RequestError("rotary settings that differ between layers are not supported")
    inner = ConfigReader({"rope_theta": reader.config.get("rope_theta")} | settings, reader.where)
    inner.refuse("partial_rotary_factor", 1.0)
    reader.refuse("partial_rotary_factor", 1.0)
    theta = inner.number("rope_theta", 10000.0)
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling("linear", inner.number("factor", 1.0))
    if kind == "llama3":
        scaling = RopeScaling(
            "llama3",
            inner.number("factor", 8.0),
            inner.number("low_freq_factor", 1.0),
            inner.number("high_freq_factor", 4.0),
            inner.size("original_max_position_embeddings", context),
        )
        return theta, scaling
    raise RequestError(f"rope_scaling of type {kind!r} is not supported", "supported: default, linear, llama3")
