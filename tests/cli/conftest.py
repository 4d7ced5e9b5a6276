"""The command line as a person meets it: run in this process when quick, in one of its own for what only that shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from chatsmith.cli import app, console
from patience import PATIENCE


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line in this process."""

    def call(*arguments: str | Path) -> Ran:
        console.out.cache_clear()
        console.err.cache_clear()
        capfd.readouterr()
        code = app.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that knows nothing: random weights, a vocabulary of its own, a chat template."""
    import torch

    from chatsmith.models.decoder import Decoder
    from chatsmith.specs import modern
    from chatsmith.store.folder import save_model
    from chatsmith.text.bpe import train_tokenizer

    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["Once upon a time there was a fox. The fox said hello. " * 20], 300)
    model = Decoder(modern(320, 128, 32, 1, 2))
    model.init_weights(1)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_model(folder, model, tokenizer, provenance={}, generation={"max_new_tokens": 12})


@pytest.fixture
def process() -> Callable[..., Ran]:
    """Run a command line in a process of its own, without a terminal and with nothing on stdin."""

    def call(*arguments: str | Path, cwd: Path | None = None, timeout: float = PATIENCE, **variables: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "chatsmith", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return call
