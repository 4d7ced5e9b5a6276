"""The kernels of generation: right against the decoder in torch, and the same bits in any company."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from chatsmith.errors import RequestError
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.matrix import Kind
from chatsmith.kernels.infer.session import BLOCK, Session
from chatsmith.models import rotary
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec, modern
from chatsmith.store.packing import Format, packed_parts, unpacked
from patience import PATIENCE

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no kernels of generation here: {build.status()}")

LENGTH = 150  # more than four blocks
SPECS = {
    "gpt2": ModelSpec(vocab_size=333, context=200, width=96, layers=2, heads=3),
    "banded": ModelSpec(vocab_size=320, context=200, width=64, layers=4, heads=4, band=37, tied=False),
    "gelu": ModelSpec(vocab_size=70, context=200, width=80, layers=1, heads=5, activation="gelu"),
    "llama": ModelSpec(
        vocab_size=500, context=200, width=128, layers=2, heads=8, kv_heads=4, ffn_width=344, norm="rms",
        activation="swiglu", positions="rotary", attention_bias=False, ffn_bias=False,
    ),
    "qwen3": modern(320, 200, 96, 2, 8, kv_heads=2, head_dim=20, ffn_width=172, tied=False),
}  # fmt: skip
FORMATS = {
    "f32": Format("f32"),
    "f16": Format("f16"),
    "bf16": Format("bf16"),
    "int8": Format("int8", group=64),
    "int8 in 128": Format("int8", group=128),
    "int4": Format("int4", group=32),
    "int4 in 64": Format("int4", group=64),
    "int4 with zeros": Format("int4", group=32, symmetric=False),
    "f32, cache int8": Format("f32"),
    "int4, cache int8": Format("int4", group=32),
}
# Of the logits against torch in float32 on the very same weights: what rounding the activations to the kernels' numbers
# does to a model of random weights, in standard deviations of its logits (root mean square). Cache and attention
# are bfloat16 but for f32.
BOUNDS = {"f32": 1e-6, "f16": 0.003, "bf16": 0.005, "int8": 0.012, "int4": 0.012}
CACHE_BOUND = 0.008
# The same for the largest error of all.
LARGEST = {"f32": 1e-5, "f16": 0.02, "bf16": 0.02, "int8": 0.05, "int4": 0.05}
CACHE_LARGEST = 0.05


def check_near(found: NDArray[np.float32], wanted: NDArray[np.float32], form: str, roundings: int = 1) -> None:
    """Errors of the size that rounding has in the mean, which hardly depends on the numbers drawn, and no outlier.

    Where both sides are rounded, `roundings` is 2.
    """
    error = (found - wanted) / wanted.std()
    kind, cached = FORMATS[form].kind, form.endswith("cache int8")
    assert np.sqrt(np.square(error).mean()) < math.hypot(BOUNDS[kind], CACHE_BOUND * cached) * math.sqrt(roundings)
    assert np.abs(error).max() < math.hypot(LARGEST[kind], CACHE_LARGEST * cached)


@cache
def decoder(name: str) -> Decoder:
    model = Decoder(SPECS[name])
    model.init_weights(1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith(("query_norm.weight", "key_norm.weight")):
                parameter.fill_(1.0)  # sharper attention would make more of what rounding does than BOUNDS say
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def session(name: str, form: str, threads: int = 2) -> tuple[Session, Decoder]:
    """A session, and the decoder in torch of the weights that it stands for."""
    spec = SPECS[name]
    known = {key: value.numpy() for key, value in decoder(name).state_dict().items()}
    parts = dict(packed_parts(spec, known.__getitem__, FORMATS[form]))
    same = Decoder(spec)
    same.load_state_dict({key: torch.from_numpy(value) for key, value in unpacked(spec, parts)})
    angles = rotary.angles(spec, spec.context) if spec.positions == "rotary" else None
    cache: Kind = "int8" if form.endswith("cache int8") else "f32" if form == "f32" else "bf16"
    return Session(spec, parts, angles=angles, cache=cache, blocks=40, threads=threads), same.eval()


def ids_of(name: str, seed: int = 0, length: int = LENGTH) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, SPECS[name].vocab_size, length).astype(np.int32)


def ints(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def feed(run: Session, ids: NDArray[np.int32], cuts: list[int], first_block: int = 0) -> NDArray[np.float32]:
    """Logits after every id, fed in parts of the given sizes, with blocks taken in falling order."""
    bands = len(run.spec.bands)
    table = np.arange(first_block + 7 * bands, first_block, -1, dtype=np.int32).reshape(bands, 1, 7)
    found, at = [], 0
    for size in cuts:
        rows = np.arange(at, at + size, dtype=np.int32)
        found.append(run.step(ids[at : at + size], rows, ints(0, size), table, rows - at))
        at += size
    assert at == len(ids)
    return np.concatenate(found)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SPECS)
def test_logits_are_those_of_torch_on_the_same_weights(name: str, form: str) -> None:
    run, same = session(name, form)
    ids = ids_of(name)
    found = feed(run, ids, [LENGTH])
    with torch.inference_mode():
        wanted = same(torch.from_numpy(ids.astype(np.int64))[None])[0].numpy()
    check_near(found, wanted, form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["banded", "qwen3"])
def test_a_row_is_the_same_bits_wherever_the_prompt_is_cut(name: str, form: str) -> None:
    run, _ = session(name, form)
    ids = ids_of(name)
    whole = feed(run, ids, [LENGTH])
    for cuts in ([1] * LENGTH, [5, 1, 1, 40, 1, 17, 33, 1, 1, 50], [3, 2, 91, 4, 50]):
        assert np.array_equal(feed(run, ids, cuts, first_block=20), whole)


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_is_the_same_bits_in_any_company_and_with_any_number_of_threads(form: str) -> None:
    texts = [ids_of("llama", seed, length) for seed, length in enumerate((40, 1, 33, 70, 12))]
    alone: list[NDArray[np.float32]] = []
    for threads in (1, 2, 3):
        run, _ = session("llama", form, threads)
        mine = [feed(run, text, [len(text)]) for text in texts]
        alone = alone or mine
        starts = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        tables = np.arange(5 * 7, dtype=np.int32).reshape(1, 5, 7)
        places = np.concatenate([np.arange(len(text), dtype=np.int32) for text in texts])
        rows = np.arange(starts[-1], dtype=np.int32)
        together = run.step(np.concatenate(texts), places, starts, tables, rows)
        assert np.array_equal(together, np.concatenate(alone))
        assert all(np.array_equal(one, first) for one, first in zip(mine, alone, strict=True))


@pytest.mark.parametrize("form", ["f32", "bf16", "int4, cache int8"])
def test_what_an_earlier_owner_left_in_a_block_does_not_matter(form: str) -> None:
    run, _ = session("llama", form)
    ids = ids_of("llama")
    clean = feed(run, ids, [LENGTH])
    run._cache[:] = 0xFF  # not a number, in every format
    assert np.array_equal(feed(run, ids, [7, 1, LENGTH - 8]), clean)


@pytest.mark.parametrize("form", FORMATS)
def test_banded_layers_need_only_the_blocks_in_their_band(form: str) -> None:
    """Block by block: what lies before the band has no block any more, and the others that are needed lie elsewhere."""
    run, _ = session("banded", form)
    ids = ids_of("banded")
    whole = feed(run, ids, [LENGTH])
    band, most = SPECS["banded"].band, -(-LENGTH // BLOCK)
    assert band is not None
    run._cache[:] = 0xFF
    found = []
    for at in range(0, LENGTH, 10):
        places = np.arange(at, min(at + 10, LENGTH), dtype=np.int32)
        seen = np.arange(most) >= max(0, at - band + 1) // BLOCK
        # Three blocks take turns: a band of 37 positions and ten new ones touch no more at a time.
        turns = np.where(seen, 30 + np.arange(most) % 3, -1)
        tables = np.stack((np.arange(most), turns)).astype(np.int32)[:, None]
        found.append(run.step(ids[places], places, ints(0, len(places)), tables, places - at))
    assert np.array_equal(np.concatenate(found), whole)


def test_a_place_may_be_written_again() -> None:
    run, _ = session("qwen3", "bf16")
    ids, table = ids_of("qwen3"), np.arange(7, dtype=np.int32)[None, None]
    whole = feed(run, ids, [LENGTH])
    run.step(ids[:40], np.arange(40, dtype=np.int32), ints(0, 40), table, ints(39))
    run.step(ids[:9][::-1], np.arange(40, 49, dtype=np.int32), ints(0, 9), table, ints(8))
    again = run.step(ids[40:60], np.arange(40, 60, dtype=np.int32), ints(0, 20), table, ints(0, 19))
    assert np.array_equal(again, whole[[40, 59]])


def test_states_give_the_logits_and_only_wanted_rows_come() -> None:
    run, same = session("gpt2", "f32")
    ids, table = ids_of("gpt2", length=50), np.arange(7, dtype=np.int32)[None, None]
    request = (ids, np.arange(50, dtype=np.int32), ints(0, 50), table, ints(3, 49, 20))
    states, logits = run.step(*request, states=True), run.step(*request)
    assert np.allclose(states @ same.embed.weight.detach().numpy().T, logits, atol=1e-4)
    assert run.step(*request[:4], ints()).shape == (0, 333)


def test_a_copied_block_is_the_same() -> None:
    run, _ = session("gpt2", "bf16")
    ids = ids_of("gpt2", length=BLOCK + 1)
    places, table = np.arange(BLOCK + 1, dtype=np.int32), ints(3, 5)[None, None]
    wanted = run.step(ids, places, ints(0, BLOCK + 1), table, ints(BLOCK))
    run.copy_block(3, 11)
    assert np.array_equal(run.step(ids[-1:], places[-1:], ints(0, 1), ints(11, 9)[None, None], ints(0)), wanted)


def wrong_requests() -> Iterator[tuple[str, list[NDArray[np.int32]]]]:
    good = [ints(1, 2, 3), ints(0, 1, 2), ints(0, 3), ints(0)[None, None], ints(2)]
    for what, place, value in (
        ("id", 0, ints(1, 333, 3)), ("negative id", 0, ints(-1, 2, 3)), ("position", 1, ints(198, 199, 200)),
        ("gap", 1, ints(0, 2, 3)), ("start", 2, ints(0, 2)), ("empty sequence", 2, ints(0, 0, 3)),
        ("block", 3, ints(40)[None, None]), ("negative block", 3, ints(-1)[None, None]), ("row", 4, ints(3)),
        ("short table", 1, ints(40, 41, 42)), ("tables", 3, ints(0)),
        ("groups", 3, np.zeros((2, 1, 1), np.int32)),
    ):  # fmt: skip
        yield what, [*good[:place], value, *good[place + 1 :]]


@pytest.mark.parametrize("request_", [pytest.param(r, id=what) for what, r in wrong_requests()])
def test_numbers_out_of_bounds_are_refused(request_: list[NDArray[np.int32]]) -> None:
    run, _ = session("gpt2", "f32")
    with pytest.raises(RequestError):
        run.step(*request_)


PROGRAM = """
import sys
sys.path[:0] = sys.argv[2:]
import numpy as np, test_infer as t
out = {}
for form in t.FORMATS:
    run, _ = t.session("llama", form)
    ids = t.ids_of("llama")
    whole = t.feed(run, ids, [t.LENGTH])
    assert np.array_equal(t.feed(run, ids, [100, 1, 20, 29]), whole), form
    out[form] = whole
np.savez(sys.argv[1], **out)
print(t.build.status())
"""


def runnable() -> list[str]:
    has = build._processor() | {build.FULL_RATE}  # a variant that another one beats is right, too
    return [variant.name for variant in build.variants() if variant.needs <= has]


@pytest.mark.parametrize("variant", runnable())
def test_every_instruction_set_gives_the_same_within_rounding(variant: str, tmp_path: Path) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "found.npz"), str(here), str(here.parent)]
    environment = os.environ | {build.SWITCH: variant}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == variant
    found = np.load(tmp_path / "found.npz")
    for form in FORMATS:
        run, _ = session("llama", form)
        wanted = feed(run, ids_of("llama"), [LENGTH])
        check_near(found[form], wanted, form, roundings=2)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("amx_tile amx_int8 amx_bf16 avx512_bf16 avx512_vnni GenuineIntel", "amx"),
        ("avx512_bf16 avx512_vnni avx_vnni GenuineIntel", "avx512"),
        ("avx512_bf16 avx512_vnni AuthenticAMD", "avx512bf16"),
        ("avx512_vnni GenuineIntel", "avx512"),
        ("avx_vnni GenuineIntel", "avxvnni"),
        ("AuthenticAMD", "avx2"),
    ],
)
def test_each_processor_gets_what_is_fastest_there(words: str, wanted: str) -> None:
    has = set(words.split()) | {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"}
    if "avx512_vnni" in has:
        has |= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    assert next(variant.name for variant in build.variants("x86_64") if variant.needs <= has) == wanted


def test_an_unknown_instruction_set_is_named() -> None:
    code = "from chatsmith.kernels.infer import build; print(build.library(), build.status())"
    environment = os.environ | {build.SWITCH: "z80"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("None CHATSMITH_KERNELS=z80 names no instruction set: off, or one of ")
