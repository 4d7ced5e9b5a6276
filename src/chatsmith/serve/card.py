"""What the served model says of itself: size, training, abilities, and its speed beside what this machine could do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatsmith import machine_rates
from chatsmith.arguments import is_finite
from chatsmith.errors import RequestError
from chatsmith.generate.batch import Batch
from chatsmith.serve.served import Served
from chatsmith.store.hf import load_json
from chatsmith.text.chat_tools import has_tools


def card(served: Served, batch: Batch) -> dict[str, Any]:
    """All that is known; what is not known is not there."""
    model, spec = served.model, served.model.spec
    chat, tools = bool(served.tokenizer.chat_template), has_tools(served.tokenizer)
    can = ["continue a text", "show how likely each word was", "turn a text into a vector"]
    can = (["answer in a conversation"] if chat else []) + (["ask for tools to be called"] if tools else []) + can
    cannot = ["see pictures or hear sounds", "look anything up: it knows what it was trained on"]
    cannot = ([] if chat else ["hold a conversation: it was not taught to"]) + cannot
    cannot.append(f"read more than {served.context:,} tokens at once")
    return {
        "parameters": spec.parameters,
        "context": served.context,
        "vocab_size": served.tokenizer.vocab_size,
        "layers": spec.layers,
        "width": spec.width,
        "heads": spec.heads,
        "kv_heads": spec.kv_heads,
        "architecture": spec.architecture or "own",
        "backend": model.engine.backend.name,
        "trained": _trained(model.provenance),
        "skills": [] if served.folder is None else _skills(served.folder),
        "chat": chat,
        "tools": tools,
        "sampling": {name: getattr(model.sampling, name) for name in ("temperature", "top_p")},
        "can": can,
        "cannot": cannot,
        "speed": served.speed.told() | _limit(served),
    }


def _trained(provenance: dict[str, Any]) -> dict[str, Any]:
    """What chatsmith.toml tells of the run."""
    run = provenance.get("run")
    if not isinstance(run, dict):
        return {}
    names = (
        *("tokens", "steps", "bits_per_byte", "machine", "held_out_loss"),
        *("gzip_bits_per_byte", "xz_bits_per_byte"),
    )
    # Beside compressors stands what the model needs for the very text that they were given.
    compared = run.get("compared")
    run = run | (compared if isinstance(compared, dict) else {})
    told = {name: run[name] for name in names if isinstance(run.get(name), str) or _is_figure(run.get(name))}
    if _is_figure(run.get("seconds")):
        told["minutes"] = run["seconds"] / 60
    recipe = provenance.get("recipe")
    if isinstance(recipe, dict) and isinstance(recipe.get("seed"), int):
        told["seed"] = recipe["seed"]
    return told


def _skills(folder: Path) -> list[dict[str, Any]]:
    """What `chatsmith skills --json` wrote beside the weights: right and asked, by skill, split and examples shown."""
    try:
        rows = load_json(folder / "skills.json").get("rows")
    except RequestError:
        return []
    words, figures = ("skill", "split"), ("shots", "correct", "count", "chance")
    told = [row for row in (rows if isinstance(rows, list) else [])[:200] if isinstance(row, dict)]
    return [
        {name: row[name] for name in (*words, *figures)}
        for row in told
        if all(isinstance(row.get(name), str) for name in words) and all(_is_figure(row.get(name)) for name in figures)
    ]


def _is_figure(value: Any) -> bool:
    """Whether a value is a number that JSON can say: a run that diverged may have none for its loss."""
    return type(value) in (int, float) and is_finite(value)


def _limit(served: Served) -> dict[str, float]:
    """One answer reads every weight for each token: no more tokens a second than the memory can give of them."""
    kept = machine_rates.kept()
    if kept is None or not served.weight_bytes:
        return {}
    device = "cuda" if "cuda" in served.model.engine.backend.name else "cpu"
    rate = kept.rates.bytes_per_second.get(device)
    return {"limit_tokens_per_second": rate / served.weight_bytes} if rate else {}
