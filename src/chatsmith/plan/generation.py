"""What it takes to generate: weights in four precisions, the cache of keys and values, and how fast memory lets it go.

Making one token reads every weight and the whole cache once, so that memory bandwidth bounds it: tokens/s for one
sequence ≤ bandwidth / (weight bytes + cache bytes). A batch shares the reading of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatsmith.plan.accelerators import Accelerator
from chatsmith.plan.formulas import Formula
from chatsmith.plan.quantities import bytes_text, short, speed_text
from chatsmith.plan.training import check_context
from chatsmith.specs import ModelSpec
from chatsmith.tables import Column, Table

# Bits of a weight. Packed formats add a scale for each group, 3 to 12 percent, which is not counted.
BITS = {"f32": 32, "bf16": 16, "int8": 8, "int4": 4}
_CACHE_BYTES = 2  # keys and values in 16 bits
_MEMORY_SHARE = 0.92  # what a process gets of a device: the rest is the driver's, the kernels' and lost to fragments


@dataclass(frozen=True, slots=True)
class Device:
    """What generation asks of a device: memory and bandwidth, and the rate that bounds it where a batch is large."""

    name: str
    memory_bytes: float
    bandwidth_bytes_per_second: float
    flops_per_second: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Fit:
    """One precision of the weights: bytes in all, whether that fits, and the tokens per second that bounds allow.

    `tokens_per_second` is of one sequence, `tokens_per_second_batch` of all sequences together; `bound` says what the
    batch is held by. None where no device was named.
    """

    precision: str
    weight_bytes: float
    cache_bytes: float
    fits: bool | None = None
    tokens_per_second: float | None = None
    tokens_per_second_batch: float | None = None
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """What a decoder needs to generate at a context and batch, in each precision of its weights."""

    context: int
    batch: int
    cache_bytes_per_token: float
    fits: tuple[Fit, ...]
    device: Device | None = None

    def table(self) -> Table:
        """A row for each precision of the weights."""
        columns = [Column("weights in", "left"), Column("weights"), Column("with cache")]
        rows = []
        for fit in self.fits:
            row = [fit.precision, bytes_text(fit.weight_bytes), bytes_text(fit.weight_bytes + fit.cache_bytes)]
            if self.device is not None:
                row.append("yes" if fit.fits else "no")
                row.append(_speed(fit.tokens_per_second) if fit.fits else "–")
                if self.batch > 1:
                    row.append(f"{_speed(fit.tokens_per_second_batch)} ({fit.bound})" if fit.fits else "–")
            rows.append(tuple(row))
        note = (
            f"cache: {bytes_text(self.cache_bytes_per_token)} per token in 16 bits, "
            f"{bytes_text(self.fits[0].cache_bytes)} for {self.batch} × {self.context:,} tokens"
        )
        if self.device is not None:
            device = self.device
            many = f"{device.count} × " if device.count > 1 else ""
            columns += [Column("fits"), Column("at most, tokens/s")]
            columns += [Column(f"all {self.batch} together")] if self.batch > 1 else []
            note += (
                f"\n{many}{device.name}: {bytes_text(device.memory_bytes)}, read at "
                f"{bytes_text(device.bandwidth_bytes_per_second)}/s. Speeds are bounds: weights and cache, read once a "
                "token"
            )
        title = f"Generating, {self.batch} sequence{'s' if self.batch > 1 else ''} of {self.context:,} tokens"
        return Table(title, tuple(columns), tuple(rows), note=note)


def device_of(accelerator: Accelerator, count: int = 1) -> Device:
    """An accelerator as generation sees it."""
    return Device(
        accelerator.name,
        accelerator.memory_gb * 1e9,
        accelerator.bandwidth_gb_s * 1e9,
        accelerator.training_tflops * 1e12,
        count,
    )


def cache_bytes(spec: ModelSpec, context: int, batch: int = 1) -> float:
    """Bytes of the keys and values of `batch` sequences of `context` tokens; a banded layer keeps its band."""
    kept = sum(min(context, spec.layer_band(layer) or context) for layer in range(spec.layers))
    return 2.0 * spec.kv_heads * spec.head_dim * _CACHE_BYTES * kept * batch


def plan_generation(spec: ModelSpec, context: int, batch: int, device: Device | None = None) -> Generation:
    """What `spec` takes to generate; raises `RequestError` for a context the positions do not reach."""
    check_context(spec, context)
    cache = cache_bytes(spec, context, batch)
    fits = []
    for precision, bits in BITS.items():
        weights = spec.parameters * bits / 8
        if device is None:
            fits.append(Fit(precision, weights, cache))
        else:
            fits.append(_fit(spec, precision, weights, cache, batch, device))
    per_token = 2.0 * spec.layers * spec.kv_heads * spec.head_dim * _CACHE_BYTES
    return Generation(context, batch, per_token, tuple(fits), device)


def _fit(spec: ModelSpec, precision: str, weights: float, cache: float, batch: int, device: Device) -> Fit:
    looked_up = spec.parameter_terms.get("positions", 0) + (0 if spec.tied else spec.parameter_terms["token embedding"])
    read = weights * (spec.parameters - looked_up) / spec.parameters
    bandwidth = device.bandwidth_bytes_per_second * device.count
    alone = bandwidth / (read + cache / batch)
    by_memory = batch * bandwidth / (read + cache)
    by_compute = device.flops_per_second * device.count / (2.0 * spec.matmul_parameters)
    return Fit(
        precision,
        weights,
        cache,
        weights + cache <= _MEMORY_SHARE * device.memory_bytes * device.count,
        min(alone, by_compute),
        min(by_memory, by_compute),
        "memory" if by_memory <= by_compute else "compute",
    )


def weight_formula(parameters: int) -> Formula:
    """What the weights take, in the precision they are mostly kept in."""
    size = parameters * BITS["bf16"] / 8
    return Formula(
        "weights in bf16",
        "parameters × bits / 8",
        f"{parameters:,} × {BITS['bf16']} / 8",
        size,
        "bytes",
        f"counted here; {', '.join(f'{bits} bits for {name}' for name, bits in BITS.items())}",
        "packed formats add a scale for each group, 3 to 12%",
        shown=bytes_text(size),
    )


def generation_formulas(spec: ModelSpec, plan: Generation) -> tuple[Formula, ...]:
    """How the cache and the bound on speed come about."""
    found = [
        Formula(
            "cache per token",
            "2 × layers × key/value heads × head size × bytes",
            f"2 × {spec.layers} × {spec.kv_heads} × {spec.head_dim} × {_CACHE_BYTES}",
            plan.cache_bytes_per_token,
            "bytes",
            "keys and values of every layer, in 16 bits",
            shown=bytes_text(plan.cache_bytes_per_token),
        )
    ]
    fit = next(fit for fit in plan.fits if fit.precision == "bf16")
    if plan.device is not None and fit.tokens_per_second is not None:
        found.append(
            Formula(
                "tokens per second in bf16",
                "bandwidth / (weight bytes that are read + cache bytes of the sequence)",
                f"{short(plan.device.bandwidth_bytes_per_second * plan.device.count)} / "
                f"({short(fit.weight_bytes)} + {short(fit.cache_bytes / plan.batch)})",
                fit.tokens_per_second,
                "tokens/s",
                "every weight is read for every token; rows of tables that are only looked up are not",
                "a bound, which kernels approach; several devices lose some to their links",
                shown=_speed(fit.tokens_per_second),
            )
        )
    return tuple(found)


def _speed(tokens_per_second: float | None) -> str:
    return "–" if tokens_per_second is None else speed_text(tokens_per_second)
