"""GGUF files: formats by their definition, models there and back, and no lie believed."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.specs import ModelSpec, RopeScaling
from chatsmith.store.gguf import FORMATS, Gguf, write_gguf
from chatsmith.store.gguf_model import open_model, write_model
from chatsmith.store.packing import parameter_shapes
from tiny import tiny_model, tiny_spec, tiny_tokenizer

LLAMA = ModelSpec(
    vocab_size=320, context=64, width=64, layers=2, heads=4, kv_heads=2, ffn_width=96, norm="rms", activation="swiglu",
    positions="rotary", attention_bias=False, ffn_bias=False, rope_scaling=RopeScaling("linear", 2.0),
)  # fmt: skip
GPT2 = ModelSpec(vocab_size=320, context=64, width=64, layers=2, heads=4)
QWEN3 = tiny_spec("qwen3")


def numbers(spec: ModelSpec) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(spec).items()}


def save(path: Path, spec: ModelSpec, to: str = "f32") -> Path:
    write_model(path, spec, numbers(spec).__getitem__, tiny_tokenizer(), to, "tiny")
    return path


# ---- number formats


def test_q8_0_is_a_half_and_32_signed_bytes() -> None:
    raw = np.frombuffer(struct.pack("<e32b", 0.5, *range(-16, 16)), np.uint8)[None]
    assert FORMATS["Q8_0"].read(raw)[0].tolist() == [n * 0.5 for n in range(-16, 16)]


def test_q4_0_keeps_the_second_half_above_the_first() -> None:
    raw = np.frombuffer(struct.pack("<e16B", -2.0, *(i | (15 - i) << 4 for i in range(16))), np.uint8)[None]
    wanted = [-2.0 * (i - 8) for i in range(16)] + [-2.0 * (7 - i) for i in range(16)]
    assert FORMATS["Q4_0"].read(raw)[0].tolist() == wanted


def test_q4_k_by_its_definition() -> None:
    draw = np.random.default_rng(1)
    scales, minima = draw.integers(0, 64, (2, 8)).tolist()
    values = draw.integers(0, 16, 256).tolist()
    packed = [0] * 12
    for j in range(4):
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6
        packed[j + 4] = minima[j] | minima[j + 4] >> 4 << 6
        packed[j + 8] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4
    halves = [values[64 * c + i] | values[64 * c + 32 + i] << 4 for c in range(4) for i in range(32)]
    raw = np.frombuffer(struct.pack("<2e12B128B", 0.25, 0.125, *packed, *halves), np.uint8)[None]
    wanted = [0.25 * scales[i // 32] * values[i] - 0.125 * minima[i // 32] for i in range(256)]
    assert FORMATS["Q4_K"].read(raw)[0].tolist() == wanted


@pytest.mark.parametrize(("kind", "worst"), [("F32", 0), ("F16", 2e-3), ("BF16", 2e-2), ("Q8_0", 0.02), ("Q4_0", 0.5)])
def test_numbers_come_back_within_a_step(kind: str, worst: float) -> None:
    x = np.random.default_rng(2).standard_normal((50, FORMATS[kind].block)).astype(np.float32)
    x[7] = 0
    form = FORMATS[kind]
    assert form.make is not None
    raw = form.make(x)
    assert raw.size == 50 * form.nbytes
    assert np.abs(form.read(raw.reshape(50, -1)) - x).max() <= worst


# ---- models


@pytest.mark.parametrize("spec", [GPT2, LLAMA, QWEN3], ids=["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("to", ["f32", "f16", "bf16", "int8", "int4"])
def test_a_model_comes_back(tmp_path: Path, spec: ModelSpec, to: str) -> None:
    found, read, tokenizer = open_model(save(tmp_path / "m.gguf", spec, to))
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
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("name", ["gpt-2", "bert-bge", "llama-spm"])
@pytest.mark.shared
def test_files_of_llama_cpp_are_read(shared: Path, name: str) -> None:
    path = shared / "models" / "gguf_vocab" / f"ggml-vocab-{name}.gguf"
    file = Gguf(path)
    assert len(file.values["tokenizer.ggml.tokens"]) == {"gpt-2": 50257, "bert-bge": 30522, "llama-spm": 32000}[name]
    with pytest.raises(ChatsmithError, match=r"is missing|are not read"):
        open_model(path)


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
        _, read, _ = open_model(tmp_path / "bad.gguf")
        read("norm.weight")


def test_what_convert_reads_it_writes(tmp_path: Path) -> None:
    from chatsmith.convert import convert
    from chatsmith.store.folder import load_decoder, save_model

    folder = save_model(tmp_path / "model", tiny_model(), tiny_tokenizer(), provenance={})
    convert(folder, tmp_path / "m.gguf", to="f32")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="f32")
    first, second = load_decoder(folder).state_dict(), load_decoder(tmp_path / "back").state_dict()
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)
