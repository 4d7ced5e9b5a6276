"""A model of random weights, the application around it in this process, and a server in a process of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from starlette.testclient import TestClient

import chatsmith
from chatsmith.serve.app import create_app
from patience import PATIENCE

CONTEXT = 512


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that talks: random weights, a vocabulary of its own, a chat template."""
    import torch

    from chatsmith.models.decoder import Decoder
    from chatsmith.specs import modern
    from chatsmith.store.folder import save_model
    from chatsmith.text.bpe import train_tokenizer

    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["Once upon a time there was a fox. The fox said hello. " * 20], 300)
    model = Decoder(modern(320, CONTEXT, 32, 1, 2))
    model.init_weights(1)
    return save_model(tmp_path_factory.mktemp("models") / "tiny", model, tokenizer, provenance={}, generation={})


@pytest.fixture(scope="session")
def model(folder: Path) -> chatsmith.LanguageModel:
    """The model of that folder."""
    return chatsmith.load(folder, device="cpu")


@pytest.fixture
def application(model: chatsmith.LanguageModel, folder: Path) -> Callable[..., Any]:
    """Makes an application and a client of it."""

    @contextmanager
    def make(**settings: Any) -> Iterator[TestClient]:
        app = create_app(model, folder=folder, **settings)
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            yield client

    return make


@pytest.fixture
def client(application: Callable[..., Any]) -> Iterator[TestClient]:
    """A client of an application with default settings."""
    with application() as made:
        yield made


@dataclass(frozen=True, slots=True)
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def own_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and the like of a test are its own."""
    monkeypatch.setenv("CHATSMITH_DATA", str(tmp_path_factory.mktemp("data")))


@contextmanager
def serving(folder: Path) -> Iterator[Callable[..., Running]]:
    """Starts `chatsmith serve` with some words, and waits until it listens; ended when the block is."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> Running:
        command = [sys.executable, "-m", "chatsmith", "serve", str(folder), "--port", "0", *words]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
        started.append(process)
        assert process.stderr is not None
        end = time.monotonic() + PATIENCE
        said = ""
        while time.monotonic() < end:
            if select.select([process.stderr], [], [], 1)[0]:
                said += process.stderr.readline()
                if found := re.search(r"http://[^:]+:(\d+)/", said):
                    return Running(process, int(found[1]))
                assert process.poll() is None, said
        raise AssertionError(f"no server within {PATIENCE:.0f} seconds: {said}")

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait(30)
            if process.stderr is not None:
                process.stderr.close()


@pytest.fixture
def server(folder: Path) -> Iterator[Callable[..., Running]]:
    """Start `chatsmith serve` with these words and wait until it listens; ended when the test is."""
    with serving(folder) as start:
        yield start


@pytest.fixture(scope="module")
def listening(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with default limits, for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch, serving(folder) as start:
        patch.setenv("CHATSMITH_DATA", str(tmp_path_factory.mktemp("data")))
        yield start()
