"""chatsmith: make a ChatGPT of your own.

From your text to a model that talks, and a look inside every word it says:

    import chatsmith

    model = chatsmith.load("my-model")              # a folder made by chatsmith, or one in Hugging Face layout
    print(model.write("Once upon a time"))          # continue a text
    model.write("Once upon a time", samples=5)      # five samples, side by side in a notebook
    model.next("The best thing about AI is its ability to")      # the ranked next tokens, before and after temperature
    model.chat("What is two plus three?")           # one answer
    talk = model.conversation(); talk.say("Hello!") # a talk that remembers
    model.score("Some text").bits_per_byte          # how well the model foresees a text

    chatsmith.new(["texts/"], minutes=10, out="my-model")        # make a model of your own documents
    chatsmith.plan("gpt3-175b", on="h100", count=1024)           # what a model takes: compute, memory, time, money

Sampling is set by name in every call: `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`, `stop`,
`max_tokens` (see `help(chatsmith.Sampling)`). The same seed gives the same text, alone or among others.

The same verbs are commands: `chatsmith new`, `chatsmith chat`, `chatsmith write`, `chatsmith next`, `chatsmith plan`,
`chatsmith train`.
Importing chatsmith loads nothing heavy; torch comes with the first call that needs it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatsmith.create import new
    from chatsmith.errors import ChatsmithError, MissingExtra, RequestError, WorkError
    from chatsmith.generate.sampling import Sampling
    from chatsmith.language_model import LanguageModel, load
    from chatsmith.planning import plan
    from chatsmith.specs import PRESETS, ModelSpec, preset
    from chatsmith.text.chat import Message
    from chatsmith.text.tokenizer import Tokenizer

# GNU OpenMP lets a waiting thread spin for milliseconds before it sleeps. When another program takes a core, the one
# that should work then waits for the one that spins, and training becomes ten to fifty times slower. A short spin costs
# little alone and keeps about the half that is left beside a neighbour. It is read when torch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__all__ = [
    "PRESETS",
    "ChatsmithError",
    "LanguageModel",
    "Message",
    "MissingExtra",
    "ModelSpec",
    "RequestError",
    "Sampling",
    "Tokenizer",
    "WorkError",
    "__version__",
    "load",
    "new",
    "plan",
    "preset",
]

_HOMES = {
    "PRESETS": "chatsmith.specs",
    "ChatsmithError": "chatsmith.errors",
    "LanguageModel": "chatsmith.language_model",
    "Message": "chatsmith.text.chat",
    "MissingExtra": "chatsmith.errors",
    "ModelSpec": "chatsmith.specs",
    "RequestError": "chatsmith.errors",
    "Sampling": "chatsmith.generate.sampling",
    "Tokenizer": "chatsmith.text.tokenizer",
    "WorkError": "chatsmith.errors",
    "load": "chatsmith.language_model",
    "new": "chatsmith.create",
    "preset": "chatsmith.specs",
}


class _Room(ModuleType):
    """A package that is called as the function of its name: `chatsmith.plan` is both a room and what it is for."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return importlib.import_module("chatsmith.planning").plan(*arguments, **settings)

    @property
    def __signature__(self) -> Any:
        import inspect

        found = inspect.signature(importlib.import_module("chatsmith.planning").plan)
        plain = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
        return inspect.Signature(plain)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """The function's, so that `help(chatsmith.plan)` says what it takes."""
        import inspect
        import textwrap

        said = inspect.getdoc(importlib.import_module("chatsmith.planning").plan) or ""
        first, _, rest = said.partition("\n")
        given = re.sub(r"<function .*? at \w+>", "…", f"{self.__name__}{self.__signature__}")
        return f"{first}\n\n{textwrap.fill(given, 110, subsequent_indent=' ' * 4)}\n{rest}"


if not TYPE_CHECKING:
    # The import system binds the package `chatsmith.plan` to that name whenever it first loads, so the function cannot
    # have the name to itself. The package is a docstring and costs nothing; its modules load when they are used.
    importlib.import_module("chatsmith.plan")
    sys.modules["chatsmith.plan"].__class__ = _Room


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'chatsmith' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("chatsmith")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0+unknown"
