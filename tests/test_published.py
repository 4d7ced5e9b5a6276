"""A small published model through the whole of `load`, `write` and `next`: its own greedy words, byte for byte."""

from __future__ import annotations

from pathlib import Path

import chatsmith
from chatsmith.store.llama2c import import_llama2c


def test_stories260k_writes_its_published_text(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "stories260K"
    folder = import_llama2c(source / "stories260K.bin", source / "tok512.bin", tmp_path / "stories260K")
    model = chatsmith.load(folder)
    assert model.begin == (1,)
    expected = (source / "expected_greedy.txt").read_text(encoding="utf-8").rstrip("\n")
    assert model.write("", temperature=0, max_tokens=256).text.strip() == expected
    begun = "Once upon a time,"
    written = str(model.write(begun, temperature=0, max_tokens=60))
    assert expected.startswith(written)
    assert len(written) > len(begun) + 60
    report = model.next(begun, steps=5)
    assert report.texts[-1] in expected
    assert report.tokens[0].before > 0.5
