"""Archives as input: read like folders, within bounds, whatever is in them."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from chatsmith.text import archives, members
from chatsmith.text.documents import ReadReport, read_documents
from chatsmith.text.formats import Format, Kind, format_of
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer

FILES = {
    "notes/a.txt": b"first note\n",
    "notes/deep/er/b.md": "ünder the sea\n".encode(),
    "talks.jsonl.gz": gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'),
    "page.html": b"<p>a page</p>",
}
TEXTS = {
    "notes/a.txt": "first note\n",
    "notes/deep/er/b.md": "ünder the sea\n",
    "talks.jsonl.gz:1": "one",
    "talks.jsonl.gz:2": "two",
    "page.html": "a page",
}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def read(path: Path, **options: object) -> tuple[dict[str, str], ReadReport]:
    """The texts under `path` by their sources."""
    report = ReadReport()
    documents = list(read_documents([path], report=report, duplicates="keep", **options))  # type: ignore[arg-type]
    return {document.source.removeprefix(f"{path.parent}/"): document.text for document in documents}, report


def skipped(path: Path) -> dict[str, int]:
    """Why members of the archive are skipped, beside a good file."""
    (path.parent / "zz.txt").write_text("a good file")
    report = ReadReport()
    found = [document.text for document in read_documents([path.parent], report=report, duplicates="keep")]
    assert found[-1] == "a good file"
    return dict(report.reasons)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(FILES)),
        ("a.ZIP", zipped(FILES, zipfile.ZIP_STORED)),
        ("b.zip", zipped(FILES, zipfile.ZIP_BZIP2)),
        ("a.tar", tarred(FILES)),
        ("gnu.tar", tarred(FILES, tarfile.GNU_FORMAT)),
        ("ustar.tar", tarred(FILES, tarfile.USTAR_FORMAT)),
        ("a.tar.gz", gzip.compress(tarred(FILES))),
        ("a.tgz", gzip.compress(tarred(FILES))),
        ("a.tbz2", bz2.compress(tarred(FILES))),
    ],
)
def test_members_are_read_like_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    found, report = read(tmp_path / name)
    assert found == {f"{name}!/{member}": text for member, text in TEXTS.items()}
    assert (report.files, report.bytes_read, report.documents) == (4, len(content), 5)
    assert not report.reasons


def test_formats_of_archives() -> None:
    assert format_of("a.tar.xz") == format_of("A.TXZ") == Format(Kind.TAR, ".xz")
    assert format_of("a.zip") == Format(Kind.ZIP)
    assert format_of(".tgz") is None


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    name = "long/" * 60 + "ü.txt"
    (tmp_path / "a.tar").write_bytes(tarred({name: b"far down", "b.txt": b"near"}, form))
    assert read(tmp_path / "a.tar")[0] == {f"a.tar!/{name}": "far down", "a.tar!/b.txt": "near"}


def test_a_position_leads_back_to_member_and_archive(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(FILES))
    documents = read_documents([tmp_path / "a.zip"], report=ReadReport())
    write_shards(documents, byte_tokenizer, tmp_path / "tokens", held_out=0)
    split = TokenFolder.open(tmp_path / "tokens").split("train")
    assert split.document_at(0).source == f"{tmp_path}/a.zip!/notes/a.txt"
    assert split.document_at(len(split) - 1).source == f"{tmp_path}/a.zip!/page.html"


def test_archives_in_archives_are_opened_to_a_depth(tmp_path: Path) -> None:
    content = b"at the bottom"
    name = "a.txt"
    for depth in range(members.DEEPEST):
        content, name = (zipped({name: content}), f"{depth}.zip") if depth % 2 else (tarred({name: content}), "t.tar")
    (tmp_path / "in.tar").write_bytes(content)
    found, _ = read(tmp_path / "in.tar")
    assert found == {"in.tar!/1.zip!/t.tar!/a.txt": "at the bottom"}
    (tmp_path / "in.zip").write_bytes(zipped({"in.tar": content}))
    assert skipped(tmp_path / "in.zip") == {"archives within archives": 1}


def test_names_are_labels_and_never_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text("outside")
    names = ["../secret.txt", str(secret), "C:\\x.txt", "\x1b[2Jred.txt", "./plain.txt", "a\nb.txt"]
    for pack in (zipped, tarred):
        path = tmp_path / "a" / f"{pack.__name__}.{'zip' if pack is zipped else 'tar'}"
        path.write_bytes(pack({name: f"inside {name!r}".encode() for name in names}))
        found, _ = read(path)
        assert len(found) == len(names)
        assert all(text.startswith("inside") for text in found.values())
        assert all(source.isprintable() for source in found)
    assert secret.read_text() == "outside"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "secret.txt"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("outside")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo(f"{kind!r}.txt")
            entry.type, entry.linkname = kind, "../secret.txt"
            archive.addfile(entry)
        entry = tarfile.TarInfo("last.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"last"))
    found, report = read(tmp_path / "a.tar")
    assert list(found.values()) == ["last"]
    assert report.reasons == {"a link in an archive": 2}
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
        packed.writestr("last.txt", "last")
    found, report = read(tmp_path / "a.zip")
    assert list(found.values()) == ["last"]
    assert report.reasons == {"a link in an archive": 1}


def test_what_cannot_be_read_is_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    files = {".git/config.txt": b"no", "node_modules/x.js": b"no no", "a.png": b"png", "e.txt": b"", "z.txt": b"good"}
    (tmp_path / "a.zip").write_bytes(zipped(files))
    found, report = read(tmp_path / "a.zip")
    assert list(found.values()) == ["good"]
    assert report.reasons == {"hidden": 2, "unknown kind of file": 1, "empty": 1}
    assert report.skipped[0].source == f"{tmp_path}/a.zip!/.git/config.txt"
    assert len(read(tmp_path / "a.zip", hidden=True)[0]) == 3


def test_encrypted_members_are_skipped(tmp_path: Path) -> None:
    data = bytearray(zipped({"secret.txt": b"not for you", "open.txt": b"for all"}, zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    found, report = read(tmp_path / "a.zip")
    assert list(found.values()) == ["for all"]
    assert report.reasons == {"encrypted": 1}
    (tmp_path / "b.zip").write_bytes(zipped({"x.txt": b"packed by lzma", "y.txt": b"y y"}, zipfile.ZIP_LZMA))
    (tmp_path / "a.zip").unlink()
    assert skipped(tmp_path / "b.zip") == {"packed in a way that is not read": 2}


def test_floods_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the sum of what comes out, whether from one member, from many, or packed twice."""
    for module in (archives, members):
        monkeypatch.setattr(module, "FREE", 1 << 20)
    blanks = b"x" + b" " * (20 << 20)
    bombs = {
        "one.zip": zipped({"a.txt": blanks}),
        "twice.zip": zipped({"a.txt.gz": gzip.compress(blanks), "b.txt": b"never"}),
        "nested.zip": zipped({f"{n}.zip": zipped({"a.txt": blanks[: 4 << 20]}) for n in range(8)}),
        "a.tar.gz": gzip.compress(tarred({"a.txt": blanks})),
        "many.zip": _overlapping(b"y" * 60_000, 3000),
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        reasons = skipped(tmp_path / name)
        assert set(reasons) <= {"unfolds too far", "damaged"}, name  # newer Pythons see that members overlap
        assert sum(reasons.values()) >= 1
        (tmp_path / name).unlink()


def _overlapping(content: bytes, count: int) -> bytes:
    """A .zip of many members that are all the same bytes of the file."""
    data = zipped({"a.txt": content})
    listing = data[data.index(b"PK\x01\x02") : data.rindex(b"PK\x05\x06")]
    body = data[: data.index(b"PK\x01\x02")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listing) * count, len(body), 0)
    return body + listing * count + end


def test_long_lists_of_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_LISTING", 10_000)
    (tmp_path / "a.zip").write_bytes(zipped({f"{number}.txt": b"x y" for number in range(300)}))
    assert skipped(tmp_path / "a.zip") == {"too large": 1}


def _header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)], block[124:136], block[156:157], block[148:156] = name, size, kind, b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


HOSTILE = {
    "a size beyond the end": _header(b"a.txt", b"77777777777\0") + b"some words" * 60,
    "a negative size": _header(b"a.txt", b"\xff" * 12) + b"words",
    "a size beyond reason": _header(b"a.txt", b"\x80" + b"\xff" * 11),
    "a size that is no number": _header(b"a.txt", b"9z9z9z9z9z9\0"),
    "a long name beyond reason": _header(b"x", b"17777777777\0", b"L") + b"n" * 5000,
    "pax records without end": _header(b"x", b"00000001000\0", b"x") + b"99999 path=a\n".ljust(512, b"\0"),
    "pax records of length 0": _header(b"x", b"00000001000\0", b"x") + b"0 path=a\n".ljust(512, b"\0"),
    "a pax size that is no number": _header(b"x", b"00000000020\0", b"x") + b"16 size=-999999\n".ljust(512, b"\0")
    + _header(b"a.txt", b"00000000002\0") + bytes(512),
    "a wrong sum": b"a.txt".ljust(512, b"\1"),
    "half a header": _header(b"a.txt", b"00000000002\0")[:100],
    "noise": random.Random(0).randbytes(2048),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tars(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.tar").write_bytes(HOSTILE[kind])
    tracemalloc.start()
    reasons = skipped(tmp_path / "a.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(reasons) <= {"damaged", "too large"}
    assert reasons
    assert peak < 50e6


def test_what_came_before_damage_is_kept(tmp_path: Path) -> None:
    files = {f"{number}.txt": f"note {number} ".encode() * 2000 for number in range(20)}
    tar, packed = tarred(files), zipped(files)
    (tmp_path / "a.tar").write_bytes(tar[: len(tar) // 2])
    found, report = read(tmp_path / "a.tar")
    assert len(found) >= 8
    assert sum(report.reasons.values()) >= 1
    broken = bytearray(packed)
    at = broken.index(b"7.txt") + 40
    broken[at : at + 5] = b"\xff" * 5
    (tmp_path / "a.zip").write_bytes(broken)
    found, report = read(tmp_path / "a.zip")
    assert len(found) >= 19
    assert set(report.reasons) == {"damaged"}


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_archives_without_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(tarred({}) if name == "a.tar" else zipped({}))
    assert skipped(tmp_path / name) == {"empty": 1}
    (tmp_path / name).write_bytes(b"this is no archive at all " * 40)
    assert skipped(tmp_path / name) == {"damaged": 1}


def test_standard_tar_agrees_on_many_names_and_sizes(tmp_path: Path) -> None:
    """Our reader and the standard library see the same files."""
    random.seed(5)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        files = {
            "/".join(
                "".join(random.choices("abü ", k=random.randint(1, 40))) + "x" for _ in range(random.randint(1, 6))
            )
            + f"{number}.txt": (b"w" * random.choice((2, 511, 512, 513, 5000)))
            for number in range(60)
        }
        data = tarred(files, form)
        ours = {member.label: member.stream.read(10_000) for member in members.tar_members(io.BytesIO(data))}
        assert ours == files


def test_documents_are_the_same_from_folder_and_archive(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (tmp_path / "a.zip").write_bytes(zipped(FILES))
    from_folder, _ = read(folder)
    from_archive, _ = read(tmp_path / "a.zip")
    assert sorted(from_folder.values()) == sorted(from_archive.values())
