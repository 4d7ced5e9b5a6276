"""The figures of a layout, each with its formula, its numbers and its source, as `--explain` shows them."""

from __future__ import annotations

from chatsmith.plan.efficiency import recomputed_flops_per_token
from chatsmith.plan.formulas import Formula
from chatsmith.plan.layout_plan import LayoutPlan
from chatsmith.plan.memory import BYTES, RESERVED, micro_batches_held, stage_layers, stage_parameters
from chatsmith.plan.parallel import Grid, Workload
from chatsmith.plan.quantities import bytes_text, short


def layout_formulas(plan: LayoutPlan) -> tuple[Formula, ...]:
    """Memory, rate, idle time and communication of a layout."""
    return (*_memory(plan), *_rates(plan), *_waiting(plan))


def _memory(plan: LayoutPlan) -> list[Formula]:
    spec, layout, bill = plan.spec, plan.layout, plan.memory_bytes
    grid = Grid.of([layout])
    work = Workload(spec, plan.context_tokens, plan.rows_per_step, here=True)
    first = layout.pipeline == 1 or not bill.logits  # of the stages, which is the fullest
    parameters = float(stage_parameters(spec, grid)[0 if first else 1][0])
    states = bill.weights + bill.gradients + bill.optimizer
    terms = (bill.weights, bill.gradients, bill.optimizer)
    each = " + ".join(f"{term / parameters:.3g}" for term in terms)
    held, layers = float(micro_batches_held(work, grid)[0]) if first else 1.0, float(stage_layers(spec, grid)[0])
    tokens = layout.micro_batch * plan.context_tokens / layout.context
    a_token = bill.activations / (held * layers * tokens)
    return [
        Formula(
            "weights, gradients, optimizer",
            "parameters of the fullest stage × bytes each",
            f"{parameters:,.0f} × ({each})",
            states,
            "bytes",
            "Rajbhandari et al. 2020 (ZeRO), section 3; Megatron-LM's guide to its distributed optimizer",
            "as chatsmith train keeps them: masters and averages in float32",
            shown=bytes_text(states),
        ),
        Formula(
            "activations",
            "micro-batches held × layers of a stage × tokens at a time × bytes a token and layer",
            f"{held:g} × {layers:g} × {tokens:,.0f} × {a_token:,.0f}",
            bill.activations,
            "bytes",
            "Korthikanti et al. 2022, section 4, term by term",
            shown=bytes_text(bill.activations),
        ),
        Formula(
            "buffers",
            "set aside + what passes + layers gathered or computed again",
            f"{bytes_text(RESERVED)} + {bytes_text(bill.buffers - RESERVED)}",
            bill.buffers,
            "bytes",
            "1 GB for the driver, its libraries and messages",
            "leaves out fragmentation",
            shown=bytes_text(bill.buffers),
        ),
    ]


def _rates(plan: LayoutPlan) -> list[Formula]:
    each = plan.spec.training_flops_per_token(plan.context_tokens)
    divided = f"({plan.devices:,} × {plan.peak_tflops:g}e12)"
    found = [
        Formula(
            "MFU",
            "tokens per second × FLOPs a token / (devices × peak)",
            f"{plan.tokens_per_second:,.0f} × {short(each)} / {divided}",
            plan.mfu,
            "",
            "Chowdhery et al. 2022, appendix B; tokens per second as predicted: where a step goes, above",
            "attention in full, nothing that is computed again",
            shown=f"{plan.mfu:.1%}",
        )
    ]
    if plan.layout.recompute != "none":
        again = recomputed_flops_per_token(plan.spec, plan.context_tokens, plan.layout.recompute)
        found.append(
            Formula(
                "HFU",
                "tokens per second × (FLOPs a token + those computed again) / (devices × peak)",
                f"{plan.tokens_per_second:,.0f} × ({short(each)} + {short(again)}) / {divided}",
                plan.hfu,
                "",
                "Korthikanti et al. 2022, appendix A",
                shown=f"{plan.hfu:.1%}",
            )
        )
    return found


def _waiting(plan: LayoutPlan) -> list[Formula]:
    layout, found = plan.layout, []
    if layout.pipeline > 1:
        share = (layout.pipeline - 1) / (layout.interleave * plan.micro_batches)
        found.append(
            Formula(
                "bubble, as a share of the work",
                "(stages − 1) / (chunks × micro-batches)",
                f"({layout.pipeline} − 1) / ({layout.interleave} × {plan.micro_batches})",
                share,
                "",
                "Narayanan et al. 2021, section 2.2",
                f"{plan.bubble:.1%} of the step, with what else it holds",
                shown=f"{share:.1%}",
            )
        )
    for use in plan.links:
        if use.group == "tensor":
            t, times = layout.tensor, 6 if layout.recompute == "full" else 4
            tokens = layout.micro_batch * plan.context_tokens / layout.context
            layers = float(stage_layers(plan.spec, Grid.of([layout]))[0])
            found.append(
                Formula(
                    "sent within tensor groups",
                    "all-reduces a layer × 2 (t − 1) / t × micro-batches × layers × tokens at a time × width × bytes",
                    f"{times} × 2 × ({t} − 1) / {t} × {plan.micro_batches} × {layers:g} × {tokens:,.0f} × "
                    f"{plan.spec.width:,} × {BYTES}",
                    use.bytes_sent,
                    "bytes",
                    "Narayanan et al. 2021, section 3.2",
                    shown=bytes_text(use.bytes_sent),
                )
            )
    return found
