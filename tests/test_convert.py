"""A model in fewer bits: what is reported is what was measured, and what costs too much is not written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chatsmith.convert import _MEASURED_TOKENS, BOUNDS, convert
from chatsmith.errors import RequestError, WorkError
from chatsmith.evaluate.faithful import compare, own_words
from chatsmith.evaluate.speeds import decoding_speeds
from chatsmith.generate.backend import Floats, Step
from chatsmith.generate.native import NativeBackend
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.matrix import Kind
from chatsmith.language_model import load
from chatsmith.store.card import Measured, model_card
from chatsmith.store.folder import load_decoder, save_model
from chatsmith.store.gguf_model import as_written, open_model
from chatsmith.store.packing import parameter_shapes
from chatsmith.store.parts import load_parts, open_parameters
from patience import PATIENCE
from tiny import tiny_model, tiny_tokenizer

native = pytest.mark.skipif(build.library() is None, reason=f"no kernels of generation here: {build.status()}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", tiny_model(), tiny_tokenizer(), provenance={"seed": 3})


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("and the thin thing in the inn then thinned and hid the tin hand\n" * 12)
    return path


def test_int8_is_reported_and_written(folder: Path, text: Path, tmp_path: Path) -> None:
    report = convert(folder, tmp_path / "small", to="int8", text=text)
    found = report.faithful
    assert found.tokens > 200
    assert abs(found.change) < BOUNDS["int8"]
    assert found.agreement > 0.9
    assert 0 < found.divergence < 0.01
    assert report.bytes_after < report.bytes_before / 2
    assert json.dumps(report.to_mapping())
    assert "perplexity" in str(report.table())
    provenance = load_parts(tmp_path / "small").provenance
    assert provenance["seed"] == 3
    assert provenance["converted"]["perplexity_after"] == pytest.approx(found.perplexity_after)
    assert report.bytes_before == (folder / "model.safetensors").stat().st_size
    assert report.bytes_after == (tmp_path / "small" / "packed.safetensors").stat().st_size


def test_a_text_too_short_to_tell_is_no_proof(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the thin thing")
    with pytest.raises(WorkError, match=r"only to within .*%, and the bound is 0.5%"):
        convert(folder, tmp_path / "small", to="int8", text=tmp_path / "short.txt")
    assert not (tmp_path / "small").exists()
    convert(folder, tmp_path / "small", to="int8", text=tmp_path / "short.txt", force=True)


def test_a_gguf_file_holds_what_was_rounded_by_a_text(folder: Path, text: Path, tmp_path: Path) -> None:
    """What is measured is what lies in the file, and it computes nearer to the model than with each weight rounded to
    the nearest step."""
    plain = convert(folder, tmp_path / "plain.gguf", to="int4", force=True)
    report = convert(folder, tmp_path / "m.gguf", to="int4", calibrate="own", force=True)
    assert "calibrated on" in report.format
    assert report.faithful.divergence < plain.faithful.divergence
    assert report.bytes_after == plain.bytes_after
    words = [convert(folder, tmp_path / f"{n}.gguf", to="int4", calibrate="own", text=text, force=True) for n in "ab"]
    again = convert(tmp_path / "a.gguf", tmp_path / "back", to="f32", text=text)
    assert again.faithful.perplexity == pytest.approx(words[0].faithful.perplexity_after, rel=1e-6)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_the_card_goes_along_and_says_what_was_measured(folder: Path, text: Path, tmp_path: Path) -> None:
    card = model_card("model", tiny_model().spec, Measured(steps=7))
    (folder / "README.md").write_text(card)
    report = convert(folder, tmp_path / "small", to="int8", text=text)
    found = (tmp_path / "small" / "README.md").read_text()
    assert "| steps | 7 |" in found
    assert "## Converted\n\nmodel in int8 in groups of 128" in found
    assert f"| perplexity after | {report.faithful.perplexity_after:.3f} (" in found
    assert "AutoModelForCausalLM" in card
    assert "transformers" not in found.lower()  # it cannot load packed weights
    convert(tmp_path / "small", tmp_path / "back", to="f16", text=text)
    assert (tmp_path / "back" / "README.md").read_text().count("## Converted") == 2
    convert(folder, tmp_path / "half", to="f16", text=text)
    assert "AutoModelForCausalLM" in (tmp_path / "half" / "README.md").read_text()


@pytest.mark.parametrize("own", [False, True])
def test_int4_can_be_calibrated(folder: Path, text: Path, tmp_path: Path, own: bool) -> None:
    read = tmp_path / "read.txt"
    read.write_text("the tin thing hid in the hand and the thin inn then thinned the hint\n" * 60)
    said: list[str] = []
    plain = convert(folder, tmp_path / "plain", to="int4", text=text, force=True)
    report = convert(
        folder,
        tmp_path / "new",
        to="int4",
        text=text,
        calibrate="own" if own else read,
        progress=said.append,
        force=True,
    )
    words = "8,192 tokens of its own" if own else " tokens of read.txt"
    assert report.format.startswith("int4 in groups of 32, embedding and head in int8; calibrated on ")
    assert report.format.endswith(words)
    assert report.faithful.divergence < plain.faithful.divergence
    assert "layer 2 of 2: rounded by what it reads" in said
    assert words in load_parts(tmp_path / "new").provenance["converted"]["to"]
    assert (tmp_path / "new" / "packed.safetensors").stat().st_size == (
        tmp_path / "plain" / "packed.safetensors"
    ).stat().st_size


@native
def test_the_words_to_calibrate_on_are_not_those_to_measure_on(folder: Path) -> None:
    loaded = load_parts(folder)
    backend = NativeBackend(loaded.spec, loaded.parts, cache_bytes=2**24)
    measured = own_words(backend, loaded.tokenizer, 1024)
    rows = {tuple(measured[at : at + 64]) for at in range(0, len(measured), 64)}
    fresh = own_words(backend, loaded.tokenizer, 1024, after=_MEASURED_TOKENS)
    assert len(rows) == 16
    assert not rows & {tuple(fresh[at : at + 64]) for at in range(0, len(fresh), 64)}


@native
def test_keys_and_values_have_a_bound_of_their_own(
    folder: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """f32 is exact: what int8 keys and values cost is held to the bound of int8, and said to be theirs."""
    report = convert(folder, tmp_path / "light", to="f32", text=text, cache="int8", force=True)
    assert report.faithful.divergence > 0
    monkeypatch.setitem(BOUNDS, "int8", -1.0)
    with pytest.raises(
        WorkError, match=r"written: --cache int8 changes perplexity by .*, beyond the bound of -100%"
    ) as no:
        convert(folder, tmp_path / "no", to="f32", text=text, cache="int8")
    assert no.value.hint == "leave --cache out, or --force to keep it as it is"
    assert not (tmp_path / "no").exists()
    monkeypatch.setitem(BOUNDS, "f32", -0.5)
    with pytest.raises(WorkError, match=r"written: f32 changes") as no:
        convert(folder, tmp_path / "no", to="f32", text=text)
    assert no.value.hint == "add --force to keep it as it is"


def test_what_cannot_be_written_is_refused_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def refused(name: str, to: str, message: str, **settings: Any) -> None:
        with pytest.raises(RequestError, match=message):
            convert(folder, tmp_path / name, to=to, progress=said.append, **settings)  # type: ignore[arg-type]

    (tmp_path / "file").write_text("")
    (tmp_path / "m.gguf").write_text("")
    (tmp_path / "folder.gguf").mkdir()
    refused("model", "int8", "already holds a model")
    refused("file", "int8", "is a file, not a folder")
    refused("file/below/it", "int8", "cannot be made: .*file is a file")
    refused("file/m.gguf", "int8", "cannot be made: .*file is a file")
    refused("m.gguf", "int8", "is there already")
    refused("folder.gguf", "int8", "is a folder, not a file")
    refused("new.gguf", "int8", "a GGUF file has no choice of group", group=64)
    refused("new.gguf", "int4", "a GGUF file has no choice of zeros", symmetric=False)
    refused("new.gguf", "int4", "a GGUF file has no choice of head", head="bf16")
    refused("new.gguf", "int4", "a GGUF file has no choice of cache", cache="int8")
    refused("new.gguf", "int8", "int8 in a GGUF file is not calibrated", calibrate="own")
    refused("new.gguf", "f16", "a GGUF file has no choice of calibration", calibrate="own")
    refused("new", "bf16", "bf16 has no choice of calibration", calibrate="own")
    refused("new", "int4", r"cannot read .*nowhere\.txt", calibrate=tmp_path / "nowhere.txt")
    refused("new", "int4", "which flatters", calibrate=tmp_path / "file", text=tmp_path / "model" / ".." / "file")
    refused("new", "f16", "f16 has no choice of head", head="int8")
    refused("new", "int8", "int8 has no zeros", symmetric=False)
    refused("new", "int8", r"cannot read .*nowhere\.txt", text=tmp_path / "nowhere.txt")
    save_model(tmp_path / "banded", tiny_model("banded"), tiny_tokenizer(), provenance={})
    with pytest.raises(RequestError, match="GGUF has no name for this shape"):
        convert(tmp_path / "banded", tmp_path / "new.gguf", to="int8", progress=said.append)
    assert said == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("to", ["f16", "int8", "int4"])
def test_a_gguf_file_is_measured_by_what_it_holds(folder: Path, text: Path, tmp_path: Path, to: Kind) -> None:
    report = convert(folder, tmp_path / "m.gguf", to=to, text=text, force=True)
    assert (report.speed_before, report.speed_after) == (None, None)  # llama.cpp's speed is its own
    assert "tokens per second" not in str(report.table())
    assert report.bytes_after == (tmp_path / "m.gguf").stat().st_size
    assert report.format == {"f16": "F16", "int8": "Q8_0", "int4": "Q4_0, embedding and head in Q8_0"}[to]
    again = convert(tmp_path / "m.gguf", tmp_path / "back", to="f32", text=text)
    assert again.faithful.perplexity == pytest.approx(report.faithful.perplexity_after, rel=1e-6)
    spec, read, *_ = open_model(tmp_path / "m.gguf")
    source, _ = open_parameters(folder)
    kept = as_written(spec, source, to)
    assert all(np.array_equal(kept(name), read(name)) for name in parameter_shapes(spec))


@native
@pytest.mark.parametrize("kind", ["qwen3", "banded"])
def test_without_native_kernels_torch_measures(tmp_path: Path, text: Path, kind: str) -> None:
    folder = save_model(tmp_path / "model", tiny_model(kind), tiny_tokenizer(), provenance={})
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom chatsmith.convert import convert\n"
        "text = Path(sys.argv[3]) if sys.argv[3:] else None\n"
        "print(json.dumps(convert(Path(sys.argv[1]), Path(sys.argv[2]), to='int8', text=text).to_mapping()))"
    )

    def run(name: str, *more: str) -> dict[str, Any]:
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / name), *more]
        environment = os.environ | {"CHATSMITH_KERNELS": "off"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    off, on = run("off", str(text)), convert(folder, tmp_path / "on", to="int8", text=text)
    assert off["computed_by"] == "torch on cpu"
    assert on.computed_by.startswith("native on")
    assert off["faithful"]["perplexity"] == pytest.approx(on.faithful.perplexity, rel=1e-4)
    assert off["faithful"]["perplexity_after"] == pytest.approx(on.faithful.perplexity_after, rel=1e-2)
    first, second = (tmp_path / name / "packed.safetensors" for name in ("off", "on"))
    assert first.read_bytes() == second.read_bytes()
    assert run("own words")["text"] == "what the model itself wrote"
    if kind == "qwen3":
        assert run("off.gguf")["speed_after"] is None


@native
def test_speeds_are_measured_turn_about(folder: Path) -> None:
    """Each step of one backend lies between steps of the other: a busy moment strikes both."""
    loaded, order = load_parts(folder), []

    class Told(NativeBackend):
        def logits(self, step: Step) -> Floats:
            order.append(self)
            return super().logits(step)

    one, two = (Told(loaded.spec, loaded.parts, cache_bytes=2**22) for _ in range(2))
    assert all(speed > 0 for speed in decoding_speeds([one, two]))
    changes = sum(before is not after for before, after in pairwise(order))
    assert order.count(one) == order.count(two)
    assert changes >= 8


@native
def test_own_words_fit_a_cache_of_one_context(folder: Path) -> None:
    loaded = load_parts(folder)
    small, large = (NativeBackend(loaded.spec, loaded.parts, cache_bytes=size) for size in (1, 2**24))
    assert own_words(small, loaded.tokenizer, 400) == own_words(large, loaded.tokenizer, 400)


def test_the_measure_is_that_of_torch(folder: Path, text: Path, tmp_path: Path) -> None:
    report = convert(folder, tmp_path / "small", to="int4", text=text, force=True)
    ids = tiny_tokenizer().encode(text.read_text())
    nats = []
    for model in (load_decoder(folder), load_decoder(tmp_path / "small")):
        windows = [ids[i : i + 64] for i in range(0, len(ids), 64)]
        with torch.inference_mode():
            logits = [model(torch.tensor([w]))[0, :-1, :268].log_softmax(-1) for w in windows]
        nats.append(torch.cat([lp[range(len(w) - 1), list(w[1:])] for lp, w in zip(logits, windows, strict=True)]))
    for wanted, found in zip(nats, (report.faithful.perplexity, report.faithful.perplexity_after), strict=True):
        assert found == pytest.approx(float((-wanted.mean()).exp()), rel=0.02)


def test_too_dear_a_format_is_refused_unless_forced(
    folder: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BOUNDS, "int4", -0.9)  # random weights may lose nothing by rounding
    harsh = {"to": "int4", "group": 128, "head": "int4", "text": text}
    with pytest.raises(WorkError, match="nothing was written: int4 changes perplexity by"):
        convert(folder, tmp_path / "small", **harsh)  # type: ignore[arg-type]
    assert not (tmp_path / "small").exists()
    convert(folder, tmp_path / "small", force=True, **harsh)  # type: ignore[arg-type]
    assert load(tmp_path / "small").write("the", max_tokens=3).answers


def test_without_a_text_the_model_is_measured_on_its_own_words(folder: Path, tmp_path: Path) -> None:
    reports = [convert(folder, tmp_path / name, to="bf16") for name in ("one", "two")]
    assert reports[0].faithful == reports[1].faithful
    assert reports[0].text == "what the model itself wrote"
    assert load_decoder(tmp_path / "one").dtype == torch.bfloat16


def test_packed_weights_go_back_to_an_ordinary_folder(folder: Path, text: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "small", to="int8", text=text)
    report = convert(tmp_path / "small", tmp_path / "back", to="f32", text=text)
    assert report.faithful.perplexity == pytest.approx(report.faithful.perplexity_after, rel=1e-6)
    first, second = load_decoder(tmp_path / "small"), load_decoder(tmp_path / "back")
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@native
def test_a_model_is_faithful_to_itself(folder: Path) -> None:
    loaded = load_parts(folder)
    one, two = (NativeBackend(loaded.spec, loaded.parts, cache_bytes=2**22) for _ in range(2))
    found = compare(one, two, np.arange(100) % 268, 268)
    assert (found.change, found.divergence, found.agreement) == (0.0, 0.0, 1.0)
    with pytest.raises(RequestError, match="fewer than two tokens"):
        compare(one, two, [1], 268)
