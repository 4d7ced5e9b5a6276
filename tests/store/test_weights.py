"""A safetensors file is believed only after it has been checked."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.store import weights as module
from chatsmith.store.tensors import find_weights, read_header
from chatsmith.store.weights import Weights, fingerprint, plan_shards, write_tensors

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
    torch.bool, torch.complex64,
]  # fmt: skip


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


EIGHT = bytes(8)
DAMAGED = {
    "empty file": (b"", "claims 0 bytes"),
    "shorter than a length": (b"abc", "header claims"),
    "header longer than the file": (struct.pack("<Q", 500) + b"{}", "claims 500 bytes, the file has 10"),
    "header longer than memory": (struct.pack("<Q", 2**63) + b"{}", "header claims"),
    "not JSON": (raw(b"{nope"), "not valid JSON"),
    "not UTF-8": (raw(b"\xff\xfe{}"), "not valid JSON"),
    "numbers in a long one": (raw(b'{"a": "' + b"\xc3\xa9" * 100_000 + b"\xff" * 1000), "not valid JSON"),
    "nested without end": (raw(b'{"a":' + b"[" * 200_000), "not valid JSON"),
    "a list": (raw([1]), "not a JSON object"),
    "a name twice": (raw(b'{"a":1,"a":2}'), "a name appears twice"),
    "no shape": (raw({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT), "a is not described"),
    "unknown dtype": (raw({"a": entry("F31")}, EIGHT), "a has the unknown dtype 'F31'"),
    "negative size": (raw({"a": entry(shape=(-2,))}, EIGHT), "a has a shape"),
    "shape of floats": (raw({"a": entry(shape=(2.0,))}, EIGHT), "a has a shape"),
    "shape that lies": (raw({"a": entry(shape=(3,))}, EIGHT), "a of shape [3] and F32 needs 12 bytes but has 8"),
    "huge shape": (raw({"a": entry(shape=(2**62, 2**62))}, EIGHT), "needs"),
    "end before start": (raw({"a": entry(offsets=(8, 0))}, EIGHT), "not a byte range"),
    "past the end": (raw({"a": entry()}, bytes(4)), "cut short: a ends at byte 8 of the data and there are 4"),
    "overlap": (raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "b overlaps the tensor before it"),
    "gap": (raw({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)), "b leaves a gap"),
    "bytes left over": (raw({"a": entry()}, bytes(100)), "92 bytes at its end"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "Git LFS pointer"),
}


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_lying_file_is_named_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WorkError) as caught:
        read_header(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_header_is_refused_or_still_true(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    save_file({"a": torch.arange(6).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        tensors = read_header(path)
    except ChatsmithError:
        return
    # What we let pass, the library reads the same way (names it finds invalid aside).
    try:
        loaded = load_file(path)
    except SafetensorError:
        with pytest.raises(WorkError):
            Weights([path]).read(next(iter(tensors)))
        return
    assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == {n: i.shape for n, i in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.randint(0, 256, (6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tensor = bits % 2 == 0 if dtype == torch.bool else bits.view(dtype)
    tensors = {"t": tensor, "transposed": tensor.t(), "scalar": tensor[0, 0], "none": tensor[:0]}
    write_tensors(tmp_path / "x.safetensors", tensors)
    held = Weights([tmp_path / "x.safetensors"])
    for name, before in tensors.items():
        after = held.read(name)
        assert after.dtype == dtype
        assert after.shape == before.shape
        flat = before.contiguous().reshape(-1)
        assert torch.equal(after.reshape(-1).view(torch.uint8), flat.view(torch.uint8))


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = torch.randn(4, 4)
    write_tensors(tmp_path / "x.safetensors", {"whole": whole, "again": whole, "row": whole[1], "turned": whole.t()})
    held = load_file(tmp_path / "x.safetensors")
    assert torch.equal(held["again"], whole)
    assert torch.equal(held["row"], whole[1])
    assert torch.equal(held["turned"], whole.t())


def test_a_write_that_hits_a_limit_leaves_nothing(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    with pytest.raises(WorkError, match="could not write"), file_size_limit(10_000):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(100_000)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["library", "sync"])
def test_a_full_disk_is_called_so(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        if where == "library":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((module, "save_file", full) if where == "library" else (os, "fsync", full)))
    with pytest.raises(WorkError, match="the disk is full") as caught:
        write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
    assert caught.value.exit_code == 1
    assert "free some space" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(RequestError, match="only pickled weights") as caught:
        find_weights(tmp_path)
    assert "save_pretrained" in (caught.value.hint or "")


def index(folder: Path, mapping: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"a": "../outside.safetensors"}, "not a safetensors file of this folder"),
        ({"a": "/etc/passwd"}, "not a safetensors file of this folder"),
        ({"a": "gone.safetensors"}, "gone.safetensors is missing"),
        ({"a": "one.safetensors", "z": "one.safetensors"}, "z is in one.safetensors, which does not hold it"),
        ({"a": 5}, "no weight_map"),
        ({}, "no weight_map"),
    ],
)
def test_an_index_that_misleads_is_refused(mapping: Any, words: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    index(tmp_path, mapping)
    with pytest.raises(ChatsmithError, match=words):
        find_weights(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file({"a": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(WorkError, match="a is in both"):
        Weights([tmp_path / "one.safetensors", tmp_path / "two.safetensors"])


def test_shards_keep_the_order_and_the_limit() -> None:
    assert plan_shards({"a": 5, "b": 5}, 10) == {"model.safetensors": ["a", "b"]}
    shards = plan_shards({"a": 6, "b": 5, "c": 4, "big": 50, "d": 1}, 10)
    assert list(shards.values()) == [["a"], ["b", "c"], ["big"], ["d"]]
    assert next(iter(shards)) == "model-00001-of-00004.safetensors"


def test_a_fingerprint_follows_values_names_dtypes_and_shapes() -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2)}
    assert fingerprint(base) == fingerprint(dict(reversed(base.items())))
    others = [
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0), "b": torch.ones(2).int()},
        {"a": torch.arange(6.0), "b": torch.tensor([1.0, -1.0])},
    ]
    assert len({fingerprint(base), *map(fingerprint, others)}) == 5
