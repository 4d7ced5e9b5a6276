"""The figures of a run for TensorBoard, through the extra "track"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chatsmith.errors import MissingExtra
from chatsmith.train.callbacks import Callback, Moment, Outcome


class TensorBoard(Callback):
    """Writes each step's figures into `folder`; `tensorboard --logdir` shows them."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "track", "writing TensorBoard logs") from None
        self._writer = SummaryWriter(str(folder))

    def on_step(self, moment: Moment) -> None:
        """Add the figures of one step."""
        record = moment.record
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
        self._writer.flush()

    def on_end(self, outcome: Outcome) -> None:
        """Flush and close."""
        self._writer.close()
