"""What a shape is counted from: its weights term by term, and the matrix multiplies of a forward pass.

Every figure of size and compute is a sum over these, so that there is one home for each formula. A multiply-add is two
FLOPs. What no matrix multiply does (norms, activations, softmax, the optimizer) is not counted, as everywhere in the
literature: it is about one percent of the arithmetic, and bounded by memory, not by FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

TRAINING_PASSES = 3  # forward once; backward twice as much, for the gradients of inputs and of weights


@dataclass(frozen=True, slots=True)
class Matmul:
    """One kind of matrix multiply in a forward pass, as one token meets it.

    For each token a row of `inputs` numbers is multiplied by a matrix (inputs, outputs), `times` over: once a layer,
    say, or once a head and layer. The matrix is a `weight`, or it was computed (keys and values), and then its size
    grows with the length of the sequence. `times` is a fraction where only some of the tokens are multiplied.
    """

    name: str
    inputs: int
    outputs: int
    times: float
    weight: bool = True

    @property
    def flops_per_token(self) -> float:
        """Forward FLOPs for one token: 2 for each number of the matrix."""
        return 2.0 * self.inputs * self.outputs * self.times


class Shape(Protocol):
    """What every kind of model says of itself, so that it can be planned for."""

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""
        ...

    @property
    def parameter_terms(self) -> dict[str, int]:
        """Trainable parameters by term; a tied matrix stands once."""
        ...

    @property
    def parameters(self) -> int:
        """All trainable parameters."""
        ...

    @property
    def embedding_parameters(self) -> int:
        """Rows that are looked up: token, position and segment embeddings (also where one is the output head)."""
        ...

    def matmuls(self, context: int | None = None) -> tuple[Matmul, ...]:
        """The matrix multiplies of a forward pass over sequences of `context` tokens (the longest by default)."""
        ...

    def training_flops_per_token(self, context: int | None = None) -> float:
        """Forward and backward FLOPs per token, attention in full, nothing recomputed."""
        ...


def training_flops(matmuls: Iterable[Matmul]) -> float:
    """FLOPs of training on one token: every multiply of the forward pass, and twice that on the way back."""
    return TRAINING_PASSES * sum(matmul.flops_per_token for matmul in matmuls)
