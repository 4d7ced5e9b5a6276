"""The decoder's sizes, first weights, gradients, windows and cache."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from chatsmith.errors import RequestError
from chatsmith.kernels import native
from chatsmith.models import fused, rotary
from chatsmith.models.decoder import Decoder
from chatsmith.specs import PRESETS, ModelSpec, modern
from chatsmith.train.losses import next_token_loss
from tiny import Cached

# Exact counts: Radford et al. 2019 as released, Brown et al. 2020 Table D.1 (which rounds them), and the weights that
# Meta and Qwen published.
COUNTS = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
    "gpt3-125m": 125_226_240,
    "gpt3-350m": 355_871_744,
    "gpt3-760m": 760_300_032,
    "gpt3-1.3b": 1_315_723_264,
    "gpt3-2.7b": 2_651_553_280,
    "gpt3-6.7b": 6_658_404_352,
    "gpt3-13b": 12_853_386_240,
    "gpt3-175b": 174_604_259_328,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
}
GPT2 = ModelSpec(vocab_size=97, context=64, width=48, layers=2, heads=4)
SPECS = {
    "gpt2": GPT2,
    "banded": replace(GPT2, band=7),
    "exact gelu": replace(GPT2, activation="gelu"),
    "modern": modern(97, 64, 48, 2, 4, kv_heads=2),
    "llama": replace(modern(97, 64, 48, 2, 4), qk_norm=False, tied=False),
    "odd sizes": replace(modern(97, 64, 49, 2, 3, head_dim=10, ffn_width=33, kv_heads=1), tied=False),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def made(spec: ModelSpec, dtype: torch.dtype = torch.float32) -> Decoder:
    """Weights large enough that every part matters; the same draw for each dtype."""
    model = Decoder(spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15 + centre)
    return model.to(dtype)


def ids(batch: int = 3, length: int = 40, vocab_size: int = 97) -> Tensor:
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_exactly_their_parameters(name: str) -> None:
    spec = PRESETS[name]
    with torch.device("meta"):
        model = Decoder(spec)
    assert sum(p.numel() for p in model.parameters()) == spec.parameters
    if name in COUNTS:
        assert spec.parameters == COUNTS[name]


def test_first_weights_are_drawn_as_the_papers_say() -> None:
    spec = ModelSpec(vocab_size=2000, context=512, width=256, layers=8, heads=4)
    model = Decoder(spec)
    model.init_weights(1)
    for name, parameter in model.state_dict().items():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, 0.0 if name.endswith("bias") else 1.0))
            continue
        deviation = 0.02
        if name.endswith(("attention.output.weight", "ffn.down.weight")):
            deviation = 0.02 / math.sqrt(2 * spec.layers)
        elif name == "positions.weight":
            deviation = 0.01
        count = parameter.numel()
        assert abs(float(parameter.mean())) < 4 * deviation / math.sqrt(count)
        assert float(parameter.std()) == pytest.approx(deviation, rel=4 / math.sqrt(2 * count))
        beyond = float((parameter.abs() > 3 * deviation).float().mean())
        assert beyond == pytest.approx(0.0027, abs=4 * math.sqrt(0.0027 / count))
    loss, count_ = next_token_loss(model, ids(2, 100, 2000), ids(2, 100, 2000).roll(1))
    assert float(loss.detach()) / int(count_) == pytest.approx(math.log(2000), abs=0.3)


def test_attention_of_normed_heads_begins_twice_as_sharp() -> None:
    model = Decoder(modern(100, 32, 64, 2, 2))
    model.init_weights(1)
    for block in model.blocks:
        gains = block.attention.query_norm.weight * block.attention.key_norm.weight
        assert torch.allclose(gains, torch.full_like(gains, 2.0))
        assert torch.equal(block.attention_norm.weight, torch.ones(64))


def test_the_draw_depends_on_the_seed_alone() -> None:
    one, two, other = (Decoder(GPT2) for _ in range(3))
    one.init_weights(5)
    torch.rand(3)
    two.init_weights(5)
    other.init_weights(6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embed.weight, other.embed.weight)


def gradients(model: Decoder, segments: Tensor | None) -> tuple[float, dict[str, Tensor]]:
    loss, count = next_token_loss(model, ids(), ids().roll(-1, 1), segments=segments)
    (loss / count).backward()
    return float(loss.detach()), {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


SEGMENTS = {
    "one document": None,
    "documents in a row": torch.arange(40).expand(3, 40) // 9,
    "documents in turns": torch.arange(40).expand(3, 40) % 3,
}


@every_spec
@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS.keys())
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "plain torch"])
def test_loss_and_gradients_against_float64(
    spec: ModelSpec, segments: Tensor | None, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, exact = gradients(made(spec, torch.float64), segments)
    if not kernels:
        monkeypatch.setattr(native, "ready", lambda x: False)
    for dtype, rough in ((torch.float32, 2e-5), (torch.bfloat16, 0.12)):
        loss, mine = gradients(made(spec, dtype), segments)
        assert loss == pytest.approx(expected, rel=rough / 4)
        assert mine.keys() == exact.keys()
        whole = math.sqrt(sum(float(slope.norm()) ** 2 for slope in exact.values()))
        for name, slope in exact.items():
            # Beside its own size a slope may be rounding alone, as that of a key's bias is: it is zero by theory.
            assert (mine[name] - slope).norm() < rough * max(float(slope.norm()), 0.02 * whole), name


@every_spec
def test_whole_layers_run_fused_where_they_can(spec: ModelSpec) -> None:
    x = torch.zeros(1, 4, spec.width)
    expected = native.multiplies(x) and spec.activation != "gelu"
    assert fused.suits(spec, x) == expected
    assert not fused.suits(spec, x.double())


@every_spec
def test_dropout_in_fused_layers_is_that_of_plain_ones(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(spec, dropout=0.3)

    def run() -> tuple[float, dict[str, Tensor]]:
        torch.manual_seed(3)
        return gradients(made(spec).train(), None)

    fast, slopes = run()
    assert run()[0] == fast
    monkeypatch.setattr(native, "ready", lambda x: False)
    plain, expected = run()
    assert plain != gradients(made(spec).eval(), None)[0]
    assert fast == pytest.approx(plain, rel=1e-5)
    for name, slope in expected.items():
        assert torch.allclose(slopes[name], slope, atol=1e-4, rtol=1e-3), name


@every_spec
def test_checkpointed_activations_change_nothing(spec: ModelSpec) -> None:
    plain, sparing = made(spec), made(spec)
    sparing.activation_checkpointing = True
    loss, slopes = gradients(plain.train(), None)
    again, others = gradients(sparing.train(), None)
    assert loss == again
    assert all(torch.equal(slopes[name], others[name]) for name in slopes)


@every_spec
def test_checkpointed_activations_are_not_kept(spec: ModelSpec) -> None:
    model = made(spec).train()
    model.activation_checkpointing = True
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda block, given, made: seen.append(made))
    model.hidden(ids(2, 16))
    assert len(seen) == spec.layers
    assert all(made.untyped_storage().nbytes() == made.nbytes for made in seen)


@every_spec
def test_the_same_step_twice_gives_the_same_bits(spec: ModelSpec) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        (one, first), (two, second) = (gradients(made(spec, dtype), None) for _ in range(2))
        assert one == two
        assert all(torch.equal(first[name], second[name]) for name in first)


@every_spec
def test_a_paged_cache_says_what_the_whole_text_says(spec: ModelSpec) -> None:
    model, text = made(spec).eval(), ids(3, 60)
    with torch.no_grad():
        whole = model(text)
        cached = Cached(model, 3)

        def read(counts: list[int], places: list[int]) -> None:
            new = [row[at : at + count].tolist() for row, at, count in zip(text, places, counts, strict=True)]
            for row, logits in enumerate(cached(new, places)):
                expected = whole[row, places[row] : places[row] + counts[row]]
                assert torch.allclose(logits, expected, atol=1e-4)

        read([4, 40, 1], [0, 0, 0])
        for step in range(8):
            read([1, 1, 1], [4 + step, 40 + step, 1 + step])
        read([30, 2, 9], [12, 48, 9])
        # Places that were written before are written again.
        cached([[1, 2, 3], [4], [5, 6]], [20, 30, 10])
        read([22, 20, 9], [20, 30, 9])


@every_spec
def test_documents_in_one_row_do_not_see_each_other(spec: ModelSpec) -> None:
    model, one, two = made(spec).eval(), ids(1, 13), ids(2, 20)[1:]
    segments = torch.cat((torch.zeros(1, 13), torch.ones(1, 20)), 1).long()
    positions = torch.cat((torch.arange(13), torch.arange(20)))[None]
    with torch.no_grad():
        both = model(torch.cat((one, two), 1), segments=segments, positions=positions)
        assert torch.allclose(both[:, :13], model(one), atol=1e-4)
        assert torch.allclose(both[:, 13:], model(two), atol=1e-4)


def test_a_band_hides_what_is_farther_away() -> None:
    spec = replace(GPT2, band=5, layers=2)
    model, text = made(spec).eval(), ids(1, 30)
    with torch.no_grad():
        for block in (model.blocks[0],):  # only the odd layers are banded: silence the dense one
            block.attention.output.weight.zero_()
            block.attention.output.bias.zero_()
        before = model(text)
        text[0, 3] = (text[0, 3] + 1) % 97
        changed = (model(text) - before).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7]


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(RequestError, match="65 tokens are more than the context of 64"):
        made(GPT2)(ids(1, 65))


@pytest.mark.parametrize("band", [0, -1, 2**24 + 1, 2**63, 1.5, True])
def test_a_band_is_a_whole_number_within_bounds(band: object) -> None:
    with pytest.raises(RequestError, match="band must be a whole number from 1 to"):
        replace(GPT2, band=band)


def test_angles_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = modern(vocab_size=97, context=64, width=48, layers=1, heads=2)
    whole = rotary.angles(spec, 100)
    monkeypatch.setattr(rotary, "_AT_A_TIME", 7)
    for some, other in zip(rotary.angles(spec, 100), whole, strict=True):
        assert some.flags.c_contiguous
        assert some.tobytes() == other.tobytes()
