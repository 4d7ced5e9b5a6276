"""Whether the folder of a run is one folder for all its processes: found out before anything is read or written."""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import torch.distributed as dist

from chatsmith.errors import RequestError
from chatsmith.paths import appears
from chatsmith.train.parallel.process import Process, of_first, patience

_DELAY = 60.0  # seconds for which a network file system may not know yet what another machine wrote


def check_shared(process: Process, folder: Path) -> None:
    """Raise `RequestError` in all processes where one of them does not see what the first writes into `folder`.

    Collective. The folder is there afterwards, unless the first process cannot write there, which it says later.
    """
    if process.size == 1:
        return
    new = process.rank == 0 and not folder.exists()
    with ExitStack() as marker:
        name: str | None = None
        if process.rank == 0:
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                name = Path(marker.enter_context(tempfile.NamedTemporaryFile(prefix=".shared-", dir=folder)).name).name
        name = of_first(process, name)
        if name is None:
            return
        # The others wait for the slowest of them: it must tell before they give it up.
        sees = appears(folder / name, min(_DELAY, patience() / 2))
        every: list[tuple[bool, str]] = [(sees, socket.gethostname())] * process.size
        dist.all_gather_object(every, (sees, socket.gethostname()))
    blind = [f"process {rank} on {host}" for rank, (sees, host) in enumerate(every) if not sees]
    if blind:
        if new:
            with suppress(OSError):
                folder.rmdir()
        more = f" and {len(blind) - 1} more" if len(blind) > 1 else ""
        raise RequestError(
            f"{folder} is not one folder for all: "
            f"{blind[0]}{more} cannot see what process 0 on {every[0][1]} writes there",
            "train into a folder that all machines share, for example --out /shared/run",
        )
