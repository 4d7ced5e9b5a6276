"""Which encoding the bytes of a text are in: what is certain, and, for who must convert them, what is likely."""

from __future__ import annotations

import codecs
import re
import unicodedata

MARKS = (  # the longer ones first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(  # the encodings of the web, by the names that Python knows them by too
    rb"""charset\s*=\s*["']?\s*(iso-8859-\d+|windows-\d+|latin1|us-ascii|koi8-[ru]|macintosh|tis-620"""
    rb"""|gb2312|gbk|gb18030|big5|shift_jis|euc-jp|euc-kr|iso-2022-jp)["'\s/>;]""",
    re.IGNORECASE,
)
_MEANT = dict.fromkeys(("iso-8859-1", "latin1", "us-ascii"), "windows-1252")  # as browsers take them
_NO_TEXT = frozenset(("Cc", "Cn", "Co", "Cs"))
_SAMPLE = 1 << 15  # bytes that a likely encoding is told from


def marked(head: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)


def declared(head: bytes) -> str | None:
    """The encoding that the head of an HTML page names, by Python's name for it."""
    if not (named := _DECLARED.search(head[:4096])):
        return None
    encoding = named[1].decode("ascii").lower()
    try:
        return codecs.lookup(_MEANT.get(encoding, encoding)).name
    except LookupError:  # such as windows-9999
        return None


def unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without a mark where zero bytes leave no doubt of it: all of it is text in one order of bytes only.

    Text of any language has spaces, line ends, digits or stops, whose upper byte is zero. In the other order those
    bytes are letters of no language together with control characters, so that hardly any of them is left.
    """
    if b"\0" not in head:
        return None
    plain = {encoding: _plain_units(head, encoding) for encoding in ("utf-16-le", "utf-16-be")}
    encoding = max(plain, key=plain.__getitem__)
    return encoding if plain[encoding] > max(10 * min(plain.values()), len(head) // 400) else None


def _plain_units(head: bytes, encoding: str) -> int:
    """How many characters are ASCII where all are characters of a text; 0 otherwise."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # the last one may be cut
    except UnicodeDecodeError:
        return 0
    if any(unicodedata.category(char) in _NO_TEXT for char in set(text) - set("\t\n\v\f\r\x1b\b")):
        return 0
    return sum(map(text.count, map(chr, range(128))))


_CYRILLIC = "оеаинтсрвл"
_HANZI = "，。的一是不了在人有我他这這中大"
_KANA = "".join(map(chr, range(0x3041, 0x3094)))  # hiragana
_HANGUL = "이다는을에의가고하지로은기도어"
_LANGUAGES = (  # iconv's name, Python's, frequent characters, and the least share that they have of those not ASCII
    ("WINDOWS-1251", "cp1251", _CYRILLIC, 0.5),
    ("KOI8-R", "koi8-r", _CYRILLIC, 0.5),
    ("ISO-8859-5", "iso8859-5", _CYRILLIC, 0.5),
    ("IBM866", "cp866", _CYRILLIC, 0.5),
    ("GB18030", "gb18030", _HANZI, 0.08),
    ("BIG5", "big5", _HANZI, 0.08),
    ("CP932", "cp932", _KANA, 0.25),
    ("EUC-JP", "euc-jp", _KANA, 0.25),
    ("CP949", "cp949", _HANGUL, 0.12),
)
_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôõöøùúûüßÀÂÄÁÃÅÆÇÈÉÊËÍÎÏÑÓÔÖØÚÜ‘’“”–—…«»°§€£©®·¿¡ºª\xa0")
_ROOFS = "âêîôû"  # of which Western languages have few; in Baltic encodings they are long vowels
_SIGNS = frozenset("‘’“”„–—…«»№°§©\xa0、。・「」『』（）【】《》〈〉：；！？，．～〜　")
_MIXED_CASE = re.compile("[а-яё][А-ЯЁ]")  # as in Apple's Cyrillic, taken for Microsoft's
_FEWEST = 20  # characters that are not ASCII, for a guess
_UNUSUAL = re.compile(  # signs or capitals within words, as of DOS and Apple; other languages' letters in these bytes
    """(?<=[a-z])[‘“”–—…«»°§€£©®·¿¡ºª\xa0](?=[a-z])|(?<=[a-z])[À-Ý]|[À-ÿ]{3}|ã(?![oe])"""
)


def likely(data: bytes) -> str | None:
    """The encoding, as iconv calls it, that text other than UTF-8 is probably in; None where there is any doubt.

    A language is known by its most frequent characters: in a wrong encoding they are rare. Of the Latin alphabet, only
    Western European text is known, for the letters of other languages take the same bytes.
    """
    lines = [line for line in data.splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:_SAMPLE]
    bad = (text := sample.decode("utf-8", "replace")).count("\ufffd")
    if sum(not char.isascii() for char in text) > 2 * bad:  # much of it is UTF-8: damaged, or mixed
        return None
    shares = sorted(
        ((_share(sample, codec, frequent) / least, name) for name, codec, frequent, least in _LANGUAGES), reverse=True
    )
    (best, name), (second, _) = shares[:2]
    if best >= 1:
        return name if best >= 2 * second else None
    return "WINDOWS-1252" if _is_western(sample) else None


def _share(sample: bytes, codec: str, frequent: str) -> float:
    """The share of `frequent` among the characters that are not ASCII; 0 where those are no words in this encoding."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample)  # the last one may be cut
    except UnicodeDecodeError:
        return 0.0
    runs = re.findall(r"[^\x00-\x7f]+", text)
    foreign = "".join(runs)
    count, together = len(foreign), sum(len(run) for run in runs if len(run) > 1)
    signs = sum(not char.isalpha() and char not in _SIGNS for char in foreign)
    if count < _FEWEST or together < 0.9 * count or signs > 0.01 * count:
        return 0.0
    # All small letters may be Hebrew.
    if frequent is _CYRILLIC and (foreign.islower() or len(_MIXED_CASE.findall(text)) > 0.002 * count):
        return 0.0
    return sum(map(foreign.count, frequent)) / count


def _is_western(sample: bytes) -> bool:
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    foreign = [char for char in text if not char.isascii()]
    hungarian = ("õ" in text and "ã" not in text) or ("û" in text and not any(char in text for char in "âêî"))
    strange = len(_UNUSUAL.findall(text)) + sum(char not in _WESTERN for char in foreign)
    roofs = sum(map(text.count, _ROOFS))
    few, letters = len(foreign) < _FEWEST, sum(map(str.isalpha, text))
    return (
        not few
        and not hungarian
        and len(foreign) < letters / 3
        and strange <= 0.05 * len(foreign)
        and roofs < 0.3 * len(foreign)
    )
