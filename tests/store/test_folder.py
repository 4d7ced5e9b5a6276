"""The model folder: written whole, loaded only when every part is what it claims to be, and never half of each."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.models.decoder import Decoder
from chatsmith.specs import ModelSpec
from chatsmith.store import contents as module
from chatsmith.store.folder import load_decoder, load_model, read_provenance, save_model
from chatsmith.store.tensors import file_sha256
from chatsmith.store.weights import fingerprint
from chatsmith.text.tokenizer import Tokenizer

SPEC = ModelSpec(vocab_size=320, context=32, width=32, layers=2, heads=4)
PROVENANCE = {"recipe": {"seed": 1}, "data": {"fingerprint": "abc", "documents": 3}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level vocabulary of 5 special tokens, 256 bytes and a few merges."""
    folder = tmp_path_factory.mktemp("tokenizer")
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["the cat sat on the mat, the end"] * 3, trainer)
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )
    return Tokenizer.load(folder)


def decoder(seed: int, spec: ModelSpec = SPEC) -> Decoder:
    model = Decoder(spec)
    model.init_weights(seed)
    return model.eval()


def saved(folder: Path, tokenizer: Tokenizer, seed: int = 0, **options: object) -> Path:
    return save_model(folder, decoder(seed), tokenizer, provenance=PROVENANCE, card="# A card\n", **options)  # type: ignore[arg-type]


def test_what_was_saved_is_loaded(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = saved(tmp_path / "runs" / "one", tokenizer, generation={"temperature": 0.7})
    loaded = load_model(folder, verify="always")
    assert fingerprint(loaded.model.state_dict()) == fingerprint(decoder(0).state_dict())
    assert loaded.spec == SPEC
    assert loaded.provenance == PROVENANCE
    assert loaded.generation["temperature"] == 0.7
    assert loaded.tokenizer.encode("the cat") == tokenizer.encode("the cat")
    assert not loaded.model.training
    assert (folder / "README.md").read_text() == "# A card\n"
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_transformers_loads_model_and_tokenizer_and_stops_where_we_stop(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = saved(tmp_path, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    text = "the cat sat\n on é \U0001f600"
    assert words(text)["input_ids"] == tokenizer.encode(text)
    stops = theirs.generation_config.eos_token_id
    assert set(stops if isinstance(stops, list) else [stops]) == set(tokenizer.stop_ids)
    assert theirs.config.bos_token_id == tokenizer.end_of_text


def test_checksums_are_those_of_the_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = saved(tmp_path, tokenizer)
    files = tomllib.loads((folder / "chatsmith.toml").read_text())["files"]
    assert set(files) == {"model.safetensors", "tokenizer.json"}
    for name, entry in files.items():
        assert entry == {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}


def test_what_lies_in_a_folder_is_not_replaced_by_accident(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "README.md").write_text("my own")
    with pytest.raises(RequestError, match=r"holds a README\.md of yours"):
        saved(tmp_path, tokenizer)
    assert (tmp_path / "README.md").read_text() == "my own"


def test_a_folder_with_a_model_is_not_overwritten_by_accident(tmp_path: Path, tokenizer: Tokenizer) -> None:
    saved(tmp_path, tokenizer)
    with pytest.raises(RequestError, match="already holds a model"):
        saved(tmp_path, tokenizer, seed=1)
    assert torch.equal(load_decoder(tmp_path).embed.weight, decoder(0).embed.weight)
    saved(tmp_path, tokenizer, seed=1, overwrite=True)
    assert torch.equal(load_decoder(tmp_path).embed.weight, decoder(1).embed.weight)


def test_a_run_with_its_log_and_state_is_not_a_model_yet(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "log.jsonl").write_text("{}\n")
    saved(tmp_path, tokenizer)
    assert (tmp_path / "log.jsonl").read_text() == "{}\n"
    assert (tmp_path / "state").is_dir()


def test_shards_follow_the_model_they_belong_to(tmp_path: Path, tokenizer: Tokenizer) -> None:
    saved(tmp_path, tokenizer, shard_bytes=30_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    expected = fingerprint(decoder(0).state_dict())
    assert fingerprint(load_decoder(tmp_path, verify="always").state_dict()) == expected
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(theirs.transformer.wte.weight, decoder(0).embed.weight)
    saved(tmp_path, tokenizer, seed=1, overwrite=True)
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model.safetensors"]


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A call with n stops the process at its n-th change to the disk from there on."""
    left = 10**9

    def guard(name: str) -> None:
        real = getattr(os, name)

        def step(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*args, **options)

        monkeypatch.setattr(os, name, step)

    def set_stop(steps: int) -> None:
        nonlocal left
        left = steps

    for name in ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "chmod"):
        guard(name)
    return set_stop


@pytest.mark.parametrize("shard_bytes", [30_000, 10**9], ids=["to shards", "to one file"])
def test_killed_at_any_step_the_folder_holds_the_old_model_or_the_new(
    shard_bytes: int, tmp_path: Path, tokenizer: Tokenizer, stop: Callable[[int], None]
) -> None:
    models = {fingerprint(decoder(seed).state_dict()): seed for seed in (0, 1)}
    other = replace(SPEC, layers=3)
    models[fingerprint(decoder(1, other).state_dict())] = 1
    for steps in range(200):
        folder = tmp_path / str(steps)
        stop(10**9)
        saved(folder, tokenizer, shard_bytes=10**9 if shard_bytes < 10**9 else 30_000)
        stop(steps)
        try:
            save_model(folder, decoder(1, other), tokenizer, provenance={}, overwrite=True, shard_bytes=shard_bytes)
            finished = True
        except Killed:
            finished = False
        stop(10**9)
        loaded = load_model(folder, verify="always")
        seed = models[fingerprint(loaded.model.state_dict())]
        assert loaded.provenance == (PROVENANCE if seed == 0 else {})
        if finished:
            assert seed == 1
            assert steps > 15
            return
    raise AssertionError("the save never got through")


def test_a_full_disk_leaves_the_model_that_was_there(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, tokenizer)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="the disk is full"):
        saved(tmp_path, tokenizer, seed=1, overwrite=True)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert torch.equal(load_decoder(tmp_path, verify="always").embed.weight, decoder(0).embed.weight)


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "chatsmith.toml").unlink()


def flip_last_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


C_ATTN = "transformer.h.1.attn.c_attn.weight"
TWO_HEADS = {"lm_head.weight": torch.zeros(320, 32)}
BROKEN: dict[str, tuple[Callable[[Path], object], type[ChatsmithError], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), RequestError, "no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), RequestError, "no model.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), RequestError, "tokenizer.json is missing"),
    "cut short": (lambda f: os.truncate(f / "model.safetensors", 5000), WorkError, "cut short"),
    "one bit": (flip_last_byte, WorkError, "its checksum differs"),
    "other sizes": (lambda f: edit_config(f, n_embd=64), WorkError, "has shape"),
    "more layers": (lambda f: edit_config(f, n_layer=3), WorkError, "transformer.h.2.ln_1.weight is missing"),
    "fewer layers": (lambda f: edit_config(f, n_layer=1), WorkError, "unexpected tensor transformer.h.1"),
    "unknown type": (lambda f: edit_config(f, model_type="gpt3"), RequestError, "no model of type 'gpt3'"),
    "small vocabulary": (lambda f: edit_config(f, vocab_size=99), WorkError, "has shape [320, 32]"),
    "missing tensor": (lambda f: edit_weights(f, lambda t: t.pop(C_ATTN)), WorkError, f"{C_ATTN} is missing"),
    "whole numbers": (lambda f: edit_weights(f, lambda t: t.update({C_ATTN: t[C_ATTN].int()})), WorkError, "as I32"),
    "another head": (lambda f: edit_weights(f, lambda t: t.update(TWO_HEADS)), WorkError, "ties the output head"),
    "bad toml": (lambda f: (f / "chatsmith.toml").write_text("[files"), RequestError, "not valid TOML"),
    "file list leads out": (
        lambda f: (f / "chatsmith.toml").write_text('[files."../x"]\nbytes = 1\n'), RequestError, "not a file of this"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "kind", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_damaged_folder_gets_one_clear_line(
    damage: Callable[[Path], object],
    kind: type[ChatsmithError],
    words: str,
    tmp_path: Path,
    tokenizer: Tokenizer,
) -> None:
    saved(tmp_path, tokenizer)
    damage(tmp_path)
    with pytest.raises(kind) as caught:
        load_model(tmp_path)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_published_folder_without_our_files_loads(tmp_path: Path, tokenizer: Tokenizer) -> None:
    saved(tmp_path, tokenizer)
    for name in ("chatsmith.toml", "generation_config.json", "README.md"):
        (tmp_path / name).unlink()
    loaded = load_model(tmp_path)
    assert loaded.provenance == {}
    assert read_provenance(tmp_path) == {}
    assert loaded.generation["bos_token_id"] == tokenizer.end_of_text


def test_stored_constants_and_a_repeated_head_are_passed_over(tmp_path: Path, tokenizer: Tokenizer) -> None:
    saved(tmp_path, tokenizer)

    def as_published_long_ago(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        for layer in range(2):
            tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32)
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)

    edit_weights(tmp_path, as_published_long_ago)
    assert fingerprint(load_decoder(tmp_path).state_dict()) == fingerprint(decoder(0).state_dict())


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    small = decoder(0, replace(SPEC, vocab_size=100))
    with pytest.raises(RequestError, match="ids, the model knows 100"):
        save_model(tmp_path, small, tokenizer, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_large_weights_are_hashed_only_when_asked(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, tokenizer)
    flip_last_byte(tmp_path)
    monkeypatch.setattr(module, "AUTO_VERIFY_BYTES", 1000)
    load_model(tmp_path)
    with pytest.raises(WorkError, match="checksum"):
        load_model(tmp_path, verify="always")


def test_not_a_folder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="is a file, not a folder"):
        saved(tmp_path / "file", tokenizer)
    with pytest.raises(RequestError, match="there is no folder"):
        load_model(tmp_path / "nowhere")


MEASURE = """
import resource, sys
from pathlib import Path
import torch
from chatsmith.store.folder import load_decoder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load_decoder(Path(sys.argv[1]), verify="never")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert sum(p.numel() for p in model.parameters()) == 20_000_000 * 2 + 20_000
"""


def test_weights_take_memory_only_when_touched(tmp_path: Path) -> None:
    """160 MB of weights load in far less memory: they are mapped, not read."""
    spec = ModelSpec(
        vocab_size=20_000, context=8, width=1000, layers=1, heads=1, ffn_width=1, norm="rms", activation="swiglu",
        positions="rotary", attention_bias=False, ffn_bias=False, tied=False,
    )  # fmt: skip
    model = Decoder(spec)
    for parameter in model.parameters():
        parameter.data.zero_()
    save_model(tmp_path, model, None, provenance={})
    run = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("20_000_000 * 2 + 20_000", str(spec.parameters)), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(run.stdout) < 60_000  # KiB
