"""Answers made again: a response says which model, which settings and which seed made it, and that is all it takes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError, WorkError
from chatsmith.generate.constraints import Constraint
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.language_model import LanguageModel, load
from chatsmith.paths import atomic_write, data_dir
from chatsmith.settings import from_mapping
from chatsmith.store.contents import weights_fingerprint

_MAX_BYTES = 256 * 2**20
_KEPT = 200
_ASK = "save the whole body of a response of chatsmith serve"


@dataclass(frozen=True, slots=True)
class Record:
    """What a response says of how it was made."""

    fingerprint: str
    backend: str
    requests: tuple[Request, ...]
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """One answer made again: its text, and the first place where a token differs (None: it is the same)."""

    text: str
    differs: int | None


def read_record(path: Path) -> Record:
    """The record in a saved response, whole or streamed. Raises `RequestError` where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_BYTES)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not UTF-8 text") from None
    # Not `splitlines`: what else ends a line for Python (U+2028, say) may stand in an answer.
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    for part in [text] if not lines else reversed(lines):
        try:
            found = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("response"), dict):
            found = found["response"]  # in the last event of a streamed one
        if isinstance(found, dict) and isinstance(found.get("replay"), dict):
            return _record(found["replay"], path)
    raise RequestError(f"{path} holds no response that can be replayed", _ASK)


def _record(given: Mapping[str, Any], path: Path) -> Record:
    try:
        return Record(
            str(given["fingerprint"]),
            str(given["backend"]),
            tuple(_request(one) for one in given["requests"]),
            tuple(tuple(int(token) for token in answer) for answer in given["answers"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise RequestError(f"{path}: the record of the response is damaged ({error})", _ASK) from None


def _request(given: Mapping[str, Any]) -> Request:
    stops, constraint = given["stop_ids"], given["constraint"]
    settings = dict(given["sampling"])
    settings["logit_bias"] = {int(token): float(bias) for token, bias in settings["logit_bias"]}
    return Request(
        tuple(int(token) for token in given["prompt"]),
        Sampling(**settings),
        samples=int(given["samples"]),
        stop_ids=None if stops is None else frozenset(int(token) for token in stops),
        constraint=None if constraint is None else from_mapping(Constraint, constraint, "the record"),
    )


def replay(record: Record, folder: Path | None = None) -> tuple[LanguageModel, list[Replayed]]:
    """Make the answers of a record again, with the model in `folder`, else with the one that a server here has served.

    Raises `RequestError` where the model is another one or cannot be found.
    """
    folder = folder or remembered(record.fingerprint)
    if folder is None:
        raise RequestError("the model of this response is not known here", "name its folder: --model DIR")
    model = load(folder)
    found = weights_fingerprint(folder, model.spec, model.tokenizer)
    if found != record.fingerprint:
        raise RequestError(
            f"{folder} holds another model ({found[:12]}…) than made this response ({record.fingerprint[:12]}…)",
            "name the folder of the right one: --model DIR",
        )
    answers = model.engine.complete(record.requests)
    if len(answers) != len(record.answers):
        raise WorkError(f"the response has {len(record.answers)} answers, and its requests make {len(answers)}")
    return model, [
        Replayed(answer.text, _difference(answer.ids, ids)) for answer, ids in zip(answers, record.answers, strict=True)
    ]


def _difference(left: tuple[int, ...], right: tuple[int, ...]) -> int | None:
    if left == right:
        return None
    places = [place for place, (one, other) in enumerate(zip(left, right, strict=False)) if one != other]
    return places[0] if places else min(len(left), len(right))


def remember(fingerprint: str, folder: Path) -> None:
    """Write down where a served model lies. A folder that cannot be written to only means that it must be named."""
    known = _known()
    path = str(folder.resolve())
    if known.get(fingerprint) == path:
        return
    known.pop(fingerprint, None)
    kept = dict([*known.items(), (fingerprint, path)][-_KEPT:])
    with contextlib.suppress(OSError, WorkError), atomic_write(data_dir() / "served.json", "w") as file:
        json.dump(kept, file, indent=1)


def remembered(fingerprint: str) -> Path | None:
    """Where a model that was served lies, if it still does."""
    path = _known().get(fingerprint)
    return Path(path) if path is not None and Path(path).is_dir() else None


def _known() -> dict[str, str]:
    try:
        with open(data_dir() / "served.json", encoding="utf-8") as file:
            found = json.loads(file.read(2**20))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
