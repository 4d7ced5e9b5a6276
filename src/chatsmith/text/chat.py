"""Conversations: who said what, how that becomes token ids, and which of them a model learns to say.

A chat model has seen turns in one form only, which its template writes. What people say goes into that form as plain
text: no message can end its turn, or begin another's, by spelling out a special token.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from chatsmith.errors import RequestError

if TYPE_CHECKING:
    from chatsmith.text.tokenizer import Tokenizer

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: what the "system", the "user" or the "assistant", which is the model, says."""

    role: Role
    content: str


Conversation: TypeAlias = tuple[Message, ...]

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""The template of the models we train, in the form that transformers, vLLM and llama.cpp read."""

END_OF_TURN = "<|end|>"
"""The token that ends a turn in `CHAT_TEMPLATE`."""


def render(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as `template` writes it; equal to transformers' `apply_chat_template(tokenize=False)`.

    `add_generation_prompt` opens the assistant's next turn. `variables` are further names for the template, such as
    `bos_token`. Raises `RequestError` where the template is faulty or refuses the conversation.
    """
    from chatsmith.text.chat_template import render_template  # Jinja, which most commands do without

    return render_template(
        template,
        [{"role": message.role, "content": message.content} for message in messages],
        {**(variables or {}), "add_generation_prompt": add_generation_prompt},
    )


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation in the tokenizer's template, and for each whether a model is trained to say it.

    Trained are the assistant's words and the token that ends its turn. Special tokens come from the template alone;
    in what somebody said they are ordinary text. Without such text the ids equal transformers'
    `apply_chat_template(tokenize=True)`.

    Raises `RequestError` where the tokenizer has no template, or one that rewrites what is said beyond trimming.
    """
    if tokenizer.chat_template is None:
        raise RequestError(
            "this vocabulary has no chat template, so conversations cannot be written in its tokens",
            "give its tokenizer_config.json a chat_template, or take a vocabulary that has one",
        )
    if is_own_template(tokenizer):
        return _encode_own(tokenizer, messages, add_generation_prompt)
    return _encode_spans(tokenizer, _spans(tokenizer, messages, add_generation_prompt))


def is_own_template(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has `CHAT_TEMPLATE` and every token that it writes."""
    marks = {END_OF_TURN, *map(role_token, get_args(Role))}
    return tokenizer.chat_template == CHAT_TEMPLATE and marks <= tokenizer.specials.keys()


def role_token(role: Role) -> str:
    """The token that begins a turn in `CHAT_TEMPLATE`."""
    return f"<|{role}|>"


def _encode_own(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool
) -> tuple[list[int], list[bool]]:
    """What `CHAT_TEMPLATE` would give, without rendering it."""
    ids: list[int] = []
    loss: list[bool] = []
    end = tokenizer.specials[END_OF_TURN]
    for message in messages:
        said = [*tokenizer.encode(message.content), end]
        ids += [tokenizer.specials[role_token(message.role)], *said]
        loss += [False, *[message.role == "assistant"] * len(said)]
    if add_generation_prompt:
        ids.append(tokenizer.specials[role_token("assistant")])
        loss.append(False)
    return ids, loss


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of a rendered conversation: written by the template, or said by somebody."""

    text: str
    said_by: Role | None


_TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)


def _spans(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool) -> list[_Span]:
    """Render, and tell what the template wrote from what was said.

    The conversation is rendered a second time with a placeholder for each message. Putting the messages back must give
    the first rendering again, with the messages as they are or trimmed (as Llama's templates do, by role at most).
    """
    assert tokenizer.chat_template is not None

    def rendered(conversation: Sequence[Message]) -> str:
        return render(
            tokenizer.chat_template or "",
            conversation,
            add_generation_prompt=add_generation_prompt,
            variables=tokenizer.template_variables,
        )

    whole = rendered(messages)
    mark = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in whole + tokenizer.chat_template)
    stand_ins = [Message(message.role, f"{mark}{place}{mark}") for place, message in enumerate(messages)]
    pieces = re.split(f"{mark}([0-9]+){mark}", rendered(stand_ins))
    roles = sorted({message.role for message in messages})
    for trims in itertools.product(_TRIMS, repeat=len(roles)):
        trim = dict(zip(roles, trims, strict=True))
        said = [trim[message.role](message.content) for message in messages]
        spans = [
            _Span(piece, None) if place % 2 == 0 else _Span(said[int(piece)], messages[int(piece)].role)
            for place, piece in enumerate(pieces)
        ]
        if "".join([span.text for span in spans]) == whole:
            return spans
    raise RequestError(
        "this model's chat template rewrites what is said, so that words cannot be told from its own marks",
        "give the model a simpler chat_template in tokenizer_config.json",
    )


def _encode_spans(tokenizer: Tokenizer, spans: Sequence[_Span]) -> tuple[list[int], list[bool]]:
    """Special tokens split the rendering; the ordinary text between two of them is encoded in one go, as others do."""
    from chatsmith.text.tokenizer_added import finding

    ids: list[int] = []
    loss: list[bool] = []
    run: list[_Span] = []

    def close() -> None:
        new_ids, new_loss = _encode_run(tokenizer, run)
        ids.extend(new_ids)
        loss.extend(new_loss)

    split = finding(tokenizer.specials).split
    for span in spans:
        parts = [span.text] if span.said_by is not None else split(span.text)
        for part in parts:
            number = tokenizer.specials.get(part) if span.said_by is None else None
            if number is None:
                run.append(_Span(part, span.said_by))
                continue
            close()
            ids.append(number)
            loss.append(_ends_assistant(run))
            run.clear()
    close()
    return ids, loss


def _ends_assistant(run: Sequence[_Span]) -> bool:
    """Whether a special token after this run ends the assistant's turn: only space stands between."""
    for span in reversed(run):
        if span.said_by is not None:
            return span.said_by == "assistant"
        if span.text.strip():
            return False
    return False


def _encode_run(tokenizer: Tokenizer, run: Sequence[_Span]) -> tuple[list[int], list[bool]]:
    """Encode adjoining spans without special tokens; a token is trained if it begins in the assistant's words."""
    text = "".join([span.text for span in run])
    if not text:
        return [], []
    ids = tokenizer.encode(text)
    if not any(span.said_by == "assistant" for span in run):
        return ids, [False] * len(ids)
    trained: list[bool] = []
    for span in run:
        trained += [span.said_by == "assistant"] * len(span.text.encode("utf-8", "replace"))
    sizes = [len(tokenizer.token_bytes(number)) for number in ids]
    # SentencePiece vocabularies put a space before the text.
    begins = [begin - (sum(sizes) - len(trained)) for begin in itertools.accumulate(sizes, initial=0)][:-1]
    return ids, [trained[min(max(begin, 0), len(trained) - 1)] for begin in begins]
