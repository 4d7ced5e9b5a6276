"""Which fields of a record are its text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.chat import Message
from chatsmith.text.records import contents

HI = [("user", "Hi."), ("assistant", "Hello.")]


def found(record: Any, field: str | None = None) -> list[Any]:
    """Texts as they are, conversations as lists of pairs."""
    return [
        content if isinstance(content, str) else [(message.role, message.content) for message in content]
        for content in contents(record, field)
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}], "text": "no"},
        {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}], "id": "x"},
        {"turns": [["user", "Hi."], ["system", "Hello."]]},
        {"turns": ["Hi.", "Hello."]},
        {"dialog": [{"speaker": "Alice", "text": "Hi."}, {"speaker": "Bob", "text": "Hello."}]},
        {
            "Messages": [
                {"role": "User", "content": [{"type": "text", "text": "Hi."}]},
                {"role": "bot", "content": "Hello."},
            ]
        },
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}],
        {"prompt": "Hi.", "completion": "Hello."},
        {"instruction": "Hi.", "input": "", "output": "Hello.", "text": "### Instruction: Hi."},
        {"question": "Hi.", "answers": {"text": ["Hello.", "Hey."], "answer_start": [1, 2]}},
        {"prompt": "Hi.", "chosen": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]},
    ],
)
def test_conversations(record: Any) -> None:
    assert found(record) == [HI]


def test_more_conversations() -> None:
    turns = [{"role": "system", "content": "Be kind."}, *({"role": r, "content": c} for r, c in HI)]
    assert found({"messages": turns}) == [[("system", "Be kind."), *HI]]
    three = [["Ann", "Hi."], ["Bob", "Hello."], ["Cy", "Hey."]]
    assert found({"dialogue": three}) == ["Ann: Hi.\nBob: Hello.\nCy: Hey."]
    assert found({"messages": [*turns, {"role": "tool", "content": "42"}]}) != [[("system", "Be kind."), *HI]]
    assert found({"context": "Rome is old.", "question": "Is it?", "answer": True, "output": 1}) == [
        [("user", "Rome is old.\n\nIs it?"), ("assistant", "1")]
    ]
    assert found({"instruction": "Add.", "input": "1 2", "output": "3"}) == [
        [("user", "Add.\n\n1 2"), ("assistant", "3")]
    ]


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"id": 1, "title": "T", "text": "The text."}, ["The text."]),
        ({"Content": "c", "body": "b"}, ["c"]),
        ({"text": " ", "body": "b"}, ["b"]),
        ({"pages": ["one", ["two", "three"]]}, ["one\ntwo\nthree"]),
        ("just a string", ["just a string"]),
        (["one", ["two"]], ["one", "two"]),
        ({"data": [{"text": "one"}, {"x": {"text": "two"}}]}, ["one", "two"]),
        ({"url": "http://a.b/c", "en": "Good day.", "fr": "Bon jour.", "n": 3}, ["Good day.\nBon jour."]),
        ({"id": "1234", "word": "otter", "x": "on"}, ["otter"]),
        ({"id": 1, "n": 2.5, "x": None, "y": True, "z": "123 456"}, []),
        (17, []),
        (None, []),
        ({}, []),
        ([], []),
    ],
)
def test_texts(record: Any, texts: list[str]) -> None:
    assert found(record) == texts


def test_a_named_field() -> None:
    record = {"a": {"b": [{"c": "one"}, {"c": "two"}, {"d": 3}]}, "e.f": "three", "text": "no"}
    assert found(record, "a.b.c") == ["one", "two"]
    assert found(record, "e.f") == ["three"]
    assert found(record, "x") == []
    assert found({"chat": [["user", "Hi."], ["bot", "Hello."]]}, "chat") == [HI]


def test_depth_is_bounded() -> None:
    record: Any = "deep"
    for _ in range(5000):
        record = [record]
    assert found(record) == []
    assert found({"text": record}) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["text", "messages", "role", "content", "x"]), inner)
    ),
)


@given(JSON)
def test_any_json_is_taken(record: Any) -> None:
    for content in contents(record):
        assert isinstance(content, str) or all(isinstance(turn, Message) for turn in content)
        assert content
