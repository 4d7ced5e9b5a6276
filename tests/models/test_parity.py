"""The decoder is the published one: same weights in, same logits and same greedy words out as Transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, RopeScaling, modern
from chatsmith.store.folder import load_decoder, save_model
from tiny import Cached

TOLERANCE = 1e-4

GPT2 = ModelSpec(vocab_size=97, context=64, width=48, layers=3, heads=4)
LLAMA = replace(
    modern(97, 64, 48, 3, 4, kv_heads=2, ffn_width=80, norm_epsilon=1e-5), qk_norm=False, tied=False, rope_theta=500.0
)
LLAMA3_ROPE = RopeScaling("llama3", 8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=16)
SPECS = {
    "gpt2": GPT2,
    "gpt2 untied, exact gelu, narrow": replace(GPT2, tied=False, activation="gelu", ffn_width=40),
    "llama, grouped heads": LLAMA,
    "llama, tied, biases, own head_dim": replace(LLAMA, tied=True, attention_bias=True, head_dim=20),
    "llama, one key head, llama3 rope": replace(LLAMA, kv_heads=1, rope_scaling=LLAMA3_ROPE),
    "llama, linear rope": replace(LLAMA, rope_scaling=RopeScaling("linear", 4.0)),
    "qwen3": modern(97, 64, 48, 3, 4, kv_heads=2, head_dim=16),
    "qwen3, untied, biases": modern(97, 64, 48, 3, 4, kv_heads=2, head_dim=16, tied=False, attention_bias=True),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights large enough that every part of the model matters, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15 + centre)


def ours(spec: ModelSpec) -> Decoder:
    model = Decoder(spec)
    randomise(model)
    return model.eval()


def theirs(folder: Path) -> nn.Module:
    """The folder as Transformers loads it, with every weight found and none left over."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def ids(batch: int = 2, length: int = 40) -> Tensor:
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(1))


def greedy(model: Decoder, prompt: Tensor, count: int, *, cached: bool) -> list[int]:
    """The plainest greedy loop, with or without the cache."""
    cache = Cached(model, 1) if cached else None
    text, new = prompt, prompt
    for _ in range(count):
        start = text.shape[1] - new.shape[1]
        logits = cache([new[0].tolist()], [start])[0][None] if cache else model(text)
        new = logits[:, -1].argmax(-1, keepdim=True)
        text = torch.cat((text, new), dim=1)
    return text[0, prompt.shape[1] :].tolist()


@every_spec
def test_export_gives_transformers_the_same_logits_and_words(spec: ModelSpec, tmp_path: Path) -> None:
    model = ours(spec)
    save_model(tmp_path, model, None, provenance={})
    other = theirs(tmp_path)
    with torch.inference_mode():
        difference = (model(ids()) - other(ids()).logits).abs().max().item()
        assert difference < TOLERANCE
        prompt = ids(1, 5)
        continued = other.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=False)
        expected = continued[0, 5:].tolist()
        assert greedy(model, prompt, len(expected), cached=False) == expected
        assert greedy(model, prompt, len(expected), cached=True) == expected


@every_spec
def test_import_keeps_logits_and_every_bit_of_the_weights(spec: ModelSpec, tmp_path: Path) -> None:
    save_model(tmp_path / "seed", ours(spec), None, provenance={})
    other = theirs(tmp_path / "seed")
    randomise(other, seed=5)
    other.save_pretrained(tmp_path / "theirs")
    model = load_decoder(tmp_path / "theirs")
    assert model.spec == spec
    with torch.inference_mode():
        assert (model(ids()) - other(ids()).logits).abs().max().item() < TOLERANCE
    save_model(tmp_path / "back", model, None, provenance={})
    before, after = other.state_dict(), theirs(tmp_path / "back").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("spec", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_bfloat16_and_shards_come_back_bit_for_bit(spec: ModelSpec, tmp_path: Path) -> None:
    save_model(tmp_path / "seed", ours(spec), None, provenance={}, dtype=torch.bfloat16)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "seed", dtype="auto")
    assert other.dtype == torch.bfloat16
    other.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    model, expected = load_decoder(tmp_path / "shards"), ours(spec).to(torch.bfloat16).state_dict()
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(expected[name], weight) for name, weight in model.state_dict().items())


def test_a_gpt2_saved_without_its_head_loads(tmp_path: Path) -> None:
    save_model(tmp_path / "seed", ours(GPT2), None, provenance={})
    theirs(tmp_path / "seed").transformer.save_pretrained(tmp_path / "bare")
    model = load_decoder(tmp_path / "bare")
    with torch.inference_mode():
        assert torch.equal(model(ids()), ours(GPT2)(ids()))


def test_other_dtypes_and_banded_layers_go_through_our_own_format(tmp_path: Path) -> None:
    banded = replace(GPT2, band=8)
    model = ours(banded)
    save_model(tmp_path, model, None, provenance={})
    again = load_decoder(tmp_path)
    assert again.spec == banded
    with torch.inference_mode():
        assert torch.equal(model(ids()), again(ids()))
        assert not torch.allclose(model(ids()), ours(GPT2)(ids()), atol=1e-2)
    assert load_decoder(tmp_path, dtype=torch.float16).dtype == torch.float16
