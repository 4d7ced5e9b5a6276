"""The published formulas of training compute, each under its own name, with its numbers, its source and what it omits.

They do not agree, and are not meant to: one ignores attention, one counts what recomputation adds, one leaves out the
embedding. A figure is worth what its formula says; `--explain` shows them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chatsmith.counts import Shape
from chatsmith.plan.quantities import flops_text, short
from chatsmith.specs import ModelSpec
from chatsmith.tables import Bar, Column, Table


@dataclass(frozen=True, slots=True)
class Formula:
    """One formula at work: in symbols, with its numbers, its value in `unit`, where it is from, what it leaves out."""

    name: str
    symbols: str
    numbers: str
    value: float
    unit: str
    source: str
    omits: str = ""
    shown: str = field(default="", repr=False)


def explain_table(formulas: Sequence[Formula]) -> Table:
    """The formulas, a row each: what it gives, in symbols and with its numbers, its source and what it leaves out."""
    rows = []
    for formula in formulas:
        value = formula.shown or f"{flops_text(formula.value)} {formula.unit}"
        lines = [formula.symbols, f"= {formula.numbers}", f"{formula.source}{formula.omits and '; ' + formula.omits}"]
        rows.append((f"{formula.name}\n{value}\n", "\n".join(lines) + "\n"))
    columns = (Column("figure", "left"), Column("how", "left", wrap=True))
    return Table("Each formula with its numbers and its source", columns, tuple(rows))


def matmul_table(shape: Shape, context: int) -> Table:
    """Where the compute of a training token goes, by matrix."""
    found = shape.matmuls(context)
    whole = sum(matmul.flops_per_token for matmul in found)
    rows = tuple(
        (
            matmul.name,
            f"{matmul.inputs:,} × {matmul.outputs:,}",
            f"{matmul.times:,.4g}",
            short(3 * matmul.flops_per_token),
            Bar(matmul.flops_per_token / whole, f"{matmul.flops_per_token / whole:.1%}"),
        )
        for matmul in found
    )
    columns = (
        Column("matrix", "left"),
        Column("rows × columns"),
        Column("times"),
        Column("FLOPs a token"),
        Column("share", "left"),
    )
    title = f"Where the compute goes: {short(3 * whole)} FLOPs a training token at {context:,} tokens"
    return Table(title, columns, rows, note="FLOPs: 2 for each number of the matrix, three times over for training")


def training_formulas(shape: Shape, tokens: float, context: int) -> tuple[Formula, ...]:
    """Every formula that says how much compute training on `tokens` takes, in rows of `context` tokens (FLOPs)."""
    found = [six_nd(shape.parameters, tokens), every_matmul(shape, tokens, context)]
    if isinstance(shape, ModelSpec):
        found += [causal(shape, tokens, context), palm(shape, tokens, context), kaplan(shape, tokens, context)]
        if _is_gpt(shape):
            found += [korthikanti(shape, tokens, context), narayanan(shape, tokens, context)]
    return tuple(found)


def six_nd(parameters: float, tokens: float) -> Formula:
    """6·N·D: two FLOPs a parameter and token forward, four backward."""
    return Formula(
        "6ND",
        "6 × parameters × tokens",
        f"6 × {parameters:,.0f} × {short(tokens)}",
        6.0 * parameters * tokens,
        "FLOPs",
        "Brown et al. 2020, Table D.1",
        "leaves out attention; counts embedding rows as if they were multiplied",
    )


def every_matmul(shape: Shape, tokens: float, context: int) -> Formula:
    """The exact count: each matrix multiply of a forward pass, three times."""
    per_token = shape.training_flops_per_token(context)
    return Formula(
        "every matrix multiply",
        "tokens × 3 × Σ 2 × rows × columns × times",
        f"{short(tokens)} × {short(per_token)} FLOPs a token, by matrix above",
        per_token * tokens,
        "FLOPs",
        f"counted here, attention in full at {context:,} tokens",
        "leaves out norms, activations and the optimizer",
    )


def causal(spec: ModelSpec, tokens: float, context: int) -> Formula:
    """The exact count with only the scores that a causal mask keeps: position t sees t keys, its band at most."""
    full = spec.matmuls(context)
    kept = 0.0
    for layer in range(spec.layers):
        band = min(context, spec.layer_band(layer) or context)
        seen = (band * (band + 1) / 2 + (context - band) * band) / context  # keys, on average over the positions
        kept += 3 * 2 * 2 * spec.heads * spec.head_dim * seen
    weights = 3 * sum(matmul.flops_per_token for matmul in full if matmul.weight)
    return Formula(
        "… as a causal kernel computes it",
        "tokens × (3 × Σ 2 × weights + 12 × layers × heads × head size × keys seen)",
        f"{short(tokens)} × ({short(weights)} + {short(kept)})",
        (weights + kept) * tokens,
        "FLOPs",
        "counted here; what is left where a kernel skips the masked half",
        "no published utilisation takes this half off",
    )


def palm(spec: ModelSpec, tokens: float, context: int) -> Formula:
    """(6N + 12·L·H·Q·T)·D, the count behind "model FLOPs utilisation"."""
    attention = 12.0 * spec.layers * spec.heads * spec.head_dim * context
    return Formula(
        "PaLM's model FLOPs",
        "(6N + 12 × layers × heads × head size × context) × tokens",
        f"(6 × {spec.parameters:,} + {short(attention)}) × {short(tokens)}",
        (6.0 * spec.parameters + attention) * tokens,
        "FLOPs",
        "Chowdhery et al. 2022, appendix B",
        "attention in full, recomputation not counted; this is what MFU is measured by",
    )


def kaplan(spec: ModelSpec, tokens: float, context: int) -> Formula:
    """3·(2N + 2·L·T·H·Q)·D with N the parameters that are not embeddings."""
    body = body_parameters(spec)
    attention = 2.0 * spec.layers * context * spec.heads * spec.head_dim
    return Formula(
        "Kaplan's count",
        "3 × (2 × non-embedding parameters + 2 × layers × context × heads × head size) × tokens",
        f"3 × (2 × {body:,} + {short(attention)}) × {short(tokens)}",
        3.0 * (2.0 * body + attention) * tokens,
        "FLOPs",
        "Kaplan et al. 2020, Table 1 and section 2.1",
        "leaves out the output head, and half of attention, as a causal mask would",
    )


def body_parameters(shape: Shape) -> int:
    """Parameters without embeddings and output head: the N of Kaplan et al."""
    return shape.parameters - shape.embedding_parameters - shape.parameter_terms.get("output head", 0)


def korthikanti(spec: ModelSpec, tokens: float, context: int) -> Formula:
    """72·B·L·s·h²·(1 + s/6h + V/12hL): a GPT's matrix multiplies in closed form, nothing recomputed."""
    return _closed(
        spec,
        tokens,
        context,
        72,
        12,
        "model FLOPs in closed form",
        "Korthikanti et al. 2022, appendix A",
        "the same matrix multiplies as above; only for the shape of GPT",
    )


def narayanan(spec: ModelSpec, tokens: float, context: int) -> Formula:
    """96·B·s·l·h²·(1 + s/6h + V/16lh): the same with every layer computed twice forward."""
    return _closed(
        spec,
        tokens,
        context,
        96,
        16,
        "hardware FLOPs, full recomputation",
        "Narayanan et al. 2021, equation 3",
        "counts what recomputing activations adds: not to be compared with model FLOPs",
    )


def _closed(
    spec: ModelSpec, tokens: float, context: int, factor: int, head: int, name: str, source: str, omits: str
) -> Formula:
    length, width, layers = context, spec.width, spec.layers
    shares = (length / (6 * width), spec.vocab_size / (head * layers * width))
    return Formula(
        name,
        f"{factor} × tokens × layers × width² × (1 + context/(6 × width) + vocabulary/({head} × layers × width))",
        f"{factor} × {short(tokens)} × {layers} × {width:,}² × (1 + {shares[0]:.4f} + {shares[1]:.4f})",
        factor * tokens * layers * width**2 * (1 + sum(shares)),
        "FLOPs",
        source,
        omits,
    )


def _is_gpt(spec: ModelSpec) -> bool:
    """Whether the closed formulas hold: heads fill the width, a plain feed-forward of four widths, no bands."""
    plain = spec.heads * spec.head_dim == spec.width and spec.kv_heads == spec.heads and not spec.gated
    return plain and spec.ffn_width == 4 * spec.width and spec.band is None


def parameter_formulas(shape: Shape) -> tuple[Formula, ...]:
    """The count of weights: by term, and for a GPT in closed form."""
    terms = shape.parameter_terms
    found = [
        Formula(
            "parameters",
            "Σ of every matrix, bias and gain",
            " + ".join(f"{name} {count:,}" for name, count in terms.items()),
            shape.parameters,
            "",
            "counted here, weight by weight; a tied matrix once",
            shown=f"{shape.parameters:,}",
        )
    ]
    gpt = isinstance(shape, ModelSpec) and _is_gpt(shape) and shape.architecture == "gpt2" and shape.tied
    if gpt:
        assert isinstance(shape, ModelSpec)
        layers, width, rows = shape.layers, shape.width, shape.vocab_size + shape.context
        count = 12 * layers * width**2 + 13 * layers * width + rows * width + 2 * width
        found.append(
            Formula(
                "… in closed form",
                "12 L d² + 13 L d + (V + C) d + 2 d",
                f"12 × {layers} × {width:,}² + 13 × {layers} × {width:,} + {rows:,} × {width:,} + 2 × {width:,}",
                count,
                "",
                "Narayanan et al. 2021, equation 2, with the final norm (2d) that it drops",
                shown=f"{count:,}",
            )
        )
    return tuple(found)
