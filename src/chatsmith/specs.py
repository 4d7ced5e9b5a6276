"""The shape of a decoder, as data: one frozen dataclass, validated, and a table of presets.

`ModelSpec` covers GPT-2, GPT-3 (dense, or alternating dense and locally banded layers), Llama and Qwen3. Nothing here
imports torch, so that planning and `--help` stay fast. Sizes are counts; the letters in formulas are L layers, E width,
H heads, K key/value heads, D head_dim, F ffn_width, V vocab_size, C context.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from chatsmith import arguments
from chatsmith.counts import Matmul, training_flops
from chatsmith.errors import RequestError, did_you_mean

Norm = Literal["layer", "rms"]
Activation = Literal["gelu_tanh", "gelu", "swiglu"]
Positions = Literal["learned", "rotary"]
Architecture = Literal["gpt2", "llama", "qwen3"]

# Bounds on what a file or a request may ask for: far above any published model, far below an overflow.
_LIMITS = {
    "vocab_size": 2**24,
    "context": 2**24,
    "band": 2**24,
    "width": 2**18,
    "layers": 2**12,
    "encoder_layers": 2**12,
    "decoder_layers": 2**12,
    "segments": 2**10,
    "memory": 2**24,
    "heads": 2**14,
    "kv_heads": 2**14,
    "head_dim": 2**14,
    "ffn_width": 2**20,
}


def check_sizes(spec: object, *names: str) -> None:
    """Raise `RequestError` where one of these fields of a spec is not a whole number within bounds."""
    for name in names:
        value, limit = getattr(spec, name), _LIMITS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise RequestError(f"{name} must be a whole number from 1 to {limit}, not {value!r}")


def head_width(width: int, heads: int) -> int:
    """The size of one head; `RequestError` with the nearest number of heads where they do not divide the width."""
    if width % heads:
        near = min((n for n in range(1, min(width, 4096) + 1) if width % n == 0), key=lambda n: (abs(n - heads), n))
        raise RequestError(
            f"width {width} is not divisible by heads {heads}", f"choose heads that divide {width}, for example {near}"
        )
    return width // heads


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context: `linear`, or Llama 3.1's `llama3`."""

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        if not 1.0 <= self.factor <= 1e6:
            raise RequestError(f"rope scaling factor {self.factor} is not between 1 and 1e6")
        if self.kind == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise RequestError("llama3 rope scaling needs 0 < low_freq_factor < high_freq_factor")
        if not 1 <= self.original_context <= _LIMITS["context"]:
            raise RequestError(f"rope scaling of an original context of {self.original_context} is out of bounds")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The shape of a decoder-only transformer.

    Attributes:
        vocab_size: Rows of the embedding, V.
        context: The most tokens that it reads at once.
        width: Numbers in the state of a token (d_model), E.
        layers: Blocks of attention and feed-forward, L.
        heads: Query heads of a layer, H.
        kv_heads: Key and value heads, K, each serving H / K query heads; 0: as many as heads.
        head_dim: Numbers in a head, D; 0: width / heads.
        ffn_width: Width of the feed-forward; 0: 4·width (8/3·width rounded up to a multiple of 64 for `swiglu`).
        norm: "layer" (Ba et al. 2016), or "rms" (Zhang and Sennrich 2019).
        norm_epsilon: Keeps norms from dividing by 0.
        activation: Of the feed-forward: "gelu", "gelu_tanh", or "swiglu" with a gate (Shazeer 2020).
        positions: "learned", or "rotary" (Su et al. 2021).
        rope_theta: The base of the angles of rotary positions.
        rope_scaling: How these are stretched for a longer context, if they are.
        attention_bias: Whether the linear maps of attention have biases.
        ffn_bias: Whether those of the feed-forward have.
        qk_norm: Whether each head's queries and keys are normed.
        tied: Whether the output head is the embedding itself.
        band: Every second layer (the odd ones, counting from 0) sees only the last so many positions, as in GPT-3's
            "alternating dense and locally banded" layers (Brown et al. 2020, section 2.1; the width was never
            published). None: all layers see all.
        dropout: The share of what each block adds, and of the embeddings, that is dropped in training.
    """

    vocab_size: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int = 0
    head_dim: int = 0
    ffn_width: int = 0
    norm: Norm = "layer"
    norm_epsilon: float = 1e-5
    activation: Activation = "gelu_tanh"
    positions: Positions = "learned"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = True
    ffn_bias: bool = True
    qk_norm: bool = False
    tied: bool = True
    band: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        def fill(name: str, value: int) -> None:
            if getattr(self, name) == 0:
                object.__setattr__(self, name, value)

        check_sizes(self, "vocab_size", "context", "width", "layers", "heads")
        fill("kv_heads", self.heads)
        if self.head_dim == 0:
            fill("head_dim", head_width(self.width, self.heads))
        gated = self.activation == "swiglu"
        fill("ffn_width", -(-8 * self.width // 3 // 64) * 64 if gated else 4 * self.width)
        check_sizes(self, "kv_heads", "head_dim", "ffn_width")
        if self.heads % self.kv_heads:
            raise RequestError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise RequestError(f"rotary positions need an even head_dim, not {self.head_dim}")
        if self.band is not None:
            check_sizes(self, "band")
        if not 0.0 <= self.dropout < 1.0:
            raise RequestError(f"dropout must be in [0, 1), not {self.dropout}")
        if not 0.0 < self.norm_epsilon < 1.0:
            raise RequestError(f"norm_epsilon must be in (0, 1), not {self.norm_epsilon}")
        if not 1.0 < self.rope_theta < 1e12:
            raise RequestError(f"rope_theta must be in (1, 1e12), not {self.rope_theta}")

    @property
    def gated(self) -> bool:
        """Whether the feed-forward block has a gate (SwiGLU)."""
        return self.activation == "swiglu"

    @property
    def architecture(self) -> Architecture | None:
        """The published family this shape equals, so that other programs load it; None when it equals none."""
        if self.band is not None:
            return None
        if self.norm == "layer" and self.positions == "learned" and self.activation in ("gelu_tanh", "gelu"):
            plain = self.attention_bias and self.ffn_bias and not self.qk_norm and self.kv_heads == self.heads
            return "gpt2" if plain and self.heads * self.head_dim == self.width else None
        if self.norm == "rms" and self.positions == "rotary" and self.gated and not self.ffn_bias:
            return "qwen3" if self.qk_norm else "llama"
        return None

    def check_induction_heads(self, count: int) -> None:
        """Raise `RequestError` where a decoder of this shape cannot begin with `count` heads that look back."""
        suits = self.positions == "rotary" and self.qk_norm and self.tied and not self.attention_bias
        if count and not suits:
            raise RequestError(
                "induction_heads needs rotary positions, normed queries and keys, a tied head and no attention biases",
                'take preset = "modern", or leave induction_heads out',
            )
        if count and self.layers < 2:
            raise RequestError(
                "induction_heads needs two layers: a head of the second reads what one of the first wrote"
            )
        if not 0 <= count <= self.kv_heads:
            held = f"layers of {self.kv_heads} key/value heads"
            raise RequestError(f"induction_heads must be from 0 to {self.kv_heads} for {held}, not {count}")

    def layer_band(self, layer: int) -> int | None:
        """The band of one layer: None for a dense one."""
        return self.band if self.band is not None and layer % 2 == 1 else None

    @property
    def bands(self) -> tuple[int | None, ...]:
        """The bands of the kinds of layers there are, in the order in which layers take turns."""
        return tuple(self.layer_band(layer) for layer in range(1 if self.band is None else min(2, self.layers)))

    @property
    def parameter_terms(self) -> dict[str, int]:
        """Trainable parameters by term, exact (for GPT shapes they add up to 12LE² + 13LE + (V + C)E + 2E)."""
        norm = self.width * (2 if self.norm == "layer" else 1)
        inner, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.width * (inner + 2 * keys) + inner * self.width
        attention += (inner + 2 * keys + self.width) if self.attention_bias else 0
        attention += 2 * self.head_dim if self.qk_norm else 0
        ffn = self.width * self.ffn_width * (3 if self.gated else 2)
        ffn += (self.ffn_width * (2 if self.gated else 1) + self.width) if self.ffn_bias else 0
        terms = {
            "token embedding": self.vocab_size * self.width,
            "positions": self.context * self.width if self.positions == "learned" else 0,
            "attention": self.layers * attention,
            "feed-forward": self.layers * ffn,
            "norms": (2 * self.layers + 1) * norm,
            "output head": 0 if self.tied else self.vocab_size * self.width,
        }
        return {name: count for name, count in terms.items() if count}

    @property
    def parameters(self) -> int:
        """The exact number of trainable parameters."""
        return sum(self.parameter_terms.values())

    @property
    def embedding_parameters(self) -> int:
        """Rows that are looked up: of tokens, and of positions where they are learned."""
        terms = self.parameter_terms
        return terms["token embedding"] + terms.get("positions", 0)

    def matmuls(self, context: int | None = None) -> tuple[Matmul, ...]:
        """The matrix multiplies of a forward pass over rows of `context` tokens (the spec's context by default).

        Attention in full: what causal masking could leave out is not taken off. A banded layer sees its band.
        """
        length = self.context if context is None else context
        inner, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bands = Counter(min(length, self.layer_band(layer) or length) for layer in range(self.layers))
        seen = sorted(bands.items(), reverse=True)
        return (
            Matmul("query, key, value", self.width, inner + 2 * keys, self.layers),
            *(
                Matmul("attention scores", self.head_dim, span, self.heads * times, weight=False)
                for span, times in seen
            ),
            *(
                Matmul("attention values", span, self.head_dim, self.heads * times, weight=False)
                for span, times in seen
            ),
            Matmul("attention output", inner, self.width, self.layers),
            Matmul("feed-forward in", self.width, self.ffn_width * (2 if self.gated else 1), self.layers),
            Matmul("feed-forward out", self.ffn_width, self.width, self.layers),
            Matmul("output head", self.width, self.vocab_size, 1),
        )

    @property
    def matmul_parameters(self) -> int:
        """Weights that take part in a matrix multiply for every token: all matrices and the output head."""
        return sum(int(matmul.inputs * matmul.outputs * matmul.times) for matmul in self.matmuls(1) if matmul.weight)

    def training_flops_per_token(self, context: int | None = None) -> float:
        """Forward and backward FLOPs per token: 6 per matmul weight, and 12·L·H·D·T for attention in full.

        The count of PaLM (Chowdhery et al. 2022, appendix B): causal masking is not taken off, recomputation is not
        added. `context` is T, the sequence length trained at (the spec's context by default).
        """
        return training_flops(self.matmuls(context))


def padded_vocabulary(vocab_size: int, multiple: int = 64) -> int:
    """`vocab_size` rounded up to a multiple, so that the output matmul runs on whole tiles."""
    return -(-vocab_size // multiple) * multiple


def _gpt(layers: int, width: int, heads: int, context: int) -> ModelSpec:
    return ModelSpec(vocab_size=50257, context=context, width=width, layers=layers, heads=heads)


def modern(vocab_size: int, context: int, width: int, layers: int, heads: int, **changes: object) -> ModelSpec:
    """A decoder of Qwen3's shape: rotary, RMS norms, query/key norms, SwiGLU, no biases. What `new` trains."""
    shape: dict[str, object] = dict(
        norm="rms",
        norm_epsilon=1e-6,
        activation="swiglu",
        positions="rotary",
        attention_bias=False,
        ffn_bias=False,
        qk_norm=True,
        tied=True,
    )
    sizes = dict(vocab_size=vocab_size, context=context, width=width, layers=layers, heads=heads)
    return ModelSpec(**(shape | sizes | changes))  # type: ignore[arg-type]


# GPT-3: Brown et al. 2020, Table 2.1, with the two misprints put right (XL has 16 heads, 13B has width 5120): only then
# do the counts give the paper's own Table D.1. GPT-2: the four released sizes (Radford et al. 2019).
PRESETS: dict[str, ModelSpec] = {
    "gpt2-124m": _gpt(12, 768, 12, 1024),
    "gpt2-355m": _gpt(24, 1024, 16, 1024),
    "gpt2-774m": _gpt(36, 1280, 20, 1024),
    "gpt2-1558m": _gpt(48, 1600, 25, 1024),
    "gpt3-125m": _gpt(12, 768, 12, 2048),
    "gpt3-350m": _gpt(24, 1024, 16, 2048),
    "gpt3-760m": _gpt(24, 1536, 16, 2048),
    "gpt3-1.3b": _gpt(24, 2048, 16, 2048),
    "gpt3-2.7b": _gpt(32, 2560, 32, 2048),
    "gpt3-6.7b": _gpt(32, 4096, 32, 2048),
    "gpt3-13b": _gpt(40, 5120, 40, 2048),
    "gpt3-175b": _gpt(96, 12288, 96, 2048),
    "llama2-7b": ModelSpec(
        vocab_size=32000, context=4096, width=4096, layers=32, heads=32, ffn_width=11008, norm="rms",
        activation="swiglu", positions="rotary", attention_bias=False, ffn_bias=False, tied=False,
    ),
    "llama3-8b": ModelSpec(
        vocab_size=128256, context=8192, width=4096, layers=32, heads=32, kv_heads=8, ffn_width=14336, norm="rms",
        activation="swiglu", positions="rotary", rope_theta=500000.0, attention_bias=False, ffn_bias=False, tied=False,
    ),
    "qwen3-0.6b": modern(151936, 40960, 1024, 28, 16, kv_heads=8, head_dim=128, ffn_width=3072, rope_theta=1e6),
    "qwen3-1.7b": modern(151936, 40960, 2048, 28, 16, kv_heads=8, head_dim=128, ffn_width=6144, rope_theta=1e6),
    "qwen3-4b": modern(151936, 40960, 2560, 36, 32, kv_heads=8, head_dim=128, ffn_width=9728, rope_theta=1e6),
    "qwen3-8b": modern(
        151936, 40960, 4096, 36, 32, kv_heads=8, head_dim=128, ffn_width=12288, rope_theta=1e6, tied=False
    ),
}  # fmt: skip


# The names of the papers and of the published folders.
_ALSO_CALLED = {
    "gpt2": "gpt2-124m",
    "gpt2-small": "gpt2-124m",
    "gpt2-medium": "gpt2-355m",
    "gpt2-large": "gpt2-774m",
    "gpt2-xl": "gpt2-1558m",
    "gpt3": "gpt3-175b",
    "gpt3-small": "gpt3-125m",
    "gpt3-medium": "gpt3-350m",
    "gpt3-large": "gpt3-760m",
    "gpt3-xl": "gpt3-1.3b",
}


def preset_name(name: str) -> str:
    """The name that the tables have for a preset, as "gpt2-1558m" for "GPT-2-XL"; others come back in small letters."""
    plain = name.lower().replace("gpt-", "gpt")
    return _ALSO_CALLED.get(plain, plain)


def preset(name: str) -> ModelSpec:
    """The shape of a published model by name, as "gpt2-124m" or "gpt3-175b"; `PRESETS` holds them all.

    Raises `RequestError` with the nearest names for an unknown one.
    """
    arguments.text("preset", name)
    try:
        return PRESETS[preset_name(name)]
    except KeyError:
        raise RequestError(f"no preset called {name!r}", did_you_mean(name.lower(), PRESETS)) from None
