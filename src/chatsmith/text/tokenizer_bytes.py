"""The bytes that each id of a vocabulary stands for."""

from __future__ import annotations

import re
from collections.abc import Container

from chatsmith.text.tokenizer_files import token_to_bytes

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece writes a byte that is no character


class TokenBytes(dict[int, bytes | None]):
    """Ids to bytes, None for an id that no token has; found when they are first asked for: an answer of a few words
    needs few of fifty thousand.

    `names` are the tokens by id; those in `added` stand for their own letters, the others as the model spells them.
    """

    def __init__(self, names: list[str | None], added: Container[str], byte_level: bool) -> None:
        super().__init__()
        self._names, self._added, self._byte_level = names, added, byte_level

    def __missing__(self, number: int) -> bytes | None:
        token = self._names[number]
        found = self[number] = None if token is None else self._of(token)
        return found

    def _of(self, token: str) -> bytes:
        if token in self._added:
            return token.encode("utf-8", "replace")
        if self._byte_level:
            data = token_to_bytes(token)
            return token.encode("utf-8", "replace") if data is None else data
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return token.replace("\u2581", " ").encode("utf-8", "replace")
