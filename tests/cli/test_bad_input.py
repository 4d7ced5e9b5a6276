"""What bad input gets: one line that says what is wrong, a hint, exit 1 or 2, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Damage = Callable[[Path], None]


def check(ran: Any, codes: tuple[int, ...] = (1, 2)) -> None:
    assert ran.code in codes, ran.err
    assert "Traceback" not in ran.err
    assert "fault in chatsmith" not in ran.err
    error = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, ran.err
    after = ran.err.splitlines()[ran.err.splitlines().index(error[0]) + 1 :]
    assert len(after) <= 1, "the hint is one line"


DOCUMENTS: dict[str, bytes | None] = {
    "an empty folder": None,
    "an empty file": b"",
    "a binary file that is called text": bytes(range(256)) * 64,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a gzip file cut short": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b",
    "a single byte": b"x",
    "text in another encoding": "naïve café, ".encode("latin-1") * 50,
    "a zip archive cut short": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("command", ["read", "new"])
def test_documents_without_text(run: Callable[..., Any], tmp_path: Path, kind: str, command: str) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    content = DOCUMENTS[kind]
    if content is not None:
        names = {"a picture": "a.png", "a gzip file cut short": "a.txt.gz", "a zip archive cut short": "a.zip"}
        (folder / names.get(kind, "a.txt")).write_bytes(content)
    arguments = ["--minutes", 1, "--out", tmp_path / "out"] if command == "new" else []
    check(run(command, folder, *arguments), (2,))
    assert [path.name for path in tmp_path.iterdir()] == ["documents"], "nothing is left behind"


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(
    run: Callable[..., Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny_model / "log.jsonl").write_text('{"step": 1, "loss": 2.0, "progress": 1.0, "tokens": 1, "seconds": 1.0}\n')
    opened = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".tmp"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    ran = run("plot", tiny_model, "--out", tmp_path / "curve.svg")
    check(ran, (1,))
    assert f": {tmp_path / 'curve.svg'}\n" in ran.err
    assert "another place" in ran.err


def test_an_output_folder_that_holds_a_model_is_left_as_it_is(
    run: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("Some words to train on. " * 200)
    before = {path.name: path.read_bytes() for path in tiny_model.iterdir() if path.is_file()}
    ran = run("new", tmp_path / "a.txt", "--minutes", 1, "--out", tiny_model)
    check(ran, (2,))
    assert "already holds" in ran.err
    assert {path.name: path.read_bytes() for path in tiny_model.iterdir() if path.is_file()} == before


def test_a_folder_that_may_not_be_read(run: Callable[..., Any], tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    check(run("read", closed), (2,))


def test_an_output_folder_that_cannot_be_made(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some words to train on, and some more of them. " * 200)
    (tmp_path / "file").write_text("in the way")
    check(run("new", tmp_path / "a.txt", "--minutes", 1, "--out", tmp_path / "file" / "model"))


def _cut(name: str) -> Damage:
    def cut(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def _remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def _header_that_lies(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def _other_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(bytes(content))


def _change_config(**values: Any) -> Damage:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


DAMAGE: dict[str, Damage] = {
    "no config": _remove("config.json"),
    "half a config": _cut("config.json"),
    "no weights": _remove("model.safetensors"),
    "half the weights": _cut("model.safetensors"),
    "a header that lies about its size": _header_that_lies,
    "weights with another checksum": _other_weights,
    "no tokenizer": _remove("tokenizer.json"),
    "half a tokenizer": _cut("tokenizer.json"),
    "an unknown architecture": _change_config(model_type="mamba", architectures=["MambaForCausalLM"]),
    "heads that do not divide": _change_config(num_attention_heads=3),
    "a width beyond reason": _change_config(hidden_size=2**40),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_model_folder(run: Callable[..., Any], tiny_model: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    DAMAGE[kind](folder)
    check(run("write", folder, "Once", "--max-tokens", 2))


@pytest.mark.parametrize("text", ["", "[data\n", "seed = 'x'\n", "\x00\x01", "[data]\nsources = 3\n"])
def test_a_recipe_that_is_none(run: Callable[..., Any], tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    check(run("train", path), (2,))


def test_resuming_what_was_never_begun(run: Callable[..., Any], tmp_path: Path) -> None:
    check(run("train", "--resume", tmp_path), (2,))


@pytest.mark.parametrize("command", ["chat", "write", "next", "skills", "plot"])
def test_a_model_that_is_not_there(run: Callable[..., Any], tmp_path: Path, command: str) -> None:
    more = ["Once"] if command in ("write", "next") else []
    check(run(command, tmp_path / "nothing", *more), (2,))


def test_a_text_longer_than_the_context(run: Callable[..., Any], tiny_model: Path) -> None:
    ran = run("write", tiny_model, "zebra quartz " * 200, "--max-tokens", 2)
    check(ran, (2,))
    assert "context" in ran.err
    assert not ran.out, "the text is not repeated before the error"
