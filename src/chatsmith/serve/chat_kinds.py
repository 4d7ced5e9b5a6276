"""The kinds of value that only a conversation has: messages, tools, and the form of an answer. See `kinds`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from chatsmith.generate.constraints import Constraint
from chatsmith.serve.errors import wrong
from chatsmith.serve.kinds import Bounds, Schema, listed, mapping, tellable, text

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ROLES = ("system", "developer", "user", "assistant", "tool")
NAMES: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}


def only(given: dict[str, Any], name: str, *keys: str) -> None:
    """Raises `ApiError` where an object has any other key."""
    for key in given:
        if key not in keys:
            raise wrong(f"{name}.{key[:64]}", f"is not known; there are {', '.join(keys)}")


def each(
    value: Any, name: str, most: float, read: Callable[[dict[str, Any], str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """`read` of every object in a list of one or more, with its name."""
    places = enumerate(listed(value, name, most, 1))
    return [read(mapping(one, f"{name}[{place}]"), f"{name}[{place}]") for place, one in places]


def called(value: Any, name: str) -> str:
    """The name of a function or a schema."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise wrong(name, "must have 1 to 64 letters, digits, _ or -")
    return value


@dataclass(frozen=True, slots=True)
class Messages:
    """A conversation; read as a list of {"role", "content"}, with "tool_calls" where the assistant made some."""

    def read(self, value: Any, name: str, bounds: Bounds) -> list[dict[str, Any]]:
        """See `Kind`."""
        return each(value, name, bounds["messages"], lambda one, at: self._message(one, at, bounds))

    def _message(self, given: dict[str, Any], name: str, bounds: Bounds) -> dict[str, Any]:
        given = {key: value for key, value in given.items() if value is not None}
        role = given.get("role")
        if role not in _ROLES:
            raise wrong(f"{name}.role", f"must be one of {', '.join(_ROLES)}")
        # What a reply of OpenAI's has beside its words may come back with it.
        extra = {"assistant": ("tool_calls", "refusal", "annotations"), "tool": ("tool_call_id",)}.get(role, ())
        only(given, name, "role", "content", "name", *extra)
        if "name" in given:
            text(given["name"], f"{name}.name", 64)
        calls = [
            _call(call, f"{name}.tool_calls[{place}]", bounds)
            for place, call in enumerate(listed(given.get("tool_calls", []), f"{name}.tool_calls", bounds["tools"]))
        ]
        if "content" not in given and not calls:
            raise wrong(f"{name}.content", "is missing")
        message: dict[str, Any] = {
            "role": "system" if role == "developer" else role,
            "content": content(given.get("content", ""), f"{name}.content", bounds),
        }
        if calls:
            message["tool_calls"] = calls
        if role == "tool":
            message["tool_call_id"] = text(given.get("tool_call_id", ""), f"{name}.tool_call_id", 256)
        return message

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        words: Schema = {"type": "string", "maxLength": int(bounds["body_bytes"])}
        function = closed({"name": NAMES, "arguments": words}, "name", "arguments")
        identity: Schema = {"type": "string", "maxLength": 256}
        call = closed({"id": identity, "type": word("function"), "function": function}, "function")

        def message(roles: tuple[str, ...], required: str, **more: Schema) -> Schema:
            shared = {"content": content_schema(bounds, "text"), "name": {"type": "string", "maxLength": 64}}
            return closed({"role": word(*roles), **shared, **more}, "role", required)

        calls: Schema = {"type": "array", "items": call, "minItems": 1, "maxItems": int(bounds["tools"])}
        kinds = [
            message(("system", "developer", "user"), "content"),
            message(("assistant",), "content"),
            message(("assistant",), "tool_calls", tool_calls=calls),
            message(("tool",), "content", tool_call_id=identity),
        ]
        return {"type": "array", "items": {"anyOf": kinds}, "minItems": 1, "maxItems": int(bounds["messages"])}


_PLAIN: dict[str, tuple[str, ...]] = {"text": ()}


def content(value: Any, name: str, bounds: Bounds, kinds: dict[str, tuple[str, ...]] = _PLAIN) -> str:
    """What a message says: a text, or a list of parts of these kinds, each with the keys that it may have beside."""
    if not isinstance(value, list):
        return text(value, name, bounds["body_bytes"])
    said = []
    for place, part in enumerate(listed(value, name, bounds["messages"])):
        given = mapping(part, f"{name}[{place}]")
        kind = given.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            raise wrong(f"{name}[{place}].type", f"must be {' or '.join(kinds)}: this model reads nothing else")
        only(given, f"{name}[{place}]", "type", "text", *kinds[kind])
        said.append(text(given.get("text"), f"{name}[{place}].text", bounds["body_bytes"]))
    return "".join(said)


def content_schema(bounds: Bounds, *kinds: str, **more: Schema) -> Schema:
    """What `content` reads."""
    words: Schema = {"type": "string", "maxLength": int(bounds["body_bytes"])}
    part = closed({"type": word(*kinds), "text": words, **more}, "type", "text")
    return {"anyOf": [words, {"type": "array", "items": part, "maxItems": int(bounds["messages"])}]}


def _call(value: Any, name: str, bounds: Bounds) -> dict[str, Any]:
    given = mapping(value, name)
    only(given, name, "id", "type", "function")
    if given.get("type", "function") != "function":
        raise wrong(f"{name}.type", "must be function")
    function = mapping(given.get("function"), f"{name}.function")
    only(function, f"{name}.function", "name", "arguments")
    return call_of(function, f"{name}.function", text(given.get("id", ""), f"{name}.id", 256), bounds)


def call_of(function: dict[str, Any], name: str, identity: str, bounds: Bounds) -> dict[str, Any]:
    """A call of a function, with its name and arguments, as templates want to see it."""
    said = text(function.get("arguments"), f"{name}.arguments", bounds["body_bytes"])
    try:
        arguments = json.loads(said)
    except (ValueError, RecursionError):
        arguments = said
    call = {"name": called(function.get("name"), f"{name}.name"), "arguments": arguments}
    return {"id": identity, "type": "function", "function": call}


def word(*words: str) -> Schema:
    """One of these words, as a JSON schema."""
    return {"type": "string", "enum": list(words)}


def closed(properties: Schema, *required: str) -> Schema:
    """An object with these keys and no others, as a JSON schema."""
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Kept:
    """What says more of an object of one type: kept under `key`, or beside the type where that is empty."""

    key: str

    def read(self, given: dict[str, Any], name: str, *keys: str) -> tuple[dict[str, Any], str]:
        """That part, which may have these keys, and its name."""
        if not self.key:
            only(given, name, "type", *keys)
            return given, name
        only(given, name, "type", self.key)
        name, part = f"{name}.{self.key}", mapping(given.get(self.key), f"{name}.{self.key}")
        only(part, name, *keys)
        return part, name

    def schema(self, kind: str, properties: Schema, *required: str) -> Schema:
        """What `read` reads."""
        if not self.key:
            return closed({"type": word(kind), **properties}, "type", *required)
        return closed({"type": word(kind), self.key: closed(properties, *required)}, "type", self.key)


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions that the model may ask to be called; read as templates want to see them, and None where the list is
    empty. `kept` says where their names stand."""

    kept: Kept = Kept("function")

    def read(self, value: Any, name: str, bounds: Bounds) -> list[dict[str, Any]] | None:
        """See `Kind`."""
        if value == []:  # as many clients say that there are none
            return None
        return each(value, name, bounds["tools"], lambda one, at: self._tool(one, at, bounds))

    def _tool(self, given: dict[str, Any], name: str, bounds: Bounds) -> dict[str, Any]:
        if given.get("type") != "function":
            raise wrong(f"{name}.type", "must be function")
        function, name = self.kept.read(given, name, "name", "description", "parameters", "strict")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        return {
            "type": "function",
            "function": {
                "name": called(function.get("name"), f"{name}.name"),
                "description": text(function.get("description") or "", f"{name}.description", 4096),
                "parameters": read_schema(parameters, f"{name}.parameters", bounds),
            },
        }

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        function: Schema = {
            "name": NAMES,
            "description": {"type": ["string", "null"], "maxLength": 4096},
            "parameters": {"type": ["object", "null"]},
            "strict": {"type": ["boolean", "null"]},
        }
        one = self.kept.schema("function", function, "name")
        return {"type": "array", "items": one, "maxItems": int(bounds["tools"])}


@dataclass(frozen=True, slots=True)
class Allowed:
    """The only tools that may be called, by name; `mode` says whether one must be: auto or required."""

    mode: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """none, auto, required, {"type": "function", "function": {"name"}}, or {"type": "allowed_tools", "allowed_tools":
    {"mode", "tools"}}; read as the word, a tuple with the name, or `Allowed`."""

    kept: Kept = Kept("function")

    def read(self, value: Any, name: str, bounds: Bounds) -> str | tuple[str] | Allowed:
        """See `Kind`."""
        if isinstance(value, str):
            if value not in ("none", "auto", "required"):
                raise wrong(name, "must be none, auto, required, a function or allowed_tools")
            return value
        given = mapping(value, name)
        if given.get("type") == "allowed_tools":
            given, name = self._allowed.read(given, name, "mode", "tools")
            if given.get("mode") not in ("auto", "required"):
                raise wrong(f"{name}.mode", "must be auto or required")
            tools = each(
                given.get("tools"), f"{name}.tools", bounds["tools"], lambda one, at: {"name": self._one(one, at)}
            )
            return Allowed(given["mode"], tuple(tool["name"] for tool in tools))
        if given.get("type") != "function":
            raise wrong(f"{name}.type", "must be function or allowed_tools")
        return (self._one(given, name),)

    def _one(self, given: dict[str, Any], name: str) -> str:
        """The name of a function that is meant."""
        if given.get("type") != "function":
            raise wrong(f"{name}.type", "must be function")
        function, name = self.kept.read(given, name, "name")
        return called(function.get("name"), f"{name}.name")

    @property
    def _allowed(self) -> Kept:
        return Kept("allowed_tools" if self.kept.key else "")

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        one = self.kept.schema("function", {"name": NAMES}, "name")
        some = {"type": "array", "items": one, "minItems": 1, "maxItems": int(bounds["tools"])}
        allowed = self._allowed.schema(
            "allowed_tools", {"mode": word("auto", "required"), "tools": some}, "mode", "tools"
        )
        return {"anyOf": [word("none", "auto", "required"), one, allowed]}


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: {"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema":
    {"name", "schema"}}; read as a `Constraint`, or None for text."""

    kept: Kept = Kept("json_schema")

    def read(self, value: Any, name: str, bounds: Bounds) -> Constraint | None:
        """See `Kind`."""
        given = mapping(value, name)
        kind = given.get("type")
        if kind not in ("text", "json_object", "json_schema"):
            raise wrong(f"{name}.type", "must be text, json_object or json_schema")
        if kind != "json_schema":
            only(given, name, "type")
            return Constraint.schema({"type": "object"}) if kind == "json_object" else None
        inner, name = self.kept.read(given, name, "name", "description", "schema", "strict")
        if "name" in inner:
            called(inner["name"], f"{name}.name")
        return Constraint.schema(read_schema(inner.get("schema"), f"{name}.schema", bounds))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        inner: Schema = {"name": NAMES, "description": {}, "schema": {"type": "object"}, "strict": {}}
        plain = closed({"type": word("text", "json_object")}, "type")
        return {"anyOf": [plain, self.kept.schema("json_schema", inner, "schema")]}


def read_schema(value: Any, name: str, bounds: Bounds) -> dict[str, Any]:
    """A JSON schema of bounded size. Regular expressions and addresses are not taken from a request."""
    given = mapping(tellable(value, name), name)
    if len(json.dumps(given)) > bounds["schema_bytes"]:
        raise wrong(name, f"must have at most {bounds['schema_bytes']:,.0f} bytes")
    _without_patterns(given, name)
    return given


_DATA = ("enum", "const", "default", "examples")  # what stands under these is no schema


def _without_patterns(schema: Any, name: str, names: bool = False) -> None:
    """`names`: the keys of this object are names of properties, not words of the schema language."""
    if isinstance(schema, list):
        for one in schema:
            _without_patterns(one, name)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if not names and key in ("pattern", "patternProperties"):
                raise wrong(name, f"must do without {key}: regular expressions are not taken from a request")
            if not names and key in ("$ref", "$dynamicRef", "$recursiveRef"):
                _check_reference(value, f"{name}.{key}")
            if names or key not in _DATA:
                _without_patterns(value, name, not names and key in ("properties", "$defs", "definitions"))


def _check_reference(value: Any, name: str) -> None:
    """A reference leads to another part of the same schema, but not into data: nobody has looked for patterns there."""
    parts = unquote(text(value, name, 1024)).split("/")
    if parts[0] != "#" or any(part in _DATA for part in parts):
        raise wrong(name, "must lead to a schema within this one, as #/$defs/NAME does")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """An object of flags, {"include_usage": true}; read as whether usage is wanted."""

    flags: tuple[str, ...] = ("include_usage", "include_obfuscation")

    def read(self, value: Any, name: str, bounds: Bounds) -> bool:
        """See `Kind`."""
        given = mapping(value, name)
        only(given, name, *self.flags)
        for key, one in given.items():
            if not isinstance(one, bool):
                raise wrong(f"{name}.{key}", "must be true or false")
        return bool(given.get("include_usage", False))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return closed({flag: {"type": "boolean"} for flag in self.flags})
