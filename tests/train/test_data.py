"""From sources to tokens: what does not fit is said in one line, and what exists is used again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError, WorkError
from chatsmith.text.documents import Document
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.data import prepare, world_tokens
from chatsmith.train.recipe import Recipe, Record
from chatsmith.train.run import train

from .conftest import TinyRecipe, chain_text


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A folder of text files."""
    folder = tmp_path / "letters"
    folder.mkdir()
    for number in range(12):
        words = (chain_text(6, 40 * number + word) for word in range(60))
        (folder / f"{number}.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


def kept(folder: Path) -> dict[str, Any]:
    """A source whose documents all count: words of eight letters are near-duplicates of each other."""
    return {"path": str(folder), "duplicates": "keep"}


def over(tiny: TinyRecipe, *sources: dict[str, Any], **data: Any) -> Recipe:
    """The tiny recipe over other sources."""
    return tiny(data={"sources": list(sources), **data})


def test_documents_become_a_vocabulary_and_tokens(tiny: TinyRecipe, tmp_path: Path, letters: Path) -> None:
    notes: list[str] = []
    recipe = over(tiny, kept(letters), vocab_size=300, held_out=0.1)
    corpus = prepare(recipe, tmp_path / "out", note=notes.append)
    assert 261 < corpus.tokenizer.vocab_size <= 300
    assert corpus.folders[0].manifest.documents == corpus.reports[0].documents == 12
    assert corpus.folders[0].splits == ("train", "held_out")
    assert [note.split()[0] for note in notes] == ["learning", "reading"]
    again = prepare(recipe, tmp_path / "out", reuse=True, note=notes.append)
    assert again.fingerprints == corpus.fingerprints
    assert len(notes) == 2
    other = replace(recipe, data=replace(recipe.data, held_out=0.3))
    assert prepare(other, tmp_path / "out", reuse=True).fingerprints != corpus.fingerprints


def test_the_world_gives_what_the_run_needs(tiny: TinyRecipe, tmp_path: Path) -> None:
    recipe = over(tiny, {"path": "world", "part": "chat", "tokens": 20_000}, vocab_size=400, held_out=0.05)
    corpus = prepare(recipe, tmp_path / "out")
    assert corpus.folders[0].manifest.tokens == pytest.approx(20_000, rel=0.15)
    assert corpus.folders[0].split("train").has_loss
    long = tiny(data={"sources": [{"path": "world"}], "vocab_size": 400}, schedule={"tokens": 3_000_000})
    assert world_tokens(long, 0) == 3_000_000
    endless = tiny(data={"sources": [{"path": "world"}], "vocab_size": 400}, schedule={"tokens": 10**12})
    assert world_tokens(endless, 0) == 50_000_000


def test_a_folder_of_tokens_keeps_its_vocabulary(
    tiny: TinyRecipe, tmp_path: Path, chain: TokenFolder, letters: Path, bytes_vocabulary: Tokenizer
) -> None:
    tokens = {"path": str(chain.folder)}
    both = over(tiny, tokens, kept(letters))
    corpus = prepare(both, tmp_path / "out")
    assert corpus.tokenizer.fingerprint == bytes_vocabulary.fingerprint
    assert [folder.manifest.tokenizer for folder in corpus.folders] == [bytes_vocabulary.fingerprint] * 2
    with pytest.raises(RequestError, match="whose vocabulary exists already"):
        prepare(over(tiny, tokens, vocab_size=300), tmp_path / "out")
    prepare(over(tiny, kept(letters), vocab_size=300), tmp_path / "other")
    with pytest.raises(RequestError, match="written with another vocabulary"):
        prepare(over(tiny, tokens, tokenizer=str(tmp_path / "other" / "tokens")), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no document found"),
        ({"a.txt": b""}, "no document found"),
        ({"a.txt": b"x"}, "no document found"),
        ({"a.bin": bytes(range(256))}, "no document found"),
        ({"a.txt": b"too short for a window"}, "too few for one window"),
    ],
)
def test_sources_without_text(tiny: TinyRecipe, tmp_path: Path, content: dict[str, bytes], message: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    with pytest.raises(RequestError, match=message):
        train(over(tiny, {"path": str(folder)}, vocab_size=261), tmp_path / "out")


def test_what_is_missing_is_named(tiny: TinyRecipe, tmp_path: Path, letters: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        train(over(tiny, {"path": str(tmp_path / "nowhere")}, vocab_size=261), tmp_path / "out")
    with pytest.raises(RequestError, match="names no vocabulary") as caught:
        train(over(tiny, kept(letters)), tmp_path / "other")
    assert "data.vocab_size" in (caught.value.hint or "")
    missing = replace(tiny(), model={"start_from": str(tmp_path / "nothing")})
    with pytest.raises(RequestError, match="nothing"):
        train(missing, tmp_path / "third")


def test_a_request_put_right_finds_its_folder_free(tiny: TinyRecipe, tmp_path: Path, letters: Path) -> None:
    with pytest.raises(RequestError, match="names no vocabulary"):
        train(over(tiny, kept(letters)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert train(over(tiny, kept(letters), vocab_size=261), tmp_path / "out").steps > 0


def test_a_recorded_run_is_repeated_on_the_same_text_or_not_at_all(
    tiny: TinyRecipe, tmp_path: Path, letters: Path
) -> None:
    recipe = over(tiny, kept(letters), vocab_size=261, held_out=0.1)
    corpus = prepare(recipe, tmp_path / "out")
    recorded = replace(recipe, record=Record({}, corpus.tokenizer.fingerprint, corpus.fingerprints))
    prepare(recorded, tmp_path / "again")
    (letters / "3.txt").write_text("something else", encoding="utf-8")
    with pytest.raises(RequestError, match="is not what this recipe was run with") as caught:
        prepare(recorded, tmp_path / "changed")
    assert "[record]" in (caught.value.hint or "")


def test_a_resumed_run_keeps_its_tokens(tiny: TinyRecipe, tmp_path: Path, letters: Path) -> None:
    """Documents that change between the two halves of a run do not change what it trains on."""
    recipe = over(tiny, kept(letters), vocab_size=261, held_out=0.1)
    train(recipe, tmp_path / "out")
    prepared = json.loads((tmp_path / "out" / "tokens" / "prepared.json").read_text())
    assert prepared["seed"] == recipe.seed
    (letters / "3.txt").write_text("something else", encoding="utf-8")
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=30))
    assert train(longer, tmp_path / "out", resume=True).steps == 30


def test_a_run_resumed_away_from_its_folder_of_tokens_keeps_what_it_has(
    tiny: TinyRecipe, tmp_path: Path, chain: TokenFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path in a recipe is that of the folder in which the run was begun: nothing of the run is to be removed."""
    monkeypatch.chdir(chain.folder.parent)
    recipe = over(tiny, {"path": chain.folder.name})
    train(recipe, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="does not exist, and the run in") as caught:
        train(None, tmp_path / "out", resume=True)
    assert "remove" not in (caught.value.hint or "")
    monkeypatch.chdir(chain.folder.parent)
    assert train(None, tmp_path / "out", resume=True).steps


def damage(path: Path) -> None:
    """Other contents of the same size."""
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("name", ["train-00000.tokens", "train.document_ends", "token_bytes"])
def test_damaged_tokens_are_noticed_and_what_helps_is_said(
    tiny: TinyRecipe, tmp_path: Path, letters: Path, name: str
) -> None:
    out = tmp_path / "out"
    recipe = over(tiny, kept(letters), vocab_size=261, held_out=0.1)
    train(recipe, out)
    damage(out / "tokens" / "0" / name)
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=30))
    with pytest.raises(WorkError, match=f"tokens/0/{name} is damaged") as caught:
        train(longer, out, resume=True)
    assert caught.value.hint is not None
    assert f"remove {out}/tokens" in caught.value.hint
    assert f"chatsmith train --resume {out}" in caught.value.hint
    shutil.rmtree(out / "tokens")
    assert train(longer, out, resume=True).steps == 30


def test_a_damaged_folder_of_tokens_is_not_begun_with(
    tiny: TinyRecipe, tmp_path: Path, bytes_vocabulary: Tokenizer
) -> None:
    folder = tmp_path / "tokens"
    write_shards([Document(chain_text(500, seed)) for seed in range(8)], bytes_vocabulary, folder, held_out=0)
    bytes_vocabulary.save(tmp_path)
    (folder / "train-00000.tokens").write_bytes(bytes((folder / "train-00000.tokens").stat().st_size))
    with pytest.raises(WorkError, match=r"train-00000\.tokens is damaged"):
        train(over(tiny, {"path": str(folder)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_checking_costs_is_bounded(
    tiny: TinyRecipe, tmp_path: Path, letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest files first; of the rest the sizes, and that is said."""
    notes: list[str] = []
    recipe = over(tiny, kept(letters), vocab_size=261, held_out=0.1)
    folder = prepare(recipe, tmp_path / "out", note=notes.append).folders[0]
    largest = max(folder.manifest.files.values(), key=lambda record: record.size)
    total = sum(record.size for record in folder.manifest.files.values())
    monkeypatch.setattr("chatsmith.train.data.MOST_VERIFIED", total - 1)
    damage(folder.folder / "train-00000.tokens")
    prepare(recipe, tmp_path / "out", reuse=True, note=notes.append)
    assert notes[-1].startswith("the contents of")
    assert "only the sizes" in notes[-1]
    assert folder.check_sums(total - 1) == total - largest.size
    damage(folder.folder / "train.document_ends")
    with pytest.raises(WorkError, match="document_ends"):
        prepare(recipe, tmp_path / "out", reuse=True)


def test_a_vocabulary_of_another_run_is_noticed(tiny: TinyRecipe, tmp_path: Path, letters: Path) -> None:
    recipe = over(tiny, kept(letters), vocab_size=300, held_out=0.1)
    prepare(recipe, tmp_path / "out")
    prepare(replace(recipe, data=replace(recipe.data, vocab_size=261)), tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "other" / "tokens" / name, tmp_path / "out" / "tokens" / name)
    with pytest.raises(WorkError, match="with another vocabulary"):
        prepare(recipe, tmp_path / "out", reuse=True)


def test_tokens_stay_until_others_are_whole(tiny: TinyRecipe, tmp_path: Path, letters: Path) -> None:
    recipe = over(tiny, kept(letters), vocab_size=261, held_out=0.1)
    before = prepare(recipe, tmp_path / "out").fingerprints
    other = over(tiny, kept(tmp_path / "nowhere"), vocab_size=261, held_out=0.1)
    with pytest.raises(RequestError, match="does not exist"):
        prepare(other, tmp_path / "out", reuse=True)
    assert prepare(recipe, tmp_path / "out", reuse=True).fingerprints == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tokens"]


def test_a_run_inside_the_folder_it_reads_does_not_read_itself(tiny: TinyRecipe, letters: Path, tmp_path: Path) -> None:
    recipe = over(tiny, kept(letters), vocab_size=300, held_out=0.1)
    outside = prepare(recipe, tmp_path / "out")
    inside = prepare(recipe, letters / "out")
    assert inside.fingerprints == outside.fingerprints
    assert inside.tokenizer.fingerprint == outside.tokenizer.fingerprint
