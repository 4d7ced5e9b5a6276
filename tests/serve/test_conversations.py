"""The store of conversations: trees, bounds, owners, and that nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from chatsmith.errors import RequestError, WorkError
from chatsmith.serve.conversation_routes import conversation_routes
from chatsmith.serve.conversations import Bounds, Conversations, NotThere
from chatsmith.serve.limits import Limits
from patience import PATIENCE

_WRITER = """
import sys
from pathlib import Path
from chatsmith.serve.conversations import Conversations
store = Conversations(Path(sys.argv[1]))
made, parent, role = store.create(title="t")["id"], None, "user"
print(made, flush=True)
while True:
    parent = store.add(made, parent=parent, role=role, content="x" * 500)["id"]
    role = "assistant" if role == "user" else "user"
    print(parent, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Conversations:
    return Conversations(tmp_path / "c.db", Bounds(messages=6, content=100, conversations=3))


def forked(store: Conversations, owner: str = "") -> dict[str, Any]:
    made = store.create(owner, title="Fork", system="Be brief.", settings={"temperature": 0.5})["id"]
    ask = store.add(made, owner, parent=None, role="user", content="Straße?")["id"]
    token = [5, " a", -0.5, [[5, " a", -0.5], [6, " b", -1.5]]]
    store.add(made, owner, parent=ask, role="assistant", content="a", tokens=[token])
    store.add(made, owner, parent=ask, role="assistant", content="b", settings={"seed": 7})
    return store.get(made, owner)


def test_a_tree_comes_back_as_it_was_also_from_a_file(store: Conversations) -> None:
    first = forked(store)
    second = store.load(store.export(first["id"]))
    assert second["id"] != first["id"]
    assert store.export(second["id"]) == store.export(first["id"])
    assert [found["content"] for found in second["messages"]] == ["Straße?", "a", "b"]
    assert second["messages"][1]["tokens"] == [[5, " a", -0.5, [[5, " a", -0.5], [6, " b", -1.5]]]]


def test_a_full_conversation_takes_no_more(tmp_path: Path) -> None:
    store = Conversations(tmp_path / "c.db", Bounds(stored=20))
    made = store.create()["id"]
    first = store.add(made, parent=None, role="user", content="é" * 10)["id"]
    with pytest.raises(RequestError, match="full"):
        store.add(made, parent=first, role="assistant", content="a")
    assert len(store.get(made)["messages"]) == 1


def test_search_finds_titles_and_words_in_any_case(store: Conversations) -> None:
    made = forked(store)["id"]
    for part in ("fork", "STRASSE", ""):
        assert [found["id"] for found in store.search(part)] == [made]
    assert store.search("%") == store.search("_") == []


def test_what_belongs_to_another_is_not_there(store: Conversations) -> None:
    made = forked(store, "ann")["id"]
    assert store.search("", "bob") == []
    for attempt in (store.get, store.export, store.delete):
        with pytest.raises(NotThere):
            attempt(made, "bob")


@pytest.mark.parametrize(
    "message",
    [
        {"parent": None, "role": "assistant", "content": "a"},
        {"parent": None, "role": "system", "content": "a"},
        {"parent": "nowhere", "role": "user", "content": "a"},
        {"parent": 7, "role": "user", "content": "a"},
        {"parent": None, "role": "user", "content": "a" * 101},
        {"parent": None, "role": "user", "content": None},
        {"parent": None, "role": "user", "content": "a", "tokens": [[1, "a", 0.0]]},
        {"parent": None, "role": "user", "content": "a", "tokens": [[1, "a", float("nan"), []]]},
        {"parent": None, "role": "user", "content": "a", "settings": {"deep": []}},
        {"parent": None, "role": "user", "content": "a", "id": "mine"},
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(store: Conversations, message: dict[str, Any]) -> None:
    made = store.create()["id"]
    before = store.get(made)
    with pytest.raises(RequestError):
        store.add(made, **message)
    assert store.get(made) == before


def test_a_file_with_one_wrong_message_leaves_nothing_behind(store: Conversations) -> None:
    file = store.export(forked(store)["id"])
    file["messages"][2]["parent"] = 2
    with pytest.raises(RequestError):
        store.load(file)
    assert len(store.search()) == 1


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_bytes(b"not a database" * 100)
    with pytest.raises(WorkError, match="cannot be opened"):
        Conversations(tmp_path / "c.db")


@pytest.mark.parametrize("lines", [2, 5, 40])
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "c.db"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        made, *acknowledged = [writer.stdout.readline().strip() for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.read().split()
    kept = [message["id"] for message in Conversations(path).get(made)["messages"]]
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1


def test_a_killed_server_loses_nothing_it_acknowledged(server: Any, own_data: None) -> None:
    import httpx

    first = server()
    made = httpx.post(f"{first.url}/conversations", json={"title": "Kept"}, timeout=PATIENCE).json()["id"]
    ids: list[str] = []
    for turn in range(12):
        message = {"parent": ids[-1] if ids else None, "role": ("user", "assistant")[turn % 2], "content": "x" * 900}
        ids.append(
            httpx.post(f"{first.url}/conversations/{made}/messages", json=message, timeout=PATIENCE).json()["id"]
        )
    first.process.kill()
    first.process.wait(30)
    found = httpx.get(f"{server().url}/conversations/{made}", timeout=PATIENCE).json()
    assert [message["id"] for message in found["messages"]] == ids


def test_over_http(application: Any, store: Conversations) -> None:
    with application(routes=conversation_routes(store, Limits())) as client:
        assert isinstance(client, TestClient)
        made = client.post("/conversations", json={"title": "A"})
        assert made.status_code == 201
        one = f"/conversations/{made.json()['id']}"
        said = client.post(f"{one}/messages", json={"parent": None, "role": "user", "content": "hi"})
        assert said.status_code == 201
        assert client.get(one).json()["leaf"] == said.json()["id"]
        assert client.patch(one, json={"title": "B"}).json()["title"] == "B"
        assert client.patch(one, json={"owner": "eve"}).status_code == 400
        assert client.post("/conversations", json=[]).status_code == 400
        assert client.post("/conversations", content="{}").status_code == 415
        file = client.get(f"{one}/export")
        assert client.post("/conversations/import", json=file.json()).status_code == 201
        assert client.delete(one).status_code == 204
        assert client.get(one).status_code == 404
        assert [found["title"] for found in client.get("/conversations?search=hi").json()["conversations"]] == ["B"]
