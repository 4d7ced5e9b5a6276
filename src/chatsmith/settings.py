"""Dataclasses to and from TOML, strictly: an unknown key or a wrong type is an error that names the place.

One reader serves recipes, provenance files and `--set` overrides. Supported field types: bool, int, float, str, Path,
Literal, nested dataclasses, `X | None`, `tuple[X, ...]`, `list[X]` and `dict[str, X]`.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from chatsmith.arguments import is_finite
from chatsmith.errors import RequestError, did_you_mean

T = TypeVar("T")
_MAX_TOML_BYTES = 4 * 2**20
_MAX_DEPTH = 64


def load_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file (at most 4 MiB); a missing or malformed one raises `RequestError` with the line."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _MAX_TOML_BYTES:
            raise RequestError(f"{path} is {size} bytes; a TOML file here has at most {_MAX_TOML_BYTES}")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else None
        raise RequestError(f"no file {path}", near) from None
    except (ValueError, RecursionError) as error:  # also for a number of thousands of digits, or thousands of brackets
        raise RequestError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    if _is_deep(found):
        raise RequestError(f"{path} nests its values more than {_MAX_DEPTH} deep")
    return found


def _is_deep(value: Any) -> bool:
    """Whether a value has more levels than anything here has; what goes through it later may then call itself."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        level = [part for part in inner if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def dump_toml(mapping: Mapping[str, Any]) -> str:
    """TOML text of a mapping; keys whose value is None are left out (TOML has no null)."""
    return tomli_w.dumps(_without_none(mapping))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def to_mapping(settings: Any) -> dict[str, Any]:
    """A dataclass as plain nested mappings that `from_mapping` reads back to an equal object."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_mapping(kind: type[T], mapping: Mapping[str, Any], where: str = "settings") -> T:
    """Build dataclass `kind` from a mapping; errors name `where` and the dotted key, and the nearest known one."""
    return _read_dataclass(kind, mapping, where, "")


def _read_dataclass(kind: type[T], mapping: Any, where: str, prefix: str) -> T:
    if not isinstance(mapping, Mapping):
        raise RequestError(f"{where}: {prefix.rstrip('.') or 'the file'} must be a table, not {in_toml(mapping)}")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise RequestError(f"{where}: unknown key {prefix}{key}", did_you_mean(str(key), fields))
    values = {key: _read(hints[key], value, where, prefix + key) for key, value in mapping.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RequestError(f"{where}: {prefix}{missing[0]} is missing", f"add {missing[0]} = …")
    try:
        return kind(**values)
    except RequestError as error:
        raise RequestError(f"{where}: {prefix and prefix.rstrip('.') + ': '}{error.message}", error.hint) from None


def _read(kind: Any, value: Any, where: str, key: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        if len(options) == 1:
            return _read(options[0], value, where, key)
        for option in options:
            try:
                return _read(option, value, where, key)
            except RequestError:
                continue
        raise _wrong(kind, value, where, key)
    if origin is Literal:
        if value not in arguments:
            raise RequestError(
                f"{where}: {key} is {in_toml(value)}", "choose one of " + ", ".join(map(in_toml, arguments))
            )
        return value
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise _wrong(kind, value, where, key)
        items = [_read(arguments[0], item, where, f"{key}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(kind, value, where, key)
        return {str(name): _read(arguments[1], item, where, f"{key}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where, key + ".")  # type: ignore[arg-type]
    return _read_scalar(kind, value, where, key)


def _read_scalar(kind: Any, value: Any, where: str, key: str) -> Any:
    if kind is Any:
        return value
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not is_finite(value):
            raise RequestError(f"{where}: {key} must be a finite number, not {in_toml(value)}")
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise _wrong(kind, value, where, key)


def _wrong(kind: Any, value: Any, where: str, key: str) -> RequestError:
    hint = f"for example [{in_toml(value)}]" if get_args(kind)[:1] == (type(value),) else None
    return RequestError(f"{where}: {key} must be {_in_words(kind)}, not {in_toml(value)}", hint)


_ONE = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path", Any: "a value"}
_MANY = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false", Path: "paths", Any: "values"}


def _in_words(kind: Any, *, many: bool = False) -> str:
    """A kind of value in the words of someone who writes TOML: "a list of texts"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(option, many=many) for option in inner if option is not type(None))
    if origin in (tuple, list):
        return f"{'lists' if many else 'a list'} of {_in_words(inner[0], many=True)}"
    if origin is dict:
        return f"{'tables' if many else 'a table'} of {_in_words(inner[1], many=True)}"
    if origin is Literal:
        return " or ".join(map(in_toml, inner))
    return (_MANY if many else _ONE).get(kind, "tables" if many else "a table")


def in_toml(value: Any) -> str:
    """A value as TOML writes it, in at most 60 characters; "nothing" for None, which TOML has not."""
    shown = _in_toml(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _in_toml(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_in_toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_in_toml, value)) + "]" if isinstance(value, (list, tuple)) else str(value)


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `mapping` with `--set key.path=value` overrides; values are TOML, or text when they are not."""
    result = _copy(mapping)
    for override in overrides:
        *tables, last = override_key(override).split(".")
        place = result
        for key in tables:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise RequestError(f"--set {override}: {key} is not a table")
        place[last] = _parse_value(override.partition("=")[2].strip())
    return result


def override_key(override: str) -> str:
    """The dotted key that `--set key.path=value` changes."""
    path, equals, _ = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise RequestError(f"--set {override!r} is not key=value", "for example --set optimizer.learning_rate=3e-4")
    return ".".join(keys)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, (list, tuple)) else value


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
