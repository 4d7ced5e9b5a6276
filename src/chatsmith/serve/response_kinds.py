"""The kinds of value that only /v1/responses has: items, settings of the text, labels, and what is never true here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chatsmith.generate.constraints import Constraint
from chatsmith.serve.chat_kinds import NAMES, Form, Kept, call_of, closed, content, content_schema, each, only, word
from chatsmith.serve.errors import wrong
from chatsmith.serve.kinds import Bounds, Choice, Flag, Schema, mapping, tellable, text

FLAT = Kept("")
_ROLES = ("user", "assistant", "system", "developer")
# What an item of a response has beside its words may come back with it.
_ITEMS = {
    "message": ("role", "content", "phase"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}
_PARTS = {"input_text": (), "output_text": ("annotations", "logprobs")}


@dataclass(frozen=True, slots=True)
class Items:
    """A text, or a list of messages, calls of functions and what came of them; read as the messages of a chat."""

    def read(self, value: Any, name: str, bounds: Bounds) -> list[dict[str, Any]]:
        """See `Kind`."""
        if isinstance(value, str):
            return [{"role": "user", "content": text(value, name, bounds["body_bytes"])}]
        messages: list[dict[str, Any]] = []
        for item in each(value, name, bounds["messages"], lambda one, at: self._item(one, at, bounds)):
            if "tool_calls" in item and messages and messages[-1]["role"] == "assistant":
                # The words and the calls of one turn are items of their own here, and one message to a template.
                last = messages[-1]
                last["tool_calls"] = [*last.get("tool_calls", ()), *item["tool_calls"]]
            else:
                messages.append(item)
        return messages

    def _item(self, given: dict[str, Any], name: str, bounds: Bounds) -> dict[str, Any]:
        given = {key: value for key, value in given.items() if value is not None}
        kind = given.get("type", "message")
        if not isinstance(kind, str) or kind not in _ITEMS:
            raise wrong(f"{name}.type", f"must be one of {', '.join(_ITEMS)}")
        only(given, name, "type", "id", "status", *_ITEMS[kind])
        identity = text(given.get("call_id", ""), f"{name}.call_id", 256)
        if kind == "function_call":
            return {"role": "assistant", "content": "", "tool_calls": [call_of(given, name, identity, bounds)]}
        says = "content" if kind == "message" else "output"
        if says not in given:
            raise wrong(f"{name}.{says}", "is missing")
        said = content(given[says], f"{name}.{says}", bounds, _PARTS)
        if kind == "function_call_output":
            return {"role": "tool", "content": said, "tool_call_id": identity}
        if given.get("role") not in _ROLES:
            raise wrong(f"{name}.role", f"must be one of {', '.join(_ROLES)}")
        return {"role": "system" if given["role"] == "developer" else given["role"], "content": said}

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        words: Schema = {"type": "string", "maxLength": int(bounds["body_bytes"])}
        said = content_schema(bounds, *_PARTS)
        identity: Schema = {"type": "string", "maxLength": 256}
        shared: Schema = {"id": {"type": "string"}, "status": {"type": "string"}}

        def item(kind: str, properties: Schema, *required: str) -> Schema:
            return closed({"type": word(kind), **shared, **properties}, *required)

        kinds = [
            item("message", {"role": word(*_ROLES), "content": said}, "role", "content"),
            item(
                "function_call", {"call_id": identity, "name": NAMES, "arguments": words}, "type", "name", "arguments"
            ),
            item("function_call_output", {"call_id": identity, "output": said}, "type", "output"),
        ]
        many = {"type": "array", "items": {"anyOf": kinds}, "minItems": 1, "maxItems": int(bounds["messages"])}
        return {"anyOf": [words, many]}


@dataclass(frozen=True, slots=True)
class TextSettings:
    """{"format": …}, as `Form` but flat; read as what was given and the constraint."""

    def read(self, value: Any, name: str, bounds: Bounds) -> tuple[dict[str, Any], Constraint | None]:
        """See `Kind`."""
        given = {key: one for key, one in mapping(value, name).items() if one is not None}
        only(given, name, "format")
        form = tellable(given.get("format", {"type": "text"}), f"{name}.format")  # the answer has it again
        return form, Form(FLAT).read(form, f"{name}.format", bounds)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return closed({"format": {"anyOf": [Form(FLAT).schema(bounds), {"type": "null"}]}})


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES = ("auto", "concise", "detailed")


@dataclass(frozen=True, slots=True)
class Reasoning:
    """{"effort", "summary"}, as clients send it to any model; read as None."""

    def read(self, value: Any, name: str, bounds: Bounds) -> None:
        """See `Kind`."""
        given = mapping(value, name)
        only(given, name, "effort", "summary", "generate_summary")
        for key, one in given.items():
            if one is not None:
                Choice(EFFORTS if key == "effort" else _SUMMARIES).read(one, f"{name}.{key}", bounds)

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        kinds = {"effort": EFFORTS, "summary": _SUMMARIES, "generate_summary": _SUMMARIES}
        return closed({key: {"anyOf": [word(*words), {"type": "null"}]} for key, words in kinds.items()})


@dataclass(frozen=True, slots=True)
class Labels:
    """Short texts by name, which the answer has again."""

    def read(self, value: Any, name: str, bounds: Bounds) -> dict[str, str]:
        """See `Kind`."""
        given = mapping(value, name)
        if len(given) > 16:
            raise wrong(name, f"must have at most 16 entries, not {len(given):,}")
        return {text(key, name, 64): text(one, f"{name}.{key[:64]}", 512) for key, one in given.items()}

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        words, names = {"type": "string", "maxLength": 512}, {"maxLength": 64}
        return {"type": "object", "additionalProperties": words, "propertyNames": names, "maxProperties": 16}


@dataclass(frozen=True, slots=True)
class Off:
    """false, and nothing else."""

    why: str

    def read(self, value: Any, name: str, bounds: Bounds) -> bool:
        """See `Kind`."""
        if Flag().read(value, name, bounds):
            raise wrong(name, f"must be false: {self.why}")
        return False

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": "boolean", "enum": [False]}


@dataclass(frozen=True, slots=True)
class Never:
    """Nothing but null."""

    why: str

    def read(self, value: Any, name: str, bounds: Bounds) -> None:
        """See `Kind`."""
        raise wrong(name, f"cannot be used: {self.why}")

    def schema(self, bounds: Bounds) -> Schema:
        """See `Kind`."""
        return {"type": "null"}
