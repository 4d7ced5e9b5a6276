"""Conversations with tools: a model's own template writes them, and no word of a user's becomes one of its marks."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatsmith.errors import RequestError
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.tokenizer_added import finding

_TOOLS = re.compile(r"\{[%{][^}]*\btools\b")


def has_tools(tokenizer: Tokenizer) -> bool:
    """Whether the chat template writes tools."""
    return bool(tokenizer.chat_template and _TOOLS.search(tokenizer.chat_template))


def encode_with_tools(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[int]:
    """The ids of a conversation up to where the model's words begin, with whatever messages the template knows.

    Special tokens come from the template alone. To tell, every name of one that somebody's words spell, also in part
    at an end, is broken by a character that stands nowhere else, and this is taken out again after the rendering was
    cut at the special tokens. Raises `RequestError` where the template refuses, or looks at words so closely that the
    character changed what it wrote.
    """
    from chatsmith.text.chat_template import render_template

    template = tokenizer.chat_template
    if template is None:
        raise RequestError("this model has no chat template: it continues text but was not taught to talk")
    said = (copy.deepcopy([dict(message) for message in messages]), copy.deepcopy(list(tools or [])))
    texts = template + "".join(_texts(said))
    mark = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in texts)
    breaks = functools.partial(_broken, tuple(tokenizer.specials), mark)

    def rendered(change: Callable[[str], str]) -> str:
        changed = _changed(said, change)
        variables = {**tokenizer.template_variables, "add_generation_prompt": True, "tools": changed[1] or None}
        return render_template(template, changed[0], variables)

    whole = rendered(breaks)
    if whole.replace(mark, "") != rendered(str):
        raise RequestError("this model's chat template rewrites what is said, so that words cannot be told from marks")
    ids: list[int] = []
    for part in finding(tokenizer.specials).split(whole):
        number = tokenizer.specials.get(part)
        ids += [number] if number is not None else tokenizer.encode(part.replace(mark, "")) if part else []
    return ids


def _broken(names: Sequence[str], mark: str, text: str) -> str:
    """`text` with a mark inside each special name that it spells, or begins or ends to spell."""
    core = text.strip()
    if not core:
        return text
    lead, _, trail = text.partition(core)
    ends = any(core.endswith(name[:size]) for name in names for size in range(1, len(name)))
    begins = any(core.startswith(name[size:]) for name in names for size in range(1, len(name)))
    for name in names:
        core = core.replace(name, name[0] + mark + name[1:])
    return lead + mark * begins + core + mark * ends + trail


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every text in it changed, but for keys and what the template decides by."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            key: one if key in ("role", "type") and isinstance(one, str) and one.isalpha() else _changed(one, change)
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_changed(one, change) for one in value]
    return value


def _texts(value: Any) -> list[str]:
    """All texts in a value, keys too."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    _changed(value, note)
    return found
