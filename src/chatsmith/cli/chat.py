"""`chatsmith chat`: a talk in the terminal, from a pipe, or a short scripted one.

In a terminal, words appear as they are made, and a line that begins with / is for the program. From a pipe, each line
is one turn of the user's, and each reply a line (or more) of output. With nothing to read, a scripted talk is held.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from chatsmith.cli.built_in import named_or_built_in
from chatsmith.cli.console import out, print_error, say, write_text
from chatsmith.cli.options import Cache, SamplingFlags, text_argument
from chatsmith.errors import ChatsmithError, RequestError, did_you_mean
from chatsmith.paths import cache_dir

if TYPE_CHECKING:
    from chatsmith.dialogue import Dialogue
    from chatsmith.language_model import LanguageModel
    from chatsmith.look.next import NextReport

SCRIPT = (
    "Hello!",
    "What is 3 + 4?",
    "What is the French word for cheese?",
    "What is the opposite of cold?",
    "Tell me a story about a fox.",
    "Good night!",
)
COMMANDS = {
    "/help": "show these commands",
    "/next": "show the ranked first tokens of the last reply; /next WORDS: of what follows these words in it",
    "/reset": "forget what was said",
    "/quit": "leave (so does Ctrl-D; Ctrl-C stops a reply)",
}
_MAX_LINE = 2**20


def chat(
    model: Annotated[Path | None, Parameter(help="A model folder; without one, the built-in model.")] = None,
    /,
    *,
    system: Annotated[str, text_argument("A text that says how to answer, before the talk begins.")] = "",
    script: Annotated[bool, Parameter(help="Hold a short scripted talk.")] = False,
    minutes: Annotated[
        float | None, Parameter(help="Training time (default: 3), where the built-in model must be made first.")
    ] = None,
    cache: Cache = None,
    sampling: SamplingFlags = SamplingFlags(),  # noqa: B008 - frozen
) -> None:
    """Talk with a model; with none yet, make the built-in one first.

    In a terminal: /help lists the commands, Ctrl-C stops a reply, Ctrl-D leaves. Lines from a pipe are turns of the
    user; with nothing to read, a short scripted talk is held.
    """
    from chatsmith.language_model import load

    loaded = load(named_or_built_in(model, minutes), cache=cache)
    if not script and sys.stdin is not None and sys.stdin.isatty():
        _talk(loaded, system, sampling.given())
        return
    dialogue = loaded.conversation(system, **sampling.given())
    lines = iter(()) if script else _lines()
    first = next(lines, None)
    if first is None:
        _hold_script(dialogue)
        return
    _answer_line(dialogue, first)
    for line in lines:
        _answer_line(dialogue, line)


def _lines() -> Iterator[str]:
    """Non-empty lines of stdin, of bounded length."""
    from chatsmith.text.tokenizer_engines import without_surrogates

    if sys.stdin is None:
        return
    while line := sys.stdin.readline(_MAX_LINE):
        if line.strip():
            yield without_surrogates(line.rstrip("\r\n"))  # bytes that are no UTF-8


def _answer_line(dialogue: Dialogue, text: str) -> None:
    for piece in dialogue.say(text, stream=True):
        write_text(piece)
    write_text("\n")


def _hold_script(dialogue: Dialogue) -> None:
    for text in SCRIPT:
        write_text(f"you: {text}\n{dialogue.model.name}: ")
        _answer_line(dialogue, text)


def _talk(loaded: LanguageModel, system: str, sampling: dict[str, Any]) -> None:
    """The talk in a terminal, until it is left."""
    dialogue = loaded.conversation(system, **sampling)
    say(f"talking with {loaded.name}; /help lists the commands, Ctrl-D leaves")
    asked = False
    with _history():
        while True:
            try:
                text = input("\nyou: ").strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                # Meant for a reply that had just ended, perhaps: the talk would be lost.
                if asked or not any(message.role == "user" for message in dialogue.messages):
                    raise
                asked = True
                say("\nCtrl-C once more leaves, and so does Ctrl-D")
                continue
            asked = False
            try:
                if text == "/quit":
                    return
                if text == "/reset":
                    dialogue = loaded.conversation(system, **sampling)
                    say("forgotten")
                elif text.startswith("/"):
                    _command(dialogue, text)
                elif text:
                    _reply(dialogue, text)
            except ChatsmithError as error:
                print_error(error.message, error.hint)


def _reply(dialogue: Dialogue, text: str) -> None:
    """Stream one reply; Ctrl-C ends it and keeps what was said so far."""
    write_text(f"{dialogue.model.name}: ")
    pieces = dialogue.say(text, stream=True)
    try:
        for piece in pieces:
            write_text(piece)
    except KeyboardInterrupt:
        # Closing the iterator makes the talk remember the part that was said.
        if isinstance(pieces, Generator):
            pieces.close()
        write_text(" …")
    write_text("\n")


def _command(dialogue: Dialogue, text: str) -> None:
    name, _, words = text.partition(" ")
    if name == "/help":
        for command, meaning in COMMANDS.items():
            say(f"  {command:8} {meaning}")
    elif name == "/next":
        out().print(_next(dialogue, words))
    else:
        raise RequestError(f"no command called {name}", did_you_mean(name, COMMANDS))


def _next(dialogue: Dialogue, words: str) -> NextReport:
    """The ranked next tokens of the last reply, after those of its `words`."""
    from chatsmith.look.next import next_tokens

    model, said = dialogue.model, dialogue.messages
    if not said or said[-1].role != "assistant":
        raise RequestError("nothing was said yet", "say something first")
    return next_tokens(model.engine, words, begin=model.chat_ids(said[:-1]), sampling=dialogue.sampling)


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with a history that lasts, where this Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = cache_dir() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
            path.chmod(0o600)
