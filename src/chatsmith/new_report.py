"""What `chatsmith.new` says of the model it made: figures, and in plain words what to expect."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatsmith.text.report import ReadReport
from chatsmith.train.callbacks import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class NewReport:
    """How it went: what was read, what was trained, and what to expect of it.

    `bits_per_byte` is of the held-out text of the documents alone (of the built-in corpus: of its last stage); `gzip`
    and `xz` are what those compressors need for the same text. `outcome` and the curve tell one figure of all sources,
    and there the built-in conversations count as well.
    """

    folder: Path
    outcome: Outcome
    read: tuple[ReadReport, ...]
    bits_per_byte: float | None
    gzip: float | None
    xz: float | None
    seconds: float
    minutes: float
    parameters: int
    epochs: float
    built_in: bool
    notes: tuple[str, ...] = field(default=())

    def expectation(self) -> str:
        """What one may expect of this model, in plain words."""
        if self.built_in:
            return (
                "It knows the small world: its stories, small sums, a few hundred French words, and how to follow "
                "examples. Ask it about anything else and it will answer from there."
            )
        start = f"A {self.minutes:g}-minute model babbles" if self.minutes < 30 else "It is a small model"
        body = f"{start}: it has the words and the tone of the text, not its knowledge."
        if self.bits_per_byte is None:
            return body
        if self.xz is None or self.gzip is None:
            few = "too little for a fair comparison with gzip and xz"
            return f"{body} It needs {self.bits_per_byte:.2f} bits per byte of held-out text, {few}."
        better = "less than either" if self.bits_per_byte < min(self.xz, self.gzip) else "not yet less than both"
        return (
            f"{body} It needs {self.bits_per_byte:.2f} bits per byte of held-out text; gzip needs {self.gzip:.2f} "
            f"and xz {self.xz:.2f} ({better})."
        )

    def rows(self) -> list[tuple[str, str]]:
        """The report as pairs of name and value."""
        outcome = self.outcome
        rows = [
            ("model", f"{self.parameters:,} parameters in {self.folder}"),
            ("trained", f"{outcome.tokens:,} tokens in {outcome.steps:,} steps"),
            ("time", f"{self.seconds / 60:.1f} of {self.minutes:g} minutes"),
        ]
        if outcome.tokens and outcome.seconds:
            rows.append(("speed", f"{outcome.tokens / outcome.seconds:,.0f} tokens/s"))
        if self.epochs >= 0.1 and not self.built_in:
            rows.append(("the text was read", f"{self.epochs:.1f} times"))
        if self.bits_per_byte is not None:
            part = (
                "the last stage; the curve has all of them"
                if self.built_in
                else "yours; the curve has the built-in talks too"
            )
            rows.append(("held-out text", f"{self.bits_per_byte:.3f} bits per byte ({part})"))
        if self.gzip is not None and self.xz is not None:
            rows.append(("the same by gzip, xz", f"{self.gzip:.3f}, {self.xz:.3f} bits per byte"))
        return rows

    def to_mapping(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        outcome = self.outcome
        return {
            "folder": str(self.folder),
            "parameters": self.parameters,
            "steps": outcome.steps,
            "tokens": outcome.tokens,
            "seconds": self.seconds,
            "training_seconds": outcome.seconds,
            "loss": outcome.loss,
            "held_out_loss": outcome.held_out_loss,
            "bits_per_byte": self.bits_per_byte,
            "gzip_bits_per_byte": self.gzip,
            "xz_bits_per_byte": self.xz,
            "epochs": self.epochs,
            "stopped": outcome.stopped,
            "read": [report.to_json() for report in self.read],
            "expectation": self.expectation(),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        learned = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.3f} bits per byte"
        steps = f"{self.outcome.steps:,} steps"
        return f"<NewReport {self.folder}: {self.parameters:,} parameters, {steps}{learned}; print() tells more>"

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.rows()]
        return "\n".join([*lines, self.expectation()])

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in self.rows():
            table.add_row(Text(name, style="dim"), Text(value))
        return Group(table, Text(self.expectation()))
