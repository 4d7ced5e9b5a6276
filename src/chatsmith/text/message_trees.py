"""Trees of messages, as OpenAssistant publishes them: each message with its replies within, or one message a row.

Of a tree one talk is read, that of the best answers: replies carry a rank, 0 for the best, and to read the others as
well would be to learn what was judged worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

TREE = "message_tree_id"
ROW = (TREE, "message_id", "parent_id", "role", "text", "rank", "deleted", "review_result")
"""The names of a row that holds one message of a tree, as far as they are read."""
_MOST_MESSAGES = 10_000  # of one tree, which are held together


def best_path(root: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages from the root on, each followed by the best of its replies; of equally good ones, the first
    that somebody answered."""
    path = [root]
    while replies := [one for one in path[-1].get("replies") or () if isinstance(one, dict) and not _is_withdrawn(one)]:
        path.append(min(replies, key=lambda reply: (_rank(reply), not reply.get("replies"))))
        if len(path) > _MOST_MESSAGES:
            break
    return path


def _rank(reply: dict[str, Any]) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, int | float) and rank == rank else float("inf")


def _is_withdrawn(reply: dict[str, Any]) -> bool:
    return reply.get("deleted") is True or reply.get("review_result") is False


def grown(rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The same records, but that messages of one tree that follow each other become their first, with its replies.

    A message that no chain of parents among them joins to a first one stays as it is.
    """
    held: dict[str, tuple[int, dict[str, Any]]] = {}
    tree: str | None = None
    for number, record in rows:
        name = record.get("message_id") if isinstance(record, dict) and isinstance(record.get(TREE), str) else None
        if held and (not isinstance(name, str) or record[TREE] != tree or name in held or len(held) >= _MOST_MESSAGES):
            yield from _joined(held)
            held = {}
        if isinstance(name, str):
            tree = record[TREE]
            held[name] = number, record
        else:
            yield number, record
    yield from _joined(held)


def _joined(held: dict[str, tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, Any]]:
    nodes = {name: {**message, "replies": []} for name, (_, message) in held.items()}
    roots: set[str] = set()
    for name, node in nodes.items():
        parent = node.get("parent_id")
        if parent is None:
            roots.add(name)
        elif isinstance(parent, str) and parent in nodes:
            nodes[parent]["replies"].append(node)
    reached, ahead = set(roots), [nodes[name] for name in roots]
    while ahead:  # a circle of parents is never reached
        replies = ahead.pop()["replies"]
        reached.update(reply["message_id"] for reply in replies)
        ahead += replies
    for name, (number, message) in held.items():
        if name in roots:
            yield number, nodes[name]
        elif name not in reached:
            yield number, message
