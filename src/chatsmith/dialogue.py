"""A talk with a model that remembers what was said, and the messages that a talk is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from chatsmith import arguments
from chatsmith.errors import RequestError
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.look.answers import Reply, Stream
from chatsmith.text.chat import Message

if TYPE_CHECKING:
    from chatsmith.language_model import LanguageModel


_EXAMPLE = 'for example {"role": "user", "content": "Hello!"}'


class Dialogue:
    """A talk with a model that remembers: `messages` is what was said so far.

    When the context is full the oldest messages are left out of what the model reads (never the system message), a
    user's turn with its reply at a time; `dropped` and the reply say how many, and `messages` keeps them all.
    """

    def __init__(self, model: LanguageModel, system: str = "", **sampling: Any) -> None:
        self.model = model
        self.sampling = Sampling.of(model.sampling, **sampling)
        self.messages: list[Message] = [Message("system", arguments.text("system", system))] if system else []
        self._first = len(self.messages)
        self.dropped = 0
        taken, context = len(model.chat_ids(self.messages)), model.spec.context
        if system and taken >= context:
            raise RequestError(
                f"the system text takes {taken} tokens, and the model's context of {context} leaves no room for a talk",
                "shorten it",
            )

    def __repr__(self) -> str:
        said = len(self.messages)
        return f"<Dialogue with {self.model.name}: {said} message{'' if said == 1 else 's'}>"

    @overload
    def say(self, text: str, *, stream: Literal[False] = False, **sampling: Any) -> Reply: ...

    @overload
    def say(self, text: str, *, stream: Literal[True], **sampling: Any) -> Iterator[str]: ...

    def say(self, text: str, *, stream: bool = False, **sampling: Any) -> Reply | Iterator[str]:
        """Say something and get the reply; with `stream`, the pieces of the reply as they are made.

        A reply that is not read to its end is remembered as far as it was read.
        """
        settings = Sampling.of(self.sampling, **sampling)
        asked = Message("user", arguments.text("text", text))
        pieces = Stream(self.model.engine.stream([self._fit(asked, settings)]), settings)
        if stream:
            return self._remember(asked, pieces)
        reply = Reply(pieces.answer, settings, self.dropped)
        self.messages += [asked, Message("assistant", reply.text)]
        return reply

    def _remember(self, asked: Message, pieces: Stream) -> Iterator[str]:
        said: list[str] = []
        try:
            for piece in pieces:
                said.append(piece)
                yield piece
        finally:
            self.messages += [asked, Message("assistant", "".join(said))]

    def _fit(self, asked: Message, settings: Sampling) -> Request:
        """As much of the talk as leaves room for a reply; sets `dropped`, the number of messages left out."""
        context = self.model.spec.context
        room = context - min(settings.max_tokens, max(context // 4, 1))
        system, turns = self.messages[: self._first], self.messages[self._first :]
        for start in range(0, len(turns) + 1, 2):
            request = self.model.chat_request([*system, *turns[start:], asked], settings)
            if len(request.prompt) <= room:
                self.dropped = start
                return request
        what = "the system text and this message take" if system else "this message alone takes"
        how = "shorten the system text, or say it" if system else "say it"
        raise RequestError(
            f"{what} {len(request.prompt)} tokens; the context of {context} holds {room} and a reply",
            f"{how} in fewer words, or in parts",
        )


def read_messages(messages: str | Iterable[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    """Messages from a text of the user, or from messages and mappings with `role` and `content`."""
    if isinstance(messages, str):
        return (Message("user", messages),)
    found = []
    for message in arguments.several("messages", messages, "messages"):
        if isinstance(message, Mapping):
            unknown = set(message) ^ {"role", "content"}
            if unknown:
                raise RequestError(f"a message has role and content, not {', '.join(sorted(map(str, message)))}")
            message = Message(message["role"], message["content"])
        if not isinstance(message, Message):
            raise RequestError(f"a message has role and content; {arguments.short(message)} has none", _EXAMPLE)
        if message.role not in ("system", "user", "assistant"):
            raise RequestError(
                f"a message from {arguments.short(message.role)} cannot be read", "roles: system, user, assistant"
            )
        arguments.text("the content of a message", message.content)
        found.append(message)
    if not found:
        raise RequestError("there are no messages to answer", "give at least one from the user")
    return tuple(found)
