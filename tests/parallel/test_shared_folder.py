"""A folder that the machines do not share is found out at the start, by all processes, here threads of this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from chatsmith.errors import RequestError
from chatsmith.train.parallel import process as processes
from chatsmith.train.parallel import shared_folder
from chatsmith.train.parallel.process import Process, in_turn, patience
from chatsmith.train.parallel.shared_folder import check_shared

SIZE = 3


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads for as many processes, which exchange objects as `torch.distributed` does."""
    barrier, values, sent = Barrier(SIZE), list[Any]([None] * SIZE), list[Any]([None])

    def of_first(process: Process, value: Any) -> Any:
        if process.rank == 0:
            sent[0] = value
        barrier.wait()
        return sent[0]

    def gather(every: list[Any], own: Any) -> None:
        values[barrier.wait()] = own
        barrier.wait()
        every[:] = sorted(values)

    monkeypatch.setattr(shared_folder, "of_first", of_first)
    monkeypatch.setattr(processes, "of_first", of_first)
    monkeypatch.setattr(shared_folder.dist, "all_gather_object", gather)
    monkeypatch.setattr(shared_folder, "_DELAY", 0.1)
    with ThreadPoolExecutor(SIZE) as pool:
        yield pool


def process(rank: int) -> Process:
    return Process(rank, SIZE, 1, torch.device("cpu"))


def check(pool: ThreadPoolExecutor, folders: list[Path]) -> list[BaseException | None]:
    """What comes of it in each process."""
    made = [pool.submit(check_shared, process(rank), folder) for rank, folder in enumerate(folders)]
    return [future.exception() for future in made]


def test_one_folder_for_all_is_left_as_it_was(alike: ThreadPoolExecutor, tmp_path: Path) -> None:
    assert check(alike, [tmp_path / "new" / "run"] * SIZE) == [None] * SIZE
    assert os.listdir(tmp_path / "new" / "run") == []
    assert not list(tmp_path.glob(".shared-*"))


def test_a_folder_of_ones_own_is_said_by_all(alike: ThreadPoolExecutor, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for error in check(alike, [tmp_path / name for name in ("a", "a", "c")]):
        assert isinstance(error, RequestError)
        assert "is not one folder for all" in error.message
        assert "a folder that all machines share" in str(error.hint)
    assert os.listdir(tmp_path) == ["c"]
    assert os.listdir(tmp_path / "c") == []


def test_where_the_first_cannot_write_it_says_so_itself(alike: ThreadPoolExecutor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert check(alike, [tmp_path / "file"] * SIZE) == [None] * SIZE


def test_a_wrong_request_of_the_first_is_one_of_all(alike: ThreadPoolExecutor) -> None:
    """So that no exit code asks for another try."""

    def first() -> None:
        raise RequestError("no such file")

    made = [alike.submit(in_turn, process(rank), first, lambda: None) for rank in range(SIZE)]
    for future in made:
        with pytest.raises(RequestError, match="no such file"):
            future.result()


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf", "1e300"])
def test_a_patience_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATSMITH_TIMEOUT", given)
    with pytest.raises(RequestError, match="CHATSMITH_TIMEOUT is a number of seconds"):
        patience()


def test_patience_is_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATSMITH_TIMEOUT", "2.5")
    assert patience() == 2.5
    monkeypatch.delenv("CHATSMITH_TIMEOUT")
    assert patience() == 600
