"""Chat templates: rendering the Jinja programs that model folders bring along.

A template comes with a model from elsewhere, so it is a stranger's program. It runs in Jinja's immutable sandbox, set
up as transformers does, so that what it prints is equal; beyond that, what it may use up is bounded here: its own size,
loop rounds and macro calls, the clock (looked at in each of these), and how long a string it may build or print.
"""

from __future__ import annotations

import datetime
import functools
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from chatsmith.errors import RequestError

MAX_TEMPLATE = 1 << 18
"""Characters of the longest template; long published ones, tools and all, have some 20,000."""

MAX_ROUNDS = 1_000_000
"""Loop rounds and macro calls of one rendering."""

MAX_SECONDS = 20.0
"""Time for one rendering."""

MAX_TEXT = 1 << 26
"""Characters of the longest string a template may build."""


def render_template(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What `template` makes of messages {"role", "content"}; equal to transformers' `apply_chat_template`.

    `variables` are the further names it may read (`add_generation_prompt`, `bos_token`, …). Raises `RequestError` where
    the template is faulty, refuses the conversation, or takes too much.
    """
    program = _compiled(template)
    environment = program.environment
    assert isinstance(environment, _Environment)
    environment.start()
    try:
        pieces: list[str] = []
        size = 0
        for piece in program.generate(
            {"tools": None, "documents": None, "add_generation_prompt": False}
            | dict(variables)
            | {"messages": [dict(message) for message in messages]}
        ):
            environment.tick()
            size = bounded(size + len(piece))
            pieces.append(piece)
        return "".join(pieces)
    except jinja2.TemplateError as error:
        raise RequestError(f"the chat template does not take this conversation: {error.message}") from error
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise RequestError(f"the chat template failed: {error or type(error).__name__}") from error


def bounded(size: int) -> int:
    """`size`, unless it is beyond what a template may build."""
    if size > MAX_TEXT:
        raise SecurityError(f"the template builds a text of more than {MAX_TEXT:,} characters")
    return size


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    if len(template) > MAX_TEMPLATE:
        raise RequestError(f"the chat template has {len(template):,} characters; at most {MAX_TEMPLATE:,} are read")
    try:
        return _Environment().from_string(template)
    except (jinja2.TemplateError, RecursionError) as error:
        raise RequestError(f"the chat template is faulty: {error}") from error


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a budget. Threads may render at the same time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        self.filters["tojson"] = _to_json
        # Both write any number of spaces for a few characters of template.
        del self.filters["center"], self.filters["format"]
        self.globals.update(
            raise_exception=_raise, strftime_now=_strftime_now, dict=_make_dict, namespace=_SafeNamespace
        )
        del self.globals["lipsum"]
        self._budget = threading.local()

    def start(self) -> None:
        """Begin a rendering in this thread."""
        self._budget.rounds, self._budget.end = 0, time.monotonic() + MAX_SECONDS

    def tick(self) -> str:
        """Count a round of a loop or a call of a macro."""
        self._budget.rounds += 1
        if self._budget.rounds > MAX_ROUNDS or time.monotonic() > self._budget.end:
            raise SecurityError(f"the template takes more than {MAX_ROUNDS:,} rounds or {MAX_SECONDS:.0f} seconds")
        return ""

    def joined(self, *parts: Any) -> str:
        """The operator `~`."""
        texts = [str(part) for part in parts]
        bounded(sum(map(len, texts)))
        return "".join(texts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        tick = nodes.ExprStmt(nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None))
        loops: list[nodes.For | nodes.Macro | nodes.CallBlock] = []
        for kind in (nodes.For, nodes.Macro, nodes.CallBlock):
            loops.extend(tree.find_all(kind))
        for loop in loops:
            loop.body.insert(0, tick.set_lineno(loop.lineno))
        _Concatenations().visit(tree)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Strings keep the methods that cannot make a large text of a small one."""
        if isinstance(obj, str) and attr in {"center", "ljust", "rjust", "zfill", "format", "format_map", "expandtabs"}:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """`format` writes any width; the sandbox would otherwise let it through before asking `is_safe_attribute`."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("access to attribute 'format' of 'str' object is unsafe: it can write any width")
        return None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(side) if isinstance(side, str | list | tuple) else None for side in (left, right)]
        numbers = [side if isinstance(side, int) else 1 for side in (left, right)]
        if operator == "*":
            bounded(max((size or 1) * abs(number) for size, number in zip(sizes, reversed(numbers), strict=True)))
        elif operator == "+":
            bounded(sum(size or 0 for size in sizes))
        elif operator == "**":
            bounded(int(abs(numbers[0]).bit_length() * min(abs(numbers[1]), MAX_TEXT)))
        elif isinstance(left, str):
            raise SecurityError("templates cannot format strings with %")
        return super().call_binop(context, operator, left, right)


class _Concatenations(NodeTransformer):
    """Lead each `a ~ b` through `_Environment.joined`."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (Jinja's naming)
        parts = [self.visit(part) for part in node.nodes]
        call = nodes.Call(nodes.EnvironmentAttribute("joined"), parts, [], None, None)
        return call.set_lineno(node.lineno)


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, by which some templates mark the assistant's words: just its content."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _SafeNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)


def _public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a template cannot set {name!r}")


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern[:1_000])


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML.
    if isinstance(indent, int):
        indent = min(indent, 16)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
