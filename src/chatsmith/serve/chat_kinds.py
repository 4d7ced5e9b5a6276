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
from chatsmith.serve.kinds import Bounds, Schema, listed, mapping, text

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ROLES = ("system", "developer", "user", "assistant", "tool")
_NAMES: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}


def _known(given: dict[str, Any], name: str, *keys: str) -> None:
    for key in given:
        if key not in keys:
            raise wrong(f"{name}.{key[:64]}", f"is not known; there are {', '.join(keys)}")


def _each(
    value: Any, name: str, most: float, read: Callable[[dict[str, Any], str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """`read` of every object in a list of one or more, with its name."""
    places = enumerate(listed(value, name, most, 1))
    return [read(mapping(one, f"{name}[{place}]"), f"{name}[{place}]") for place, one in places]


def _named(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise wrong(name, "must have 1 to 64 letters, digits, _ or -")
    return value


@dataclass(frozen=True, slots=True)
class Messages:
    """A conversation; read as a list of {"role", "content"}, with "tool_calls" where the assistant made some."""

    def read(self, value: Any, name: str, bounds: Bounds) -> list[dict[str, Any]]:
        """See `Kind`."""
        return _each(value, name, bounds["messages"], lambda one, at: self._message(one, at, bounds))

    def _message(self, given: dict[str, Any], name: str, bounds: Bounds) -> dict[str, Any]:
        given = {key: value for key, value in given.items() if value is not None}
        role = given.get("role")
        if role not in _ROLES:
            raise wrong(f"{name}.role", f"must be one of {', '.join(_ROLES)}")
        # What a reply of OpenAI's has beside its words may come back with it.
        extra = {"assistant": ("tool_calls", "refusal", "annotations"), "tool": ("tool_call_id",)}.get(role, ())
        _known(given, name, "role", "content", "name", *extra)
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
            "content": _content(given.get("content", ""), f"{name}.content", bounds),
        }
        if calls:
            message["tool_calls"] = calls
        if role == "tool":
            message["tool_call_id"] = text(given.get("tool_call_id", ""), f"{name}.tool_call_id", 256)
        return message

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        words: Schema = {"type": "string", "maxLength": int(bounds["body_bytes"])}
        part: Schema = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["text"]}, "text": words},
            "required": ["type", "text"],
            "additionalProperties": False,
        }
        parts: Schema = {"type": "array", "items": part, "maxItems": int(bounds["messages"])}
        call: Schema = {
            "type": "object",
            "properties": {
                "id": {"type": "string", "maxLength": 256},
                "type": {"type": "string", "enum": ["function"]},
                "function": {
                    "type": "object",
                    "properties": {"name": _NAMES, "arguments": words},
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                },
            },
            "required": ["function"],
            "additionalProperties": False,
        }

        def message(roles: list[str], required: list[str], **more: Schema) -> Schema:
            shared = {"content": {"anyOf": [words, parts]}, "name": {"type": "string", "maxLength": 64}}
            role: Schema = {"type": "string", "enum": roles}
            properties = {"role": role, **shared, **more}
            return {
                "type": "object",
                "properties": properties,
                "required": ["role", *required],
                "additionalProperties": False,
            }

        calls: Schema = {"type": "array", "items": call, "minItems": 1, "maxItems": int(bounds["tools"])}
        kinds = [
            message(["system", "developer", "user"], ["content"]),
            message(["assistant"], ["content"]),
            message(["assistant"], ["tool_calls"], tool_calls=calls),
            message(["tool"], ["content"], tool_call_id={"type": "string", "maxLength": 256}),
        ]
        return {"type": "array", "items": {"anyOf": kinds}, "minItems": 1, "maxItems": int(bounds["messages"])}


def _content(value: Any, name: str, bounds: Bounds) -> str:
    if not isinstance(value, list):
        return text(value, name, bounds["body_bytes"])
    said = []
    for place, part in enumerate(listed(value, name, bounds["messages"])):
        given = mapping(part, f"{name}[{place}]")
        if given.get("type") != "text":
            raise wrong(f"{name}[{place}].type", "must be text: this model reads nothing else")
        _known(given, f"{name}[{place}]", "type", "text")
        said.append(text(given.get("text"), f"{name}[{place}].text", bounds["body_bytes"]))
    return "".join(said)


def _call(value: Any, name: str, bounds: Bounds) -> dict[str, Any]:
    given = mapping(value, name)
    _known(given, name, "id", "type", "function")
    if given.get("type", "function") != "function":
        raise wrong(f"{name}.type", "must be function")
    function = mapping(given.get("function"), f"{name}.function")
    _known(function, f"{name}.function", "name", "arguments")
    said = text(function.get("arguments"), f"{name}.function.arguments", bounds["body_bytes"])
    try:
        arguments = json.loads(said)
    except (ValueError, RecursionError):
        arguments = said
    call = {"name": _named(function.get("name"), f"{name}.function.name"), "arguments": arguments}
    return {"id": text(given.get("id", ""), f"{name}.id", 256), "type": "function", "function": call}


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions that the model may ask to be called; read as templates want to see them."""

    def read(self, value: Any, name: str, bounds: Bounds) -> list[dict[str, Any]]:
        """See `Kind`."""
        return _each(value, name, bounds["tools"], lambda one, at: self._tool(one, at, bounds))

    def _tool(self, given: dict[str, Any], name: str, bounds: Bounds) -> dict[str, Any]:
        _known(given, name, "type", "function")
        if given.get("type") != "function":
            raise wrong(f"{name}.type", "must be function")
        function = mapping(given.get("function"), f"{name}.function")
        _known(function, f"{name}.function", "name", "description", "parameters", "strict")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        return {
            "type": "function",
            "function": {
                "name": _named(function.get("name"), f"{name}.function.name"),
                "description": text(function.get("description") or "", f"{name}.function.description", 4096),
                "parameters": read_schema(parameters, f"{name}.function.parameters", bounds),
            },
        }

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        function: Schema = {
            "type": "object",
            "properties": {
                "name": _NAMES,
                "description": {"type": ["string", "null"], "maxLength": 4096},
                "parameters": {"type": ["object", "null"]},
                "strict": {"type": ["boolean", "null"]},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
        one: Schema = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["function"]}, "function": function},
            "required": ["type", "function"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": one, "minItems": 1, "maxItems": int(bounds["tools"])}


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """none, auto, required, or {"type": "function", "function": {"name": …}}; read as the word, or ("name",)."""

    def read(self, value: Any, name: str, bounds: Bounds) -> str | tuple[str]:
        """See `Kind`."""
        if isinstance(value, str):
            if value not in ("none", "auto", "required"):
                raise wrong(name, "must be none, auto, required or a function")
            return value
        given = mapping(value, name)
        _known(given, name, "type", "function")
        if given.get("type") != "function":
            raise wrong(f"{name}.type", "must be function")
        function = mapping(given.get("function"), f"{name}.function")
        _known(function, f"{name}.function", "name")
        return (_named(function.get("name"), f"{name}.function.name"),)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        function = {
            "type": "object",
            "properties": {"name": _NAMES},
            "required": ["name"],
            "additionalProperties": False,
        }
        chosen = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["function"]}, "function": function},
            "required": ["type", "function"],
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": "string", "enum": ["none", "auto", "required"]}, chosen]}


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: {"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema":
    {"name", "schema"}}; read as a `Constraint`, or None for text."""

    def read(self, value: Any, name: str, bounds: Bounds) -> Constraint | None:
        """See `Kind`."""
        given = mapping(value, name)
        kind = given.get("type")
        if kind not in ("text", "json_object", "json_schema"):
            raise wrong(f"{name}.type", "must be text, json_object or json_schema")
        _known(given, name, "type", *(["json_schema"] if kind == "json_schema" else []))
        if kind == "text":
            return None
        if kind == "json_object":
            return Constraint.schema({"type": "object"})
        inner = mapping(given.get("json_schema"), f"{name}.json_schema")
        _known(inner, f"{name}.json_schema", "name", "description", "schema", "strict")
        if "name" in inner:
            _named(inner["name"], f"{name}.json_schema.name")
        return Constraint.schema(read_schema(inner.get("schema"), f"{name}.json_schema.schema", bounds))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        inner: Schema = {
            "type": "object",
            "properties": {
                "name": _NAMES,
                "description": {},
                "schema": {"type": "object"},
                "strict": {},
            },
            "required": ["schema"],
            "additionalProperties": False,
        }

        def form(kinds: list[str], more: Schema) -> Schema:
            return {
                "type": "object",
                "properties": {"type": {"type": "string", "enum": kinds}, **more},
                "required": ["type", *more],
                "additionalProperties": False,
            }

        return {"anyOf": [form(["text", "json_object"], {}), form(["json_schema"], {"json_schema": inner})]}


def read_schema(value: Any, name: str, bounds: Bounds) -> dict[str, Any]:
    """A JSON schema of bounded size. Regular expressions and addresses are not taken from a request."""
    given = mapping(value, name)
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
    """{"include_usage": true}; read as whether usage is wanted."""

    def read(self, value: Any, name: str, bounds: Bounds) -> bool:
        """See `Kind`."""
        given = mapping(value, name)
        _known(given, name, "include_usage", "include_obfuscation")
        for key, one in given.items():
            if not isinstance(one, bool):
                raise wrong(f"{name}.{key}", "must be true or false")
        return bool(given.get("include_usage", False))

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        flag = {"type": "boolean"}
        return {
            "type": "object",
            "properties": {"include_usage": flag, "include_obfuscation": flag},
            "additionalProperties": False,
        }
