"""Chats as messengers export them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.chat import Message
from chatsmith.text.messengers import chat
from chatsmith.text.records import contents
from documents import read

TALK = (Message("user", "Hi Bob!\nAre you there?"), Message("assistant", "See https://a.b now"))


def telegram(*said: tuple[str | None, Any], **more: Any) -> list[dict[str, Any]]:
    kind = {"type": "message", "date": "2024-01-01T10:00:00"}
    return [
        {"id": number, **kind, "from": name, "from_id": f"user{name}", "text": text, "text_entities": [], **more}
        for number, (name, text) in enumerate(said)
    ]


def test_telegram() -> None:
    call = {"id": 9, "type": "service", "date": "2024-01-01T10:00:00", "actor": "Ann", "action": "phone_call"}
    link = ["See ", {"type": "link", "text": "https://a.b"}, " now"]
    said = [call, *telegram(("Ann", "Hi Bob!"), ("Ann", "Are you there?"), ("Bob", link)), *telegram(("Ann", ""))]
    one = {"name": "Bob", "type": "personal_chat", "id": 5, "messages": said}
    assert contents(one) == [TALK]
    channel = {
        "name": "News",
        "type": "public_channel",
        "id": 6,
        "messages": telegram(("N", "It rains."), ("N", "So.")),
    }
    every = {"about": "Here is your data.", "chats": {"about": "All of them.", "list": [one, channel]}}
    assert contents(every) == [TALK, "It rains.", "So."]
    group = telegram(("Ann", "Hi."), (None, "Hello."), ("Cy", "Hey."))
    assert contents({"messages": group}) == ["Ann: Hi.\nuserNone: Hello.\nCy: Hey."]


def test_facebook_tells_the_newest_first_and_spells_its_letters_wrongly() -> None:
    said = [("Zoë", "No.", 3), ("Ann", None, 2), ("Zoë", "Café?", 1), ("Ann", "Où ça?", 0)]
    messages = [
        {"sender_name": name.encode().decode("latin-1"), "timestamp_ms": 1700000000000 + when}
        | ({"photos": [{"uri": "a.jpg"}]} if text is None else {"content": text.encode().decode("latin-1")})
        for name, text, when in said
    ]
    talk = (Message("user", "Où ça?"), Message("assistant", "Café?\nNo."))
    assert contents({"participants": [{"name": "Ann"}], "messages": messages, "title": "Zo"}) == [talk]
    messages[0]["content"] = "日本"  # as it should be
    assert contents({"messages": messages})[0][-1].content == "Café?\n日本"  # type: ignore[index, union-attr]


def test_other_lists_are_left_alone() -> None:
    items = [{"type": "message", "id": "a", "role": role, "content": "x"} for role in ("user", "assistant")]
    assert chat(items) is None
    assert contents({"messages": items}) == [(Message("user", "x"), Message("assistant", "x"))]
    assert chat([]) is None
    assert chat(telegram(("Ann", "Alone."))) is None


ANDROID = """12/05/21, 10:03 - Messages are end-to-end encrypted. No one outside of this chat can read them.
12/05/21, 10:03 - Ann: Hi Bob!
12/05/21, 10:04 - Ann: Are you
there: now?
12/05/21, 10:05 - Bob: <Media omitted>
12/05/21, 10:06 - Bob: Yes.
"""
IPHONE = """[12.05.21, 10:03:11] Ann: \u200eMessages are end-to-end encrypted.
[12.05.21, 10:03:11] Ann: Hi Bob!
[12.05.21, 10:03:59] Ann: Are you
there: now?
\u200e[12.05.21, 10:04:11] Bob: \u200eimage omitted
[12.05.21, 10:05:11] Bob: Yes."""


@pytest.mark.parametrize(
    "text", [ANDROID, ANDROID.replace("\n", "\r\n"), ANDROID.replace(":03 -", ":03\u202fPM -"), IPHONE]
)
def test_whatsapp(tmp_path: Path, text: str) -> None:
    (tmp_path / "_chat.txt").write_text(text, newline="")
    [document], report = read(tmp_path)
    said = (Message("user", "Hi Bob!\nAre you\nthere: now?"), Message("assistant", "Yes."))
    assert (document.text, document.messages) == ("", said)
    assert (report.conversations, report.skipped) == (1, [])


def test_whatsapp_groups_and_what_only_looks_like_it(tmp_path: Path) -> None:
    (tmp_path / "group.txt").write_text(ANDROID + "12/05/21, 10:07 - Cy: Who is there?\n")
    diary = "12/05/21, 10:03 - Ann: a note of mine\n12/05/21, 10:04 - Ann: another one\n"
    log = "2021-05-12, 10:03 - started the server\n2021-05-12, 10:04 - stopped the server\n"
    for name, text in (("diary", diary), ("log", log), ("story", f"He read:\n{ANDROID}")):
        (tmp_path / f"{name}.txt").write_text(text)
    found = {Path(one.source).stem: one.text for one in read(tmp_path)[0]}
    assert found.pop("group") == "Ann: Hi Bob!\nAre you\nthere: now?\nBob: Yes.\nCy: Who is there?"
    assert found == {"diary": diary, "log": log, "story": f"He read:\n{ANDROID}"}


@pytest.mark.parametrize(
    "text",
    [
        "[11/28/2026, 9:30:14 PM] INFO: started\n[11/28/2026, 9:30:15 PM] ERROR: no disk\n",
        ANDROID.replace("Bob", "ann"),  # who answers is not told apart
    ],
)
def test_a_log_of_a_program_and_one_speaker_in_two_spellings_stay_texts(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.log").write_text(text)
    assert [one.text for one in read(tmp_path)[0]] == [text]


def test_of_a_chat_that_breaks_off_what_came_before_counts(tmp_path: Path) -> None:
    whole = ANDROID + "12/05/21, 10:07 - Ann: One more.\n" * 20000
    (tmp_path / "chat.txt").write_bytes(whole.encode() + b"\xff" * 20000)
    documents, report = read(tmp_path, document_bytes=1 << 16, duplicates="keep")
    assert "".join(one.text for one in documents).count("One more.") > 15000
    assert sum(report.reasons.values()) == 1


def test_a_chat_too_long_to_be_held_is_read_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatsmith.text.documents.RECORD_BYTES", 2000)
    whole = ANDROID + "".join(
        f"12/05/21, 10:07 - {name}: This is said {n}.\n" for n in range(99) for name in ("Ann", "Bob")
    )
    (tmp_path / "long.txt").write_text(whole)
    documents, _ = read(tmp_path, document_bytes=1500, duplicates="keep")
    assert len(documents) > 3
    assert "".join(one.text for one in documents).count("This is said") == 198


ONE = st.fixed_dictionaries(
    {},
    optional={name: st.none() | st.text(max_size=3) | st.floats() | st.just("message") | st.lists(st.text())
              for name in ("type", "id", "from", "from_id", "text", "sender_name", "timestamp_ms", "content")},
)  # fmt: skip


@given(st.lists(ONE))
def test_any_list_is_taken(messages: list[dict[str, Any]]) -> None:
    found = chat(messages)
    assert found is None or all(words.strip() for _, words in found)
