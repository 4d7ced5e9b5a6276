"""Records from streams of JSON and tables, however the stream is cut."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text import tables
from chatsmith.text.report import Unreadable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


def parted(text: str, size: int) -> Any:
    return (text[start : start + size] for start in range(0, len(text), size))


def values(text: str, size: int = 7) -> list[Any]:
    return [value for _, value in tables.json_values(parted(text, size))]


@given(st.lists(VALUES), st.integers(1, 50), st.sampled_from([None, 1]), st.booleans())
def test_arrays_however_cut(items: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:
    assert values(json.dumps(items, indent=indent, ensure_ascii=ascii_only), size) == items


@given(st.lists(VALUES.filter(lambda value: not isinstance(value, list))), st.integers(1, 50))
def test_values_that_follow_each_other(items: list[Any], size: int) -> None:
    assert values("\n".join(map(json.dumps, items)), size) == items


@pytest.mark.parametrize("text", ["[1, 2", "[1 2]", "[1,]", "[1] 2", "[tru]", "{", '{"a" 1}', "nonsense", "[" * 10_000])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(Unreadable):
        values(text)


def test_what_comes_before_damage_is_given() -> None:
    records = tables.json_values(parted('[{"a": 1}, {"b": 2}, {"c": }]', 5))
    assert [next(records), next(records)] == [(1, {"a": 1}), (2, {"b": 2})]
    with pytest.raises(Unreadable, match="not valid JSON"):
        next(records)


def test_an_endless_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RECORD_BYTES", 1000)
    with pytest.raises(Unreadable, match="too long"):
        values('["' + "a" * 100_000, 100)


def test_json_lines_pass_over_bad_lines() -> None:
    bad: list[tuple[int, str, str]] = []
    text = '{"a": 1}\n\nnonsense\r\n[2]\n{"b": \n' + "[" * 100_000 + "\n" + "9" * 10_000 + '\n"end"'
    got = list(tables.json_lines(parted(text, 13), lambda *problem: bad.append(problem)))
    assert got == [(1, {"a": 1}), (4, [2]), (8, "end")]
    assert [number for number, _, _ in bad] == [3, 5, 6, 7]


def rows(text: str, tabs: bool = False, field: str | None = None) -> list[Any]:
    return [record for _, record in tables.table(parted(text, 9), tabs, field)]


@given(st.lists(st.lists(st.text(alphabet='ab,;"\n\té', min_size=1), min_size=2, max_size=2), min_size=1))
def test_csv_comes_back_as_it_was_written(cells: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["text", "label"], *cells])
    expected = [row for row in cells if any(cell and not cell.isspace() for cell in row)]
    assert [list(row.values()) for row in rows(file.getvalue())] == expected


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("text,n\na,1\n", [{"text": "a", "n": "1"}]),
        ("text\na\n", [{"text": "a"}]),
        ("review;stars\nGood film;5\n", [{"review": "Good film", "stars": "5"}]),
        ("good film,5\nbad film,1\n", ["good film", "bad film"]),
        ("name|year\nOtter|1999\n", [{"name": "Otter", "year": "1999"}]),
        ("Go,Va\nHi,Salut\n", ["Go\tVa", "Hi\tSalut"]),
        ("", []),
        ("\n\n", []),
    ],
)
def test_headings(text: str, records: list[Any]) -> None:
    assert rows(text) == records


def test_columns_by_number_and_name() -> None:
    assert rows("uno;1\ndue;2\n", field="2") == [{"1": "uno", "2": "1"}, {"1": "due", "2": "2"}]
    assert rows("x y,z!\nuno,1\n", field="x y") == [{"x y": "uno", "z!": "1"}]


def test_tsv_has_no_quotes_and_long_cells_are_fine() -> None:
    assert rows('"Go\tVa\nHi"\tSalut\n', tabs=True) == ['"Go\tVa', 'Hi"\tSalut']
    assert len(rows("text\n" + "a" * 200_000)[0]["text"]) == 200_000


def test_columns_that_parquet_keeps_in_other_ways(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def rows(**columns: Any) -> list[Any]:
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        with open(tmp_path / "t.parquet", "rb") as stream:
            return [record for _, record in tables.parquet(stream, None)]

    assert rows(text=pa.array(["one two"], pa.string_view()), n=[1]) == [{"text": "one two"}]
    assert rows(content=pa.array([b"caf\xc3\xa9"]), key=pa.array([b"\xff"])) == [{"content": "café"}]
    assert rows(text=pa.array([b"\xff\xfe\x00"])) == [{"text": None}]
    judged = {"info": [{"post": "It ran."}], "summaries": [[{"text": "Gone."}]], "choice": [0]}
    assert rows(**judged, worker=["a b"]) == [{name: values[0] for name, values in judged.items()}]
    assert rows(input=["a"], target=["b"], kind=["c d"]) == [{"input": "a", "target": "b"}]
    assert rows(user=["ann"], tweet=["c d"]) == [{"user": "ann", "tweet": "c d"}]


def test_a_first_line_that_names_the_separator() -> None:
    text = "sep=;\nid;text\n1;One, two.\n2;Three, four, five.\n"
    assert list(tables.table(iter([text]), False, None)) == [
        (3, {"id": "1", "text": "One, two."}),
        (4, {"id": "2", "text": "Three, four, five."}),
    ]
