"""The number formats of GGUF files: each by its definition, and back within a step."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from chatsmith.errors import RequestError
from chatsmith.store.gguf_numbers import FORMATS, made


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


def test_whole_steps_of_a_scale_come_out_of_q4_0_as_they_are() -> None:
    """Whatever steps a block uses: a calibration chose them, and another scale would undo it."""
    draw = np.random.default_rng(4)
    scale = (draw.standard_normal((400, 1)) * 0.1).astype(np.float16).astype(np.float32)
    most = draw.integers(0, 9, (400, 1))
    x = (draw.integers(-8, 8, (400, 32)).clip(-most, most) * scale).astype(np.float32)
    form = FORMATS["Q4_0"]
    assert form.make is not None
    assert np.array_equal(form.read(form.make(x).reshape(400, -1)), x)


def test_q4_0_takes_no_worse_scale_than_the_largest_number_gives() -> None:
    x = np.random.default_rng(5).standard_normal((200, 32)).astype(np.float32)
    largest = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
    usual = (largest / -8).astype(np.float16).astype(np.float32)
    form = FORMATS["Q4_0"]
    assert form.make is not None
    ours = np.square(form.read(form.make(x).reshape(200, -1)) - x).sum(1)
    theirs = np.square((np.floor(x / usual + 8.5).clip(0, 15) - 8) * usual - x).sum(1)
    assert (ours <= theirs + 1e-5).all()
    assert ours.sum() < 0.95 * theirs.sum()


def blocks(kind: str, halves: dict[int, float], count: int = 40) -> np.ndarray:
    """Random bytes as blocks of a format, with float16 numbers at some places."""
    raw = np.random.default_rng(3).integers(0, 256, (count, FORMATS[kind].nbytes), np.uint8)
    for place, value in halves.items():
        raw[:, place : place + 2] = np.frombuffer(struct.pack("<e", value), np.uint8)
    return raw


def test_q5_0_by_its_definition() -> None:
    """Bit i of the four bytes after the scale is the fifth of number i."""
    raw = blocks("Q5_0", {0: 0.25})
    for block, found in zip(raw.tolist(), FORMATS["Q5_0"].read(raw).tolist(), strict=True):
        fifths = int.from_bytes(bytes(block[2:6]), "little")
        for i in range(32):
            four = block[6 + i] & 15 if i < 16 else block[6 + i - 16] >> 4
            assert found[i] == 0.25 * ((four | (fifths >> i & 1) << 4) - 16)


def scale_and_minimum(packed: list[int], group: int) -> tuple[int, int]:
    """Six bits each out of twelve bytes, as ggml's get_scale_min_k4."""
    if group < 4:
        return packed[group] & 63, packed[group + 4] & 63
    low = packed[group + 4]
    return low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4


def test_q5_k_by_its_definition() -> None:
    """Groups of 32; two groups share 32 bytes, and bit g of byte i holds the fifth bit of number i of group g."""
    raw = blocks("Q5_K", {0: 0.25, 2: 0.125})
    for block, found in zip(raw.tolist(), FORMATS["Q5_K"].read(raw).tolist(), strict=True):
        for group in range(8):
            scale, minimum = scale_and_minimum(block[4:16], group)
            for i in range(32):
                byte = block[48 + 32 * (group // 2) + i]
                value = (byte >> 4 if group % 2 else byte & 15) + 16 * (block[16 + i] >> group & 1)
                assert found[32 * group + i] == 0.25 * scale * value - 0.125 * minimum


def test_q6_k_by_its_definition() -> None:
    """Two halves of 128: of each, 64 bytes of lower four bits, 32 of upper two, and a signed scale for each 16."""
    raw = blocks("Q6_K", {208: 0.25})
    for block, found in zip(raw.tolist(), FORMATS["Q6_K"].read(raw).tolist(), strict=True):
        for half in range(2):
            low, high = block[64 * half : 64 * half + 64], block[128 + 32 * half : 160 + 32 * half]
            scales = [scale - 256 * (scale > 127) for scale in block[192 + 8 * half : 200 + 8 * half]]
            for i in range(32):
                values = (
                    low[i] & 15 | (high[i] & 3) << 4,
                    low[i + 32] & 15 | (high[i] >> 2 & 3) << 4,
                    low[i] >> 4 | (high[i] >> 4 & 3) << 4,
                    low[i + 32] >> 4 | (high[i] >> 6) << 4,
                )
                for part, value in enumerate(values):
                    wanted = 0.25 * scales[2 * part + i // 16] * (value - 32)
                    assert found[128 * half + 32 * part + i] == wanted


def test_what_is_only_read_is_not_written() -> None:
    with pytest.raises(RequestError, match="Q6_K is only read"):
        made(np.zeros((1, 256), np.float32), "Q6_K")
