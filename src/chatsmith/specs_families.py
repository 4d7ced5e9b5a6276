"""The shapes of BERT, the original Transformer and Transformer-XL, as data beside `ModelSpec`.

Each says of itself what a `Shape` says: its weights by term and its matrix multiplies. The letters are those of
`specs`: L layers, E width, H heads, D head_dim, F ffn_width, V vocab_size, C context.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from chatsmith.counts import Matmul, Shape, training_flops
from chatsmith.errors import RequestError, did_you_mean
from chatsmith.specs import PRESETS, check_sizes, head_width, preset_name


class _Counted:
    """Sums over the terms and multiplies that a family lists."""

    __slots__ = ()

    @property
    def parameter_terms(self) -> dict[str, int]:
        """Trainable parameters by term; a tied matrix stands once."""
        raise NotImplementedError

    def matmuls(self, context: int | None = None) -> tuple[Matmul, ...]:
        """The matrix multiplies of a forward pass, as one token meets them."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        """The exact number of trainable parameters."""
        return sum(self.parameter_terms.values())

    @property
    def embedding_parameters(self) -> int:
        """Rows that are looked up."""
        return sum(count for name, count in self.parameter_terms.items() if name in _LOOKED_UP)

    def training_flops_per_token(self, context: int | None = None) -> float:
        """Forward and backward FLOPs per token, attention in full, nothing recomputed."""
        return training_flops(self.matmuls(context))


_LOOKED_UP = ("token embedding", "positions", "segments")


@dataclass(frozen=True, slots=True)
class EncoderSpec(_Counted):
    """The shape of BERT (Devlin et al. 2019): learned positions, segments, post-norm layers with biases, a pooler.

    `heads_on_top` adds what pretraining needs: "masked" the transform and bias before the tied output, "pretraining"
    also the two outputs of next-sentence prediction. The masked positions are 15 of 100 tokens (section 3.1).
    """

    vocab_size: int
    context: int
    width: int
    layers: int
    heads: int
    ffn_width: int = 0
    segments: int = 2
    pooler: bool = True
    heads_on_top: Literal["none", "masked", "pretraining"] = "none"

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context", "width", "layers", "heads", "segments")
        head_width(self.width, self.heads)
        if self.ffn_width == 0:
            object.__setattr__(self, "ffn_width", 4 * self.width)
        check_sizes(self, "ffn_width")

    @property
    def parameter_terms(self) -> dict[str, int]:
        """Trainable parameters by term."""
        width = self.width
        terms = {
            "token embedding": self.vocab_size * width,
            "positions": self.context * width,
            "segments": self.segments * width,
            "attention": self.layers * (4 * width**2 + 4 * width),
            "feed-forward": self.layers * (2 * width * self.ffn_width + self.ffn_width + width),
            "norms": (2 * self.layers + 1) * 2 * width,
            "pooler": width**2 + width if self.pooler else 0,
            "masked-token head": 0,
            "next-sentence head": 2 * width + 2 if self.heads_on_top == "pretraining" else 0,
        }
        if self.heads_on_top != "none":
            terms["masked-token head"] = width**2 + width + 2 * width + self.vocab_size
        return {name: count for name, count in terms.items() if count}

    def matmuls(self, context: int | None = None) -> tuple[Matmul, ...]:
        """The matrix multiplies of a forward pass; every token sees all `context` of them."""
        length = self.context if context is None else context
        head_dim, sees = self.width // self.heads, self.layers * self.heads
        found = [
            Matmul("query, key, value", self.width, 3 * self.width, self.layers),
            Matmul("attention scores", head_dim, length, sees, weight=False),
            Matmul("attention values", length, head_dim, sees, weight=False),
            Matmul("attention output", self.width, self.width, self.layers),
            Matmul("feed-forward in", self.width, self.ffn_width, self.layers),
            Matmul("feed-forward out", self.ffn_width, self.width, self.layers),
        ]
        if self.pooler:
            found.append(Matmul("pooler", self.width, self.width, 1 / length))
        if self.heads_on_top != "none":
            found.append(Matmul("masked-token transform", self.width, self.width, _MASKED_SHARE))
            found.append(Matmul("output head", self.width, self.vocab_size, _MASKED_SHARE))
        return tuple(found)


_MASKED_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class EncoderDecoderSpec(_Counted):
    """The shape of the Transformer (Vaswani et al. 2017): sinusoids, no biases in attention, one matrix for both
    embeddings and the output.

    Tokens are those of source and target together, and both sides are taken to be equally long, `context` each: a
    layer of the encoder then meets one token of two.
    """

    vocab_size: int
    context: int
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    ffn_width: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context", "width", "encoder_layers", "decoder_layers", "heads")
        head_width(self.width, self.heads)
        if self.ffn_width == 0:
            object.__setattr__(self, "ffn_width", 4 * self.width)
        check_sizes(self, "ffn_width")

    @property
    def layers(self) -> int:
        """Layers of both stacks."""
        return self.encoder_layers + self.decoder_layers

    @property
    def parameter_terms(self) -> dict[str, int]:
        """Trainable parameters by term."""
        width = self.width
        ffn = 2 * width * self.ffn_width + self.ffn_width + width
        return {
            "token embedding": self.vocab_size * width,
            "encoder attention": self.encoder_layers * 4 * width**2,
            "decoder attention": self.decoder_layers * 4 * width**2,
            "cross attention": self.decoder_layers * 4 * width**2,
            "feed-forward": self.layers * ffn,
            "norms": (2 * self.encoder_layers + 3 * self.decoder_layers) * 2 * width,
        }

    def matmuls(self, context: int | None = None) -> tuple[Matmul, ...]:
        """The matrix multiplies of a forward pass over one sentence pair, divided among the tokens of both sides."""
        length = self.context if context is None else context
        width, head_dim = self.width, self.width // self.heads
        # Two kinds of attention in a decoder layer; queries and keys of the second come from different sides.
        blocks = (self.encoder_layers + 2 * self.decoder_layers) / 2
        return (
            Matmul("query, key, value", width, 3 * width, blocks),
            Matmul("attention scores", head_dim, length, blocks * self.heads, weight=False),
            Matmul("attention values", length, head_dim, blocks * self.heads, weight=False),
            Matmul("attention output", width, width, blocks),
            Matmul("feed-forward in", width, self.ffn_width, self.layers / 2),
            Matmul("feed-forward out", self.ffn_width, width, self.layers / 2),
            Matmul("output head", width, self.vocab_size, 1 / 2),
        )


@dataclass(frozen=True, slots=True)
class RecurrentSpec(_Counted):
    """The shape of Transformer-XL (Dai et al. 2019): relative positions, and a memory of `memory` earlier tokens.

    `cutoffs` split the vocabulary, frequent words first, for adaptive embedding and softmax; each cluster is `divisor`
    times narrower than the one before. Embeddings and output are tied, and so are their projections. (The released
    training script leaves the first output projection of a divided vocabulary free: E² more.)
    """

    vocab_size: int
    context: int
    width: int
    layers: int
    heads: int
    head_dim: int
    ffn_width: int
    memory: int
    cutoffs: tuple[int, ...] = ()
    divisor: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context", "width", "layers", "heads", "head_dim", "ffn_width", "memory")
        edges = (0, *self.cutoffs, self.vocab_size)
        if any(start >= end for start, end in pairwise(edges)):
            raise RequestError(f"cutoffs must rise within the vocabulary of {self.vocab_size}, not {self.cutoffs}")
        if not 1 <= self.divisor <= 64 or self.width // self.divisor ** len(self.cutoffs) < 1:
            raise RequestError(f"a divisor of {self.divisor} leaves no width for the last of the clusters")

    @property
    def clusters(self) -> tuple[tuple[int, int], ...]:
        """(words, width) of each part of the vocabulary."""
        edges = (0, *self.cutoffs, self.vocab_size)
        pairs = pairwise(edges)
        return tuple((end - start, self.width // self.divisor**turn) for turn, (start, end) in enumerate(pairs))

    @property
    def parameter_terms(self) -> dict[str, int]:
        """Trainable parameters by term."""
        width, inner = self.width, self.heads * self.head_dim
        projected = sum(narrow for _, narrow in self.clusters) * width if self.divisor > 1 else 0
        return {
            "token embedding": sum(words * narrow for words, narrow in self.clusters),
            "embedding projections": projected,
            "attention": self.layers * (3 * width * inner + inner * width),
            "relative positions": self.layers * width * inner + 2 * inner,
            "feed-forward": self.layers * (2 * width * self.ffn_width + self.ffn_width + width),
            "norms": self.layers * 4 * width,
            "output biases and clusters": self.vocab_size + len(self.cutoffs) * (width + 1),
        }

    def matmuls(self, context: int | None = None) -> tuple[Matmul, ...]:
        """The matrix multiplies of a forward pass over segments of `context` tokens and the memory before them.

        Keys and values of the memory are computed anew for each segment. The output is counted in full, as when every
        word gets a probability; the projected positions, one row for all of a batch, are not counted.
        """
        length = self.context if context is None else context
        span, inner, sees = length + self.memory, self.heads * self.head_dim, self.layers * self.heads
        return (
            Matmul("query", self.width, inner, self.layers),
            Matmul("key, value", self.width, 2 * inner, self.layers * span / length),
            Matmul("attention scores", self.head_dim, span, sees, weight=False),
            Matmul("position scores", self.head_dim, span, sees, weight=False),
            Matmul("attention values", span, self.head_dim, sees, weight=False),
            Matmul("attention output", inner, self.width, self.layers),
            Matmul("feed-forward in", self.width, self.ffn_width, self.layers),
            Matmul("feed-forward out", self.ffn_width, self.width, self.layers),
            *(Matmul("output head", narrow, words, 1) for words, narrow in self.clusters),
            *(Matmul("output projection", self.width, narrow, 1) for _, narrow in self.clusters if self.divisor > 1),
            Matmul("output clusters", self.width, len(self.cutoffs), 1),
        )


def _bert(vocab_size: int, layers: int, width: int, heads: int) -> EncoderSpec:
    return EncoderSpec(vocab_size=vocab_size, context=512, width=width, layers=layers, heads=heads)


def _wikitext(
    layers: int, width: int, heads: int, head_dim: int, ffn_width: int, length: int, divisor: int
) -> RecurrentSpec:
    return RecurrentSpec(
        267735, length, width, layers, heads, head_dim, ffn_width, length, (20000, 40000, 200000), divisor
    )


# BERT: the released models. Transformer: Vaswani et al. 2017, Table 3, with a shared vocabulary of 37,000 pieces.
# Transformer-XL: the run scripts of Dai et al. 2019.
FAMILY_PRESETS: dict[str, Shape] = {
    "bert-base": _bert(30522, 12, 768, 12),
    "bert-base-cased": _bert(28996, 12, 768, 12),
    "bert-large": _bert(30522, 24, 1024, 16),
    "transformer-base": EncoderDecoderSpec(37000, 512, 512, 6, 6, 8, 2048),
    "transformer-big": EncoderDecoderSpec(37000, 512, 1024, 6, 6, 16, 4096),
    "transformer-xl-wt103-base": _wikitext(16, 410, 10, 41, 2100, 150, 1),
    "transformer-xl-wt103-large": _wikitext(18, 1024, 16, 64, 4096, 384, 4),
    "transformer-xl-enwik8-base": RecurrentSpec(204, 512, 512, 12, 8, 64, 2048, 512),
}


def shape_names() -> tuple[str, ...]:
    """Every name that `shape` knows."""
    return (*PRESETS, *FAMILY_PRESETS)


def shape(name: str) -> Shape:
    """The shape of a preset of any family; an unknown name raises `RequestError` with the nearest ones."""
    found = PRESETS.get(preset_name(name)) or FAMILY_PRESETS.get(preset_name(name))
    if found is None:
        raise RequestError(f"no preset called {name!r}", did_you_mean(name.lower(), shape_names()))
    return found
