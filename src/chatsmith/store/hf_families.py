"""config.json of the families that are planned for and not built yet: BERT and Transformer-XL, as shapes.

Decoders are read by `hf.config_to_spec`. What a config asks for and a shape does not say is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chatsmith.counts import Shape
from chatsmith.errors import RequestError
from chatsmith.specs_families import EncoderSpec, RecurrentSpec
from chatsmith.store.hf import CONFIG, ConfigReader, config_to_spec, load_json


def read_shape(path: Path) -> Shape:
    """The shape that a config.json describes, or that of the model folder it lies in."""
    file = path / CONFIG if path.is_dir() else path
    return config_to_shape(load_json(file), str(file))


def config_to_shape(config: Mapping[str, Any], where: str = CONFIG) -> Shape:
    """The shape of any family; raises `RequestError` naming the key that we cannot follow."""
    readers: dict[Any, Callable[[ConfigReader], Shape]] = {"bert": _read_bert, "transfo-xl": _read_transformer_xl}
    reader = readers.get(config.get("model_type"))
    if reader is None:
        return config_to_spec(config, where, readers)
    try:
        return reader(ConfigReader(config, where))
    except RequestError as error:
        raise error if where in error.message else RequestError(f"{where}: {error.message}", error.hint) from None


def _read_bert(reader: ConfigReader) -> EncoderSpec:
    reader.refuse("position_embedding_type", "absolute")
    reader.refuse("add_cross_attention", False)
    kinds = reader.config.get("architectures") or []
    named = " ".join(kinds) if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds) else ""
    masked, pretraining = "MaskedLM" in named, "PreTraining" in named
    return EncoderSpec(
        vocab_size=reader.size("vocab_size", 30522),
        context=reader.size("max_position_embeddings", 512),
        width=reader.size("hidden_size", 768),
        layers=reader.size("num_hidden_layers", 12),
        heads=reader.size("num_attention_heads", 12),
        ffn_width=reader.size("intermediate_size", 3072),
        segments=reader.size("type_vocab_size", 2),
        pooler=not masked,
        heads_on_top="pretraining" if pretraining else "masked" if masked else "none",
    )


def _read_transformer_xl(reader: ConfigReader) -> RecurrentSpec:
    reader.refuse("attn_type", 0)
    reader.refuse("tie_word_embeddings", True)
    width = reader.size("d_model", 1024)
    reader.refuse("d_embed", width)
    cutoffs = reader.config.get("cutoffs", [20000, 40000, 200000])
    if not isinstance(cutoffs, list) or not all(type(cutoff) is int for cutoff in cutoffs):
        raise RequestError(f"cutoffs must be whole numbers, not {cutoffs!r}")
    memory = reader.size("mem_len", 1600)
    return RecurrentSpec(
        vocab_size=reader.size("vocab_size", 267735),
        context=reader.size("tgt_len", 128),
        width=width,
        layers=reader.size("n_layer", 18),
        heads=reader.size("n_head", 16),
        head_dim=reader.size("d_head", 64),
        ffn_width=reader.size("d_inner", 4096),
        memory=memory,
        cutoffs=tuple(cutoffs),
        divisor=reader.size("div_val", 4),
    )
