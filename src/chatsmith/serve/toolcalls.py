"""Calls of tools in what a model writes: the two notations that models in the field were taught."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from chatsmith.generate.constraints import Constraint, embedded
from chatsmith.serve.chat_kinds import Allowed
from chatsmith.serve.errors import wrong
from chatsmith.text.chat_tools import has_tools
from chatsmith.text.tokenizer import Tokenizer

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MARKED = re.compile(f"{_OPEN}(.*?)(?:{_CLOSE}|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a model calls tools. `marked`: objects between <tool_call> and </tool_call> (Hermes, Qwen); else the whole
    answer is one object (Llama). `key` is what the arguments are called; `begin` is where words may end and a call
    begin."""

    names: frozenset[str]
    marked: bool
    key: str
    constraint: Constraint | None = None

    @property
    def begin(self) -> str:
        """The text from which on an answer may be a call."""
        return _OPEN if self.marked else "{"

    def parse(self, said: str) -> tuple[str | None, list[dict[str, Any]]]:
        """The words before any call, and the calls; an answer whose calls cannot be read has none."""
        pieces = _MARKED.findall(said) if self.marked else [said]
        calls = [call for piece in pieces if (call := self._call(piece)) is not None]
        if not calls or len(calls) < len(pieces):
            return said, []
        words = said.partition(_OPEN)[0].strip() if self.marked else ""
        return words or None, calls

    def _call(self, piece: str) -> dict[str, Any] | None:
        try:
            found = json.loads(piece.strip())
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("name") not in self.names:
            return None
        arguments = found.get(self.key, {})
        if not isinstance(arguments, dict):
            return None
        function = {"name": found["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
        return {"id": "call_" + token_hex(12), "type": "function", "function": function}


def offered(
    tools: list[dict[str, Any]] | None, choice: str | tuple[str] | Allowed
) -> tuple[list[dict[str, Any]] | None, str | tuple[str]]:
    """The tools that the model is shown and how to choose: of others than those allowed it need not know."""
    if not isinstance(choice, Allowed):
        return tools, choice
    if tools is None:
        raise wrong("tool_choice", "needs tools to choose from")
    _check_names(choice.names, tools)
    return [tool for tool in tools if tool["function"]["name"] in choice.names], choice.mode


def _check_names(names: Iterable[str], tools: list[dict[str, Any]]) -> None:
    known = {tool["function"]["name"] for tool in tools}
    for name in names:
        if name not in known:
            raise wrong("tool_choice", f"names {name!r}, which is not among the tools")


def call_format(
    tokenizer: Tokenizer, tools: list[dict[str, Any]] | None, choice: str | tuple[str]
) -> CallFormat | None:
    """How this model calls these tools; None where it is not to. Raises `ApiError` where its template has no tools."""
    if tools is None:
        if choice not in ("auto", "none"):
            raise wrong("tool_choice", "needs tools to choose from")
        return None
    if not has_tools(tokenizer):
        raise wrong("tools", "cannot be used: this model's chat template has no place for them")
    template = tokenizer.chat_template or ""
    marked = _OPEN in template
    if not marked and "parameters" not in template:
        raise wrong("tools", "cannot be used: this model writes calls in a notation that is not known here")
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if choice == "none":
        return None
    key = "arguments" if marked else "parameters"
    format = CallFormat(frozenset(functions), marked, key)
    if choice == "auto":
        return format
    chosen = list(functions) if choice == "required" else [choice[0]]
    _check_names(chosen, tools)
    forms = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, key: functions[name]["parameters"]},
            "required": ["name", key],
            "additionalProperties": False,
        }
        for name in chosen
    ]
    schema = {"anyOf": forms}
    if not marked:
        return CallFormat(format.names, marked, key, Constraint.schema(schema))
    quoted = [name if name in tokenizer.added else json.dumps(name) for name in (_OPEN, _CLOSE)]
    grammar = f'start: {quoted[0]} "\\n" call "\\n" {quoted[1]}\ncall: %json {embedded(schema)}\n'
    return CallFormat(format.names, marked, key, Constraint("grammar", grammar))
