"""`chatsmith.convert`: the same model in fewer bits, with what that costs measured before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.evaluate.faithful import Faithfulness, compare
from chatsmith.generate.backend import Backend, Step
from chatsmith.generate.native import NativeBackend
from chatsmith.kernels.infer.matrix import KINDS, Kind, as_floats
from chatsmith.specs import ModelSpec
from chatsmith.store.contents import read_generation, read_provenance
from chatsmith.store.gguf_model import open_model, write_model
from chatsmith.store.hf import read_config
from chatsmith.store.packed import save_packed
from chatsmith.store.packing import Format, Read, packed_parts, parameter_shapes
from chatsmith.store.parts import open_parameters
from chatsmith.tables import Column, Table
from chatsmith.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.console import RenderableType

BOUNDS: dict[str, float] = {"f32": 0.0005, "f16": 0.001, "bf16": 0.005, "int8": 0.005, "int4": 0.03}
"""The most that perplexity may grow, as a part of what it was, before a conversion is refused."""
_MEASURED_TOKENS = 4096
_SAMPLES = 8  # texts that the model writes itself where none is given
_SPEED_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion cost: bytes of the weights before and after, faithfulness, and tokens per second of one stream.

    `text` says what was read to find out: a file, or what the model itself wrote.
    """

    source: str
    target: str
    format: str
    bytes_before: int
    bytes_after: int
    text: str
    faithful: Faithfulness
    speed_before: float
    speed_after: float

    def to_mapping(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self)

    def table(self) -> Table:
        """Before and after, a row per measure."""
        found, smaller = self.faithful, self.bytes_after / self.bytes_before
        rows = (
            (
                "weights",
                _size(self.bytes_before),
                _size(self.bytes_after),
                f"{smaller:.0%}",
            ),
            (
                "perplexity",
                f"{found.perplexity:.3f}",
                f"{found.perplexity_after:.3f}",
                f"{found.change:+.2%} ± {found.change_error:.2%}",
            ),
            ("divergence (nats)", "", f"{found.divergence:.5f}", ""),
            ("same likeliest token", "", f"{found.agreement:.1%}", ""),
            (
                "tokens per second",
                f"{self.speed_before:.0f}",
                f"{self.speed_after:.0f}",
                f"{self.speed_after / self.speed_before:.1f}×",
            ),
        )
        columns = (Column("", "left"), Column("before"), Column("after"), Column("change"))
        note = f"{found.tokens:,} tokens of {self.text}"
        return Table(f"{self.target}: {self.format}", columns, rows, note=note)

    def __rich__(self) -> RenderableType:
        return self.table().rich()


def convert(
    source: Path,
    target: Path,
    *,
    to: Kind,
    group: int | None = None,
    symmetric: bool = True,
    head: Kind | None = None,
    text: Path | None = None,
    force: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Conversion:
    """Write `source`, a model folder or a GGUF file, as `target` in another format, and report what it cost.

    A target that ends in .gguf is one such file for llama.cpp (int8 as Q8_0, int4 as Q4_0 with embedding and head in
    Q8_0; what is measured is our own form of the same bits), any other a model folder.

    `to` int8 and int4 give packed folders for the native backend, the others ordinary ones. `group` is the number of
    weights that share a scale (int8 128, int4 32), `symmetric` False gives int4 a zero per group, `head` is the kind of
    the embedding and output head (int8 for int4). Perplexity is measured on `text`, else on what the model writes.

    Raises `RequestError` where a size or name is wrong, and `WorkError`, with nothing written, when perplexity grows
    beyond `BOUNDS` and `force` is not set.
    """
    if to not in KINDS:
        raise RequestError(f"there is no format {to!r}", "choose one of " + ", ".join(KINDS))
    source, target = Path(source), Path(target)
    form = Format(to, group or (32 if to == "int4" else 128), symmetric, head)
    gguf = target.suffix == ".gguf"
    if gguf and target.exists() and not overwrite:
        raise RequestError(f"{target} is there already", "choose another name, or ask to overwrite it")
    spec, tokenizer, read, stored = _open(source)
    progress("reading and rounding the weights")
    full, parts = dict(packed_parts(spec, read, Format(stored))), dict(packed_parts(spec, read, form))
    before, after = (NativeBackend(spec, part, cache_bytes=2**30) for part in (full, parts))
    if text is None:
        progress("the model writes a text of its own to be measured on")
        ids, words = _own_words(before, tokenizer), "what the model itself wrote"
    else:
        ids, words = _read_text(text, tokenizer), text.name
    progress(f"measuring on {len(ids):,} tokens")
    found = compare(before, after, ids, tokenizer.vocab_size)
    report = Conversion(
        source=str(source),
        target=str(target),
        format=_describe(form),
        bytes_before=_weight_bytes(full),
        bytes_after=_weight_bytes(parts),
        text=words,
        faithful=found,
        speed_before=_speed(before),
        speed_after=_speed(after),
    )
    if found.change > BOUNDS[to] and not force:
        raise WorkError(
            f"nothing was written: {to} changes perplexity by {found.change:+.2%} on {words}, beyond {BOUNDS[to]:+.1%}",
            _advice(form) + ", or --force to keep it as it is",
        )
    about = {"from": source.name, "to": report.format, "text": words, **asdict(found)}
    folder = source.is_dir()
    provenance = (read_provenance(source) if folder else {}) | {"converted": about}
    generation = read_generation(source) if folder else {}
    progress("writing")
    rest: dict[str, Any] = {"generation": generation, "provenance": provenance, "overwrite": overwrite}
    if gguf:
        write_model(target, spec, read, tokenizer, to, source.stem)
    elif to in ("int8", "int4"):
        save_packed(target, spec, parts.items(), form, tokenizer, **rest)
    else:
        _save_plain(target, spec, read, to, tokenizer, **rest)
    return report


def _open(source: Path) -> tuple[ModelSpec, Tokenizer, Read, Kind]:
    """A model folder or a GGUF file: its shape, vocabulary, parameters and the kind that keeps them as they are."""
    if source.suffix == ".gguf":
        spec, read, tokenizer = open_model(source)
        return spec, tokenizer, read, "f32"
    read, stored = open_parameters(source)
    return read_config(source), Tokenizer.load(source), read, stored


def _save_plain(target: Path, spec: ModelSpec, read: Read, kind: Kind, tokenizer: Tokenizer, **rest: Any) -> None:
    """An ordinary folder, for every program that reads such ones."""
    import torch

    from chatsmith.models.decoder import Decoder
    from chatsmith.store.folder import save_model

    model = Decoder(spec, device="meta")
    known = {name: torch.from_numpy(np.array(as_floats(read(name)))) for name in parameter_shapes(spec)}
    model.load_state_dict(known, assign=True)
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    save_model(target, model, tokenizer, dtype=dtype, **rest)


def _describe(form: Format) -> str:
    if form.kind in ("f32", "f16", "bf16"):
        return form.kind
    shape = "" if form.symmetric else ", with zeros"
    return f"{form.kind} in groups of {form.group}{shape}, embedding and head in {form.head_kind}"


def _advice(form: Format) -> str:
    if form.kind == "int4" and form.symmetric:
        return "try --zeros, or --to int8"
    return "try --to int8" if form.kind == "int4" else "try --group 64, or --head bf16"


def _weight_bytes(parts: dict[str, Any]) -> int:
    return sum(part.nbytes for part in parts.values())


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _read_text(path: Path, tokenizer: Tokenizer) -> list[int]:
    """The first tokens of a text file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            words = file.read(16 * _MEASURED_TOKENS)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    ids = list(tokenizer.encode(words)[:_MEASURED_TOKENS])
    if len(ids) < 2:
        raise RequestError(f"{path} holds no text to measure on", "give a longer one")
    return ids


def _own_words(backend: NativeBackend, tokenizer: Tokenizer) -> list[int]:
    """Texts drawn from the model at temperature 1, one after the other, always the same."""
    draw = np.random.default_rng(0)
    length = min(backend.spec.context, _MEASURED_TOKENS // _SAMPLES)
    blocks = -(-length // backend.block_size)
    tables = np.arange(_SAMPLES * blocks, dtype=np.int32).reshape(1, _SAMPLES, blocks)
    starts, rows = np.arange(_SAMPLES + 1, dtype=np.int32), np.arange(_SAMPLES, dtype=np.int32)
    texts = np.full((_SAMPLES, length), tokenizer.end_of_text, np.int32)
    for place in range(length - 1):
        step = Step(texts[:, place], np.full(_SAMPLES, place, np.int32), starts, tables, rows)
        logits = backend.logits(step)[:, : tokenizer.vocab_size]
        texts[:, place + 1] = (logits + draw.gumbel(size=logits.shape)).argmax(-1)
    return [int(token) for token in texts.ravel()]


def _speed(backend: Backend) -> float:
    """Tokens per second of one stream, the median of some after a short prompt."""
    count = min(_SPEED_TOKENS, backend.spec.context)
    table = np.arange(-(-count // backend.block_size), dtype=np.int32)[None, None]
    one = np.zeros(1, np.int32)
    times = []
    for place in range(count):
        start = time.perf_counter()
        backend.logits(Step(one, np.array([place], np.int32), np.array([0, 1], np.int32), table, one))
        times.append(time.perf_counter() - start)
    return 1 / float(np.median(times))
