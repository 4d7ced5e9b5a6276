"""Files written whole or not at all, with the permissions that they are to have from the first moment."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from chatsmith.paths import atomic_write


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("private", "expected"), [(False, 0o640), (True, 0o600)])
def test_permissions_hold_while_a_file_is_written(
    tmp_path: Path, private: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            # Asking for the umask sets it for a moment, and files that other threads make just then are open to all.
            patch.delattr(os, "umask")
            with atomic_write(tmp_path / "file", "w", private=private) as file:
                [temporary] = tmp_path.iterdir()
                assert permissions(temporary) == expected
                file.write("text")
    finally:
        os.umask(before)
    assert permissions(tmp_path / "file") == expected
    assert (tmp_path / "file").read_text() == "text"


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with atomic_write(path, "w") as file:
            file.write("half of it")
            raise EOFError

    with pytest.raises(EOFError):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named_without_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def refuse(name: Path, *_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Read-only") as refused, atomic_write(path):
        pass
    assert refused.value.filename == str(path)


def test_the_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    def copy_what_is_missing() -> None:
        with atomic_write(tmp_path / "file", "w") as file:
            file.write((tmp_path / "missing").read_text())

    with pytest.raises(FileNotFoundError) as missing:
        copy_what_is_missing()
    assert missing.value.filename == str(tmp_path / "missing")
    assert not list(tmp_path.iterdir())
