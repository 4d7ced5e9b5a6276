"""The figures of a run for TensorBoard, through the extra "track"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chatsmith.errors import MissingExtra
from chatsmith.train.callbacks import Callback, Moment, Outcome, RunStart


class TensorBoard(Callback):
    """Writes each step's figures into `folder`; `tensorboard --logdir` shows them.

    Nothing is touched before the run begins; then the figures of a run that it replaces go, and where it goes on from a
    checkpoint those of steps behind it are passed over.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "track", "writing TensorBoard logs") from None
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._made = SummaryWriter

    def on_start(self, start: RunStart) -> None:
        """Begin a file of figures."""
        if start.first_step == 0:
            for left in self._folder.glob("events.out.tfevents.*"):
                left.unlink()
        self._writer = self._made(str(self._folder), purge_step=start.first_step + 1)

    def on_step(self, moment: Moment) -> None:
        """Add the figures of one step."""
        record = moment.record
        assert self._writer is not None
        figures: Mapping[str, float | None] = {
            "loss/training": record.loss,
            "loss/held_out": record.held_out_loss,
            "loss/bits_per_byte": record.bits_per_byte,
            "optimizer/learning_rate": record.learning_rate,
            "optimizer/gradient_norm": record.gradient_norm,
            "speed/tokens_per_second": record.tokens_per_second,
            "speed/share_of_peak": record.share_of_peak,
            "speed/memory": record.memory,
        }
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, record.step)

    def on_checkpoint(self, path: Path) -> None:
        """What a checkpoint covers is on disk."""
        if self._writer is not None:
            self._writer.flush()

    def on_end(self, outcome: Outcome) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
