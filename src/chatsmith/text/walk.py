"""Finding files: every regular file under some paths, in one order on every machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from chatsmith.errors import RequestError, did_you_mean, nearest
from chatsmith.text.report import ReadReport

HIDDEN = "hidden"
NO_PERMISSION = "no permission to read it"
LINKED_FOLDER = "a link to a folder"
BROKEN_LINK = "a link to nothing"
NOT_FILE = "no regular file"
MODEL = "a model made by chatsmith"
RUN = "a training run of chatsmith"
TOKENS = "tokens made by chatsmith"
OWN = "where this command writes"
_MACHINE_MADE = frozenset(("node_modules", "__pycache__", "site-packages"))
# What is in a folder that chatsmith wrote, whether or not it was finished.
_MARKS = (
    (MODEL, {"chatsmith.toml"}),
    (RUN, {"recipe.toml", "tokens"}),
    (RUN, {"recipe.toml", "state"}),
    (TOKENS, {"prepared.json", "tokenizer.json"}),
    (TOKENS, {"manifest.json", "token_bytes"}),
    (TOKENS, {"part.json", "tokenizer.json"}),
)
# What chatsmith writes there and could be read: in such a folder that is named itself, a text of one's own may be, too.
_WRITTEN = frozenset(
    (
        *("chatsmith.toml", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("model.safetensors.index.json", "recipe.toml", "log.jsonl", "tokens", "state", "tensorboard"),
        *("prepared.json", "manifest.json", "part.json"),
    )
)
_CARD = "README.md"


def existing(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The paths without those that lie in another one; a `RequestError` names the nearest to one that is not there."""
    found: list[Path] = []
    for path in paths:
        whole = Path(path).expanduser()
        if not os.path.lexists(whole):
            raise _missing(path, whole)
        found.append(whole)
    if not found:
        raise RequestError("no path to read documents from was given", "name files or folders with text in them")
    real = {path: path.resolve() for path in found}
    unique = [path for index, path in enumerate(found) if real[path] not in (real[other] for other in found[:index])]
    return [path for path in unique if not any(real[other] in real[path].parents for other in unique)]


def _missing(path: str | os.PathLike[str], whole: Path) -> RequestError:
    scheme, *rest = whole.parts or ("",)
    if scheme in ("http:", "https:", "ftp:", "s3:", "hf:"):
        return RequestError(
            f"{scheme}//{'/'.join(rest)} is an address",
            "only files and folders of this machine are read: download it first",
        )
    return RequestError(f"{path} does not exist", _hint(whole))


def _hint(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir():
        path, folder = folder, folder.parent
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    if nearest(path.name, names):
        return f"in {folder}: {did_you_mean(path.name, names)}"
    return f"{folder} holds nothing named like {path.name!r}; check with: ls {folder}"


def walk(paths: Sequence[Path], report: ReadReport, hidden: bool, leave_out: Path | None = None) -> Iterator[Path]:
    """Regular files under the paths, by name within each folder; what is passed over is told to the report.

    Links to files are followed, links to folders inside a given folder are not: a walk neither leaves the given
    folders through them nor goes round in a circle. Names that begin with a dot and folders that programs fill
    (node_modules, __pycache__, site-packages) are hidden; so are virtual environments. Folders with a model, a run or
    tokens that chatsmith wrote are passed over, or what it wrote there where such a folder is one of the paths, and so
    is `leave_out`: the folder that what is read will be written to.
    """
    own = None if leave_out is None else _identity(leave_out)
    for path in paths:
        if path.is_dir():
            yield from _walk_folder(path, report, hidden, own)
        else:
            yield from _regular(path, report)


def _identity(path: Path) -> tuple[int, int] | None:
    """What stays the same of a folder under all its names; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _walk_folder(top: Path, report: ReadReport, hidden: bool, own: tuple[int, int] | None) -> Iterator[Path]:
    pending = [top]  # a stack, so that depth is bounded by memory and not by recursion
    while pending:
        path = pending.pop()
        try:
            if not path.is_dir() or (path.is_symlink() and path != top):
                yield from _regular(path, report)
                continue
            with os.scandir(path) as entries:
                names = sorted((entry.name for entry in entries), reverse=True)
        except PermissionError:
            report.skip(str(path), NO_PERMISSION)
            continue
        except OSError as error:
            report.skip(str(path), "cannot be read", error.strerror or str(error))
            continue
        if own is not None and path != top and _identity(path) == own:
            report.skip(str(path), OWN)
            continue
        here = frozenset(names)
        written = next((what for what, marks in _MARKS if marks <= here), None)
        if written is not None and path != top:
            report.skip(str(path), written)
            continue
        for name in names:
            below = path / name
            if written is not None and (name in _WRITTEN or (written == MODEL and name == _CARD)):
                report.skip(str(below), written)
            elif not hidden and _is_hidden(below):
                report.skip(str(below), HIDDEN)
            else:
                pending.append(below)


def _is_hidden(path: Path) -> bool:
    return is_hidden_name(path.name) or (path / "pyvenv.cfg").is_file()


def is_hidden_name(name: str) -> bool:
    """Whether a file or folder of this name is passed over unless hidden ones are asked for."""
    return (name.startswith(".") and name not in (".", "..")) or name in _MACHINE_MADE


def _regular(path: Path, report: ReadReport) -> Iterator[Path]:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        report.skip(str(path), BROKEN_LINK)
        return
    except PermissionError:
        report.skip(str(path), NO_PERMISSION)
        return
    except OSError as error:  # a link to itself, for one
        report.skip(str(path), BROKEN_LINK, error.strerror or str(error))
        return
    if stat.S_ISREG(mode):
        yield path
    elif stat.S_ISDIR(mode):
        report.skip(str(path), LINKED_FOLDER, "name its target to read it")
    else:
        report.skip(str(path), NOT_FILE)
