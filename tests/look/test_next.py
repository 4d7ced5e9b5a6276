"""The table of next tokens shows the engine's own numbers, in the terminal, in HTML and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from chatsmith.errors import RequestError
from chatsmith.generate.engine import Engine
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.look.next import describe, next_tokens
from tiny import tiny_engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


def probabilities(engine: Engine, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return torch.softmax(engine.backend.model(torch.tensor([ids]))[0, -1, :268].double(), -1).numpy()


def test_the_table_is_the_models_distribution(engine: Engine) -> None:
    report = next_tokens(engine, "the sea", begin=(0,), sampling=Sampling(temperature=0.5, top_k=4, seed=3), top=8)
    before = probabilities(engine, [0, *engine.tokenizer.encode("the sea")])
    after = np.where(before >= np.sort(before)[-4], before**2, 0)
    after /= after.sum()
    order = np.argsort(-before)[:8]
    assert [row.id for row in report.tokens] == order.tolist()
    assert [row.before for row in report.tokens] == pytest.approx(before[order].tolist(), rel=1e-4)
    assert [row.after for row in report.tokens] == pytest.approx(after[order].tolist(), rel=1e-4)
    assert [row.bits for row in report.tokens] == pytest.approx((-np.log2(before[order])).tolist(), rel=1e-4)
    assert report.tokens[-1].cumulative == pytest.approx(before[order].sum(), rel=1e-4)
    assert report.entropy == pytest.approx(-(before * np.log2(before)).sum(), rel=1e-4)
    assert report.steps[0].kept == 4


def test_the_drawn_token_is_what_the_engine_writes_with_this_seed(engine: Engine) -> None:
    for seed in range(10):
        sampling = Sampling(temperature=1.5, seed=seed, max_tokens=1)
        [done] = engine.complete([Request(tuple(engine.tokenizer.encode("the sea")), sampling)])
        assert next_tokens(engine, "the sea", sampling=sampling).steps[0].drawn.id == done.ids[0]


def test_steps_follow_the_top_choice_as_greedy_writing_does(engine: Engine) -> None:
    report = next_tokens(engine, "in the", sampling=Sampling(temperature=2.0, seed=1), steps=6)
    ids = engine.tokenizer.encode("in the")
    [greedy] = engine.complete([Request(tuple(ids), Sampling(temperature=0, max_tokens=6))])
    assert tuple(step.top.id for step in report.steps) == greedy.ids
    assert report.texts == ["in the" + engine.tokenizer.decode(greedy.ids[:count]) for count in range(6)]


def test_steps_end_with_the_text_and_with_the_context(engine: Engine) -> None:
    full = next_tokens(engine, "x" * 60, steps=50)
    assert len(full.steps) == 4
    ending = tiny_engine()
    with torch.no_grad():
        ending.backend.model.head.weight.zero_()
    assert len(next_tokens(ending, "x", steps=50).steps) == 1  # all equal: the lowest id leads, which ends texts


def test_terminal_html_and_json(engine: Engine) -> None:
    hostile = "<script>alert('1')</script>\x1b[31m & the"
    report = next_tokens(engine, hostile, sampling=Sampling(top_p=0.5, seed=1), steps=2, top=5)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report)
    assert "<script>" in capture.get()
    assert "probability" in capture.get()
    assert "…" not in capture.get()
    html = report._repr_html_()
    assert "<script>" not in html
    assert "\x1b" not in html + str(report)
    assert "&lt;script&gt;" in html
    mapping = json.loads(json.dumps(report.to_mapping(), allow_nan=False))
    assert [len(step["tokens"]) for step in mapping["steps"]] == [5, 5]
    removed = [row for row in mapping["steps"][0]["tokens"] if row["after"] == 0]
    assert all(row["bits_after"] is None for row in removed)
    assert mapping["sampling"]["top_p"] == 0.5
    assert "(1 token possible)" in str(next_tokens(engine, "x", sampling=Sampling(temperature=0)))


@pytest.mark.parametrize(("bad", "said"), [({"top": 0}, "top must be"), ({"steps": 0}, "steps must be")])
def test_bad_requests(engine: Engine, bad: dict[str, int], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        next_tokens(engine, "x", **bad)  # type: ignore[arg-type]


def test_settings_in_words() -> None:
    assert describe(Sampling()) == "temperature 0.8"
    everything = Sampling(temperature=1, top_k=40, top_p=0.9, min_p=0.1, repetition_penalty=1.2)
    assert describe(everything) == "repetition penalty 1.2, temperature 1, top-k 40, top-p 0.9, min-p 0.1"
    assert describe(everything, short=True) == "all stages"
