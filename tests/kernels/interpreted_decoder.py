"""Run by test_gpu.py with Triton's interpreter: the kernels of generation against the torch backend, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from triton.runtime import interpreter

from chatsmith.generate.backend import Draws, Floats, Step
from chatsmith.generate.gpu import GPUBackend
from chatsmith.generate.noise import choose
from chatsmith.generate.sampling import heat
from chatsmith.generate.torch_backend import TorchBackend
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, modern

_patch = interpreter._patch_lang_tensor


def _patched(tensor: object, scope: object) -> None:
    """Triton 3.6 turns an array of one number into a bound of a loop in a way that NumPy has since given up."""
    _patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))  # type: ignore[attr-defined]


interpreter._patch_lang_tensor = _patched

GPT = ModelSpec(100, 64, 32, 2, 1, band=5)
SHAPES = {
    "banded": GPT,
    "gelu": replace(GPT, layers=1, activation="gelu", attention_bias=False, band=None),
    "modern": replace(modern(100, 64, 40, 1, 2, kv_heads=1, head_dim=16), ffn_bias=True, attention_bias=True),
}


def made(spec: ModelSpec) -> Decoder:
    model = Decoder(spec)
    model.init_weights(0)
    drawn = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=drawn)
    return model.requires_grad_(False).eval()


def step(ids: Sequence[int], at: Sequence[int], starts: Sequence[int], tables: object, wanted: Sequence[int]) -> Step:
    return Step(*(np.ascontiguousarray(np.array(part, np.int32)) for part in (ids, at, starts, tables, wanted)))


def close(found: Floats, wanted: Floats) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0.0) < 2e-5, np.abs(found - wanted).max()


for spec in SHAPES.values():
    model = made(spec)
    ours, plain = (kind(model, cache_bytes=2**20) for kind in (GPUBackend, TorchBackend))
    groups = len(spec.bands)
    tables = np.arange(groups * 4, dtype=np.int32).reshape(groups, 2, 2)[:, ::-1]
    prompts = step([*range(34), *range(3)], [*range(34), *range(3)], [0, 34, 37], tables, [3, 33, 36])
    answers = step([5, 6], [34, 3], [0, 1, 2], tables, [0, 1])
    for asked in (prompts, answers):
        close(ours.logits(asked), plain.logits(asked))
    # Cut into other steps it is the same row (to the bit only on a GPU: here NumPy multiplies).
    part = list(range(29, 34))
    ours.logits(step(part, part, [0, len(part)], tables[:, :1], []))
    close(ours.logits(answers), plain.logits(answers))

logits = plain.logits(answers)
draws = Draws(
    rows=np.array([0, 1, 0], np.int32),
    keys=np.array([11, 2**63 + 5, 11], np.uint64),
    temperatures=np.array([0.8, 0.0, 0.8], np.float32),
    vocabulary=97,
)
tokens, logprobs, shown = ours.choose(answers, draws, shown=True)
exact = torch.from_numpy(logits[:, :97]).double().log_softmax(-1).numpy()
warm = choose(heat(logits[:1, :97], logits[:1, :97].max(1), 0.8), draws.keys[:1])
assert tokens.tolist() == [int(warm[0]), int(logits[1, :97].argmax()), int(warm[0])]
assert shown is not None
close(shown, logits)
assert np.abs(logprobs - exact[draws.rows, tokens]).max() < 1e-5
with torch.inference_mode():
    ours.copy([(0, 5)])
    assert torch.equal(ours.decoder.cache[:, :, 5], ours.decoder.cache[:, :, 0])
    ours.decoder.cache[:, 0, : ours.blocks] = float("nan")
assert np.isnan(ours.choose(answers, draws, shown=False)[1]).any()
