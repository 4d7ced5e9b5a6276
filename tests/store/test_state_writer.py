"""Checkpoints of several processes: whole, or not there and said why in time."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch

from chatsmith.errors import WorkError
from chatsmith.store.state import checkpoints, load_state
from chatsmith.store.state_writer import StateWriter

TENSORS = [{"a": torch.arange(3.0)}, {"b": torch.ones(2)}]


@pytest.mark.parametrize("background", [False, True])
def test_the_parts_of_all_make_one_checkpoint(background: bool, tmp_path: Path) -> None:
    barrier = Barrier(2)

    def meet() -> None:
        barrier.wait()

    writers = [StateWriter(tmp_path, 2, rank=rank, size=2, meet=meet) for rank in range(2)]

    def write(rank: int) -> None:
        writers[rank].save(5, TENSORS[rank], {}, {"from": rank}, background=background)
        writers[rank].wait()

    threads = [Thread(target=write, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = load_state(tmp_path)
    assert (state.step, state.meta) == (5, {"from": 0})
    assert torch.equal(state.tensors["a"], TENSORS[0]["a"])
    assert torch.equal(state.tensors["b"], TENSORS[1]["b"])


@pytest.mark.parametrize("background", [False, True])
def test_a_part_in_another_folder_is_not_waited_for_longer_than_processes_wait(
    background: bool, tmp_path: Path
) -> None:
    writer = StateWriter(tmp_path, 2, rank=0, size=2, patience=0.05)

    def write() -> None:
        writer.save(5, TENSORS[0], {}, {}, background=background)
        writer.wait()

    with pytest.raises(WorkError, match="did not appear") as refused:
        write()
    assert refused.value.hint == "train into a folder that all machines share"
    assert not checkpoints(tmp_path)
