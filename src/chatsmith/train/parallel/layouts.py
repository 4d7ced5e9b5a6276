"""Which layout a run has, and whether the model can be divided so."""

from __future__ import annotations

from dataclasses import replace

from chatsmith.errors import RequestError
from chatsmith.specs import ModelSpec
from chatsmith.train.recipe_tables import Parallel

AXES = ("pipeline", "replicate", "shard", "context", "tensor")


def fill(parallel: Parallel, size: int) -> Parallel:
    """The layout with its number of replicas settled for `size` processes; `RequestError` where it does not fit.

    One that is yet to be chosen stays as it is.
    """
    if parallel.layout == "auto":
        return parallel
    inner = parallel.shard * parallel.tensor * parallel.pipeline * parallel.context
    replicas = parallel.replicate or max(1, size // inner)
    needed = replicas * inner
    if needed != size:
        found = "there is one" if size == 1 else f"there are {size}"
        axis = max(AXES, key=lambda name: int(getattr(parallel, name)))
        change = "replicate=0" if parallel.replicate else f"{axis}=1"
        raise RequestError(
            f"the layout {named(parallel)} is for {needed} process{'es' * (needed > 1)}, and {found}",
            f"start {needed} (--processes {needed}), or change [parallel], for example --set parallel.{change}",
        )
    return replace(parallel, replicate=replicas)


def named(parallel: Parallel) -> str:
    """A layout in words."""
    sizes = {name: getattr(parallel, name) for name in AXES[::-1]}
    return " × ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "replicate 1"


def check(parallel: Parallel, spec: ModelSpec, context: int) -> None:
    """Raise `RequestError` where this shape, or rows of `context` tokens, cannot be divided so."""
    t, c, n = parallel.tensor, parallel.context, parallel.pipeline * parallel.stages
    sequence = t if parallel.sequence else 1
    rules = (
        (spec.heads % t == 0, f"{spec.heads} heads do not divide by tensor {t}"),
        (spec.kv_heads % t == 0, f"{spec.kv_heads} key/value heads do not divide by tensor {t}"),
        (spec.ffn_width % t == 0, f"ffn_width {spec.ffn_width} does not divide by tensor {t}"),
        (spec.layers >= n, f"{spec.layers} layers are fewer than the pipeline's {n} stages"),
        (context % (c * sequence) == 0, f"rows of {context} tokens do not divide by {c * sequence}"),
    )
    for holds, problem in rules:
        if not holds:
            raise RequestError(f"the layout does not suit the model: {problem}", "change [parallel] or [model]")
