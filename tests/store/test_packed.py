"""Packed folders: what is written comes back, torch reads them too, and a damaged file is named, never believed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.kernels.infer.matrix import Matrix
from chatsmith.models.decoder import Decoder
from chatsmith.store.contents import PACKED
from chatsmith.store.folder import load_decoder, load_model, save_model
from chatsmith.store.packed import read_packed, save_packed
from chatsmith.store.packing import Format, entries, packed_parts, parameter_shapes, unpacked
from chatsmith.store.parts import load_parts
from chatsmith.text.tokenizer import Tokenizer
from tiny import tiny_model, tiny_spec, tiny_tokenizer

INT4 = Format("int4", group=32, symmetric=False)


def parameters(model: Decoder) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def save(folder: Path, kind: str = "qwen3", form: Format = INT4, tokenizer: Tokenizer | None = None) -> Path:
    model = tiny_model(kind)
    known = parameters(model)
    parts = packed_parts(model.spec, known.__getitem__, form)
    return save_packed(folder, model.spec, parts, form, tokenizer or tiny_tokenizer(), provenance={"made": "test"})


@pytest.mark.parametrize("kind", ["gpt2", "banded", "qwen3"])
def test_the_parts_of_a_decoder_are_all_its_parameters(kind: str) -> None:
    model = tiny_model(kind)
    assert parameter_shapes(model.spec) == {name: tuple(t.shape) for name, t in model.state_dict().items()}
    parts = dict(packed_parts(model.spec, parameters(model).__getitem__, Format("f32")))
    assert list(parts) == [entry.name for entry in entries(model.spec)]
    back = dict(unpacked(model.spec, parts))
    assert all(np.array_equal(back[name], value) for name, value in parameters(model).items())


@pytest.mark.parametrize("form", [Format("int8"), INT4, Format("int4", group=32, head="bf16"), Format("f16")])
def test_a_packed_folder_comes_back(tmp_path: Path, form: Format) -> None:
    save(tmp_path, form=form)
    loaded = load_parts(tmp_path)
    known = parameters(tiny_model())
    for name, wanted in packed_parts(loaded.spec, known.__getitem__, form):
        found = loaded.parts[name]
        if isinstance(wanted, Matrix):
            assert isinstance(found, Matrix)
            assert found.kind == wanted.kind
            assert found.group == wanted.group
            assert np.array_equal(found.numbers(), wanted.numbers())
            assert found.weight.ctypes.data % 64 == 0
        else:
            assert np.array_equal(found, wanted)
    assert loaded.provenance == {"made": "test"}


def test_torch_reads_what_the_packed_weights_stand_for(tmp_path: Path) -> None:
    save(tmp_path)
    model = load_decoder(tmp_path)
    stands_for = dict(unpacked(model.spec, load_parts(tmp_path).parts))
    assert all(np.array_equal(tensor.numpy(), stands_for[name]) for name, tensor in model.state_dict().items())
    assert load_model(tmp_path, dtype=torch.bfloat16).model.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_a_folder_that_is_not_packed_is_laid_out_at_load(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    model = tiny_model(kind)
    save_model(tmp_path, model, tiny_tokenizer(), provenance={}, dtype=dtype)
    loaded = load_parts(tmp_path)
    for name, value in unpacked(model.spec, loaded.parts):
        assert np.array_equal(value, model.state_dict()[name].to(dtype).float().numpy())


def test_no_torch_is_needed(tmp_path: Path) -> None:
    save(tmp_path)
    code = (
        "import sys, numpy; from pathlib import Path; from chatsmith.store.parts import load_parts;"
        f"load_parts(Path({str(tmp_path)!r})); import chatsmith.generate.native; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_folder_that_holds_a_model_is_not_overwritten(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(RequestError, match="already holds a model"):
        save(tmp_path)


def rewrite(path: Path, change: dict[str, dict[str, object] | None]) -> None:
    """Change entries of the header (None: take one out), the data staying as they are."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    for name, fields in change.items():
        if fields is None:
            del header[name]
        else:
            header[name] |= fields
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": {"dtype": "I8", "shape": [40, 8, 16, 4]}}, "is I8"),
        ({"head": {"shape": [10, 16, 16, 8]}}, "config.json asks for"),
        ({"head.scale": {"shape": [10, 32, 1]}}, "asks for BF16|needs"),
        ({"norm.weight": {"shape": [16, 2]}}, r"asks for F32 \[32\]"),
        ({"blocks.0.ffn.up.zero": {"dtype": "I8"}}, "asks for U8"),
        ({"blocks.0.ffn.up": {"dtype": "F16", "shape": [12, 16, 16]}}, "damaged|asks for"),
        ({"head": None}, "leaves a gap|missing"),
    ],
)
def test_a_header_that_lies_is_named(tmp_path: Path, change: dict[str, dict[str, object] | None], message: str) -> None:
    save(tmp_path)
    rewrite(tmp_path / PACKED, change)
    with pytest.raises(WorkError, match=message):
        read_packed(tmp_path, tiny_spec(), verify="never")


def test_factors_that_lie_are_named(tmp_path: Path) -> None:
    save(tmp_path, form=Format("int4", group=32))
    good = (tmp_path / PACKED).read_bytes()
    at = int.from_bytes(good[:8], "little") + 8
    table = json.loads(good[8:at])["blocks.1.ffn.up.factor"]
    first, last = (at + offset for offset in table["data_offsets"])
    assert {byte if byte < 128 else byte - 256 for byte in good[first:last]} <= set(range(-15, 16)) - {0}
    (tmp_path / PACKED).write_bytes(good[:first] + b"\x80" + good[first + 1 :])
    with pytest.raises(WorkError, match=r"blocks\.1\.ffn\.up has factors beyond 15"):
        read_packed(tmp_path, tiny_spec(), verify="never")
    (tmp_path / PACKED).write_bytes(good)
    for change in ({"dtype": "U8"}, {"shape": [*table["shape"][:-1], 8, 2]}):
        rewrite(tmp_path / PACKED, {"blocks.1.ffn.up.factor": change})
        with pytest.raises(WorkError, match="asks for I8"):
            read_packed(tmp_path, tiny_spec(), verify="never")
        (tmp_path / PACKED).write_bytes(good)


def test_layers_that_no_file_could_hold_are_not_even_listed(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(WorkError, match="4000 layers are claimed, and there are"):
        read_packed(tmp_path, replace(tiny_spec(), layers=4000), verify="never")


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_gives_parts_or_one_clear_line(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "good").exists():
        save(tmp_path / "good")
    raw = bytearray((tmp_path / "good" / PACKED).read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    (tmp_path / PACKED).write_bytes(raw[:end])
    with suppress(ChatsmithError):
        parts = read_packed(tmp_path, tiny_spec(), verify="never")
        assert {entry.name for entry in entries(tiny_spec())} == set(parts)
