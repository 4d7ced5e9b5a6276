"""Encodings: told where they are certain, named where they are likely, and never named wrongly."""

from __future__ import annotations

import io
import os
import struct

import pytest

from chatsmith.text.charset import likely, unmarked_utf16
from chatsmith.text.plain import blocks
from chatsmith.text.report import Unreadable

# The first article of the Universal Declaration of Human Rights, or a little more.
TEXTS = {
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "Ukrainian": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом.",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Traditional": "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神相對待。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 이성과 양심을 부여받았다.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Déjà l’été, à l’école. " * 4,
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren, im Geiste der Brüderlichkeit. " * 10,
    "Spanish": "Todos los seres humanos nacen libres; ¿dónde está el niño? Mañana irá a la montaña con su papá. " * 4,
    "Portuguese": "Dotados de razão, não põem em questão as opções; você irá à praia, é possível. " * 4,
    "Czech": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Příliš žluťoučký kůň úpěl. " * 4,
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Zażółć gęślą jaźń. " * 4,
    "Hungarian": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Árvíztűrő tükörfúrógép. " * 4,
    "Latvian": "Visi cilvēki piedzimst brīvi un vienlīdzīgi savā pašcieņā un tiesībās. Tā ir ļoti jauka diena. " * 4,
    "Romanian": "Coroană suedeză, limba siriacă clasică, Germană înaltă de mijloc, norvegiană cărturărească. " * 4,
    "Hebrew": "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler. " * 4,
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا.",
}


@pytest.mark.parametrize(
    ("language", "codec", "name"),
    [
        ("Russian", "cp1251", "WINDOWS-1251"),
        ("Russian", "koi8-r", "KOI8-R"),
        ("Russian", "iso8859-5", "ISO-8859-5"),
        ("Russian", "cp866", "IBM866"),
        ("Russian", "mac-cyrillic", None),
        ("Ukrainian", "cp1251", "WINDOWS-1251"),
        ("Ukrainian", "koi8-u", None),
        ("Japanese", "cp932", "CP932"),
        ("Japanese", "euc-jp", "EUC-JP"),
        ("Chinese", "gbk", "GB18030"),
        ("Traditional", "big5", "BIG5"),
        ("Korean", "euc-kr", "CP949"),
        ("French", "cp1252", "WINDOWS-1252"),
        ("French", "mac-roman", None),
        ("German", "latin1", "WINDOWS-1252"),
        ("German", "cp850", None),
        ("Spanish", "cp1252", "WINDOWS-1252"),
        ("Portuguese", "cp1252", "WINDOWS-1252"),
        ("Czech", "cp1250", None),
        ("Polish", "cp1250", None),
        ("Polish", "iso8859-2", None),
        ("Hungarian", "cp1250", None),
        ("Latvian", "cp1257", None),
        ("Romanian", "cp1250", None),
        ("Hebrew", "cp1255", None),
        ("Turkish", "cp1254", None),
        ("Greek", "cp1253", None),
        ("Arabic", "cp1256", None),
    ],
)
def test_an_encoding_is_named_only_where_it_is_right(language: str, codec: str, name: str | None) -> None:
    text = TEXTS[language]
    data = text.encode(codec)
    assert likely(b"English lines come before it.\n" * 1000 + data) == likely(data) == name
    if name is not None:
        assert data.decode(name) == text
    with pytest.raises(Unreadable, match="not UTF-8") as refused:
        list(blocks(io.BytesIO(data), 1 << 20, lambda count: None))
    assert f"iconv -f {name or 'ENCODING'} -t UTF-8" in refused.value.detail


@pytest.mark.parametrize("language", TEXTS)
def test_damaged_or_mixed_utf8_is_no_other_encoding(language: str) -> None:
    text = TEXTS[language]
    assert likely(text.encode().replace(b"\xc3", b"\xc3\xc3", 3) + b"\xff") is None
    assert likely("\n".join([text] * 3).encode() + "\nété".encode("cp1252")) is None


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", TEXTS)
def test_utf16_needs_no_mark(language: str, encoding: str) -> None:
    text = TEXTS[language] + "\n"
    assert "".join(blocks(io.BytesIO(text.encode(encoding)), 1 << 20, lambda count: None)) == text


def test_binary_is_no_utf16() -> None:
    numbers = struct.pack("<200h", *range(200))
    waves = struct.pack("<200i", *(number * 37 % 1000 - 500 for number in range(200)))
    for data in (numbers, waves, "text".encode("utf-32-le"), b"text\0text\0", b"MZ\x90\0\x03\0\0\0", bytes(100)):
        assert unmarked_utf16(data) is None
    assert not any(unmarked_utf16(os.urandom(4096)) for _ in range(20))


def test_too_little_is_not_guessed() -> None:
    assert likely("café".encode("cp1252")) is None
    assert likely("Да".encode("cp1251")) is None
    assert likely(b"") is None
    assert likely(("“Don’t say it’s so,” he said. " * 20).encode("mac-roman")) is None
