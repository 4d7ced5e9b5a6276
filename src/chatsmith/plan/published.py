"""What papers print beside what their own inputs give: GPT-3's tables row by row, and figures that are often repeated.

Where a printed figure errs, both stand side by side, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from chatsmith.errors import RequestError, did_you_mean
from chatsmith.plan.accelerators import Accelerator, read_data
from chatsmith.plan.quantities import PF_DAY, SECONDS_PER_HOUR, SECONDS_PER_YEAR, flops_text, usd_text
from chatsmith.specs import PRESETS
from chatsmith.specs_families import shape
from chatsmith.tables import Column, Report, Table

GPT3_TOKENS = 300e9  # Brown et al. 2020, Table D.1: the same for all eight sizes


def published_tokens(preset: str) -> float | None:
    """The tokens that Table D.1 of Brown et al. 2020 counts for a preset; None where it has none."""
    rows = read_data("gpt3_table_d1.csv")
    return next((float(row["tokens_b"]) * 1e9 for row in rows if row["preset"] == preset), None)


@dataclass(frozen=True, slots=True)
class Printed:
    """A figure as somebody printed it, what its own inputs give, and a remark on the difference."""

    figure: str
    printed: str
    found: str
    remark: str


@dataclass(frozen=True, slots=True)
class ComputeRow:
    """A row of Table D.1: the printed figures, and compute from the printed parameters and tokens."""

    model: str
    parameters: float
    tokens: float
    flops_per_parameter_token: float
    printed_flops: float
    printed_pf_days: float
    flops: float = field(init=False)
    pf_days: float = field(init=False)
    counted_parameters: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "flops", self.flops_per_parameter_token * self.parameters * self.tokens)
        object.__setattr__(self, "pf_days", self.flops / PF_DAY)

    @property
    def agrees(self) -> bool:
        """Whether both figures come out to the three digits that are printed."""
        return _same(self.flops, self.printed_flops) and _same(self.pf_days, self.printed_pf_days)


@dataclass(frozen=True, slots=True)
class SizeRow:
    """A row of Table 2.1 as printed, and the width and heads that the parameter counts of Table D.1 settle."""

    name: str
    preset: str
    printed_parameters: str
    layers: int
    printed_width: int
    width: int
    printed_heads: int
    heads: int
    head_dim: int
    batch_tokens: int
    learning_rate: float
    parameters: int

    @property
    def misprinted(self) -> bool:
        """Whether heads × head size does not give the printed width."""
        return (self.printed_width, self.printed_heads) != (self.width, self.heads)


@dataclass(frozen=True, slots=True, repr=False)
class Gpt3Tables(Report):
    """Tables 2.1 and D.1 of Brown et al. 2020, printed and put right."""

    sizes: tuple[SizeRow, ...]
    compute: tuple[ComputeRow, ...]

    @property
    def headline(self) -> str:
        """Their sizes."""
        return f"of {len(self.sizes)} sizes and {len(self.compute)} runs"

    def tables(self) -> list[Table]:
        """Table D.1, then Table 2.1."""
        return [self._compute(), self._sizes()]

    def _compute(self) -> Table:
        rows = tuple(
            (
                row.model,
                f"{row.parameters / 1e6:,.0f} M",
                f"{row.tokens / 1e9:,.0f} B",
                f"{row.flops_per_parameter_token:g}",
                flops_text(row.flops),
                _printed_flops(row.printed_flops),
                _three(row.pf_days),
                _three(row.printed_pf_days),
                "✓" if row.agrees else "≠",
                f"{row.counted_parameters:,}" if row.counted_parameters else "–",
            )
            for row in self.compute
        )
        columns = (
            Column("model", "left"),
            *map(Column, ("parameters", "tokens", "×", "FLOPs", "printed", "PF-days", "printed")),
            Column("", "left"),
            Column("counted weights"),
        )
        agree = sum(row.agrees for row in self.compute)
        note = (
            f"✓: both figures come out to the printed digits ({agree} of {len(self.compute)} rows). BERT-Large is "
            "listed with RoBERTa-Large's 355 M."
        )
        return Table("Table D.1 of Brown et al. 2020: FLOPs = × · parameters · tokens", columns, rows, note=note)

    def _sizes(self) -> Table:
        def both(printed: int, right: int) -> str:
            return f"{right:,}" if printed == right else f"{printed:,} → {right:,}"

        rows = tuple(
            (
                row.name,
                row.printed_parameters,
                f"{row.parameters:,}",
                str(row.layers),
                both(row.printed_width, row.width),
                both(row.printed_heads, row.heads),
                str(row.head_dim),
            )
            for row in self.sizes
        )
        names = ("printed", "parameters", "layers", "width", "heads", "head size")
        marked = frozenset(index for index, row in enumerate(self.sizes) if row.misprinted)
        note = (
            "Printed → right: heads × head size must give the width, and only the right values give the parameters "
            "of Table D.1."
        )
        return Table(
            "Table 2.1: sizes, printed and right", (Column("", "left"), *map(Column, names)), rows, marked, note
        )


def gpt3_tables() -> Gpt3Tables:
    """GPT-3's two tables of sizes and compute."""
    sizes = tuple(
        SizeRow(
            row["name"],
            row["preset"],
            row["parameters"],
            int(row["layers"]),
            int(row["width"]),
            PRESETS[row["preset"]].width,
            int(row["heads"]),
            PRESETS[row["preset"]].heads,
            int(row["head_dim"]),
            int(row["batch_tokens"]),
            float(row["learning_rate"]),
            PRESETS[row["preset"]].parameters,
        )
        for row in read_data("gpt3_table_2_1.csv")
    )
    compute = tuple(
        ComputeRow(
            row["model"],
            float(row["parameters_m"]) * 1e6,
            float(row["tokens_b"]) * 1e9,
            float(row["flops_per_parameter_token"]),
            float(row["flops"]),
            float(row["pf_days"]),
            shape(row["preset"]).parameters if row["preset"] else None,
        )
        for row in read_data("gpt3_table_d1.csv")
    )
    return Gpt3Tables(sizes, compute)


def published_table(name: str) -> Report:
    """A published table by name; an unknown one raises `RequestError`."""
    if name.lower() != "gpt3":
        raise RequestError(f"no table called {name!r}", did_you_mean(name.lower(), ("gpt3",)))
    return gpt3_tables()


_COUNTS = {
    "bert-base": Printed("parameters", "110 M", "109,482,240", "rounded (Devlin et al. 2019)"),
    "bert-large": Printed(
        "parameters", "340 M", "335,141,888", "rounded up (Devlin et al. 2019); Table D.1 of Brown et al. says 355 M"
    ),
    "transformer-base": Printed(
        "parameters", "65 M", "63.0 M", "Vaswani et al. 2017, Table 3; the vocabulary's exact size was not published"
    ),
    "transformer-big": Printed(
        "parameters", "213 M", "214.2 M", "Vaswani et al. 2017, Table 3; the vocabulary's exact size was not published"
    ),
    "transformer-xl-wt103-large": Printed(
        "parameters",
        "257 M",
        "284,121,930",
        "the published settings give more than the paper says; its training script leaves one projection untied "
        "(285,170,506)",
    ),
}


def printed_sizes(name: str) -> tuple[Printed, ...]:
    """What papers print of a preset's size where it is not what they trained."""
    if name in _COUNTS:
        return (_COUNTS[name],)
    found = []
    for row in gpt3_tables().sizes:
        if row.preset == name and row.misprinted:
            pairs = {"width": (row.printed_width, row.width), "heads": (row.printed_heads, row.heads)}
            word = next(name for name, (said, right) in pairs.items() if said != right)
            said, right = pairs[word]
            remark = "heads × head size is the width; only so the count is that of Table D.1"
            found.append(Printed(f"{word}, Table 2.1", f"{said:,}", f"{right:,}", remark))
    return tuple(found)


# Chuan Li, "OpenAI's GPT-3 Language Model: A Technical Overview", Lambda, 2020.
_LAMBDA_FLOPS, _LAMBDA_PARAMETERS = 3.14e23, 175e9


def printed_costs(
    name: str, tokens: float, accelerator: Accelerator, tflops: float, usd_per_hour: float | None
) -> tuple[Printed, ...]:
    """The article's figures on GPT-3, where the same is asked: device-years, cost and memory from its own inputs."""
    if name != "gpt3-175b" or tokens != GPT3_TOKENS:
        return ()
    if accelerator.architecture == "Volta" and tflops == 28:
        printed_years, remark = "355 years", "355.6 cut short; 28 TFLOP/s is twice the PCIe card's fp32 peak"
    elif accelerator.name == "Quadro RTX 8000" and tflops == 15:
        printed_years, remark = "665 years", "does not follow from the article's inputs; 0.2% more"
    else:
        return ()
    years = _LAMBDA_FLOPS / (tflops * 1e12) / SECONDS_PER_YEAR
    found = [Printed(f"{flops_text(_LAMBDA_FLOPS)} at {tflops:g} TFLOP/s", printed_years, f"{years:.1f} years", remark)]
    if usd_per_hour is not None and math.isclose(usd_per_hour, 1.5) and tflops == 28:
        usd = years * SECONDS_PER_YEAR / SECONDS_PER_HOUR * usd_per_hour
        found.append(Printed("cost at $1.50 an hour", "$4.6M", usd_text(usd), "355 years give $4,664,700, cut short"))
    weights = f"{_LAMBDA_PARAMETERS * 4 / 1e9:.0f} GB"
    found.append(Printed("weights in fp32", "700 GB", weights, "175 × 10⁹ × 4 bytes; the exact count gives 698.4"))
    return tuple(found)


def printed_table(rows: tuple[Printed, ...]) -> Table:
    """Printed figures beside what was found."""
    columns = (
        Column("as printed elsewhere", "left"),
        Column("printed"),
        Column("found"),
        Column("", "left", wrap=True),
    )
    return Table("", columns, tuple((row.figure, row.printed, row.found, row.remark) for row in rows))


def _same(value: float, printed: float) -> bool:
    """Whether `value` rounds to `printed` at three digits (a half may go either way)."""
    unit = 10.0 ** (math.floor(math.log10(printed)) - 2)
    return abs(value - printed) <= 0.5 * unit * (1 + 1e-9)


def _three(value: float) -> str:
    """Three digits, as the table prints them: 2.60, 139, 3,640."""
    after = 2 - math.floor(math.log10(value))
    return f"{round(value, after):,.{max(0, after)}f}"


def _printed_flops(value: float) -> str:
    return f"{value:.2e}".replace("e+", "e")
