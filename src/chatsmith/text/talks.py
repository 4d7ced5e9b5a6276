"""Conversations as people keep them: lists of turns, transcripts and trees, made into messages; or why one is left out.

A turn is an object with a speaker and words, a pair [speaker, words], or words alone (then two take turns); a table
keeps turns as an object of lists, too, and messengers have a form of their own (`messengers`). A transcript is one text
with marks in it (`transcripts`). A tree is ChatGPT's export, of which the current branch is read, or OpenAssistant's,
of which the best answers are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from chatsmith.text.chat import Conversation, Message, Role
from chatsmith.text.message_trees import best_path
from chatsmith.text.messengers import chat
from chatsmith.text.report import Unreadable
from chatsmith.text.transcripts import transcript

Content: TypeAlias = str | Conversation | Unreadable
"""What is found in a record: a text, a conversation, or why something was left out of it."""

TOOLS = "conversation with tools"
MORE_THAN_TEXT = "conversation with more than text"
UNKNOWN_ROLE = "conversation with an unknown role"
HALF = "half a conversation"
FAULTY = "conversation that cannot be read"
NOT_TO_LEARN = "conversation with an answer of weight 0"
LONE = "turn without its conversation"

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    **dict.fromkeys(("user", "human", "prompter", "customer", "client", "person"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bot", "model", "ai", "agent", "bing", "bard", "moss"), "assistant"
    ),
}
_FORMAL = frozenset(("system", "developer", "user", "human", "prompter", "assistant", "gpt", "chatgpt"))
"""Speakers who show that a list is a conversation with a model; the others may be people in a story."""
_TOOLS = frozenset(
    (
        *("tool", "tools", "tool_call", "tool_calls", "tool_response", "tool_result", "tool_results", "ipython"),
        *("function", "functions", "function_call", "function_response", "function_result", "observation"),
    )
)
SPEAKER = ("role", "from", "speaker", "sender", "author")
_WORDS = ("content", "value", "parts", "text", "utterance", "message")
_ROUND = re.compile(r"turn_?(\d{1,9})", re.IGNORECASE)
_OF_MOSS = re.compile(r"\A<\|[\w ]+\|>: ?|<eo[a-z]>\s*\Z")
"""What stands around the words of a turn in MOSS's rounds."""
_UNUSED = "none"  # what its rounds call a tool by that is not called
_WEIGHTS = ("weight", "train", "loss")  # 0 or false where an answer is not to be learned
_CALLS = ("tool_calls", "function_call", "tool_call_id")
_UNSAID = frozenset(
    (
        *("thinking", "redacted_thinking", "reasoning", "thoughts", "reasoning_recap"),
        *("user_editable_context", "model_editable_context"),
    )
)
"""Kinds of parts that are thought or set, and not said to anybody."""
_ASKS = ("input", "question", "prompt", "instruction")
_ANSWERS = ("output", "answer", "response")

_Found = TypeVar("_Found")
_MOST_REMEMBERED, _MOST_LETTERS = 256, 1000


def remembered(find: Callable[[tuple[str, ...]], _Found]) -> Callable[[tuple[str, ...]], _Found]:
    """`find` with a memory, since the records of a file mostly have the same names; few and short ones are kept."""
    known: dict[tuple[str, ...], _Found] = {}

    def finding(names: tuple[str, ...]) -> _Found:
        try:
            return known[names]
        except KeyError:
            found = find(names)
            if len(known) < _MOST_REMEMBERED and sum(map(len, names)) + len(names) < _MOST_LETTERS:
                known[names] = found
            return found

    return finding


def conversation(value: Any, answer: Any = None) -> list[Content]:
    """The conversation in a value, and why it or its end was left out; empty for what is no conversation.

    `answer` follows where the last turn is the user's. Of speakers that are not known by name, the first is the user
    and the second the assistant; where more strangers talk, plain lines "name: words". Where no assistant speaks,
    "system" after the first turn is one, as in records of help desks. A model here has no words for tools, and what it
    says after one comes from there: the talk ends before the question that led to the first use of one.
    """
    found = turns(value)
    sure = found is not None
    if found is None:
        if not isinstance(value, list) or len(value) < 2:
            return []
        found = value
    if (more := turns(answer)) is not None:
        found = joined(found, more)
    said: list[tuple[str, str]] = []
    stop = ""
    try:
        for number, turn in enumerate(found):
            if stop := _stop(turn):
                break
            one = _turn(turn, number)
            if one is None:
                return [Unreadable(FAULTY, f"turn {number + 1}")] if sure else []
            if one[1] and not one[1].isspace():
                said.append(one)
    except Unreadable as error:
        return [error]
    talk = _talk(said, bool(stop))
    if talk is None and not sure and not stop:
        return []
    if stop:
        return [Unreadable(stop)] if talk is None else [talk, Unreadable(f"rest of a {stop}")]
    return [_why_not(said) if talk is None else talk]


def turns(value: Any) -> list[Any] | None:
    """The turns of what is surely a conversation, or one turn of it; None for anything else."""
    if isinstance(value, str):
        return transcript(value)
    if isinstance(value, dict):
        if isinstance(tree := value.get("mapping"), dict):
            return _branch(tree, value.get("current_node"))
        if isinstance(value.get("messages"), list):
            return turns(value["messages"])
        if isinstance(value.get("replies"), list) and _is_turn(value):
            return best_path(value)
        return [value] if _is_turn(value) else _of_columns(value) or _of_rounds(value)
    if isinstance(value, list):
        return chat(value) or (value if any(map(_is_turn, value)) else None)
    return None


def _of_columns(value: Mapping[str, Any]) -> list[Any] | None:
    """The turns of an object that holds a list of speakers and one of their words: a column of lists of objects, as
    some tables keep it."""
    speakers = next((value[name] for name in SPEAKER if isinstance(value.get(name), list)), None)
    words = next((value[name] for name in _WORDS if isinstance(value.get(name), list)), None)
    if not speakers or words is None or len(speakers) != len(words):
        return None
    rows = [{"role": speaker, "content": said} for speaker, said in zip(speakers, words, strict=True)]
    return rows if any(isinstance(name, str) and name.lower() in _FORMAL for name in speakers) else None


def _of_rounds(value: Mapping[str, Any]) -> list[Any] | None:
    """The turns of an object of numbered rounds, {"turn_1": {"Human": …, "MOSS": …}, …}, as MOSS's data keeps them.

    Beside the two it has what was thought, which nobody says, and what was asked of tools and came of it.
    """
    numbers = {int(match[1]): one for name, one in value.items() if (match := _ROUND.fullmatch(name))}
    if not numbers or len(numbers) < len(value):
        return None
    found: list[Any] = []
    for _, one in sorted(numbers.items()):
        for name, words in one.items() if isinstance(one, dict) else ():
            said = _OF_MOSS.sub("", words).strip() if isinstance(words, str) else ""
            if role := _says(name):
                found.append([role, said])
            elif name.lower() in ("commands", "tool responses") and said.lower() not in ("", _UNUSED):
                found.append(["function_call", said])
    return found if {"user", "assistant"} <= {role for role, _ in found} else None


def joined(before: Sequence[Any], after: list[Any]) -> list[Any]:
    """Turns, and those that go on from there; these alone where they begin with the question themselves."""
    if not before or _role(after[:1]) != "assistant":
        return after
    return [*before, *after] if _role(before[-1:]) == "user" else list(before)


def pairs(rounds: Any, sure: bool = False) -> list[Any] | None:
    """The turns of a list of rounds, objects or pairs that hold a question and its answer; None for any other list.

    Where it is not `sure`, pairs may be [speaker, words] too, unless one begins with a sentence.
    """
    if not isinstance(rounds, list):
        return None
    asking = sure or any(isinstance(one, list) and one and _is_sentence(str(one[0])) for one in rounds)
    if asking and all(map(_is_pair, rounds)) and not any(map(_is_turn, rounds)):
        return [[role, words] for one in rounds for role, words in zip(("user", "assistant"), one, strict=True)]
    if not all(isinstance(one, dict) and not _speaker(one) for one in rounds):
        return None
    found: list[Any] = []
    for one in rounds:
        said = [[role, words] for name, words in one.items() if (role := _says(name)) and isinstance(words, str)]
        if not {"user", "assistant"} <= {role for role, _ in said}:
            return None
        found += said
    return found


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(words, str) for words in turn)


def _is_sentence(words: str) -> bool:
    """Whether these are no name of a speaker."""
    return words.rstrip().endswith(("?", "!", "。", "？", "！")) or len(words.split(maxsplit=5)) > 5


def is_lone_turn(record: dict[str, Any]) -> bool:
    """Whether a record is one turn of a conversation whose others are elsewhere."""
    return _speaker(record).lower() in _FORMAL | _TOOLS and any(name in record for name in _WORDS)


def _says(name: str) -> str:
    name = name.lower()
    return "user" if name in _ASKS else "assistant" if name in _ANSWERS else _ROLES.get(name, "")


def _is_turn(turn: Any) -> bool:
    if isinstance(turn, list):
        return _is_pair(turn) and turn[0].lower() in _FORMAL
    if not isinstance(turn, dict) or not _speaker(turn):
        return False
    return (
        is_lone_turn(turn) or any(map(turn.get, _CALLS)) or ("role" in turn and ("content" in turn or "parts" in turn))
    )


def _speaker(turn: Mapping[str, Any]) -> str:
    for name in SPEAKER:
        speaker = turn.get(name)
        if isinstance(speaker, dict):  # {"author": {"role": …}}, or in exports of group chats {"name": …}
            speaker = speaker.get("role", speaker.get("name"))
        if isinstance(speaker, str):
            return speaker
    return ""


def _role(turn: Sequence[Any]) -> Role | None:
    """The role of who speaks in the turn, where there is one and its speaker is known by name."""
    for one in turn:
        speaker = _speaker(one) if isinstance(one, dict) else one[0] if isinstance(one, list) and one else ""
        return _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    return None


def _stop(turn: Any) -> str:
    """Why a conversation ends before this turn; empty where it goes on."""
    if isinstance(turn, list):
        return TOOLS if turn and isinstance(turn[0], str) and turn[0].lower() in _TOOLS else ""
    if not isinstance(turn, dict):
        return ""
    speaker = _speaker(turn).lower()
    if speaker in _TOOLS or any(map(turn.get, _CALLS)):
        return TOOLS
    for name in _WORDS:
        if isinstance(parts := turn.get(name), list) and any(map(_is_call, parts)):
            return TOOLS
    unlearned = any(name in turn and turn[name] is not None and turn[name] == 0 for name in _WEIGHTS)
    return NOT_TO_LEARN if unlearned and _ROLES.get(speaker) == "assistant" else ""


def _is_call(part: Any) -> bool:
    """Whether a part is a call of a tool or what it gave, as Anthropic and Google write them."""
    if not isinstance(part, dict):
        return False
    kinds = [kind] if isinstance(kind := part.get("type"), str) else [name for name in part if part[name]]
    return any("tool" in kind or "function" in kind for kind in kinds)


def _turn(turn: Any, number: int) -> tuple[str, str] | None:
    """Who says what; None for what is no turn, `Unreadable` where something else than words is said."""
    if isinstance(turn, str):
        return ("user", "assistant")[number % 2], turn
    if isinstance(turn, list):
        pair = len(turn) >= 2 and isinstance(turn[0], str) and isinstance(turn[1], str)
        return (turn[0], turn[1]) if pair else None
    if not isinstance(turn, dict) or not (speaker := _speaker(turn)):
        return None
    value = next((turn[name] for name in _WORDS if turn.get(name)), None)
    if value is None or isinstance(value, str):
        return speaker, value or ""
    if isinstance(value, dict):
        value = value["parts"] if isinstance(value.get("parts"), list) else [value]
    return (speaker, "\n".join(filter(None, map(_part, value)))) if isinstance(value, list) else None


def _part(part: Any) -> str:
    """The words of a part: {"type": "text", "text": …}, or a string."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Unreadable(FAULTY, f"a part that is {type(part).__name__}")
    kind = next((part[name] for name in ("type", "content_type") if isinstance(part.get(name), str)), "")
    if kind in _UNSAID:
        return ""
    text = part.get("text")
    if isinstance(text, str) or (text is None and kind == "text"):
        return text or ""
    raise Unreadable(MORE_THAN_TEXT, kind or next(iter(part), ""))


def _talk(said: list[tuple[str, str]], cut: bool) -> Conversation | str | None:
    """What is said as messages, with `cut` up to the last question; plain lines where too many strangers talk."""
    speakers = [name.lower() for name, _ in said]
    roles = _roles(tuple(dict.fromkeys(speakers)))
    if roles is None:
        if cut or any(name in _FORMAL for name in speakers):
            return None
        return "\n".join([f"{name}: {words}" for name, words in said])
    said_by = [roles[name] for name in speakers]
    if "assistant" not in said_by:
        said_by[1:] = ["assistant" if role == "system" else role for role in said_by[1:]]
    if cut:
        last = max((number for number, role in enumerate(said_by) if role == "user"), default=0)
        said, said_by = said[:last], said_by[:last]
    if len(said) < 2 or "assistant" not in said_by:
        return None
    return tuple([Message(role, words) for role, (_, words) in zip(said_by, said, strict=True)])


def _why_not(said: list[tuple[str, str]]) -> Unreadable:
    speakers = list(dict.fromkeys(name for name, _ in said))
    if _roles(tuple(map(str.lower, speakers))) is None:
        return Unreadable(UNKNOWN_ROLE, next(name for name in speakers if name.lower() not in _ROLES))
    return Unreadable(HALF, f"only {speakers[0]!r} speaks" if len(speakers) == 1 else "nobody answers")


@remembered
def _roles(names: tuple[str, ...]) -> Mapping[str, Role] | None:
    """The role of each speaker, in the order of their first words; None for too many strangers."""
    roles = {name: _ROLES[name] for name in names if name in _ROLES}
    strangers = [name for name in names if name not in _ROLES]
    free: list[Role] = [role for role in ("user", "assistant") if role not in roles.values()]
    if "system" in names[1:] and "assistant" in free:
        free.remove("assistant")
    if len(strangers) > len(free):
        return None
    return roles | dict(zip(strangers, free, strict=False))


def _branch(tree: Mapping[str, Any], leaf: Any) -> list[Any] | None:
    """The turns from the root of ChatGPT's tree of messages to a leaf: the current one, or the last."""
    nodes = {name: node for name, node in tree.items() if isinstance(node, dict) and "message" in node}
    if not nodes:
        return None
    if not isinstance(leaf, str) or leaf not in nodes:
        leaf = next((name for name in reversed(nodes) if not nodes[name].get("children")), None)
    return list(reversed(list(_upwards(nodes, leaf))))


def _upwards(nodes: Mapping[str, dict[str, Any]], name: Any) -> Iterator[dict[str, Any]]:
    for _ in range(len(nodes)):  # no more steps than nodes, should the tree have a circle
        node = nodes.get(name) if isinstance(name, str) else None
        if node is None:
            return
        if isinstance(message := node["message"], dict) and not _is_hidden(message):
            called = message.get("recipient") not in (None, "all")
            yield {"role": _speaker(message), "content": message.get("content"), "tool_calls": called}
        name = node.get("parent")


def _is_hidden(message: Mapping[str, Any]) -> bool:
    content, about = message.get("content"), message.get("metadata")
    unsaid = isinstance(content, dict) and content.get("content_type") in _UNSAID
    return unsaid or (isinstance(about, dict) and bool(about.get("is_visually_hidden_from_conversation")))
