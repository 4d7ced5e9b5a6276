"""The text of Rich Text Format documents (Microsoft's RTF specification, version 1.9.1)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from chatsmith.text.archives import DAMAGED
from chatsmith.text.report import Unreadable

_TOKEN = re.compile(
    r"""\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})?\ ?
      | \\'(?P<byte>[0-9a-fA-F]{2})
      | \\(?P<sign>[^a-zA-Z])
      | (?P<brace>[{}])
      | (?P<words>[^\\{}\r\n]+)
      | [\r\n]+ | \\""",
    re.VERBOSE | re.DOTALL,
)
_UNSEEN = frozenset(  # groups that are settings, pictures, or stand on every page
    (
        *(
            "fonttbl",
            "colortbl",
            "stylesheet",
            "info",
            "listtable",
            "listoverridetable",
            "revtbl",
            "rsidtbl",
            "filetbl",
        ),
        *("generator", "xmlnstbl", "themedata", "colorschememapping", "latentstyles", "datastore", "wgrffmtfilter"),
        *("pict", "object", "nonshppict", "fldinst", "pntext", "pntxta", "pntxtb", "listtext", "userprops", "mmathPr"),
        *("header", "headerl", "headerr", "headerf", "footer", "footerl", "footerr", "footerf"),
        *("bkmkstart", "bkmkend", "tc", "xe"),
    )
)
_WRITTEN = {
    **dict.fromkeys(("par", "line", "row", "sect", "page", "softline"), "\n"),
    **{"cell": "\t", "nestcell": "\t", "nestrow": "\n", "tab": "\t", "emdash": "—", "endash": "–", "bullet": "•"},
    **{"lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "emspace": " ", "enspace": " "},
}
_SIGNS = {"~": "\xa0", "_": "-", "\\": "\\", "{": "{", "}": "}", "\n": "\n", "\r": "\n"}
_CHARSETS = {"ansi": "cp1252", "mac": "mac-roman", "pc": "cp437", "pca": "cp850"}
_DEEPEST = 10_000


def rich_text(text: str) -> Iterator[str]:
    """The text of a document, given as one character a byte; `Unreadable` where it is none, or at its early end."""
    if not text.lstrip().startswith("{\\rtf"):
        raise Unreadable(DAMAGED, "it does not begin as RTF does")
    reader = _Reader()
    ended = reader.read(text)
    yield reader.text()
    if not ended:
        raise Unreadable(DAMAGED, "it ends early")


class _Reader:
    """Walks through the tokens of a document, with what holds in the groups that are open."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._bytes = bytearray()  # a character may take several
        self._encoding = "cp1252"
        self._unseen, self._after = False, 1
        self._groups: list[tuple[bool, int]] = []
        self._passed = 0
        """How many characters to pass over, which stand for the one before them in programs without Unicode."""

    def text(self) -> str:
        self._flush()
        # Halves of characters beyond the first plane are written one after the other.
        whole = "".join(self._parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return re.sub("\t+\n", "\n", whole).strip("\n")

    def read(self, text: str) -> bool:
        """Take in a document; whether its last group is closed."""
        at = 0
        while token := _TOKEN.match(text, at):
            at = token.end()
            if token["brace"]:
                if not self._brace(token["brace"]):
                    return True
            elif token["word"]:
                at += self._word(token["word"], token["number"])
            elif token["sign"]:
                self._sign(token["sign"])
            elif token["byte"]:
                self._take(bytes.fromhex(token["byte"]))
            elif token["words"]:
                self._take(token["words"].encode("latin-1"))
        return False

    def _brace(self, brace: str) -> bool:
        """Open or close a group; false where that was the last."""
        self._flush()
        self._passed = 0
        if brace == "{":
            if len(self._groups) >= _DEEPEST:
                raise Unreadable(DAMAGED, f"more than {_DEEPEST:,} groups in each other")
            self._groups.append((self._unseen, self._after))
        elif self._groups:
            self._unseen, self._after = self._groups.pop()
        return bool(self._groups)

    def _word(self, word: str, number: str | None) -> int:
        """Do what a control word says; how many bytes follow that are no text."""
        if word in _WRITTEN:
            self._write(_WRITTEN[word])
        elif word == "u" and number:
            self._write(chr(int(number) & 0xFFFF))
            self._passed = self._after
        elif word == "uc":
            self._after = min(int(number or 1), 100)
        elif word == "bin":
            return max(0, int(number or 0))
        elif word in _UNSEEN:
            self._unseen = True
        elif word in _CHARSETS:
            self._encoding = _CHARSETS[word]
        elif word == "ansicpg":
            self._encoding = _known(f"cp{number}")
        return 0

    def _sign(self, sign: str) -> None:
        if sign == "*":  # a group that older programs do not know
            self._unseen = True
        elif sign in _SIGNS:
            self._write(_SIGNS[sign])

    def _take(self, data: bytes) -> None:
        passed = min(self._passed, len(data))
        self._passed -= passed
        if not self._unseen:
            self._bytes += data[passed:]

    def _write(self, text: str) -> None:
        self._flush()
        self._passed = 0
        if not self._unseen:
            self._parts.append(text)

    def _flush(self) -> None:
        if self._bytes:
            self._parts.append(self._bytes.decode(self._encoding, "replace"))
            self._bytes.clear()


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return "cp1252"
