"""A model in fewer bits: what is reported is what was measured, and what costs too much is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from chatsmith.convert import BOUNDS, convert
from chatsmith.errors import RequestError, WorkError
from chatsmith.evaluate.faithful import compare
from chatsmith.generate.native import NativeBackend
from chatsmith.kernels.infer import build
from chatsmith.language_model import load
from chatsmith.store.folder import load_decoder, save_model
from chatsmith.store.parts import load_parts

sys.path.insert(0, str(Path(__file__).parent))
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no kernels of generation here: {build.status()}")


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


def test_a_model_is_faithful_to_itself(folder: Path) -> None:
    loaded = load_parts(folder)
    one, two = (NativeBackend(loaded.spec, loaded.parts, cache_bytes=2**22) for _ in range(2))
    found = compare(one, two, np.arange(100) % 268, 268)
    assert (found.change, found.divergence, found.agreement) == (0.0, 0.0, 1.0)
    with pytest.raises(RequestError, match="fewer than two tokens"):
        compare(one, two, [1], 268)


def test_a_text_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read .*nowhere\.txt"):
        convert(folder, tmp_path / "small", to="int8", text=tmp_path / "nowhere.txt")
