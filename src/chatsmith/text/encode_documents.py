"""Documents to one row of token ids: texts as they are, conversations in the vocabulary's template.

A batch is encoded as a whole, so that a thousand short documents cost little more than one long one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import numpy as np

from chatsmith.text.chat import END_OF_TURN, Role, encode_conversation, is_own_template, role_token

if TYPE_CHECKING:
    from chatsmith.text.documents import Document
    from chatsmith.text.tokenizer import Tokenizer
    from chatsmith.text.tokenizer_engines import Row

Encode = Callable[[Sequence[str]], "Row"]
"""As `Tokenizer.encode_row`."""


@dataclass(frozen=True, slots=True)
class EncodedDocuments:
    """The ids of documents, one document after another."""

    ids: np.ndarray
    """uint32 [N]"""
    ends: np.ndarray
    """int64 [documents]: where each ends."""
    learn: np.ndarray | None
    """uint8 [N]: 1 for what a model is to learn, 0 for what it only reads; None: all of it."""

    def closed(self, end_of_text: int, to_learn: np.ndarray) -> EncodedDocuments:
        """With `end_of_text` behind each document that does not end so by itself; learned where `to_learn` (bool)."""
        lengths = np.diff(self.ends, prepend=0)
        is_open = np.ones(len(lengths), bool)
        is_open[lengths > 0] = self.ids[self.ends[lengths > 0] - 1] != end_of_text
        ends = self.ends + np.cumsum(is_open)
        own = np.ones(int(ends[-1]) if len(ends) else 0, bool)
        own[ends[is_open] - 1] = False
        ids = np.full(len(own), end_of_text, np.uint32)
        ids[own] = self.ids
        learn = None
        if self.learn is not None:
            learn = np.ones(len(own), np.uint8)
            learn[own] = self.learn
            learn[ends[is_open & ~to_learn] - 1] = 0
        return EncodedDocuments(ids, ends, learn)

    def chosen(self, which: np.ndarray) -> EncodedDocuments:
        """The documents where `which` (bool [documents]) is true."""
        lengths = np.diff(self.ends, prepend=0)
        tokens = np.repeat(which, lengths)
        learn = None if self.learn is None else self.learn[tokens]
        return EncodedDocuments(self.ids[tokens], np.cumsum(lengths[which]), learn)


def encode_documents(tokenizer: Tokenizer, documents: Sequence[Document], encode: Encode) -> EncodedDocuments:
    """The ids of texts and conversations; for a conversation those of `chat.encode_conversation`."""
    if not any(document.messages for document in documents):
        return EncodedDocuments(*encode([document.text for document in documents]), None)
    if is_own_template(tokenizer):
        return _in_own_template(tokenizer, documents, encode)
    return _by_template(tokenizer, documents, encode)


def _in_own_template(tokenizer: Tokenizer, documents: Sequence[Document], encode: Encode) -> EncodedDocuments:
    """All messages and texts in one go; then a turn's two tokens are put around each message."""
    texts: list[str] = []
    opens: list[int] = []  # the token before each piece, or -1
    answers: list[bool] = []
    last: list[int] = []  # each document's last piece
    number = {role: tokenizer.specials[role_token(role)] for role in get_args(Role)}
    for document in documents:
        if document.messages:
            for message in document.messages:
                texts.append(message.content)
                opens.append(number[message.role])
                answers.append(message.role == "assistant")
        else:
            texts.append(document.text)
            opens.append(-1)
            answers.append(True)
        last.append(len(texts) - 1)
    said, said_ends = encode(texts)
    first = np.array(opens, np.int64)
    is_turn = first >= 0
    lengths = np.diff(said_ends, prepend=0) + 2 * is_turn
    ends = np.cumsum(lengths)
    begins, closes = (ends - lengths)[is_turn], ends[is_turn] - 1
    ids = np.empty(int(ends[-1]), np.uint32)
    own = np.ones(len(ids), bool)
    own[begins] = own[closes] = False
    ids[own] = said
    ids[begins] = first[is_turn]
    ids[closes] = tokenizer.specials[END_OF_TURN]
    learn = np.repeat(np.array(answers, np.uint8), lengths)
    learn[begins] = 0
    return EncodedDocuments(ids, ends[last], learn)


def _by_template(tokenizer: Tokenizer, documents: Sequence[Document], encode: Encode) -> EncodedDocuments:
    """Each conversation by itself, as its template wants it."""
    ids, ends = encode([document.text for document in documents if not document.messages])
    texts = iter([ids[begin:end] for begin, end in pairwise([0, *ends.tolist()])])
    parts: list[np.ndarray] = []
    learn: list[np.ndarray] = []
    for document in documents:
        if document.messages:
            said, learned = encode_conversation(tokenizer, document.messages)
            parts.append(np.array(said, np.uint32))
            learn.append(np.array(learned, np.uint8))
        else:
            parts.append(next(texts))
            learn.append(np.ones(len(parts[-1]), np.uint8))
    return EncodedDocuments(np.concatenate(parts), np.cumsum([len(part) for part in parts]), np.concatenate(learn))
