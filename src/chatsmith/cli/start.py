"""`chatsmith` alone: the next sensible command for where you stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chatsmith.errors import RequestError
from chatsmith.paths import cache_dir
from chatsmith.settings import load_toml

_MAX_ENTRIES = 2000  # of a folder with millions of files the first few tell enough
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "packed.safetensors")
_TEXTS = {
    ".txt",
    ".md",
    ".rst",
    ".html",
    ".jsonl",
    ".json",
    ".csv",
    ".parquet",
    ".pdf",
    ".docx",
    ".epub",
    ".ipynb",
    ".py",
    ".tex",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A command to type and what it would do here."""

    command: str
    why: str


def start() -> int:
    """Print the next command, and where to read about the others."""
    first, *others = suggestions(Path.cwd())
    print(f"{first.why[0].upper()}{first.why[1:]}. Next:\n\n    {first.command}\n")
    if others:
        print("or\n")
        for other in others:
            print(f"    {other.command:44} # {other.why}")
        print()
    print("chatsmith --help lists every command.")
    return 0


def suggestions(folder: Path) -> list[Suggestion]:
    """What to do next in `folder`, most sensible first; never empty."""
    folders = [folder, *(entry for entry in _entries(folder) if entry.is_dir())]
    found: list[Suggestion] = []
    for run in filter(is_unfinished, folders):
        found.append(Suggestion(f"chatsmith train --resume {_name(run, folder)}", "a training run here can go on"))
    for model in filter(is_model, folders):
        found.append(Suggestion(f"chatsmith chat {_name(model, folder)}", "here is a model"))
    for recipe in _recipes([folder, folder / "recipes"]):
        found.append(Suggestion(f"chatsmith train {_name(recipe, folder)}", "here is a recipe"))
    if not found and any(path.suffix.lower() in _TEXTS for path in _entries(folder)):
        found.append(
            Suggestion("chatsmith new . --minutes 5 --out my-model", "here are documents to make a model from")
        )
    if is_model(cache_dir() / "world"):
        found.append(Suggestion("chatsmith chat", "talk with the built-in model"))
    elif not found:
        found.append(
            Suggestion(
                "chatsmith chat", "there is no model here yet; this makes a small one in about 3 minutes and talks"
            )
        )
    if not any(" new " in suggestion.command for suggestion in found):
        found.append(Suggestion("chatsmith new PATH… --minutes 5 --out DIR", "make a model of your own documents"))
    return found[:5]


def is_model(folder: Path) -> bool:
    """Whether `folder` holds a model that can be loaded."""
    return any((folder / name).is_file() for name in _WEIGHTS) and (folder / "config.json").is_file()


def is_unfinished(folder: Path) -> bool:
    """Whether `folder` holds a run that stopped before its end and can go on."""
    if not any(_entries(folder / "state")):
        return False
    try:
        run = load_toml(folder / "chatsmith.toml").get("run")
    except RequestError:
        return (folder / "recipe.toml").is_file()
    return not (isinstance(run, dict) and run.get("finished"))


def _recipes(folders: list[Path]) -> list[Path]:
    found = [path for folder in folders for path in _entries(folder) if path.suffix == ".toml"]
    return [
        path for path in found if path.name not in ("pyproject.toml", "chatsmith.toml") and _looks_like_recipe(path)
    ]


def _looks_like_recipe(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(line.strip() == "[model]" for line in file.read(2**16).splitlines())
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        found = sorted(path for _, path in zip(range(_MAX_ENTRIES), folder.iterdir(), strict=False))
    except OSError:
        return []
    return [path for path in found if not path.name.startswith(".")]


def _name(path: Path, folder: Path) -> str:
    name = str(path.relative_to(folder))
    return f'"{name}"' if " " in name else name
