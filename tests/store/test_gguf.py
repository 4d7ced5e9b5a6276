"""GGUF files: models there and back, nothing in them passed over, and no lie believed."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.specs import ModelSpec, RopeScaling
from chatsmith.store.gguf import Gguf, write_gguf
from chatsmith.store.gguf_model import formats_of, open_model
from gguf_files import GPT2, LLAMA, QWEN3, edited, numbers, save
from tiny import tiny_model, tiny_spec, tiny_tokenizer

# ---- models


@pytest.mark.parametrize("spec", [GPT2, LLAMA, QWEN3], ids=["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("to", ["f32", "f16", "bf16", "int8", "int4"])
def test_a_model_comes_back(tmp_path: Path, spec: ModelSpec, to: str) -> None:
    found, read, tokenizer, _ = open_model(save(tmp_path / "m.gguf", spec, to))
    assert found == spec
    worst = {"f32": 0, "f16": 2e-3, "bf16": 2e-2, "int8": 0.03, "int4": 0.6}[to]
    for name, wanted in numbers(spec).items():
        assert np.abs(read(name) - wanted).max() <= worst
    text = "the thin hand, and the inn"
    assert tokenizer.encode(text) == tiny_tokenizer().encode(text)
    assert tokenizer.end_of_text == tiny_tokenizer().end_of_text
    assert tokenizer.specials == tiny_tokenizer().specials
    assert tokenizer.chat_template == tiny_tokenizer().chat_template


def test_rows_are_turned_for_llama_alone(tmp_path: Path) -> None:
    """llama.cpp turns numbers 2 i and 2 i + 1 of Llama's heads; ours, and Qwen3's there, i and i + D/2."""
    known = numbers(LLAMA)["blocks.0.attention.query.weight"]
    stored = Gguf(save(tmp_path / "llama.gguf", LLAMA)).read("blk.0.attn_q.weight")
    assert np.array_equal(stored[0:16:2], known[0:8])
    assert np.array_equal(stored[1:16:2], known[8:16])
    qwen = Gguf(save(tmp_path / "qwen.gguf", QWEN3)).read("blk.0.attn_q.weight")
    assert np.array_equal(qwen, numbers(QWEN3)["blocks.0.attention.query.weight"])


def test_a_shape_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="GGUF has no name for this shape"):
        save(tmp_path / "m.gguf", tiny_spec("banded"))
    with pytest.raises(RequestError, match="biases of attention are written as GGUF for GPT-2 alone"):
        save(tmp_path / "m.gguf", replace(LLAMA, attention_bias=True))
    with pytest.raises(RequestError, match="this model has the exact one"):
        save(tmp_path / "m.gguf", replace(GPT2, activation="gelu"))
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("width", "ffn_width", "said"),
    [
        (64, 96, "Q4_0, embedding and head in Q8_0"),
        (64, 100, "Q4_0, embedding and head in Q8_0; 2 of 9 matrices in F16, whose rows are not whole blocks of 32"),
        (60, 100, "F16: there is no matrix but those whose rows are not whole blocks of 32"),
    ],
)
def test_what_is_told_of_the_formats_is_what_the_file_holds(
    tmp_path: Path, width: int, ffn_width: int, said: str
) -> None:
    spec = replace(GPT2, width=width, ffn_width=ffn_width, head_dim=width // 4)
    assert formats_of(spec, "int4") == said
    tensors = Gguf(save(tmp_path / "m.gguf", spec, "int4")).tensors
    held = [one.format.name for name, one in tensors.items() if len(one.shape) > 1 and "position" not in name]
    assert len(held) == 9
    assert ("Q4_0" in held, held.count("F16")) == (width == 64, 9 if width == 60 else 2 if ffn_width == 100 else 0)


@pytest.mark.parametrize("name", ["gpt-2", "bert-bge", "llama-spm"])
@pytest.mark.shared
def test_files_of_llama_cpp_are_read(shared: Path, name: str) -> None:
    path = shared / "models" / "gguf_vocab" / f"ggml-vocab-{name}.gguf"
    file = Gguf(path)
    assert len(file.values["tokenizer.ggml.tokens"]) == {"gpt-2": 50257, "bert-bge": 30522, "llama-spm": 32000}[name]
    with pytest.raises(ChatsmithError, match=r"is missing|are not read"):
        open_model(path)


# ---- what is not passed over


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ("blk.0.attn_q.bias", (32,)),
        ("blk.1.ffn_gate_inp.weight", (8, 32)),
        ("rope_freqs.weight", (4,)),
        ("other", (1,)),
    ],
)
def test_a_tensor_that_nothing_reads_is_refused_by_name(tmp_path: Path, tensor: str, shape: tuple[int, ...]) -> None:
    path = edited(save(tmp_path / "m.gguf", QWEN3), {}, {tensor: np.full(shape, 2, np.float32)})
    with pytest.raises(RequestError, match=rf"m\.gguf: .*{tensor}"):
        open_model(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.dimension_count", 4),
        ("attention.value_length", 4),
        ("attention.causal", False),
        ("attention.sliding_window", 16),
        ("attention.scale", 0.5),
        ("attention.head_count_kv", [2, 1]),
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("final_logit_softcapping", 30.0),
        ("rope.scaling.attn_factor", 2.0),
        ("rope.scaling.type", "yarn"),
        ("rope.scaling.yarn_ext_factor", 1.0),
        ("rope.scaling.factor", -2.0),
        ("tensor_data_layout", "reference"),
    ],
)
def test_a_setting_that_changes_numbers_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    path = edited(save(tmp_path / "m.gguf", QWEN3), {f"qwen3.{key}": value})
    with pytest.raises(RequestError, match=r"m\.gguf: ") as caught:
        open_model(path)
    assert (
        key in caught.value.message
        or "rope scaling factor -2.0" in caught.value.message
        or "'yarn'" in caught.value.message
    )
    assert "\n" not in caught.value.message


def test_settings_that_change_nothing_are_read(tmp_path: Path) -> None:
    said = {"attention.causal": True, "expert_count": 0, "rope.scaling.original_context_length": 64}
    said |= {
        "rope.scaling.finetuned": False,
        "rope.scaling.type": "none",
        "rope.scaling.factor": 4.0,
        "vocab_size": 320,
    }
    path = edited(save(tmp_path / "m.gguf", QWEN3), {f"qwen3.{key}": value for key, value in said.items()})
    assert open_model(path)[0] == QWEN3


@pytest.mark.parametrize("key", ["rope.scaling.factor", "rope.scale_linear"])
def test_a_factor_without_a_type_stretches_evenly(tmp_path: Path, key: str) -> None:
    """As llama.cpp reads it: the type is linear where none is named, and the older key counts where the newer lacks."""
    path = edited(save(tmp_path / "m.gguf", QWEN3), {f"qwen3.{key}": 4.0})
    assert open_model(path)[0].rope_scaling == RopeScaling("linear", 4.0)


def test_the_stretch_of_llama_3_is_a_table(tmp_path: Path) -> None:
    """Wavelengths up to 2,048 tokens stay, those beyond 8,192 become 8 times as long (Llama 3.1's published code)."""
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    spec = replace(LLAMA, heads=1, kv_heads=1, head_dim=64, rope_theta=500000.0, rope_scaling=scaling)
    path = save(tmp_path / "m.gguf", spec)
    table = Gguf(path).read("rope_freqs.weight")
    for i, factor in enumerate(table.tolist()):
        wavelength = 2 * math.pi * 500000.0 ** (2 * i / 64)
        smooth = min(max((8192 / wavelength - 1) / 3, 0.0), 1.0)
        assert factor == pytest.approx(1 / ((1 - smooth) / 8 + smooth), rel=1e-5)
    assert (table[0], table[-1], np.unique(table).size > 3) == (1, 8, True)
    assert open_model(path)[0] == spec
    assert open_model(edited(path, {"llama.rope.scaling.original_context_length": None}))[0] == spec
    for original in (0, 2**32 - 1):
        with pytest.raises(RequestError, match=r"m\.gguf: rope scaling of an original context"):
            open_model(edited(path, {"llama.rope.scaling.original_context_length": original}))
    save(path, spec)
    for changed in (table * 1.001, table[:-1], table[::-1], table * np.nan, table * 1e9):
        with pytest.raises(
            RequestError, match=r"m\.gguf: (rope_freqs.weight (stretches|is not a table)|rope scaling factor)"
        ):
            open_model(edited(path, {}, {"rope_freqs.weight": np.ascontiguousarray(changed)}))
    ones = edited(save(tmp_path / "ones.gguf", LLAMA), {}, {"rope_freqs.weight": np.ones(8, np.float32)})
    assert open_model(ones)[0] == LLAMA


def test_a_format_that_is_not_read_is_a_wrong_request(tmp_path: Path) -> None:
    path = with_value(tmp_path / "m.gguf", "key", 7)
    data = path.read_bytes()
    place = data.index(struct.pack("<QQIQ", 32, 2, 0, 0)) + 16
    for code, name in ((10, "Q2_K"), (23, "IQ4_XS"), (99, r"an unknown format \(number 99\)")):
        path.write_bytes(data[:place] + struct.pack("<I", code) + data[place + 4 :])
        with pytest.raises(RequestError, match=f"t is stored as {name}, which is not read") as caught:
            Gguf(path)
        assert "Q6_K" in str(caught.value.hint)


# ---- damage


def with_value(path: Path, key: str, value: object) -> Path:
    write_gguf(path, {key: value}, [("t", np.zeros((2, 32), np.float32), "F32")])
    return path


@pytest.mark.parametrize(
    ("at", "raw", "message"),
    [
        (0, b"GGUX", "is not a GGUF file"),
        (4, struct.pack("<I", 9), "version 9"),
        (8, struct.pack("<Q", 2**60), "it claims 1152921504606846976 entries"),
        (16, struct.pack("<Q", 2**40), "it claims 1099511627776 entries"),
        (24, struct.pack("<Q", 2**62), "it claims 4611686018427387904 entries"),
        (35, struct.pack("<I", 99), "unknown type 99"),
    ],
)
def test_a_lying_head_is_named(tmp_path: Path, at: int, raw: bytes, message: str) -> None:
    path = with_value(tmp_path / "m.gguf", "key", 7)
    data = bytearray(path.read_bytes())
    data[at : at + len(raw)] = raw
    path.write_bytes(data)
    with pytest.raises(WorkError, match=message):
        Gguf(path)


def test_overlapping_tensors_and_tensors_beyond_the_end_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    numbers = np.zeros((2, 32), np.float32)
    write_gguf(path, {}, [("a", numbers, "F32"), ("b", numbers, "F32")])
    data = path.read_bytes()
    place = data.rindex(struct.pack("<IQ", 0, 256)) + 4
    for offset, message in ((224, "overlap"), (2**40, "within the file"), (257, "within the file")):
        path.write_bytes(data[:place] + struct.pack("<Q", offset) + data[place + 8 :])
        with pytest.raises(WorkError, match=message):
            Gguf(path)


def test_numbers_of_an_array_stay_as_they_lie_in_the_file(tmp_path: Path) -> None:
    found = Gguf(with_value(tmp_path / "m.gguf", "key", list(range(1000)))).values["key"]
    assert found.dtype == np.int32
    assert not found.flags.owndata
    assert found.tolist() == list(range(1000))


def test_long_texts_are_read_and_long_lies_refused(tmp_path: Path) -> None:
    long = "a" * (2**16 - 1) + "ö" + "b" * 2**16
    path = with_value(tmp_path / "m.gguf", "key", long)
    assert Gguf(path).values["key"] == long
    raw = path.read_bytes()
    for end in ("ö".encode()[:1], b"\xff"):
        path.write_bytes(raw.replace(b"b" * 2**16, b"b" * (2**16 - 1) + end))
        with pytest.raises(WorkError, match="a text is not UTF-8"):
            Gguf(path)


def test_a_nest_of_lists_ends(tmp_path: Path) -> None:
    path = with_value(tmp_path / "m.gguf", "key", [1, 2, 3])
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<IIQ", 9, 5, 3))
    data[at:] = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 2000 + data[at:]
    path.write_bytes(data)
    with pytest.raises(WorkError, match="damaged"):
        Gguf(path)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_gives_a_model_or_one_clear_line(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "good.gguf").exists():
        save(tmp_path / "good.gguf", QWEN3)
    raw = bytearray((tmp_path / "good.gguf").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 20_000))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    (tmp_path / "bad.gguf").write_bytes(raw[:end])
    with suppress(ChatsmithError):
        _, read, *_ = open_model(tmp_path / "bad.gguf")
        read("norm.weight")


def test_what_convert_reads_it_writes(tmp_path: Path) -> None:
    from chatsmith.convert import convert
    from chatsmith.store.folder import load_decoder, save_model

    folder = save_model(tmp_path / "model", tiny_model(), tiny_tokenizer(), provenance={})
    convert(folder, tmp_path / "m.gguf", to="f32")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="f32")
    first, second = load_decoder(folder).state_dict(), load_decoder(tmp_path / "back").state_dict()
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)
