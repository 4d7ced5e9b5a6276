"""A response is enough to make its answers again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chatsmith
from chatsmith.cli import app
from chatsmith.errors import RequestError
from chatsmith.serve.replay import read_record, remember, remembered, replay

BODY = {"prompt": ["Once upon", "The fox"], "n": 2, "max_tokens": 20, "temperature": 1.2, "top_k": 90, "seed": 3}


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_made_again(
    application: Callable[..., Any], folder: Path, tmp_path: Path, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with application() as client:
        more = {"logit_bias": {"9": -3}, "presence_penalty": 0.5, "stream": stream}
        answer = client.post("/v1/completions", json=BODY | more)
    saved = tmp_path / "response"
    saved.write_bytes(answer.content)
    assert app.run(["replay", str(saved), "--model", str(folder)]) == 0
    assert "the same, token for token" in capfd.readouterr().err
    remember(read_record(saved).fingerprint, folder)
    assert app.run(["replay", str(saved)]) == 0


def test_a_difference_is_told(application: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    with application() as client:
        found = client.post("/v1/completions", json=BODY).json()
    made = found["replay"]["answers"]
    changed = max(range(4), key=lambda index: len(made[index]))  # any of them may end early: they are drawn
    assert made[changed]
    made[changed][-1] += 1
    expected = [len(made[changed]) - 1 if index == changed else None for index in range(4)]
    saved = tmp_path / "response.json"
    saved.write_text(json.dumps(found))
    _, answers = replay(read_record(saved), folder)
    assert [answer.differs for answer in answers] == expected
    assert app.run(["replay", str(saved), "--model", str(folder)]) == 1


def test_what_cannot_be_replayed_says_why(tmp_path: Path, folder: Path) -> None:
    saved = tmp_path / "response.json"
    for text, said in (
        ("", "no response"),
        ("{}", "no response"),
        ("[" * 100_000, "no response"),
        ('{"replay": {}}', "damaged"),
        ('{"replay": {"fingerprint": "a", "backend": "b", "requests": [{}], "answers": []}}', "damaged"),
        ('{"replay": {"fingerprint": "a", "backend": "b", "requests": [], "answers": [[1e400]]}}', "damaged"),
    ):
        saved.write_text(text)
        with pytest.raises(RequestError, match=said):
            read_record(saved)
    record = '{"replay": {"fingerprint": "0", "backend": "b", "requests": [], "answers": []}}'
    saved.write_text(record)
    with pytest.raises(RequestError, match="not known here"):
        replay(read_record(saved))
    with pytest.raises(RequestError, match="holds another model"):
        replay(read_record(saved), folder)
    assert remembered("0") is None
    assert isinstance(chatsmith.load(folder).fingerprint, str)
