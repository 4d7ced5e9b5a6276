"""Conversations that are written out in one text, turn after turn, each begun by a mark that says who speaks.

They are the forms in which published data sets for training keep whole talks in a field called `text`: Anthropic's
"Human:" and "Assistant:" at the beginning of paragraphs, BELLE's at the beginning of lines, Baize's `[|Human|]`, MOSS's
`[Human]:`, Alpaca's and Guanaco's `### …:`, and the prompts of Vicuna, Llama, ChatML, Gemma and others. A text counts
as one only if it begins with such a mark (in some forms after a line that introduces the speakers) and both user and
assistant speak in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPEAKERS = {  # marks that are no names of speakers
    "[inst]": "user",
    "[/inst]": "assistant",
    "<<sys>>": "system",
    "<</sys>>": "user",
    "instruction": "user",
    "question": "user",
    "response": "assistant",
    "answer": "assistant",
    "function response": "function",
}
_ADDED = "input"  # belongs to the request before it
_USERS = ("user", "human", "prompter")
_ASSISTANTS = ("assistant", "ai", "model", "gpt", "bot", "moss")
_LONGEST = 50  # characters of a mark
_CALL = "<functioncall>"  # how Glaive's assistant calls a function


@dataclass(frozen=True, slots=True)
class _Form:
    """A way to write conversations down."""

    mark: re.Pattern[str]
    """What begins a turn; its group is the name of the speaker or stands for it."""
    token: str
    """What every text of this form holds: a quick look tells most others."""
    introduced: int = 0
    """How many characters may stand before the first mark. They are no one's words, and are left out."""
    ends: tuple[str, ...] = ()
    """What ends a turn and is not said."""


ENDS = ("</s>", "<|endoftext|>", "<|end|>", "<s>")
_FORMS = (
    _Form(re.compile(r"(?:\A|\n\n)(Human|Assistant): ?"), "Assistant:"),
    _Form(re.compile(r"(?:\A|\n)(Human|User|Assistant|System)[:：] ?"), "Assistant", 0, ENDS),
    _Form(re.compile(r"(?:\A|\s)\[(Human|MOSS)\]: ?"), "[MOSS]:", 0, ("<eoh>", "<eoa>")),
    _Form(re.compile(r"(?:\A|\s|</s>)(USER|ASSISTANT|FUNCTION RESPONSE): ?"), "ASSISTANT:", 300, ENDS),
    _Form(re.compile(r"\[\|(Human|AI)\|\]"), "[|AI|]", 500),
    _Form(re.compile(r"###? ?(Human|User|Assistant|System): ?"), "Assistant:", 500, ENDS),
    _Form(re.compile(r"(?:\A|\n)### ?(Instruction|Question|Input|Response|Answer): ?"), "###", 500, ENDS),
    _Form(re.compile(r"<\|im_start\|> ?(\w+)\n"), "<|im_start|>", 0, ("<|im_end|>", "<|endoftext|>")),
    _Form(re.compile(r"<\|(user|prompter|human|assistant|system|tool|observation)\|>"), "<|assistant|>", 0, ENDS),
    _Form(re.compile(r"(\[/?INST\]|<</?SYS>>)"), "[/INST]", 4, ENDS),
    _Form(re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>"), "<|start_header_id|>", 20, ("<|eot_id|>",)),
    _Form(re.compile(r"<start_of_turn>(\w+)\n"), "<start_of_turn>", 10, ("<end_of_turn>", "<eos>")),
)
_OPENING = 1000
_HINTS = ("Human:", "Human：", "User:", "User：", "USER:", "[Human]", "#", "[|", "<|", "[INST]", "<start_of_turn>")
"""What the opening of a text of any of these forms holds: hardly any other text is searched further."""


def transcript(text: str) -> list[list[str]] | None:
    """The turns [speaker, words] of a conversation that is written out in a text; None for any other text."""
    opening = text[:_OPENING]
    if not any(hint in opening for hint in _HINTS):
        return None
    for form in _FORMS:
        if form.token in text and (found := _turns(text, form)) is not None:
            return found
    return None


def _turns(text: str, form: _Form) -> list[list[str]] | None:
    text = text.lstrip()
    if form.mark.search(text, 0, form.introduced + _LONGEST) is None:
        return None
    marks = list(form.mark.finditer(text))
    if marks[0].start() > form.introduced:
        return None
    found: list[list[str]] = []
    for mark, end in zip(marks, [*[mark.start() for mark in marks[1:]], len(text)], strict=True):
        name = mark[1].lower()
        words = text[mark.end() : end]
        for token in form.ends:
            words = words.replace(token, "")
        words = words.strip()
        if name == _ADDED and found:
            found[-1][1] = "\n\n".join(filter(None, (found[-1][1], words)))
        elif words.startswith(_CALL):
            found.append(["function_call", words])
        else:
            found.append([_SPEAKERS.get(name, name), words])
    names = [name for name, _ in found]
    asking = next((place for place, name in enumerate(names) if name in _USERS), None)
    if asking is None or not any(name in _ASSISTANTS for name in names[asking + 1 :]):
        return None
    while found and not found[-1][1]:  # the answer stands elsewhere, or another question was to come
        found.pop()
    return found
