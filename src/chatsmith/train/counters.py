"""Where a run stands, as its checkpoints keep it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatsmith.train.metrics import finite


@dataclass(slots=True)
class Counters:
    """What a run has done, and its latest losses in nats per token.

    `position` is what its timeline counts: steps, or tokens where the schedule says tokens.
    """

    step: int = 0
    tokens: int = 0
    position: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss: float = math.nan
    held_out_loss: float | None = None
    bits_per_byte: float | None = None

    def state(self) -> dict[str, Any]:
        """The counters as JSON holds them, which has no NaN."""
        return dataclasses.asdict(self) | {"loss": finite(self.loss)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Counters:
        """The counters that gave such a state."""
        kept = {field.name: state[field.name] for field in dataclasses.fields(cls)}
        return cls(**kept | {"loss": math.nan if kept["loss"] is None else kept["loss"]})
