"""Fuzz what reads weights: packed folders, plain safetensors folders and GGUF files, damaged at random.

    python tests/fuzz/readers.py --seconds 600              ten minutes of it
    python tests/fuzz/readers.py --count 1500               as the tests do
    python tests/fuzz/readers.py --first 4711 --count 1     one case again, with its whole traceback

Small good models are cut short, their bits are flipped, pieces of them are moved, doubled or taken out, and their
counts, sizes, offsets and settings are made to lie. A case is right if the reader gives a model (which then reads every
weight and, where there are kernels, computes a step) or says in one line what is wrong, as a `ChatsmithError`. Anything
else is found: another exception, a crash of the process, more than TIME seconds, or more memory than the files have
bytes, twice (a text is bytes and characters for a moment). Memory is counted by tracemalloc until the reader has
decided, and the address space is bounded for what tracemalloc does not see. Case number N of seed S is always the same.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import ChatsmithError
from chatsmith.generate.backend import Step
from chatsmith.generate.native import NativeBackend
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.matrix import Matrix
from chatsmith.kernels.infer.session import Part
from chatsmith.specs import ModelSpec, RopeScaling, modern
from chatsmith.store.contents import PACKED
from chatsmith.store.gguf_model import open_model, write_model
from chatsmith.store.packed import save_packed
from chatsmith.store.packing import Format, Read, packed_parts, parameter_shapes
from chatsmith.store.parts import load_parts
from chatsmith.store.sentencepiece import Vocabulary, tokenizer_config, tokenizer_json
from chatsmith.store.tensors import SINGLE
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.tokenizer import Tokenizer

TIME = 20
BATCH = 250
"""Cases of one child process."""
ROOM = 64 * 2**20
"""Address space that a case may take beyond what the good models took."""
SPARE = 2**18
"""What the interpreter takes for itself while it reads: code, messages, its caches."""
CONTEXT = 64
SPECS = {
    "gpt2": ModelSpec(vocab_size=320, context=CONTEXT, width=128, layers=2, heads=4),
    "qwen3": modern(vocab_size=320, context=CONTEXT, width=128, layers=2, heads=4, kv_heads=2, tied=False),
    "banded": ModelSpec(vocab_size=320, context=CONTEXT, width=128, layers=2, heads=4, band=5),
    "llama": replace(
        modern(vocab_size=320, context=CONTEXT, width=128, layers=2, heads=1, kv_heads=1, tied=False),
        qk_norm=False,
        rope_theta=500000.0,
        rope_scaling=RopeScaling("llama3", 8.0),
    ),
}
PACKINGS = {
    "packed-int4": ("qwen3", Format("int4", 32, symmetric=False)),
    "packed-factors": ("qwen3", Format("int4", 32)),
    "packed-int8": ("gpt2", Format("int8", 128)),
    "packed-bf16": ("banded", Format("bf16")),
}
FILES = {
    "gguf-f32": ("gpt2", "f32"),
    "gguf-int8": ("qwen3", "int8"),
    "gguf-int4": ("gpt2", "int4"),
    "gguf-pieces": ("llama", "f16"),
}
PLAIN = ("plain-banded", "banded")
LIES = (0, 1, 2, 3, 7, 31, 255, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (-1, 0, 1, 2, 3, 64, 1000, 2**20, 2**31, 2**40, 2**63, 0.5, 1e308, True, None, "", "F32", "U8", [], [1], {})


# ---- good models -----------------------------------------------------------------------------------------------------


def numbers(spec: ModelSpec) -> Read:
    draw = np.random.default_rng(0)
    known = {name: draw.standard_normal(shape, np.float32) for name, shape in parameter_shapes(spec).items()}
    return known.__getitem__


@cache
def vocabulary() -> Tokenizer:
    return train_tokenizer(["a small vocabulary for small models " * 20], vocab_size=280)


@cache
def pieces() -> Tokenizer:
    """A small vocabulary of SentencePiece's kind."""
    merged = ("▁", *"smalvocbury", "▁s", "ma", "ll", "▁sma", "▁small", "▁▁", "<think>")
    names = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *merged)
    scores = tuple(-float(number) for number in range(len(names)))
    return Tokenizer(tokenizer_json(Vocabulary(names, scores, {"<think>": False})), tokenizer_config())


def make(folder: Path) -> None:
    """The good models that are damaged."""
    for name, (spec, form) in PACKINGS.items():
        parts = packed_parts(SPECS[spec], numbers(SPECS[spec]), form)
        save_packed(folder / name, SPECS[spec], parts, form, vocabulary(), provenance={})
    for name, (spec, kind) in FILES.items():
        (folder / name).mkdir()
        tokenizer = pieces() if spec == "llama" else vocabulary()
        write_model(folder / name / "m.gguf", SPECS[spec], numbers(SPECS[spec]), tokenizer, kind, "fuzz")
    name, spec = PLAIN
    form = Format("f32")
    save_packed(folder / name, SPECS[spec], packed_parts(SPECS[spec], numbers(SPECS[spec]), form), form, vocabulary(),
                provenance={})  # fmt: skip
    plain(folder / name, SPECS[spec])


def plain(folder: Path, spec: ModelSpec) -> None:
    """Turn a packed folder into one of our own layout: parameters by name in one file."""
    from safetensors.numpy import save_file

    read = numbers(spec)
    save_file({parameter: read(parameter) for parameter in parameter_shapes(spec)}, folder / SINGLE)
    (folder / PACKED).unlink()
    (folder / "chatsmith.toml").unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))


# ---- damage ----------------------------------------------------------------------------------------------------------


def place(draw: random.Random, raw: bytearray) -> int:
    """Somewhere in the file, the head more often than the numbers."""
    return draw.randrange(min(len(raw), draw.choice((32, 512, 8192, len(raw)))))


def cut(draw: random.Random, raw: bytearray) -> None:
    del raw[draw.choice((draw.randrange(len(raw)), len(raw) - draw.randrange(1, 64), place(draw, raw))) :]


def flip(draw: random.Random, raw: bytearray) -> None:
    for _ in range(draw.choice((1, 1, 4, 64))):
        raw[place(draw, raw)] ^= 1 << draw.randrange(8)


def lie(draw: random.Random, raw: bytearray) -> None:
    """A whole number where another one may have been."""
    size, at = draw.choice((1, 4, 8)), place(draw, raw)
    value = draw.choice(LIES) % 256**size
    raw[at : at + size] = value.to_bytes(size, "little")[: len(raw) - at]


def move(draw: random.Random, raw: bytearray) -> None:
    """A piece is doubled, moved, taken out or overwritten by another one."""
    start, to = place(draw, raw), place(draw, raw)
    piece = raw[start : start + draw.choice((1, 8, 24, 300))]
    how = draw.randrange(3)
    if how == 0:
        raw[to:to] = piece
    elif how == 1:
        raw[to : to + len(piece)] = piece
    else:
        del raw[start : start + len(piece)]


def setting(draw: random.Random, raw: bytearray) -> None:
    """A size that a GGUF file names, by its key: the value after it or the type of that lies."""
    keys = [found.end() for found in re.finditer(rb"(gpt2|qwen3|llama|tokenizer|general)\.[a-z_.]+", raw[: 2**16])]
    if not keys:
        lie(draw, raw)
        return
    at = draw.choice(keys) + draw.choice((0, 4, 4, 4, 8))
    raw[at : at + 4] = (draw.choice(LIES) % 2**32).to_bytes(4, "little")


def header(draw: random.Random, raw: bytearray) -> None:
    """An entry of a safetensors header lies: of another tensor, changed in one number, moved, renamed or missing."""
    size = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + size])
    name, other = draw.choice(list(entries)), draw.choice(list(entries))
    how = draw.randrange(5)
    if how == 0:
        entries[name] = entries[other]
    elif how == 1:
        entries[name], entries[other] = entries[other], entries[name]
    elif how == 2:
        del entries[name]
    elif how == 3:
        entries[draw.choice(("", "x", name + ".scale", name + ".zero", name[:-1]))] = entries.pop(name)
    else:
        entries[name] = lied(draw, entries[name])
    text = json.dumps(entries).encode()
    raw[: 8 + size] = len(text).to_bytes(8, "little") + text


def lied(draw: random.Random, value: object) -> object:
    """A JSON value with one leaf of it changed."""
    if isinstance(value, dict) and value:
        key = draw.choice(list(value))
        return value | {key: lied(draw, value[key])}
    if isinstance(value, list) and value:
        at = draw.randrange(len(value))
        return [*value[:at], lied(draw, value[at]), *value[at + 1 :]]
    if isinstance(value, int) and draw.random() < 0.5:
        return value + draw.choice((-1, 1, 2, 16, -value * 2, 2**32))
    return draw.choice(WORDS)


def config(draw: random.Random, raw: bytearray) -> None:
    raw[:] = json.dumps(lied(draw, json.loads(raw))).encode()


Damage = Callable[[random.Random, bytearray], None]


def damage(draw: random.Random, folder: Path) -> None:
    """Damage a model: once or a few times, in its file of weights or in config.json."""
    settings = folder / "config.json"
    if settings.exists() and draw.random() < 0.25:
        path, kinds = settings, [config, config, config, cut, flip]
    else:
        (path,) = (path for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf"))
        kinds = [cut, flip, lie, move, setting if path.suffix == ".gguf" else header]
    raw = bytearray(path.read_bytes())
    for kind in draw.choices(kinds, k=draw.choice((1, 1, 1, 2, 4))):
        if kind in (header, config):  # these want the file as it was: they come alone
            raw = bytearray(path.read_bytes())
        if len(raw) > 64:
            kind(draw, raw)
    path.write_bytes(raw)


# ---- a case ----------------------------------------------------------------------------------------------------------


def use(folder: Path, checked: Callable[[], None]) -> None:
    """Open a model and use it; `checked` is called when the reader has decided what it is."""
    file = folder / "m.gguf"
    if file.exists():
        spec, read, tokenizer, _ = open_model(file)
        checked()
        tokenizer.encode("a small text")
        parts: dict[str, Part] = dict(packed_parts(spec, read, Format("f32")))
    else:
        loaded = load_parts(folder, verify="never")
        checked()
        spec, parts = loaded.spec, loaded.parts
    for part in parts.values():
        part.numbers() if isinstance(part, Matrix) else part.sum()
    if build.library() is None:
        return
    backend = NativeBackend(spec, parts, cache_bytes=2**20, threads=1)
    rows: NDArray[np.int32] = np.arange(min(3, spec.vocab_size, spec.context), dtype=np.int32)
    tables = np.arange(len(backend.bands), dtype=np.int32)[:, None, None]  # a block for each group of layers
    backend.logits(Step(rows, rows, np.array([0, len(rows)], np.int32), tables, rows[-1:]))


def run_case(good: Path, seed: int, number: int, scratch: Path) -> str:
    """One case: what came of it, "read" or "refused". Raises what it should not."""
    draw = random.Random(f"{seed} {number}")
    folder = scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(draw.choice(sorted(good.iterdir())), folder)
    damage(draw, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())

    decided = False

    def checked() -> None:
        nonlocal decided
        decided = True
        most = tracemalloc.get_traced_memory()[1] - before
        if most > 2 * size + SPARE:
            raise AssertionError(f"{most} bytes were taken to read files of {size} bytes")

    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        use(folder, checked)
    except ChatsmithError as error:
        if not decided:  # else what computes has refused: a cache for the context that the file asks for, say
            checked()
        if "\n" in error.message or not error.message:
            raise AssertionError(f"not one line: {error.message!r}") from None
        return "refused"
    return "read"


def child(good: Path, seed: int, first: int, count: int) -> None:
    """Run cases within bounds, a line each on stdout of what came of it."""
    with tempfile.TemporaryDirectory() as scratch, np.errstate(all="ignore"):
        for folder in sorted(good.iterdir()):
            use(folder, lambda: None)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        faulthandler.enable()
        tracemalloc.start()
        for number in range(first, first + count):
            faulthandler.dump_traceback_later(TIME, exit=True)
            print(run_case(good, seed, number, Path(scratch)), flush=True)
        faulthandler.cancel_dump_traceback_later()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--count", type=int, help="so many cases")
    parser.add_argument("--seconds", type=float, help="as many cases as fit")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        try:
            child(given.inside, given.seed, given.first, given.count)
        except BaseException:
            traceback.print_exc()
            return 1
        return 0
    if given.count is None and given.seconds is None:
        parser.error("say how much: --count or --seconds")
    end = time.monotonic() + (given.seconds if given.seconds is not None else float("inf"))
    number, last = given.first, given.first + given.count if given.count is not None else sys.maxsize
    came: Counter[str] = Counter()
    found: list[int] = []
    with tempfile.TemporaryDirectory() as good:
        make(Path(good))
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        while number < last and time.monotonic() < end and len(found) < 20:
            count = min(BATCH, last - number)
            command = [sys.executable, __file__, "--inside", good, "--seed", str(given.seed)]
            command += ["--first", str(number), "--count", str(count)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            came.update(done.stdout.splitlines())
            number += len(done.stdout.splitlines())
            if done.returncode:
                print(f"case {number} of seed {given.seed}: exit {done.returncode}\n{done.stderr}", flush=True)
                found.append(number)
                number += 1
    print(json.dumps({"seed": given.seed, "first": given.first, "cases": number - given.first, **came, "found": found}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
