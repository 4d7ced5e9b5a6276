"""Which fields of a record are its text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.chat import Message
from chatsmith.text.records import contents
from chatsmith.text.report import Unreadable

HI = [("user", "Hi."), ("assistant", "Hello.")]


def found(record: Any, field: str | None = None) -> list[Any]:
    """Texts as they are, conversations as lists of pairs; what was left out, by its reason."""
    return [
        content.reason
        if isinstance(content, Unreadable)
        else content
        if isinstance(content, str)
        else [(message.role, message.content) for message in content]
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
        {"question": "Hi.", "answers": ["Hello.", "Hey."]},
        {"prompt": [{"role": "user", "content": "Hi."}], "completion": [{"role": "assistant", "content": "Hello."}]},
        {"messages": [{"role": "user", "content": "Hi."}], "response": "Hello."},
        {"chosen": "\n\nHuman: Hi.\n\nAssistant: Hello."},
        {"prompt": "\n\nHuman: Hi.\n\nAssistant:", "completion": " Hello."},
        {"id": "0", "data": ["Hi.", "Hello."]},
        {"conversation": [{"human": "Hi.", "assistant": "Hello."}]},
        {"turns": [["User", "Hi."], ["Bot", "Hello."]]},
        {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}, {"role": "model", "parts": [{"text": "Hello."}]}]},
        {"chat_messages": [{"sender": "human", "text": "Hi."}, {"sender": "assistant", "text": "Hello."}]},
        {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "user", "content": "Hi."},
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "Hello."}],
                },
            ]
        },
        {"prompt": "Hi.", "chosen": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]},
        {"messages": '[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]'},
        {"conversations": "[{'from': 'human', 'value': 'Hi.'}\n {'from': 'gpt', 'value': 'Hello.'}]"},  # by pandas
        {"prompt": {"role": "prompter", "text": "Hi.", "replies": [{"role": "assistant", "text": "Hello."}]}},
        {"messages": {"role": ["user", "assistant"], "content": ["Hi.", "Hello."]}},  # a column of lists, taken apart
        {"conversations": {"from": ["human", "gpt"], "value": ["Hi.", "Hello."]}},
        {"kind": "Chat", "input": "Hi.", "target": "Hello."},
        {"inputs": "Hi.", "targets": "Hello.", "task": "a b"},
        {"input": "Hi.", "output": "Hello.", "score": 1},
        {"problem": "Hi.", "solution": "Hello.", "answer": "BAD", "generations": ["BAD"]},
        {"user": "Hi.", "assistant": "Hello."},
        {"context": "Hi.", "response": "Hello.", "rots": ["a b"]},
        {"instruction": "Hi.", "generation": "Hello.", "distilabel_metadata": {"raw_output": "Hello. "}},
        {"prompt": "Hi.", "response": [{"value": "BAD", "status": "discarded"}, {"value": "Hello."}]},
        {"fields": {"prompt": "Hi.", "response": "Hello."}, "responses": [{"status": "all submitted"}], "metadata": {}},
        {"inputs": {"instruction": "Hi.", "response": "Hello."}, "metadata": {"category": "open qa"}},
        {"instruction": "Hi.", "instances": [{"input": "", "output": "Hello."}]},
        {"question": {"full_text": "Hi.", "id": "x"}, "answer": "Hello."},
        {"instruction": "Human:Hi.\nAssistant:", "input": "", "output": "Hello."},  # BELLE's talks
        {"plain_text": "[Human]: Hi.<eoh> [MOSS]: Hello.<eoa>", "prefix": "MOSS can talk.", "num_turns": 1},
        {"chat": {"turn_1": {"Human": "Hi.", "MOSS": "Hello."}}, "category": "Small talk of ours"},
        {"utterances": [{"candidates": ["BAD", "Hello."], "history": ["Hi."]}]},
        {"candidates": ["BAD", "Hello."], "history": ["Hi."], "conv_id": 3, "utterance_idx": 0},
        {"segments": [{"label": False, "text": "<s>Hi.\n"}, {"label": True, "text": "Hello.</s>"}]},
        {"segments": "[{'label': False, 'text': 'Hi.'}, {'label': True, 'text': 'Hello.'}]"},  # in a cell of a table
        {"history": '["Hi."]', "candidates": '["BAD", "Hello."]'},
        {"segments": [{"label": False, "text": "<s>[INST] Hi. [/INST]"}, {"label": True, "text": " Hello.</s>"}]},
    ],
)
def test_conversations(record: Any) -> None:
    assert found(record) == [HI]


WRITTEN = "User: Hi.\nAssistant: Hello.\nUser: And?"


@pytest.mark.parametrize(
    ("record", "talk"),
    [
        ({"instruction": "Sum it up.", "input": WRITTEN, "output": "No."}, [("user", f"Sum it up.\n\n{WRITTEN}")]),
        ({"instruction": "", "input": WRITTEN, "output": "No."}, [*HI, ("user", "And?")]),
        ({"input": WRITTEN, "output": "No."}, [*HI, ("user", "And?")]),
        ({"instruction": "Write a talk.", "output": WRITTEN}, [("user", "Write a talk."), ("assistant", WRITTEN)]),
    ],
)
def test_a_talk_that_was_asked_about_or_for_is_no_conversation_by_itself(record: Any, talk: Any) -> None:
    last = [] if talk[-1][0] == "assistant" else [("assistant", "No.")]
    assert found(record) == [[*talk, *last]]
    assert found({"prompt": "Hi.", "response": "Human: Hi.\n\nAssistant: Hello."}) == [HI]


def test_more_conversations() -> None:
    turns = [{"role": "system", "content": "Be kind."}, *({"role": r, "content": c} for r, c in HI)]
    assert found({"messages": turns}) == [[("system", "Be kind."), *HI]]
    three = [["Ann", "Hi."], ["Bob", "Hello."], ["Cy", "Hey."]]
    assert found({"dialogue": three}) == ["Ann: Hi.\nBob: Hello.\nCy: Hey."]
    rounds = [["Is it?", "Yes."], ["Since when?", "Always."]]
    assert found({"conversation": rounds}) == [
        [(role, words) for pair in rounds for role, words in zip(("user", "assistant"), pair, strict=True)]
    ]
    late = [*turns[1:], turns[0], *turns[1:]]
    assert found({"messages": late}) == [[*HI, ("system", "Be kind."), *HI]]
    assert found({"context": "Rome is old.", "question": "Is it?", "answer": True, "output": 1}) == [
        [("user", "Rome is old.\n\nIs it?"), ("assistant", "1")]
    ]
    assert found({"instruction": "Add.", "input": "1 2", "output": "3"}) == [
        [("user", "Add.\n\n1 2"), ("assistant", "3")]
    ]


def test_what_was_said_before_a_question_is_learned() -> None:
    asked = {"instruction": "And?", "output": "No."}
    last = [("user", "And?"), ("assistant", "No.")]
    assert found({**asked, "history": [["Hi.", "Hello."]], "input": ""}) == [[*HI, *last]]
    assert found({**asked, "history": [{"role": r, "content": c} for r, c in HI]}) == [[*HI, *last]]
    assert found({**asked, "history": []}) == found({**asked, "history": None}) == [last]
    kind = ("system", "Be kind.")
    assert found({"system_prompt": "Be kind.", "question": "Hi.", "response": "Hello."}) == [[kind, *HI]]
    assert found({"system": "Be kind.", "messages": TURNS}) == [[kind, *HI]]
    assert found({"system": "", "messages": TURNS}) == [HI]
    told = {"system": "Be rude.", "messages": [{"role": "system", "content": "Be kind."}, *TURNS]}
    assert found(told) == [[kind, *HI]]


def moss(number: int, asked: str, answer: str, **tools: str) -> dict[str, Any]:
    """A round as MOSS's data has it, with the marks of its template."""
    ends = {"Inner Thoughts": "eot", "Commands": "eoc", "Results": "eor"}
    told = {name: f"<|{name}|>: {tools.get(name, 'None')}<{end}>\n" for name, end in ends.items()}
    told["Tool Responses"] = told.pop("Results")
    return {f"turn_{number}": {"Human": f"<|Human|>: {asked}<eoh>\n", **told, "MOSS": f"<|MOSS|>: {answer}<eom>\n"}}


def test_rounds_with_numbers() -> None:
    kind = ("system", "Be kind.")
    rounds = moss(10, "None", "No.") | moss(9, "Hi.", "Hello.", **{"Inner Thoughts": "BAD"})
    last = [("user", "None"), ("assistant", "No.")]
    assert found({"meta_instruction": "Be kind.", "num_turns": 2, "chat": rounds}) == [[kind, *HI, *last]]
    searched = moss(1, "Hi.", "Hello.") | moss(2, "Who?", "BAD", Commands='Search("who")', Results="Search => BAD")
    assert found({"chat": searched}) == [HI, "rest of a conversation with tools"]
    assert found({"chat": {"turn_1": "Good day.", "other": "b"}}) == ["Good day."]


def test_what_was_said_among_candidates() -> None:
    said = ["Hi.", "Hello.", "And?", "No."]
    about = {"personality": ["I am old.", "I am kind."]}
    rounds = [{"candidates": ["BAD", said[n]], "history": said[:n]} for n in (1, 3)]
    whole = [("system", "I am old.\nI am kind."), *HI, ("user", "And?"), ("assistant", "No.")]
    assert found(about | {"utterances": rounds}) == [whole]
    # Whose turn it was is told by who answers.
    assert found({"candidates": ["BAD", "And?"], "history": said[:2]}) == [
        [("assistant", "Hi."), ("user", "Hello."), ("assistant", "And?")]
    ]
    assert found({"utterances": [{"text": "It is said."}], "history": ["a b"]}) == ["It is said."]


def test_segments_of_a_prompt() -> None:
    pieces = ["<s>Hi.", " ", "Hello.<eot>", "And?", "No.</s>"]
    labels = [False, False, True, False, True]
    record = {"segments": [{"label": one, "text": text} for one, text in zip(labels, pieces, strict=True)]}
    assert found(record) == [[*HI, ("user", "And?"), ("assistant", "No.")]]
    assert found({"segments": [{"label": True, "text": "<s>All of "}, {"label": True, "text": "it.</s>"}]}) == [
        "All of it."
    ]
    spoken = {"text": "So it was said.", "segments": [{"id": 0, "start": 0.0, "text": "So it was said."}]}
    assert found(spoken) == ["So it was said."]  # what a recogniser of speech writes


def test_questions_about_paragraphs() -> None:
    asked = [
        {"question": "Is it?", "id": "a", "answers": [{"text": "old", "answer_start": 8}, {"text": "is old"}]},
        {"question": "Why?", "id": "b", "is_impossible": True, "answers": [], "plausible_answers": [{"text": "BAD"}]},
        {"question": "What is?", "id": "c", "answers": [{"text": "Rome", "answer_start": 0}]},
    ]
    article = {"title": "Rome", "paragraphs": [{"context": "Rome is old.", "qas": asked}]}
    talks = [
        [("user", f"Rome is old.\n\n{question}"), ("assistant", answer)]
        for question, answer in (("Is it?", "old"), ("What is?", "Rome"))
    ]
    assert found({"version": "1.1", "data": [article]}) == found(article) == talks
    assert found({"context": "Rome is old.", "qas": asked[1:2]}) == ["Rome is old."]  # nobody has asked to any purpose


def test_a_string_that_spells_a_conversation() -> None:
    cell = '[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]'
    assert found({"chat": cell}, "chat") == [HI]
    assert found({"prompt": cell[:35] + "]", "chosen": "[" + cell[37:], "rejected": cell}) == [HI, "rejected answer"]
    assert found({"question": "As JSON?", "answer": cell}) == [[("user", "As JSON?"), ("assistant", cell)]]
    assert found({"text": '["a", "b"]'}, "text") == ['["a", "b"]']
    for broken in ('[{"role": "user"', "[1, __import__('os')]", "[" * 5000 + "]" * 5000, "[{'a': '\\d'}]"):
        assert found({"messages": broken}) in ([broken], [])


TURNS = [{"role": role, "content": words} for role, words in HI]
QUESTION = {"role": "user", "content": "And?"}
BAD = {"role": "assistant", "content": "BAD"}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi.", "chosen": TURNS, "rejected": [TURNS[0], BAD]},
        {"chosen": TURNS, "rejected": [TURNS[0], BAD]},
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [BAD]},
        {"prompt": "Hi.", "chosen": "Hello.", "rejected": "BAD"},
        {"chosen": "\n\nHuman: Hi.\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi.\n\nAssistant: BAD"},
        {
            "conversations": TURNS[:1],
            "chosen": {"from": "gpt", "value": "Hello."},
            "Rejected": {"from": "gpt", "value": "BAD"},
        },
        {"input": {"messages": TURNS[:1]}, "preferred_output": TURNS[1:], "non_preferred_output": [BAD]},
        {"messages": TURNS, "prompt": "Hi.", "chosen": TURNS, "rejected": [TURNS[0], BAD]},
    ],
)
def test_what_was_rejected_is_not_learned(record: Any) -> None:
    assert found(record) == [HI, "rejected answer"]


def test_what_was_judged_bad_is_not_learned() -> None:
    assert found({"chosen": "good text", "rejected": "BAD text"}) == ["good text", "rejected answer"]
    judged = {"prompt": "Hi.", "completion": "Hello."}
    assert found({**judged, "label": True}) == [HI]
    assert found({**judged, "label": False}) == found({**judged, "label": "False"}) == ["rejected answer"]
    assert found({"chosen": "yes", "rejected": "no"}, "rejected") == ["no"]  # as asked for


@pytest.mark.parametrize(
    "record",
    [
        {"conversation_a": TURNS, "conversation_b": [TURNS[0], BAD], "winner": "model_a"},
        {"conversation_a": [TURNS[0], BAD], "conversation_b": TURNS, "winner": "model_b", "question_id": "x y"},
        {"history": "Hi.", "human_ref_A": "BAD", "human_ref_B": "Hello.", "labels": 0, "score_A": 9, "score_B": 1},
        {"history": "Hi.", "human_ref_A": "Hello.", "human_ref_B": "BAD", "labels": "1"},
        {"prompt": "Hi.", "response_0": "Hello.", "response_1": "BAD", "better_response_id": 0},
        {"prompt": '["Hi."]', "response_a": '["Hello."]', "response_b": '["BAD"]', "winner_model_a": 1}
        | {"winner_model_b": 0, "winner_tie": 0},
        {"question": "Hi.", "answer_0": "BAD", "answer_1": "Hello.", "score_0": -1.0, "score_1": 1.0},
        {"prompt": "Hi.", "response_1": "Hello.", "response_2": "BAD", "preference_strength": -2},
        {"context": TURNS[:1], "response1": "BAD", "response2": "Hello.", "overall_preference": 1},
        {"question": "Hi.", "response_j": "Hello.", "response_k": "BAD"},
        {"input": "Hi.", "generations": ["BAD", "Hello."], "chosen": "Hello.", "rejected": "BAD"},
        {"question": "Hi.", "best_answer": "Hello.", "incorrect_answers": ["BAD"]},
    ],
)
def test_of_two_answers_the_better_is_learned(record: Any) -> None:
    assert found(record) == [HI, "rejected answer"]


def test_of_several_answers_the_best_is_learned() -> None:
    rated = [{"response": "BAD", "overall_score": 2.0}, {"response": "Hello.", "overall_score": 8.5}]
    assert found({"instruction": "Hi.", "completions": rated, "models": ["a", "b"]}) == [HI]
    ranked = [{"answer": "BAD", "rank": 7}, {"answer": "Hello.", "rank": 1}]
    assert found({"prompt": "Hi.", "answers": ranked}) == [HI]
    assert found({"question": "Hi.", "choices": ["BAD", "Hello."], "answer": 1}) == [HI]
    assert found({"question": "How many?", "answer": 1}) == [[("user", "How many?"), ("assistant", "1")]]


def test_answers_with_ratings_beside_them() -> None:
    assert found({"instruction": "Hi.", "generations": ["BAD", "Hello."], "ratings": [2.0, 9.0]}) == [HI]
    unrated = {"instruction": "Hi.", "generations": ["Hello.", "Hey."]}
    assert found({**unrated, "ratings": [None, None]}) == found({**unrated, "ratings": [1]}) == [HI]
    several = [{"text": "BAD", "pm_score": 0}, {"text": "Hello.", "pm_score": 5, "author": "A"}]
    assert found({"question": "Hi.", "answers": several}) == [HI]


def test_of_two_summaries_the_better_is_learned() -> None:
    about = {"info": {"title": "Dog", "post": "It ran.", "subreddit": "pets"}}
    two = {**about, "summaries": [{"text": "BAD"}, {"text": "Gone."}], "worker": "a b"}
    learned = [("user", "Dog\n\nIt ran.\n\nTL;DR:"), ("assistant", "Gone.")]
    assert found({**two, "choice": 1}) == [learned, "rejected answer"]
    assert found({**about, "summary": {"text": "Gone.", "note": "a b"}}) == [learned]


def test_names_of_one_half_only_are_no_exchange() -> None:
    assert found({"user": "ann", "text": "Hello."}) == ["Hello."]
    assert found({"user": "ann b", "response": "I liked it."}) == ["ann b\nI liked it."]
    assert found({"input": "Good day.", "label": "greeting it is"}) == ["Good day.\ngreeting it is"]


def test_two_answers_of_which_none_is_better() -> None:
    two = {"conversation_a": TURNS, "conversation_b": [TURNS[0], {"role": "assistant", "content": "Hey."}]}
    other = [HI[0], ("assistant", "Hey.")]
    assert found({**two, "winner": "tie"}) == [HI, other]
    for nobody in ("tie (bothbad)", None, float("nan")):
        assert found({**two, "winner": nobody}) == ["two answers, none of them said to be good"]
    assert found({"question": "Which one?", "answer_a": "This here.", "answer_b": "That there."}) == [
        "Which one?\nThis here.\nThat there."  # nothing says that they were compared
    ]


def test_of_a_tree_the_best_answers_are_read() -> None:
    tree: dict[str, Any] = {"role": "prompter", "text": "Hi."}
    tree["replies"] = [
        {"role": "assistant", "text": "BAD", "rank": 1, "replies": [{"role": "prompter", "text": "BAD"}]},
        {"role": "assistant", "text": "Hello.", "rank": 0},
        {"role": "assistant", "text": "BAD", "rank": 0, "deleted": True},
    ]
    assert found(tree) == found({"message_tree_id": "t", "prompt": tree}) == [HI]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            [{"role": "assistant", "content": "calling"}, {"role": "tool", "content": "z"}, BAD],
            "conversation with tools",
        ),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], "conversation with tools"),
        ([{"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}], "conversation with tools"),
        ([{"role": "model", "parts": [{"functionCall": {"name": "x"}}]}], "conversation with tools"),
        ([{"from": "function_call", "value": "{}"}, {"from": "observation", "value": "z"}], "conversation with tools"),
        ([{**BAD, "weight": 0}], "conversation with an answer of weight 0"),
        ([{**BAD, "train": False}], "conversation with an answer of weight 0"),
        ([{**BAD, "loss": False}], "conversation with an answer of weight 0"),
    ],
)
def test_a_conversation_ends_before_what_cannot_be_learned(more: list[Any], reason: str) -> None:
    assert found({"messages": [*TURNS, QUESTION, *more]}) == [HI, f"rest of a {reason}"]
    assert found({"messages": [QUESTION, *more]}) == [reason]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"role": "alien", "content": "zz"}], "half a conversation"),
        ([QUESTION], "half a conversation"),
        ([QUESTION, {"role": "assistant", "content": " "}], "half a conversation"),
        ([*TURNS, {"role": "alien", "content": "zz"}], "conversation with an unknown role"),
        ([*TURNS, {"content": "zz"}], "conversation that cannot be read"),
        ([*TURNS, {"role": "user", "content": 5}], "conversation that cannot be read"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, BAD],
            "conversation with more than text",
        ),
    ],
)
def test_no_shreds_of_conversations_are_learned(turns: list[Any], reason: str) -> None:
    assert found({"messages": turns, "text": "BAD"}) == found([turns]) == [reason]


def test_more_that_is_no_conversation() -> None:
    pictured = {"image": "a.jpg", "conversations": TURNS}
    assert found(pictured) == ["conversation with more than text"]
    assert found({**pictured, "image": None}) == [HI]
    assert found({"role": "prompter", "text": "Hi.", "message_id": "1"}) == ["turn without its conversation"]
    assert found({"prompt": {"role": "prompter", "text": "Hi.", "replies": []}}) == ["half a conversation"]
    assert found({"instruction": "Add them up.", "input": "", "output": ""}) == ["half a conversation"]
    assert found({"data": [{"messages": TURNS}, {"messages": [QUESTION]}]}) == [HI, "half a conversation"]


def exported(*nodes: tuple[str, str | None, dict[str, Any] | None], current: str | None) -> dict[str, Any]:
    """A conversation as ChatGPT exports it, of nodes (name, parent, message)."""
    parents = [parent for _, parent, _ in nodes]
    tree = {
        name: {"id": name, "parent": parent, "message": message, "children": [name] * parents.count(name)}
        for name, parent, message in nodes
    }
    return {"title": "T", "mapping": tree, "current_node": current}


def said(role: str, words: str, **more: Any) -> dict[str, Any]:
    return {"author": {"role": role}, "content": {"content_type": "text", "parts": [words]}, "recipient": "all", **more}


def test_the_current_branch_of_an_export_is_read() -> None:
    thought = {
        "author": {"role": "assistant"},
        "content": {"content_type": "thoughts", "thoughts": [{"content": "BAD"}]},
    }
    nodes = [
        ("root", None, None),
        ("a", "root", said("system", "")),
        ("b", "a", said("user", "Hi.")),
        ("c", "b", said("assistant", "BAD")),
        ("d", "b", thought),
        ("e", "d", said("assistant", "Hello.")),
    ]
    assert found(exported(*nodes, current="e")) == found(exported(*nodes, current=None)) == [HI]
    search = [("f", "e", said("user", "And?")), ("g", "f", said("assistant", "BAD", recipient="web"))]
    assert found(exported(*nodes, *search, current="g")) == [HI, "rest of a conversation with tools"]
    assert found(exported(("a", "b", said("user", "x")), ("b", "a", None), current="a")) == ["half a conversation"]
    assert found({"mapping": {"fr": "bon jour à tous"}, "n": 1}) == ["bon jour à tous"]


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
    assert {type(text) for text in contents(record)} <= {str}


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


NAMES = [
    "text",
    "messages",
    "role",
    "content",
    "parts",
    "mapping",
    "message",
    "parent",
    "prompt",
    "chosen",
    "rejected",
    "history",
    "system",
    "replies",
    "message_id",
    "message_tree_id",
    "parent_id",
    "rank",
    "response_a",
    "response_b",
    "winner",
    "labels",
    "chat",
    "turn_1",
    "Human",
    "MOSS",
    "utterances",
    "candidates",
    "segments",
    "label",
    "qas",
    "context",
    "question",
    "answers",
    "x",
]
WORDS = ["[1]", "a", "user", "assistant", "tool", "\n\nHuman: Hi.\n\nAssistant:", " "]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES), inner),
)


@given(JSON)
def test_any_json_is_taken(record: Any) -> None:
    for content in contents(record):
        if isinstance(content, Unreadable):
            assert content.reason
        else:
            assert isinstance(content, str) or all(isinstance(turn, Message) for turn in content)
            assert content
