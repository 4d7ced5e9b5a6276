"""The command table, and how a command line becomes an exit code.

A command is a row: name, where its function lives, one line of help. The module is imported only when that command
runs, so that `--help` stays fast and torch is loaded only by what needs it. Every error ends here, as one line and a
hint on stderr; a traceback is shown only with `--debug`.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType
from typing import Any, get_args

from cyclopts import App, CycloptsError, Group, Parameter, Token, convert
from cyclopts.exceptions import MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from chatsmith.errors import ChatsmithError, RequestError, did_you_mean


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table; `target` is "module:function" and is imported when the command is used."""

    name: str
    target: str
    summary: str
    group: str


MAKE, TALK, HOUSE = "Make a model", "Use one", "Around it"

COMMANDS = (
    Command(
        "new", "chatsmith.cli.new:new", "Make a model that talks from your documents, in the minutes you give", MAKE
    ),
    Command("train", "chatsmith.cli.train:train", "Train from a TOML recipe, or resume a run", MAKE),
    Command("read", "chatsmith.cli.read:read", "Read documents and list what is in them and what was skipped", MAKE),
    Command("data vocabulary", "chatsmith.cli.data:vocabulary", "Learn a vocabulary from documents", MAKE),
    Command("data quality", "chatsmith.cli.data:quality", "Learn to tell good documents from raw ones", MAKE),
    Command("data shard", "chatsmith.cli.data:shard", "Read and encode one part of a corpus", MAKE),
    Command("data merge", "chatsmith.cli.data:merge", "Make one folder of tokens of all parts", MAKE),
    Command("data mixture", "chatsmith.cli.data:mixture", "Show how often a training goes through each source", MAKE),
    Command("plan", "chatsmith.cli.plan:plan", "Know the cost before you spend it: size, compute, time, money", MAKE),
    Command("chat", "chatsmith.cli.chat:chat", "Talk with a model; with none yet, make the built-in one first", TALK),
    Command("write", "chatsmith.cli.write:write", "Continue a text, once or in several samples side by side", TALK),
    Command("next", "chatsmith.cli.next:next_", "Show the ranked next tokens with probability and bits", TALK),
    Command("serve", "chatsmith.cli.serve:serve", "Open a page to talk on, and an API like OpenAI's", TALK),
    Command("keys", "chatsmith.cli.keys:keys", "Make, list and remove the keys that open a server to others", TALK),
    Command("replay", "chatsmith.cli.replay:replay", "Make a served answer again, token for token", TALK),
    Command("skills", "chatsmith.cli.skills:skills", "Measure what a model of the built-in corpus has learned", TALK),
    Command("convert", "chatsmith.cli.convert:convert", "Write a model in fewer bits, and report what it cost", TALK),
    Command("plot", "chatsmith.cli.plot:plot", "Draw a run's training curve in the terminal, or as SVG or PNG", HOUSE),
    Command("doctor", "chatsmith.cli.doctor:doctor", "Measure this machine and name the missing parts", HOUSE),
    Command("completion", "chatsmith.cli.completion:completion", "Print the completion script of your shell", HOUSE),
    Command("version", "chatsmith.cli.version:version", "Print the versions of chatsmith and its libraries", HOUSE),
)

FAMILIES = {"data": "Make a corpus in parts, on many machines, and one folder of tokens of them"}

EPILOGUE = (
    "Exit codes: 0 done, 1 the work failed, 2 the request was wrong. --debug anywhere shows an error's traceback."
)


def build(described: str | None = None) -> App:
    """The cyclopts application of the whole table, with nothing of it imported.

    A command shows its line of the table as help; the one called `described` (all, for "*") its whole docstring.
    """
    app = App(
        name="chatsmith",
        help="Make a ChatGPT of your own: from your text to a model that talks.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=(), show_default=_shown_default, converter=_converted),
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    groups = {name: Group(name, sort_key=order) for order, name in enumerate((MAKE, TALK, HOUSE))}
    app["--help"].group = app["--version"].group = groups[HOUSE]
    families: dict[str, App] = {}
    for order, command in enumerate(COMMANDS):
        whole = described in (command.name, "*")
        family, _, name = command.name.rpartition(" ")
        if family and family not in families:
            families[family] = App(name=family, help=FAMILIES[family], group=groups[command.group], sort_key=order)
            app.command(families[family])
        (families[family] if family else app).command(
            command.target,
            name=name,
            help=None if described == "*" else _flowing(command.target) if whole else command.summary,
            group=groups[command.group],
            sort_key=order,
            help_epilogue="",
        )
    app.default(_bare)
    return app


def _flowing(target: str) -> str:
    """What a command's function says of itself, a paragraph a line: the terminal breaks lines where it ends."""
    module, _, function = target.partition(":")
    text = inspect.cleandoc(getattr(importlib.import_module(module), function).__doc__ or "")
    paragraphs = text.split("\n\n")
    return "\n\n".join(part if "\n " in part else part.replace("\n", " ") for part in paragraphs)


def _version() -> str:
    import chatsmith

    return f"chatsmith {chatsmith.__version__}"


def _shown_default(value: object) -> str | None:
    return None if value is None or value is False or value == () else str(value)


def _converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """What cyclopts makes of an argument, but that it would round 2.5 where a whole number is asked for."""
    if (kind is int or set(get_args(kind)) == {int, NoneType}) and any("." in token.value for token in tokens):
        raise ValueError
    return convert(kind, tokens)


def _bare() -> int:
    from chatsmith.cli.start import start

    return start()


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code; never raises but on `SystemExit`."""
    from chatsmith.cli.console import bear_any_text

    bear_any_text()
    tokens, debug = _take_debug(arguments)
    try:
        code = _guarded(lambda: _dispatch(tokens), tokens, debug)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has gone, as in `chatsmith … | head`. Python would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a program ended by SIGPIPE leaves in the shell


def _dispatch(tokens: Sequence[str]) -> object:
    app = build(command_named(tokens))
    if {"--help", "-h"} & set(tokens):
        from chatsmith.cli.console import out

        return app(tokens, console=out())
    _check_options(app, tokens)
    return app(tokens)


# What to do about what the system refused, where that is one thing.
_REMEDIES = dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "check its permissions, or name another place")
_REMEDIES |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and run the same command again")
_REMEDIES[errno.EMFILE] = "allow more open files: ulimit -n 4096"
# What may be an option. A text, "- like this", "-5" or "-", is none.
_OPTION = re.compile(r"(--?[A-Za-z][\w-]*)(=.*)?", re.DOTALL)


def _check_options(app: App, tokens: Sequence[str]) -> None:
    """Options must exist and have their values: where a text may begin with -, the parser would take them for it."""
    command = command_named(tokens)
    if command is None:
        return
    words = command.split()
    for word in words:
        app = app[word]
    options = {
        name: argument
        for argument in app.assemble_argument_collection()
        for name in argument.names
        if name not in argument.negatives  # which are turned off, and listed here all the same
    }
    given = [_OPTION.fullmatch(token) for token in [*_before_texts(tokens[len(words) :]), ""]]
    for here, after in pairwise(given):
        if here is None:
            continue
        name = here[1]
        if name not in options:
            raise _unknown(f"chatsmith {command}", name, options)
        if after and not here[2] and options[name].hint is not bool:
            raise RequestError(f"{name} needs a value before {after[1]}", f"chatsmith {command} --help")


def _before_texts(tokens: Sequence[str]) -> Sequence[str]:
    """The tokens up to `--`, after which everything is text."""
    return tokens[: tokens.index("--")] if "--" in tokens else tokens


def _unknown(program: str, word: str, known: Iterable[str]) -> RequestError:
    if word in known:
        return RequestError(f"{word} stands after --, where everything is text", "put options before --")
    names = [name for name in known if name.startswith("--")]
    hint = did_you_mean(word, [*names, "--help"])
    return RequestError(f"{program} has no option {word}", hint)


def command_named(tokens: Sequence[str]) -> str | None:
    """The command that the first one or two words name."""
    names = [command.name for command in COMMANDS]
    return next((name for name in (" ".join(tokens[:2]), *tokens[:1]) if name in names), None)


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Tokens without `--debug`, and whether it was there (after `--` it is text)."""
    end = len(_before_texts(arguments))
    kept = [token for token in arguments[:end] if token != "--debug"]
    return kept + list(arguments[end:]), len(kept) < end


def _guarded(work: Callable[[], object], tokens: Sequence[str], debug: bool) -> int:
    from chatsmith.cli.console import print_error

    try:
        result = work()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt as stop:
        text = str(stop) or "stopped"
        if not _reported(text, None, 130):
            print_error(text, word="")
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        shown = _explained(error, tokens)
        if not _reported(shown.message, shown.hint, shown.exit_code):
            print_error(shown.message, shown.hint)
        return shown.exit_code


def _reported(message: str, hint: str | None, exit_code: int) -> bool:
    """Whether this is one of several processes, whose launcher tells it once for all of them."""
    from chatsmith.train.parallel.telling import report

    return report(message, hint, exit_code)


def _explained(error: Exception, tokens: Sequence[str]) -> ChatsmithError:
    """Any error as one line and a hint."""
    if isinstance(error, ChatsmithError):
        return error
    if isinstance(error, CycloptsError):
        return _wrong_usage(error, tokens)
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        text = f"{error.strerror or type(error).__name__}:{place}" if place else str(error)
        return ChatsmithError(text, _REMEDIES.get(error.errno or 0))
    if isinstance(error, MemoryError):
        return ChatsmithError("out of memory", "a smaller model, batch or context needs less")
    text = " ".join(str(error).split())
    again = "this is a fault in chatsmith; the same command with --debug shows where"
    return ChatsmithError(f"{type(error).__name__}: {text}" if text else type(error).__name__, again)


def _wrong_usage(error: CycloptsError, tokens: Sequence[str]) -> RequestError:
    names = [command.name for command in COMMANDS]
    command = command_named(tokens) or ""
    program = f"chatsmith {command}".rstrip()
    usage = f"{program} --help"
    if not command and tokens and not tokens[0].startswith("-"):
        asked = " ".join(tokens[: 2 if tokens[0] in FAMILIES else 1])
        return RequestError(f"no command called {asked!r}", did_you_mean(asked, names))
    if isinstance(error, UnknownOptionError):
        word = error.token.keyword or error.token.value
        known = [name for argument in error.argument_collection for name in argument.names]
        return _unknown(program, word, known if command else [*known, "--version"])
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return RequestError(f"{program} does not take {error.unused_tokens[0]!r}", usage)
    if isinstance(error, MissingArgumentError) and error.argument:
        if tokens[-1] in error.argument.names:
            return RequestError(f"{tokens[-1]} needs a value", usage)
        for word, value in pairwise(tokens):
            if word in error.argument.names:  # it is there: the parser took its value for an option
                return RequestError(f"{word} needs a value, and {value} looks like an option", f"{word}={value}")
        return RequestError(f"{program} needs {error.argument.name}", usage)
    return RequestError(" ".join(str(error).split()).rstrip("."), usage)
