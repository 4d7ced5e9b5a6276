"""The model card: what a model is, how it was made and how well it does, from what was measured and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from chatsmith.specs import ModelSpec
from chatsmith.store.hf import OWN_FAMILY, family

_ELSEWHERE = "Other programs that read Hugging Face folders load it too:"
_PACKED = "The weights are packed: chatsmith reads them, other programs do not."


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a training run. A field left None is not on the card; nothing is filled in by guess."""

    steps: int | None = None
    tokens: int | None = None  # seen in training, repeats counted
    minutes: float | None = None
    tokens_per_second: float | None = None
    machine: str | None = None
    seed: int | None = None
    version: str | None = None
    documents: int | None = None
    data_tokens: int | None = None
    data_bytes: int | None = None  # UTF-8 bytes of the text
    data_fingerprint: str | None = None
    sources: tuple[str, ...] = ()
    train_loss: float | None = None  # nats per token
    held_out_loss: float | None = None  # nats per token, on documents kept out of training
    held_out_bits_per_byte: float | None = None
    first_alone: bool = False  # whether those are of the first source, and the loss of all
    gzip_bits_per_byte: float | None = None  # of the same held-out text
    xz_bits_per_byte: float | None = None
    chat: bool = False  # whether it was tuned to talk
    started_from: str | None = None  # the model whose weights it began with


def model_card(name: str, spec: ModelSpec, measured: Measured) -> str:
    """The card in Markdown, with the front matter that model hubs read."""
    kind = family(spec)
    other = kind != OWN_FAMILY
    front = ["---", "pipeline_tag: text-generation", "tags:", "- chatsmith"]
    front += ["library_name: transformers", "---"] if other else ["library_name: chatsmith", "---"]
    sections = [
        "\n".join(front),
        f"# {_line(name)}",
        f"A language model of {spec.parameters:,} parameters, {_origin(measured)}.",
        _section("Shape", _table(_shape_rows(spec, kind))),
        _section("Training", _table(_training_rows(measured))),
        _section("Data", _data(measured)),
        _section("Results", _table(_result_rows(measured))),
        _section("Limits", _limits(spec, measured)),
        _section("Use", _use(name, measured.chat, other)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def converted_card(
    card: str | None, name: str, spec: ModelSpec, about: str, rows: Iterable[tuple[str, str]], *, packed: bool
) -> str:
    """The card of a model that was converted: that of its source (None where it has none) and what was measured.

    What our cards say of other programs is left out where the weights are `packed`, which only chatsmith reads.
    """
    card = card or f"# {_line(name)}\n\nA language model of {spec.parameters:,} parameters."
    if packed:
        card = card.replace("library_name: transformers", "library_name: chatsmith", 1)
        card = re.sub(re.escape(_ELSEWHERE) + r"\n\n```python\n.*?\n```", "", card, flags=re.DOTALL)
        about += f" {_PACKED}"
    return card.rstrip() + "\n\n" + _section("Converted", f"{about}\n\n{_table(rows)}") + "\n"


def _origin(measured: Measured) -> str:
    talks = " and tuned to talk" if measured.chat else ""
    if measured.started_from is None:
        return f"trained from scratch with chatsmith{talks}"
    return f"trained further with chatsmith from {_line(measured.started_from)}{talks}"


def _line(text: str) -> str:
    """Text from outside as part of one Markdown line or table cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(rows: Iterable[tuple[str, str | None]]) -> str:
    kept = [f"| {label} | {_line(value)} |" for label, value in rows if value is not None]
    return "\n".join(["| | |", "|---|---|", *kept]) if kept else ""


def _count(value: int | None, unit: str = "") -> str | None:
    return None if value is None else f"{value:,}{unit}"


def _number(value: float | None, digits: int, unit: str = "") -> str | None:
    return None if value is None else f"{value:,.{digits}f}{unit}"


def _shape_rows(spec: ModelSpec, kind: str) -> list[tuple[str, str | None]]:
    shared = "" if spec.kv_heads == spec.heads else f", sharing {spec.kv_heads} key/value heads"
    return [
        ("family", {"gpt2": "GPT-2", "llama": "Llama", "qwen3": "Qwen3"}.get(kind, "chatsmith")),
        ("parameters", _count(spec.parameters)),
        ("layers", _count(spec.layers)),
        ("width", _count(spec.width)),
        ("heads", f"{spec.heads} of {spec.head_dim}{shared}"),
        ("context", _count(spec.context, " tokens")),
        ("vocabulary", _count(spec.vocab_size, " rows")),
        ("banded layers", None if spec.band is None else f"every second one sees the last {spec.band} tokens"),
    ]


def _training_rows(measured: Measured) -> list[tuple[str, str | None]]:
    return [
        ("steps", _count(measured.steps)),
        ("tokens seen", _count(measured.tokens)),
        ("time", _number(measured.minutes, 1, " minutes")),
        ("speed", _number(measured.tokens_per_second, 0, " tokens/s")),
        ("machine", measured.machine),
        ("seed", _count(measured.seed)),
        ("chatsmith", measured.version),
    ]


def _data(measured: Measured) -> str:
    rows = [
        ("documents", _count(measured.documents)),
        ("tokens", _count(measured.data_tokens)),
        ("text", _count(measured.data_bytes, " bytes")),
        ("fingerprint", measured.data_fingerprint),
    ]
    shown = measured.sources[:20]
    more = len(measured.sources) - len(shown)
    lines = [f"- {_line(source)}" for source in shown] + ([f"- and {more} more"] if more else [])
    return "\n\n".join(part for part in (_table(rows), "\n".join(lines)) if part)


def _result_rows(measured: Measured) -> list[tuple[str, str | None]]:
    which = " of the first source alone" if measured.first_alone else ""
    return [
        ("training loss", _number(measured.train_loss, 4, " nats per token")),
        ("held-out loss", _number(measured.held_out_loss, 4, " nats per token")),
        (f"held-out bits per byte{which}", _number(measured.held_out_bits_per_byte, 3)),
        ("the same text by gzip", _number(measured.gzip_bits_per_byte, 3, " bits per byte")),
        ("the same text by xz", _number(measured.xz_bits_per_byte, 3, " bits per byte")),
    ]


def _limits(spec: ModelSpec, measured: Measured) -> str:
    lines = [
        "It says what is likely after its training text, not what is true, and it states falsehoods fluently.",
        f"It sees {spec.context:,} tokens at once; what came before them is lost to it.",
        "It was not tuned to be safe or fair: what its training text holds, it can repeat, names and insults included.",
    ]
    if measured.data_bytes is not None:
        read = f"It knows {measured.data_bytes / 1e6:,.1f} MB of text"
        more = "nothing else" if measured.started_from is None else "what the model had read that it started from"
        lines.append(f"{read} and {more}.")
    if not measured.chat:
        lines.append("It continues text; it was not tuned to answer.")
    return "\n".join(f"- {line}" for line in lines)


def _use(name: str, chat: bool, other: bool) -> str:
    folder = re.sub(r"[^\w./-]", "-", name)
    command = f"chatsmith chat {folder}" if chat else f'chatsmith write {folder} "Once"'
    text = f"```sh\n{command}\n```"
    if other:
        text += (
            f"\n\n{_ELSEWHERE}\n\n"
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{folder}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n```'
        )
    return text
