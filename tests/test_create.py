"""The whole path: documents go in, a model that talks comes out, in the minutes given."""

from __future__ import annotations

import json
import time
import tomllib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from chatsmith import create
from chatsmith.errors import RequestError
from chatsmith.evaluate import compressors
from chatsmith.evaluate.compressors import Compressors
from chatsmith.language_model import load
from chatsmith.new_report import NewReport
from chatsmith.plan.budget import Choice
from chatsmith.serve.card import _trained
from chatsmith.specs import ModelSpec, modern
from chatsmith.store.folder import load_decoder
from chatsmith.text import world
from chatsmith.text.shards import TokenFolder
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.callbacks import Callback
from chatsmith.train.recipe import Data, Recipe, Schedule, Source, load_recipe


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    texts = [document.text for document in islice(world.documents(5, stage="text"), 900)]
    for number in range(30):
        (folder / f"{number}.txt").write_text("\n\n".join(texts[number::30]), encoding="utf-8")
    (folder / "again.txt").write_bytes((folder / "3.txt").read_bytes())
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\x00")
    return folder


@pytest.fixture(scope="module")
def made(notes: Path, tmp_path_factory: pytest.TempPathFactory) -> NewReport:
    out = tmp_path_factory.mktemp("made") / "model"
    return create.new([notes], minutes=0.25, out=out, seed=3)


def test_reading_is_reported(made: NewReport) -> None:
    (read,) = made.read
    assert read.documents == 30
    assert read.exact_duplicates == 1
    assert read.skipped[0].source.endswith("photo.jpg")


def test_the_model_talks_writes_and_foresees(made: NewReport) -> None:
    model = load(made.folder)
    assert model.chat("Hello!", max_tokens=5, seed=1).text is not None
    assert len(model.write("The", samples=2, max_tokens=5, seed=1).texts) == 2
    assert made.bits_per_byte is not None
    assert made.bits_per_byte < 6.0  # it learned something: bytes drawn evenly cost 8


def test_the_report_says_what_to_expect(made: NewReport) -> None:
    assert "babbles" in made.expectation()
    assert "gzip" in made.expectation()
    assert made.xz is not None
    assert 0.5 < made.xz < 8
    json.dumps(made.to_mapping())
    assert "held-out text" in str(made)
    assert f"{made.parameters:,} parameters" in repr(made)
    assert len(repr(made)) < 250 + len(str(made.folder))


def test_too_little_text_is_not_given_to_compressors(
    made: NewReport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of 80 bytes xz makes more than it was given: that says nothing of a model."""
    tokens, tokenizer = made.folder / "tokens", Tokenizer.load(made.folder)
    compare = Compressors(TokenFolder.open(tokens / "0"), tokenizer)
    decoder = load_decoder(made.folder)
    whole = compare(decoder)
    assert whole is not None
    assert whole.gzip_bits_per_byte is not None
    monkeypatch.setattr(compressors, "_MOST_BYTES", 80)
    part = compare(decoder)
    assert part == replace(whole, gzip_bits_per_byte=None, xz_bits_per_byte=None)
    assert "too little for a fair comparison" in replace(made, gzip=None, xz=None).expectation()


def test_what_compressors_need_is_on_the_card(made: NewReport) -> None:
    """In chatsmith.toml, in README.md and on the page, beside what the model needs for that text."""
    provenance = tomllib.loads((made.folder / "chatsmith.toml").read_text())
    told = {"bits_per_byte": made.bits_per_byte, "gzip_bits_per_byte": made.gzip, "xz_bits_per_byte": made.xz}
    assert provenance["run"]["compared"] == told
    shown = _trained(provenance)
    assert {name: shown[name] for name in told} == told
    card = (made.folder / "README.md").read_text()
    assert f"| the same text by gzip | {made.gzip:.3f} bits per byte |" in card
    assert f"| held-out bits per byte of the first source alone | {made.bits_per_byte:.3f} |" in card


def test_the_run_is_written_down_so_that_it_can_be_repeated(made: NewReport) -> None:
    recipe = load_recipe(made.folder / "chatsmith.toml")
    assert recipe.seed == 3
    assert recipe.parallel.not_finite == "skip"  # nobody watches it
    assert recipe.schedule.replans
    assert recipe.record.tokenizer
    assert recipe.data.stages[-1].until == 1.0


def test_time_is_kept(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training is given is what is left of the budget after reading, by a clock of the test's own."""
    given = []

    def train(recipe: object, *_: object, **__: object) -> object:
        given.append(recipe.schedule.minutes * 60)  # type: ignore[attr-defined]
        raise RequestError("far enough")

    monkeypatch.setattr(create, "train", train)
    began = time.perf_counter()
    with pytest.raises(RequestError, match="far enough"):
        create.new([notes], minutes=10, out=tmp_path / "model")
    spent = time.perf_counter() - began
    assert 600 - spent - 20 < given[0] < 600


@pytest.mark.parametrize(("heads", "begun"), [(2, 1), (3, 2), (4, 2)])
def test_the_built_in_model_begins_with_heads_that_look_back(notes: Path, heads: int, begun: int) -> None:
    """And leaves a head of each layer to begin as it likes; a person's documents do without."""
    choice = Choice(modern(512, 64, 32 * heads, 2, heads), 4, 1e6, 0.0, 1e-3, 1e-2)
    data = Data((Source(str(notes)),), vocab_size=512)
    recipe = Recipe(data, Schedule(minutes=1), model={"preset": "modern", "width": 64, "layers": 2, "heads": 2})
    assert create._with_choice(recipe, choice, 1.0, built_in=True).induction_heads == begun
    assert create._with_choice(recipe, choice, 1.0, built_in=False).induction_heads == 0


@pytest.mark.parametrize(("fastest", "asked"), [(1, 1), (2, 0)])
def test_fewer_threads_are_written_into_the_recipe(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: int, asked: int
) -> None:
    """Only where they are faster: a recipe that asks for none has all cores."""
    given = []

    class Speed:
        cores = 2

        def __call__(self, spec: ModelSpec) -> float:
            return 1e4

        def threads(self, spec: ModelSpec) -> int:
            return fastest

    def train(recipe: Recipe, *_: object, **__: object) -> object:
        given.append(recipe.threads)
        raise RequestError("far enough")

    class Notes(Callback):
        def on_note(self, text: str) -> None:
            given.append("1 of 2 threads" in text)

    monkeypatch.setattr(create, "train", train)
    monkeypatch.setattr(create, "TrainingSpeed", Speed)
    with pytest.raises(RequestError, match="far enough"):
        create.new([notes], minutes=1, out=tmp_path / "model", callbacks=[Notes()])
    assert given[-1] == asked
    assert sum(given[:-1]) == asked


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"paths": 123}, "paths must be a list of files and folders, not 123"),
        ({"paths": "notes/"}, "paths must be a list of files and folders, not 'notes/'"),
        ({"paths": [5]}, "each of paths must be a path, not 5"),
        ({"out": None}, "out must be a path, not None"),
        ({"seed": "a"}, "seed must be a whole number, not 'a'"),
        ({"minutes": "5"}, "minutes must be a number, not '5'"),
        ({"vocab_size": 99_999_999}, "vocab_size must be from 261 to 1048576, not 99999999"),
        ({"vocab_size": -5}, "vocab_size must be from 261 to 1048576, not -5"),
        ({"vocab_size": 300.5}, "vocab_size must be a whole number, not 300.5"),
        ({"clean_of": "tests.txt"}, "clean_of must be a list of files"),
        ({"field": 5}, "field must be a text"),
    ],
)
def test_what_was_given_is_checked_before_anything_is_measured(
    changed: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "matrix_rate", lambda: pytest.fail("measured"))
    with pytest.raises(RequestError) as error:
        create.new(**{"paths": [], "out": tmp_path / "m", **changed})
    assert error.value.message.startswith(said)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), 1e12])
def test_no_budget_is_refused(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="minutes must be"):
        create.new([], minutes=minutes, out=tmp_path / "model")


def test_a_folder_in_use_is_left_alone(made: NewReport, notes: Path) -> None:
    before = (made.folder / "model.safetensors").read_bytes()
    with pytest.raises(RequestError, match="already holds"):
        create.new([notes], minutes=1, out=made.folder)
    assert (made.folder / "model.safetensors").read_bytes() == before
    assert (made.folder / "tokens").is_dir()


def test_too_little_text_is_found_before_work_begins(made: NewReport, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("short text")
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    for out in (tmp_path / "model", made.folder):
        with pytest.raises(RequestError, match="too little text: 10 bytes, and about 2 kB are needed"):
            create.new([tmp_path / "short.txt"], minutes=0.2, out=out, overwrite=True)
    assert not (tmp_path / "model").exists()
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before


def test_text_of_too_few_tokens_leaves_nothing(tmp_path: Path) -> None:
    """More bytes than surely are too little, and fewer tokens than a window."""
    (tmp_path / "words.txt").write_text("extraordinarily " * 150)
    with pytest.raises(RequestError, match=r"too little text: 2\.4 kB, and about \d+ kB are needed"):
        create.new([tmp_path / "words.txt"], minutes=0.2, out=tmp_path / "model", vocab_size=4096)
    assert not (tmp_path / "model").exists()


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError):
        create.new([tmp_path / "empty"], minutes=1, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(RequestError, match="does not exist"):
        create.new([tmp_path / "nowhere"], minutes=1, out=tmp_path / "model")
