"""Lists and objects written out in a string, as tables keep conversations in their cells."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

_MOST = 1 << 20  # characters that are taken as Python's notation, which is slower to read than JSON
_BETWEEN = re.compile(r"\}\s*\n\s*\{")  # objects of an array, as numpy prints them
_BRACKETS = {"[": "]", "{": "}"}


def spelled(value: Any) -> Any:
    """The list or object that a string spells, in JSON or as pandas writes a column of lists; else the value itself."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text or _BRACKETS.get(text[0]) != text[-1]:
        return value
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    if len(text) > _MOST:
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python has no use for
            return ast.literal_eval(_BETWEEN.sub("}, {", text))  # literals only: nothing is executed
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value
