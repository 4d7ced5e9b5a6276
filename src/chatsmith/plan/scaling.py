"""Scaling laws: what to train for a given compute, and the loss that a fit expects.

The fits disagree, so each carries its name. The default is the replication by Besiroglu et al.: the constants that
Hoffmann et al. print do not lead to their own "20 tokens for each parameter".
"""

from __future__ import annotations

from dataclasses import dataclass

from chatsmith.errors import RequestError, did_you_mean

CAVEAT = "Nats on the text and vocabulary of the fit's paper: they compare choices, and foretell no validation loss."


@dataclass(frozen=True, slots=True)
class ParametricFit:
    """L(N, D) = E + A/N^α + B/D^β with N all parameters and D tokens (Hoffmann et al. 2022, equation 10)."""

    name: str
    source: str
    irreducible: float
    parameters_scale: float
    tokens_scale: float
    alpha: float
    beta: float
    text: str = "MassiveText, a vocabulary of 32,000"
    counts_embeddings: bool = True

    def loss(self, parameters: float, tokens: float) -> float:
        """Expected loss in nats per token."""
        missing = self.parameters_scale / parameters**self.alpha
        return self.irreducible + missing + self.tokens_scale / tokens**self.beta

    def written(self, parameters: float, tokens: float) -> tuple[str, str]:
        """The loss in symbols, and with its numbers."""
        scales = f"{self.parameters_scale:g} / {parameters:.4g}^{self.alpha:g}", f"{self.tokens_scale:g} / {tokens:.4g}"
        return "E + A / N^α + B / D^β", f"{self.irreducible:g} + {scales[0]} + {scales[1]}^{self.beta:g}"

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the lowest loss for 6ND = `flops` (equation 4 of the paper)."""
        ratio = self.alpha * self.parameters_scale / (self.beta * self.tokens_scale)
        parameters = ratio ** (1 / (self.alpha + self.beta)) * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters


@dataclass(frozen=True, slots=True)
class KaplanFit:
    """Kaplan et al. 2020: N counts no embeddings, D is tokens of WebText2; C in PF-days."""

    name: str = "kaplan"
    source: str = "Kaplan et al. 2020, equation 1.5; best size from section 6"
    text: str = "WebText2, GPT-2's vocabulary; N without embeddings"
    counts_embeddings: bool = False

    def loss(self, parameters: float, tokens: float) -> float:
        """Expected loss in nats per token: ((N_c/N)^(α_N/α_D) + D_c/D)^α_D."""
        return ((8.8e13 / parameters) ** (0.076 / 0.095) + 5.4e13 / tokens) ** 0.095

    def written(self, parameters: float, tokens: float) -> tuple[str, str]:
        """The loss in symbols, and with its numbers."""
        numbers = f"((8.8e13 / {parameters:.4g})^(0.076 / 0.095) + 5.4e13 / {tokens:.4g})^0.095"
        return "((N_c / N)^(α_N / α_D) + D_c / D)^α_D", numbers

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) at 6ND = `flops`, by N = 1.3e9 × (PF-days)^0.73."""
        parameters = 1.3e9 * (flops / 8.64e19) ** 0.73
        return parameters, flops / 6 / parameters


Fit = ParametricFit | KaplanFit

FITS: dict[str, Fit] = {
    "besiroglu": ParametricFit(
        "besiroglu",
        "Besiroglu et al. 2024, replicating Hoffmann et al.'s third approach",
        1.8172,
        482.01,
        2085.43,
        0.3478,
        0.3658,
    ),
    "hoffmann": ParametricFit(
        "hoffmann", "Hoffmann et al. 2022, equation 10, as printed (rounded)", 1.69, 406.4, 410.7, 0.34, 0.28
    ),
    "hoffmann-unrounded": ParametricFit(
        "hoffmann-unrounded",
        "Hoffmann et al. 2022, exponents from the paper's source (Besiroglu et al. 2024)",
        1.69,
        406.4,
        410.7,
        0.3392,
        0.2849,
    ),
    "kaplan": KaplanFit(),
}
DEFAULT_FIT = "besiroglu"


@dataclass(frozen=True, slots=True)
class Optimum:
    """What a fit would train with this much compute, and the loss that it expects of it."""

    fit: str
    source: str
    flops: float
    parameters: float
    tokens: float
    loss_nats_per_token: float

    @property
    def tokens_per_parameter(self) -> float:
        """D/N."""
        return self.tokens / self.parameters


def find_fit(name: str) -> Fit:
    """A fit by name; an unknown one raises `RequestError` with the nearest names."""
    if name.lower() not in FITS:
        raise RequestError(f"no scaling law called {name!r}", did_you_mean(name.lower(), FITS))
    return FITS[name.lower()]


def optimum(flops: float, fit: str = DEFAULT_FIT) -> Optimum:
    """The compute-optimal size and tokens for a training compute of `flops` (6ND)."""
    law = find_fit(fit)
    parameters, tokens = law.optimum(flops)
    return Optimum(law.name, law.source, flops, parameters, tokens, law.loss(parameters, tokens))


def optimal_tokens(parameters: float, fit: str = DEFAULT_FIT) -> float:
    """How many tokens make this size the best use of its compute, by a fit (bisection over compute)."""
    law = find_fit(fit)
    low, high = 0.0, 80.0  # decimal exponents of the compute
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if law.optimum(10.0**middle)[0] < parameters else (low, middle)
    return 10.0**low / 6 / parameters
