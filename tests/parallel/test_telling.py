"""Of what the processes of a launch report as wrong, each thing is told once, by the launcher."""

from __future__ import annotations

import pytest

from chatsmith import __main__
from chatsmith.cli import app
from chatsmith.cli.app import run
from chatsmith.train.parallel.telling import Report, report, reports, taken


def test_a_process_without_a_launcher_tells_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not report("the disk is full", None, 1)
    with reports() as folder:
        assert not report("no process of it", None, 1)
        monkeypatch.setenv("RANK", "1")
        assert run(["train", "no-such-recipe.toml"]) == 2
        assert capsys.readouterr().err == ""
        (found,) = taken(folder)
        assert "no-such-recipe.toml" in found.message
        assert found.exit_code == 2
        assert taken(folder) == []
    assert not report("its launcher is gone", None, 1)
    assert not folder.exists()


@pytest.mark.parametrize("while_loading", [True, False])
def test_a_stopped_process_leaves_it_to_its_launcher_to_say_so(
    while_loading: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run" if while_loading else "_dispatch", interrupted)
    monkeypatch.setenv("RANK", "1")
    with reports() as folder:
        assert __main__.main() == 130
        assert taken(folder) == [Report("stopped", None, 130)]
    assert capsys.readouterr().err == ""
    assert __main__.main() == 130  # it has no launcher
    assert capsys.readouterr().err == "stopped\n"


def test_each_thing_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["the disk is full", "the first process could not begin: the disk is full", "the disk is full", "odd"]
    with reports() as folder:
        for rank, message in enumerate(said):
            monkeypatch.setenv("RANK", str(rank))
            assert report(message, "free some", 1)
        (folder / "00009.json").write_text('["killed while it wro')
        assert taken(folder) == [Report("the disk is full", "free some", 1), Report("odd", "free some", 1)]


def test_a_folder_that_is_gone_silences_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with reports() as folder:
        monkeypatch.setenv("RANK", "0")
        folder.rmdir()
        assert not report("the disk is full", None, 1)
        folder.mkdir()
