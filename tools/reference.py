"""Write the reference from the code: `python tools/reference.py`.

docs/reference/*.md come from the commands and the dataclasses, tests/cli/flags.txt from the flags. A test asserts that
what is committed is what this prints. `--flags` only prints the flags.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import App

from chatsmith.cli.app import COMMANDS, EPILOGUE, build
from chatsmith.generate.sampling import Sampling
from chatsmith.named import describe
from chatsmith.serve.fields import PATHS, Field, fields_of
from chatsmith.serve.kinds import Choice, Number, Whole, Words
from chatsmith.serve.limits import Limits
from chatsmith.specs import PRESETS, ModelSpec
from chatsmith.specs_families import FAMILY_PRESETS
from chatsmith.train.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
_NOTE = "<!-- Written by tools/reference.py from the code; `make reference` writes it again. -->\n"


# The table [model] is no dataclass: it changes a preset, or is a `ModelSpec` but for its vocabulary.
_MODEL = """## [model]

The shape of the model, or a model to go on from.

Without a preset the shape is GPT-2's. There and with "modern", which makes Qwen3's choices, `width`, `layers` and
`heads` are required and `context` is 1024 unless given. Any key of [the shape](models.md#the-shape) may stand here,
too, and takes the place of the preset's; `vocab_size` follows the vocabulary.

| key | type | default | meaning |
|---|---|---|---|
| `preset` | `str` |  | One of [the presets](models.md#presets), or "modern". |
| `start_from` | `str` |  | A model folder to begin with: weights, shape and vocabulary. No other key goes with it. |
| `induction_heads` | `int` | 0 | Heads that begin as ones which look for what followed before, and repeat it. |
"""


def flags() -> str:
    """Every command and every flag, a line each."""
    lines = ["chatsmith --debug --help --version"]
    app = build("*")
    for command in COMMANDS:
        lines.append("")
        lines.append(f"chatsmith {command.name}")
        for argument in _arguments(app, command.name):
            lines.append("    " + _usage(argument))
    return "\n".join(lines) + "\n"


def commands() -> str:
    """docs/reference/commands.md"""
    app = build("*")
    parts = [_NOTE, "# Commands\n", EPILOGUE + " `--help` after any command explains it.\n"]
    for command in COMMANDS:
        function = _named(app, command.name).default_command
        assert function is not None
        parts.append(f"## chatsmith {command.name}\n")
        parts.append(inspect.cleandoc(function.__doc__ or "") + "\n")
        rows = [(f"`{_usage(argument)}`", argument.parameter.help or "") for argument in _arguments(app, command.name)]
        parts.append(_table(("option", "meaning"), rows))
    return "\n".join(parts)


def recipe() -> str:
    """docs/reference/recipe.md"""
    parts = [_NOTE, "# The recipe\n", "The keys of a recipe file, table by table.\n"]
    for name, kind in _tables("", Recipe):
        if name == "[schedule]":
            parts.append(_MODEL)
        parts.append(f"## {name or 'At the top'}\n")
        parts.append(_section(kind))
    return "\n".join(parts)


def models() -> str:
    """docs/reference/models.md"""
    parts = [_NOTE, "# Models\n", "## The shape\n", _section(ModelSpec), "## Presets\n"]
    rows = []
    for name, spec in PRESETS.items():
        sizes = (spec.layers, spec.width, spec.heads, spec.context)
        rows.append((f"`{name}`", f"{spec.parameters:,}", *map(str, sizes), spec.architecture or ""))
    parts.append(_table(("preset", "parameters", "layers", "width", "heads", "context", "family"), rows))
    parts.append("## Other families\n\n`chatsmith plan` counts these too; there are no models of them yet.\n")
    others = [(f"`{name}`", f"{shape.parameters:,}", describe(shape)) for name, shape in FAMILY_PRESETS.items()]
    parts.append(_table(("preset", "parameters", "shape"), others))
    return "\n".join(parts)


def sampling() -> str:
    """docs/reference/sampling.md"""
    return "\n".join([_NOTE, "# Sampling\n", _section(Sampling)])


def api() -> str:
    """docs/reference/api.md"""
    limits = Limits()
    parts = [_NOTE, "# The API of chatsmith serve\n"]
    parts.append("Bounds that the model sets (its context, its vocabulary) stand by name. Other fields are refused.\n")
    bounds = {name: value for name, value, _ in limits.rows()}
    for path in PATHS:
        parts.append(f"## POST {path}\n")
        rows = [
            (f"`{one.name}`", _range(one, bounds), "required" if one.required else _default(one.default), one.text)
            for one in fields_of(path).values()
        ]
        parts.append(_table(("field", "what it may be", "default", "meaning"), rows))
    parts.append("## Limits\n\n`chatsmith serve --limit NAME=NUMBER` sets one.\n")
    parts.append(_table(("limit", "value", "of what"), [(f"`{n}`", f"{v:,}", text) for n, v, text in limits.rows()]))
    return "\n".join(parts)


def _range(one: Field, bounds: dict[str, float]) -> str:
    """The kind of a field, with its bounds."""
    kind = one.kind
    if isinstance(kind, (Whole, Number)):
        low, high = (f"{bounds.get(end, end)}" if isinstance(end, str) else f"{end:,}" for end in (kind.low, kind.high))
        above = "above " if isinstance(kind, Number) and kind.above else ""
        return f"{'whole number' if isinstance(kind, Whole) else 'number'}, {above}{low} to {high}"
    if isinstance(kind, (Choice, Words)):
        return ("list of " if isinstance(kind, Words) else "") + " or ".join(kind.words)
    named = {"Flag": "true or false", "Ids": "token ids", "Prompts": "text, token ids, or a list of such",
             "Texts": "text or list of texts", "Biases": "object of token ids and numbers", "Anything": "anything",
             "Messages": "list of messages", "Form": "object", "Tools": "list of functions", "StreamOptions": "object",
             "ToolChoice": "word, function or allowed_tools", "Exactly": "whole number", "Reasoning": "object",
             "Text": "text", "Items": "text or list of items",
             "TextSettings": "object", "Labels": "object of texts", "Off": "false", "Never": "null"}  # fmt: skip
    return named[type(kind).__name__]


def _default(value: Any) -> str:
    return "" if value is None or value == () else f"`{json.dumps(value)}`"


PAGES = {
    "docs/reference/api.md": api,
    "docs/reference/commands.md": commands,
    "docs/reference/recipe.md": recipe,
    "docs/reference/models.md": models,
    "docs/reference/sampling.md": sampling,
    "tests/cli/flags.txt": flags,
}


def _named(app: App, command: str) -> App:
    for word in command.split():
        app = app[word]
    return app


def _arguments(app: App, command: str) -> Iterator[Any]:
    for argument in _named(app, command).assemble_argument_collection(default_parameter=app.default_parameter):
        if argument.parse and argument.show:
            yield argument


def _usage(argument: Any) -> str:
    """`PATHS…`, `--json`, `--top-k INT`, `{bash,zsh,fish}` or `--set STR (repeatable)`."""
    hint, many = _bare(argument.hint)
    names = [name for name in argument.names if name.startswith("-")]
    choices = argument.get_choices()
    value = "{" + ",".join(choices) + "}" if choices else hint.__name__.upper()
    if not names:
        shown = value if choices else argument.name.upper().replace("-", "_")
        return shown + ("…" if many else "")
    value = "" if hint is bool else " " + value
    return " ".join(names) + value + (" (repeatable)" if many else "")


def _bare(hint: Any) -> tuple[type, bool]:
    """The plain type of a hint, and whether several are taken."""
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return _bare(next(one for one in get_args(hint) if one is not type(None)))
    if get_origin(hint) in (tuple, list):
        return _bare(get_args(hint)[0])[0], True
    return (str if get_origin(hint) is Literal else hint), False


def _tables(name: str, kind: type) -> Iterator[tuple[str, type]]:
    """A dataclass and those inside it, with the name of its table."""
    yield name, kind
    for key, hint in get_type_hints(kind).items():
        inner = hint.__args__[0] if getattr(hint, "__origin__", None) is tuple else hint
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            dotted = f"{name.strip('[]')}.{key}".lstrip(".")
            yield from _tables(f"[[{dotted}]]" if inner is not hint else f"[{dotted}]", inner)


def _section(kind: type) -> str:
    """A dataclass: its docstring, and a table of its fields with what an "Attributes:" part says of them."""
    text, meanings = _docstring(kind)
    hints = get_type_hints(kind)
    rows = []
    for field in dataclasses.fields(kind):
        row = (f"`{field.name}`", f"`{_type_text(hints[field.name])}`", _default_text(field))
        rows.append((*row, meanings[field.name]) if meanings else row)
    head = ("key", "type", "default", "meaning") if meanings else ("key", "type", "default")
    return text + "\n\n" + _table(head, rows)


def _docstring(kind: type) -> tuple[str, dict[str, str]]:
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
    meanings: dict[str, str] = {}
    for line in attributes.splitlines():
        name, colon, meaning = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            meanings[last := name] = meaning
        else:
            meanings[last] += " " + line.strip()
    return text, meanings


def _type_text(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(hint))
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return _type_text(next(one for one in get_args(hint) if one is not type(None)))
    if get_origin(hint) in (tuple, list):
        return "list of " + _type_text(get_args(hint)[0])
    return "table" if get_origin(hint) is dict or dataclasses.is_dataclass(hint) else hint.__name__


def _default_text(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        empty = field.default is None or field.default == ()
        return "" if empty else f"`{json.dumps(field.default)}`"
    return "required" if field.default_factory is dataclasses.MISSING else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write every page, or print the flags."""
    if sys.argv[1:] == ["--flags"]:
        sys.stdout.write(flags())
        return
    for name, page in PAGES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
