"""Other programs that speak OpenAI's API: litellm, LangChain, llm. `make test-clients` installs what they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

WANTED = "is not installed: make test-clients"


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the network for prices
    return pytest.importorskip("litellm", reason=f"litellm {WANTED}")


def test_litellm(litellm: Any, listening: Any) -> None:
    to = {"api_base": f"{listening.url}/v1", "api_key": "none"}
    hello = {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 6, "seed": 2, **to}
    reply = litellm.completion("openai/tiny", **hello)
    assert 0 < reply.usage.completion_tokens <= 6
    pieces = litellm.completion("openai/tiny", stream=True, **hello)
    said = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert said == (reply.choices[0].message.content or "")
    text = litellm.text_completion(model="text-completion-openai/tiny", prompt="The fox", max_tokens=4, **to)
    assert isinstance(text.choices[0].text, str)
    vectors = litellm.embedding("openai/tiny", input=["a fox", "two"], **to)
    assert len(vectors.data) == 2
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion("openai/tiny", **hello, temperature=3)


def test_llm(listening: Any, tmp_path: Path) -> None:
    if find_spec("llm") is None:
        pytest.skip(f"llm {WANTED}")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: tiny\n  model_name: tiny\n  api_base: {listening.url}/v1\n"
    )
    command = [
        sys.executable,
        "-m",
        "llm",
        "-m",
        "tiny",
        "-o",
        "max_tokens",
        "6",
        "-o",
        "seed",
        "3",
        "Once upon a time",
    ]
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}

    def said(*words: str) -> str:
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said() == said("--no-stream")
    logged = subprocess.run(
        [sys.executable, "-m", "llm", "logs", "--json"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert [entry["input_tokens"] > 0 for entry in json.loads(logged.stdout)] == [True, True]
