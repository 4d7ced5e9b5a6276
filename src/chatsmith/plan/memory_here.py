"""What `chatsmith train` allocates on a CPU, tensor by tensor.

A step is fullest at one of four moments: when the loss has been computed and everything for the way back is kept; in
the way back through the last layer, when nothing has been let go yet, or through the first one, when all gradients are
there; or in the optimizer. Each is reckoned, and the largest is the answer.
There are two ways through a layer. "fused" layers keep what `kernels/layer.c` says and make the rest again; "plain"
ones are recorded by autograd operation by operation, with the native norms and activations (`kernels`) or without.
What is counted is what PyTorch allocates: not the interpreter, the libraries or the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chatsmith.specs import ModelSpec

Path = Literal["fused", "plain"]
_BLOCK = 128  # queries at a time in models.causal, whose weights are kept up to so many bytes a layer:
_KEEP_BYTES = 2**26
_CHUNK_BYTES = 2**26  # logits alive at once
_ROWS_AT_ONCE = 1024  # SHALLOW in kernels/gemm.h, in numbers


def equal_parts(count: int, most: int, tile: int) -> int:
    """The size of a part, in whole tiles, where `count` rows are taken in as few parts of about `most` as may be."""
    parts = max(1, -(-count // most))
    return max(1, -(-count // (parts * tile))) * tile


def logit_rows(count: int, vocab_size: int, logit_bytes: int) -> int:
    """How many of `count` rows of logits training makes at a time on a CPU: parts of one size, for a last small one
    would read the whole head again for little."""
    return equal_parts(count, max(64, _CHUNK_BYTES // (logit_bytes * max(1, vocab_size))), 32)


def gradient_is_mostly_zeros(table_bytes: int, vocab_size: int, tokens: int) -> bool:
    """Whether a lookup of so many tokens names the rows it reads of a large table, instead of filling a gradient."""
    return table_bytes >= 2**24 and 4 * tokens <= vocab_size


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes while a step is fullest, by term. `passing` is what lives only for that moment, `scratch` what the native
    kernels keep to work in."""

    weights: int
    masters: int
    optimizer: int
    gradients: int
    activations: int
    output_head: int
    passing: int
    scratch: int

    @property
    def total(self) -> int:
        """All terms together."""
        return (
            self.weights
            + self.masters
            + self.optimizer
            + self.gradients
            + self.activations
            + self.output_head
            + self.passing
            + self.scratch
        )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Widths in numbers per token."""

    E: int
    F: int
    inner: int
    keys: int


def training_memory(
    spec: ModelSpec,
    rows: int,
    context: int | None = None,
    *,
    path: Path = "fused",
    kernels: bool = True,
    weight_bytes: Literal[2, 4] = 2,
    optimizer: Literal["adamw", "muon"] = "muon",
    accumulate: bool = False,
    threads: int = 1,
) -> TrainingMemory:
    """What training `spec` takes with `rows` sequences of `context` tokens at a time.

    `weight_bytes` is 2 where the model computes in bfloat16 and float32 masters stand beside it. `accumulate` says that
    a step sums the gradients of several micro-batches, in float32 beside bfloat16 weights. Each of `threads` that
    fused layers run on has scratch of its own.
    """
    length = spec.context if context is None else context
    tokens, w = rows * length, weight_bytes
    sizes = _Sizes(spec.width, spec.ffn_width, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim)
    parameters = spec.parameters
    matrices = _inner_matrices(spec) if optimizer == "muon" else 0
    sums = 4 * parameters if accumulate and w == 2 else 0
    states = {
        "weights": w * parameters,
        "masters": _masters(parameters, matrices, path, kernels) if w == 2 else 0,
        "optimizer": 8 * parameters - 4 * matrices,
        "scratch": threads * _scratch(spec, sizes, length, w, optimizer) if path == "fused" else 0,
    }
    table = w * spec.vocab_size * spec.width
    layer = _kept(spec, sizes, tokens, length, w, path, kernels)
    kept = spec.layers * layer + tokens * ((w + (1 if spec.dropout else 0)) * sizes.E + 4)
    back = _way_back(spec, sizes, tokens, length, w, path, kernels)
    slopes = 2 * tokens * w * sizes.E if path == "fused" else 0  # of what comes out of a layer, and of what goes in
    own = w * _inner_matrices(spec) // spec.layers if path == "fused" else 0  # a fused layer's gradients come together
    at_once = min(tokens, logit_rows(tokens, spec.vocab_size, w if kernels else 4))
    # The matrix kernels sum a bfloat16 weight's gradient in float32 where it is one of many rows.
    wide_sum = 2 * table if w == 2 and path == "fused" and at_once > _ROWS_AT_ONCE else 0
    logits = at_once * spec.vocab_size * _logit_bytes(w, kernels)
    # Fused layers work where the logits were, and that stays.
    room = max(logits, back) if path == "fused" else 0
    named = kernels and spec.tied and gradient_is_mostly_zeros(table, spec.vocab_size, tokens)
    # Plain torch widens the first rows' logits before there is a gradient of the head.
    head_kept = tokens * w * sizes.E + (table if kernels or at_once < tokens else 0)
    moments = (
        # the loss: hidden states, the gradient of them and of the head, and some rows of logits
        TrainingMemory(**states, gradients=sums, activations=kept, output_head=head_kept,
                       passing=tokens * w * sizes.E + (room or logits) + wide_sum),
        # the last layer on the way back
        TrainingMemory(**states, gradients=sums, activations=kept, output_head=table,
                       passing=slopes + (room or back) + own),
        # the first layer, when the gradients of all others have taken the place of what they kept
        TrainingMemory(**states, gradients=sums + w * parameters - table, activations=layer, output_head=table,
                       passing=slopes + (room or back)),
        # the optimizer, or the embedding's own gradient beside the head's
        TrainingMemory(**states, gradients=sums + w * parameters, activations=0, output_head=0,
                       passing=room + max(0 if named else table, _optimizer_passing(spec, sizes, w, optimizer, path))),
    )  # fmt: skip
    return max(moments, key=lambda moment: moment.total)


def process_memory(
    bill: TrainingMemory, spec: ModelSpec, tokens: int, weight_bytes: int, *, processes: int, sharded: bool, again: bool
) -> float:
    """Bytes that each of some processes takes, about, of which one alone would take `bill` for its `tokens` at a time.

    Replicas divide masters and averages (ZeRO stage 1), `sharded` ones weights and gradients too. Where layers are
    computed `again` on the way back, what goes into each is kept, and all of one layer.
    """
    held = bill.optimizer + bill.masters + (bill.weights + bill.gradients if sharded else 0)
    inputs = spec.layers * tokens * spec.width * weight_bytes
    saved = max(0.0, bill.activations - bill.activations / spec.layers - inputs) if again else 0.0
    return bill.total - held * (1 - 1 / processes) - saved


def _masters(parameters: int, matrices: int, path: Path, kernels: bool) -> int:
    """What is kept beside bfloat16 weights: where kernels step them, as they do Muon's matrices on the fused path only,
    the lower half of a float32 number."""
    rest = parameters - matrices
    return (2 if kernels else 4) * rest + (2 if path == "fused" else 4) * matrices


def _inner_matrices(spec: ModelSpec) -> int:
    """Numbers in the matrices inside the layers, which Muon steps."""
    return spec.matmul_parameters - spec.vocab_size * spec.width


def _norm_rows(spec: ModelSpec) -> int:
    """Bytes that a native norm keeps for each row: its scale, and its mean where there is one."""
    return 8 if spec.norm == "layer" else 4


def _kept(spec: ModelSpec, z: _Sizes, tokens: int, length: int, w: int, path: Path, kernels: bool) -> int:
    """Bytes that one layer keeps for the way back."""
    raw = z.inner + z.keys if spec.qk_norm else 0
    heads = 4 * (spec.heads + spec.kv_heads) if spec.qk_norm else 0
    if path == "fused":
        numbers = 2 * z.E + raw + 2 * z.inner + 2 * z.keys + (2 if spec.gated else 1) * z.F
        masks = 2 * z.E if spec.dropout else 0  # a byte for each number that dropout looks at
        return tokens * (w * numbers + 2 * _norm_rows(spec) + heads + 8 * spec.heads + masks)
    numbers = 4 * z.E + raw + 4 * z.inner + (3 if spec.gated else 2) * z.F
    bytes_each = w * numbers + 2 * _norm_rows(spec) + heads
    if not kernels:
        bytes_each += w * z.F if spec.gated else 0
        if spec.norm == "rms":
            # The scaled row beside the row; in bfloat16 it takes the row's place beside its float32 copy.
            bytes_each += 4 * (2 * z.E + raw)
    if spec.dropout:
        bytes_each += 2 * z.E  # a byte for each number that dropout looks at
    return tokens * bytes_each + _kept_scores(spec, tokens, length, w)


def _kept_scores(spec: ModelSpec, tokens: int, length: int, w: int) -> int:
    """Attention weights that plain layers keep, if they are small: blocks of queries by the keys up to their end."""
    rows = tokens // length * spec.heads
    if rows * length * length * w > _KEEP_BYTES:
        return 0
    blocks = [(min(length, start + _BLOCK) - start, min(length, start + _BLOCK)) for start in range(0, length, _BLOCK)]
    return w * rows * sum(queries * keys for queries, keys in blocks)


def _logit_bytes(w: int, kernels: bool) -> int:
    """Bytes for each logit in hand: native kernels make it its own gradient; plain torch widens it to a probability."""
    if kernels:
        return w
    return 2 + 4 + 4 if w == 2 else 4 + 4


def _way_back(spec: ModelSpec, z: _Sizes, tokens: int, length: int, w: int, path: Path, kernels: bool) -> int:
    """What the way back through one layer holds beyond what was kept, at its fullest."""
    if path == "fused":
        # A norm made again, its slope, and that between the halves of a layer; with dropout a thinned one.
        numbers = (4 if spec.dropout else 3) * z.E + max((3 if spec.gated else 2) * z.F, 2 * z.inner + 2 * z.keys)
        if w == 4:
            return tokens * w * numbers
        # Sums are float32: of the products into one norm, and of a weight's slope over more rows than go at once.
        return tokens * (w * numbers + 4 * z.E) + (4 * max(z.inner, z.F) * z.E if tokens > _ROWS_AT_ONCE else 0)
    # Plain layers let go of each operation's inputs as they go: of the product first, then of the rest.
    feed = z.E + (3 if spec.gated else 2) * z.F
    # Blocks of weights, of their slopes, and of the last block's; one more where the weights are computed again.
    block = (3 if _kept_scores(spec, tokens, length, w) else 4) * spec.heads * min(_BLOCK, length)
    gone = (3 if spec.gated else 2) * z.F + 2 * z.E
    attend = z.E + 5 * z.inner + block - gone
    return tokens * w * max(feed, attend)


def _shapes(spec: ModelSpec, z: _Sizes) -> list[tuple[int, int]]:
    """The matrices of a layer."""
    shapes = [(z.inner, z.E), (z.keys, z.E), (z.keys, z.E), (z.E, z.inner), (z.F, z.E), (z.E, z.F)]
    return [*shapes, (z.F, z.E)] if spec.gated else shapes


def _optimizer_passing(spec: ModelSpec, z: _Sizes, w: int, optimizer: str, path: Path) -> int:
    """What Muon makes of the gradients of all matrices of one shape, where PyTorch computes it."""
    if optimizer == "adamw" or path == "fused":
        return 0
    shapes = _shapes(spec, z)
    # Gradient and momentum ahead in float32; in the weights' dtype the latter, where that is another, the iterate and
    # the next one, and two square ones.
    each = 8 + (6 if w == 2 else 8)
    return max(
        spec.layers * shapes.count(shape) * (each * shape[0] * shape[1] + 2 * w * min(shape) ** 2)
        for shape in set(shapes)
    )


def _scratch(spec: ModelSpec, z: _Sizes, length: int, w: int, optimizer: str) -> int:
    """Bytes that one thread of the native kernels works in: packed panels of a matmul, and keys, values and slopes of a
    head for attention, or the iterates of a matrix for Muon, whichever is most (`kernels/*.c`)."""
    panels = 1_054_720  # with matrix tiles; without them the packed rows of the left operand are fewer
    attention = length * (spec.head_dim * (3 * w + 8) + 192 * w + 180)
    each = 2 * w + 4  # two iterates, and sums in float32
    muon = max(panels + each * (rows * columns + min(rows, columns) ** 2) for rows, columns in _shapes(spec, z))
    return max(panels, attention, muon if optimizer == "muon" else 0)
