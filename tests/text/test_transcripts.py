"""Conversations that are written out in one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsmith.text.chat import Message
from chatsmith.text.records import contents
from chatsmith.text.transcripts import transcript

TALK = (Message("user", "Why is it?"), Message("assistant", "Because so."), Message("user", "And?"))
TALK += (Message("assistant", "No."),)
BAIZE = "The conversation between human and AI assistant.\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n\nHuman: Why is it?\n\nAssistant: Because so.\n\nHuman: And?\n\nAssistant: No.",
        "Human:Why is it?\nAssistant:Because so.\nHuman:And?\nAssistant:No.",
        "User: Why is it?\nAssistant: Because so.\nUser: And?\nAssistant: No.\n",
        "[Human]: Why is it?<eoh> [MOSS]: Because so.<eoa> [Human]: And?<eoh>\n[MOSS]: No.<eoa>",
        f"{BAIZE}[|Human|] Why is it?\n[|AI|] Because so.\n[|Human|] And?\n[|AI|] No.\n[|Human|] ",
        "### Human: Why is it?### Assistant: Because so.### Human: And?### Assistant: No.",
        "### Human: Why is it?\n### Assistant: Because so.\n### Human: And?\n### Assistant: No.\n",
        "A chat with a helper. USER: Why is it? ASSISTANT: Because so.</s>USER: And? ASSISTANT: No.</s>",
        "<s>[INST] Why is it? [/INST] Because so. </s><s>[INST] And? [/INST] No. </s>",
        "<|user|>\nWhy is it?</s>\n<|assistant|>\nBecause so.</s>\n<|user|>\nAnd?</s>\n<|assistant|>\nNo.</s>",
        "<start_of_turn>user\nWhy is it?<end_of_turn>\n<start_of_turn>model\nBecause so.<end_of_turn>\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\nNo.<end_of_turn>\n",
    ],
)
@pytest.mark.parametrize("name", ["text", "input", "transcript"])
def test_forms(text: str, name: str) -> None:
    assert contents({"topic": "x", name: text}) == [TALK]


def test_forms_with_more_than_two_speakers() -> None:
    one = TALK[:2]
    kind = (Message("system", "Be kind."), *one)
    chatml = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy is it?<|im_end|>\n"
    assert contents({"text": f"{chatml}<|im_start|>assistant\nBecause so.<|im_end|>\n"}) == [kind]
    llama2 = "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nWhy is it? [/INST] Because so. </s>"
    assert contents({"text": llama2}) == [kind]
    alpaca = "Below is an instruction.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3"
    assert contents({"text": alpaca}) == [(Message("user", "Add.\n\n1 2"), Message("assistant", "3"))]
    glaive = "USER: Why is it?\n\n\nASSISTANT: Because so. <|endoftext|>\n\n\nUSER: And?\n\n\n"
    called = f"{glaive}ASSISTANT: <functioncall> {{}}\n\n\nFUNCTION RESPONSE: {{}}\n\n\nASSISTANT: BAD"
    talk, rest = contents({"chat": called})
    assert talk == one
    assert "tools" in str(rest)


@pytest.mark.parametrize(
    "text",
    [
        "### Instructions\nCut here.\n### Answers\nNone.",
        "### Question: What is it?\nNobody knows.",
        "In ChatML a turn begins with <|im_start|>user and an answer with <|im_start|>assistant.",
        "Once upon a time. " * 50 + "\n\nHuman: Hi.\n\nAssistant: Hello.",
        "Assistant: Hello.\n\nHuman: Hi.",
        "Human: Hi.\nHuman: Is anybody there?",
        "The Human: a study\nAssistant: no",
        "",
    ],
)
def test_other_texts(text: str) -> None:
    assert transcript(text) is None


@given(
    st.lists(
        st.sampled_from(
            [
                "### Human: ",
                "Human:",
                "\n",
                "[MOSS]:",
                "### Input:",
                "[INST]",
                "[/INST]",
                "USER:",
                "ASSISTANT:",
                "\n\n",
                "a",
                " ",
            ]
        )
    )
)
def test_any_text_is_taken(parts: list[str]) -> None:
    found = transcript("".join(parts))
    assert found is None or all(len(turn) == 2 for turn in found)
