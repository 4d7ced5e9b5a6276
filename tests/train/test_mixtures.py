"""How much of each source is read, and that processes which share out the rows of a step read the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatsmith.errors import RequestError
from chatsmith.text.documents import Document
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.mixtures import mixed, mixture_of, weights
from chatsmith.train.recipe_data import Data, Source, Stage
from chatsmith.train.staged_batches import StagedBatches

PAPER = {"common_crawl": 0.44, "webtext2": 2.9, "books1": 1.9, "books2": 0.43, "wikipedia": 3.4}


def test_the_mixture_of_the_paper() -> None:
    """Table 2.2: the weights give the epochs that are printed, but for the two rows where they do not."""
    report = mixture_of("gpt3")
    assert sum(source.share for source in report.sources) == pytest.approx(1)
    assert sum(part.weight for part in report.printed) == pytest.approx(1.01)
    assert {source.name: part.epochs for source, part in zip(report.sources, report.printed, strict=True)} == PAPER
    epochs = {source.name: source.epochs * 1.01 for source in report.sources}
    assert epochs == pytest.approx(PAPER | {"webtext2": 3.47, "wikipedia": 3.0, "books1": 2.0}, rel=0.02)


def test_the_epochs_of_the_paper_are_met_where_the_run_is_as_long_as_they_say() -> None:
    sources = tuple(Source(path=name, name=name) for name in PAPER)
    tokens = [4100, 190, 120, 550, 30]
    total = round(sum(epochs * count for epochs, count in zip(PAPER.values(), tokens, strict=True)))
    report = mixed(Data(sources, mixture="gpt3-epochs"), tokens, total)
    assert {source.name: source.epochs for source in report.sources} == pytest.approx(PAPER, rel=1e-3)


def test_epochs_become_weights() -> None:
    data = Data((Source("a", epochs=2), Source("b", epochs=0.5), Source("c", weight=0)))
    assert weights(data, (100, 400, 7)) == pytest.approx((1 / 2, 1 / 2, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Data((Source("a", name="a"),), mixture="gpt3"), "not part of the mixture"),
        (lambda: Data((Source("a", name="books1"), Source("b", name="books1")), mixture="gpt3"), "the same name"),
        (lambda: Data((Source("a", name="books1", weight=2),), mixture="gpt3"), "and so does the source"),
        (lambda: Data((Source("a", name="books1"),), mixture="gpt3", stages=(Stage(1, (1,)),)), "both give weights"),
        (
            lambda: Data((Source("a", epochs=2), Source("b"))),
            "a says how much of it is read by epochs, and b by weight",
        ),
        (lambda: Data((Source("world"), Source("b", epochs=2))), "b says how much of it is read by epochs, and world"),
        (lambda: Data((Source("a", epochs=2),), stages=(Stage(1, (1,)),)), "both give weights"),
        (lambda: Source("a", weight=2, epochs=1), "both a weight and epochs"),
        (lambda: Source("a", epochs=-1), "must not be negative"),
        (lambda: Source("world", epochs=1), "has no epochs"),
    ],
)
def test_what_contradicts_itself_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make()


@pytest.fixture
def three(tmp_path: Path, bytes_vocabulary: Tokenizer) -> list[TokenFolder]:
    """Sources in several shards each."""
    folders = []
    for number in range(3):
        documents = [Document(f"{number}-{place} " + "words and more of them " * 4) for place in range(40)]
        write_shards(documents, bytes_vocabulary, tmp_path / str(number), held_out=0, shard_tokens=700)
        folders.append(TokenFolder.open(tmp_path / str(number)))
    return folders


def reader(folders: list[TokenFolder]) -> StagedBatches:
    return StagedBatches([folder.split("train") for folder in folders], (0.6, 0.3, 0.1), context=16, seed=4)


def rows_of_run(folders: list[TokenFolder], ranks: list[int]) -> list[np.ndarray]:
    """The rows of steps that so many processes share out, each resumed from the state that the one before left."""
    state = reader(folders).state()
    steps = []
    for count in ranks:
        readers = [reader(folders) for _ in range(count)]
        for one in readers:
            one.restore(state)
        share = 24 // count
        parts = [one.next(24, (rank * share, (rank + 1) * share)) for rank, one in enumerate(readers)]
        states = [one.state() for one in readers]
        assert all(other == states[0] for other in states)
        state = states[0]
        steps.append(np.concatenate([part.inputs for part in parts]))
    return steps


def test_no_row_is_read_twice_or_left_out_whatever_the_number_of_processes(three: list[TokenFolder]) -> None:
    alone = rows_of_run(three, [1] * 6)
    for ranks in ([2] * 6, [8] * 6, [1, 4, 2, 8, 3, 1], [24, 1, 12, 2, 6, 4]):
        for step, other in zip(alone, rows_of_run(three, ranks), strict=True):
            np.testing.assert_array_equal(step, other)
    whole = reader(three)
    for step in alone:
        np.testing.assert_array_equal(step, whole.next(24).inputs)
    with pytest.raises(RequestError, match="no rows"):
        whole.next(4, (3, 5))


def test_a_mixture_needs_tokens_that_can_be_counted(tmp_path: Path, three: list[TokenFolder]) -> None:
    recipe = tmp_path / "r.toml"
    paths = [str(folder.folder) for folder in three]
    lines = f"""
        data = {{ sources = [{{path = "{paths[0]}", epochs = 2}}, {{path = "{paths[1]}", epochs = 1}}], held_out = 0 }}
        evaluation = {{ times = 0 }}
        model = {{ preset = "modern", width = 32, layers = 1, heads = 1, context = 16 }}
        schedule = {{ steps = 10 }}
    """
    recipe.write_text(lines)
    report = mixture_of(str(recipe))
    assert report.total == 10 * 16 * 16
    assert report.sources[0].epochs == pytest.approx(2 * report.sources[1].epochs)
    recipe.write_text(lines.replace(paths[0], str(tmp_path)))
    with pytest.raises(RequestError, match="not a folder of tokens"):
        mixture_of(str(recipe))
    recipe.write_text(lines.replace("steps = 10", "minutes = 1"))
    with pytest.raises(RequestError, match="how many tokens"):
        mixture_of(str(recipe))
    assert mixture_of(str(recipe), 1000).total == 1000
