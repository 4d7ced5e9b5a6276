"""Every field of every request, declared once: validation, /openapi.json and the docs page come from this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatsmith.errors import did_you_mean
from chatsmith.serve.chat_kinds import Form, Messages, StreamOptions, ToolChoice, Tools
from chatsmith.serve.errors import ApiError, wrong
from chatsmith.serve.kinds import (
    Anything,
    Biases,
    Bounds,
    Choice,
    Exactly,
    Flag,
    Ids,
    Kind,
    Number,
    Prompts,
    Text,
    Texts,
    Whole,
    Words,
)
from chatsmith.serve.response_kinds import EFFORTS, FLAT, Items, Labels, Never, Off, Reasoning, TextSettings

CHAT, RESPOND, WRITE, NEXT, EMBED, ENCODE, DECODE = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/next",
    "/v1/embeddings",
    "/v1/tokenize",
    "/v1/detokenize",
)
PATHS = (CHAT, RESPOND, WRITE, NEXT, EMBED, ENCODE, DECODE)
_BOTH = (CHAT, WRITE)
_TALK = (CHAT, RESPOND)
_ANSWERED = (CHAT, RESPOND, WRITE)
_DRAWN = (*_ANSWERED, NEXT)
SHOW_LOGPROBS = "message.output_text.logprobs"  # the word of /v1/responses for it


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request: its name, the paths that take it, what it may be, what it does, and what it is when it is
    not given (None: see `text`)."""

    name: str
    paths: tuple[str, ...]
    kind: Kind
    text: str
    default: Any = None
    required: bool = False


_OWN = "the model's own setting unless given"
_UNUSED = "taken, and of no effect here"
_THOUGHTS = "reasoning.encrypted_content"  # which clients ask any model for that answers without being kept
_NO_EFFORT = _UNUSED + ": a model answers as it was trained to"
_CHOICE = "none, auto, required, one function, or allowed_tools: the only ones that are offered"
_KEEPS_NONE = "this server keeps no responses"

FIELDS = (
    # what is asked
    Field("model", (*PATHS,), Text(256), "the model's name, as /v1/models lists it; another one is refused"),
    Field("messages", (CHAT,), Messages(), "the conversation so far", required=True),
    Field(
        "input",
        (RESPOND,),
        Items(),
        "what is said: a text, or a list of messages, function_call and function_call_output items",
        required=True,
    ),
    Field("instructions", (RESPOND,), Text(), "what the system says before it"),
    Field("messages", (NEXT,), Messages(), "a conversation, to see how the reply would go on"),
    Field(
        "prompt",
        (WRITE,),
        Prompts(),
        "what to continue: a text, token ids, or a list of such; texts begin with the token that begins documents",
        required=True,
    ),
    Field(
        "prefix_ids",
        _DRAWN,
        Ids(),
        "the first tokens of the answer, from which it goes on; they are not repeated",
        default=(),
    ),
    Field("text", (NEXT,), Text(), "the text to look after"),
    Field("tokens", (NEXT,), Ids(1), "token ids to look after, in place of a text"),
    Field("text", (ENCODE,), Text(), "what to encode; names of special tokens in it are plain text"),
    Field("messages", (ENCODE,), Messages(), "a conversation, in place of a text: what the model would read of it"),
    Field("ids", (DECODE,), Ids(), "what to decode", required=True),
    Field("input", (EMBED,), Prompts(), "what to embed: a text, token ids, or a list of such", required=True),
    # how long
    Field(
        "max_tokens", _BOTH, Whole(0, "context"), "the most tokens to make; with the prompt they must fit the context"
    ),
    Field(
        "max_output_tokens",
        (RESPOND,),
        Whole(0, "context"),
        "the most tokens to make; with the input they must fit the context",
    ),
    Field("max_completion_tokens", (CHAT,), Whole(0, "context"), "another name of max_tokens"),
    Field("stop", _ANSWERED, Texts("stop", "stop_characters"), "texts that end the answer and are not part of it", ()),
    Field("n", _BOTH, Whole(1, "n"), "so many answers to each prompt", 1),
    # how words are chosen
    Field(
        "seed",
        _ANSWERED,
        Whole(-(2**63), 2**63 - 1),
        "the same seed gives the same answer, one below 0 that of 2^63 more; a fresh one is drawn and reported",
    ),
    Field("temperature", _DRAWN, Number(0, "temperature"), f"0 takes the likeliest token; {_OWN}"),
    Field("top_p", _DRAWN, Number(0, 1, above=True), f"keep the fewest tokens that reach this sum; {_OWN}"),
    Field("top_k", _DRAWN, Whole(-1, 2**24), f"keep the k likeliest tokens, 0 and -1 keep all; {_OWN}"),
    Field("min_p", _DRAWN, Number(0, 1), f"keep tokens this fraction as likely as the likeliest; {_OWN}"),
    Field("presence_penalty", _DRAWN, Number(-2, 2), "taken from the logits of tokens that the answer has"),
    Field("frequency_penalty", _DRAWN, Number(-2, 2), "the same, as often as they occur"),
    Field("repetition_penalty", _DRAWN, Number(0.01, 100), f"divides logits of tokens already seen; {_OWN}"),
    Field("logit_bias", _DRAWN, Biases(), "token ids, and what is added to their logits"),
    Field("text", (RESPOND,), TextSettings(), "format: the form of the answer, text, json_object or json_schema"),
    Field("response_format", (CHAT, WRITE), Form(), "the form of the answer: text, json_object or json_schema", None),
    Field("tools", (CHAT,), Tools(), "functions that the model may ask for, where its template has them"),
    Field("tools", (RESPOND,), Tools(FLAT), "functions that the model may ask for, where its template has them"),
    Field("tool_choice", (RESPOND,), ToolChoice(FLAT), _CHOICE, "auto"),
    Field("tool_choice", (CHAT,), ToolChoice(), _CHOICE, "auto"),
    # what is shown
    Field("stream", _ANSWERED, Flag(), "answer with server-sent events as tokens are made", False),
    Field("stream_options", _BOTH, StreamOptions(), "include_usage: a last event tells the tokens used", False),
    Field("stream_options", (RESPOND,), StreamOptions(("include_obfuscation",)), _UNUSED, False),
    Field("include", (RESPOND,), Words((SHOW_LOGPROBS, _THOUGHTS), 0), "show the probability of every token", ()),
    Field("logprobs", (CHAT,), Flag(), "show the probability of every token", False),
    Field("top_logprobs", _TALK, Whole(0, "top_logprobs"), "with logprobs: the likeliest tokens at each place", 0),
    Field(
        "logprobs",
        (WRITE,),
        Whole(0, "top_logprobs"),
        "show probabilities, and so many likeliest tokens beside the one taken",
    ),
    Field("echo", (WRITE,), Flag(), "begin the answer with the prompt; with logprobs, score its tokens", False),
    Field("count", (NEXT,), Whole(1, "next_count"), "so many ranked tokens", 20),
    Field("logits", (NEXT,), Flag(), "give all logits, from which any temperature can be had without the model", False),
    Field("encoding_format", (EMBED,), Choice(("float", "base64")), "numbers, or float32 in base64", "float"),
    Field(
        "dimensions",
        (EMBED,),
        Exactly("width", "vectors of this model cannot be cut"),
        "the numbers of a vector; others than the model's width are refused",
    ),
    # what clients send
    Field("user", (*_ANSWERED, EMBED), Text(256), _UNUSED),
    Field("metadata", (CHAT,), Anything(("object",)), _UNUSED),
    Field("metadata", (RESPOND,), Labels(), "short texts by name, which the response has again"),
    Field("store", (RESPOND,), Off(_KEEPS_NONE), f"true is refused: {_KEEPS_NONE}", False),
    Field("background", (RESPOND,), Off(_KEEPS_NONE), f"true is refused: {_KEEPS_NONE}", False),
    Field(
        "previous_response_id",
        (RESPOND,),
        Never(f"{_KEEPS_NONE}; give all that was said as input"),
        f"is refused: {_KEEPS_NONE}",
    ),
    Field("truncation", (RESPOND,), Choice(("disabled",)), "an input that does not fit is refused", "disabled"),
    Field("store", (CHAT,), Flag(), _UNUSED),
    Field("parallel_tool_calls", _TALK, Flag(), _UNUSED),
    Field("safety_identifier", _TALK, Text(256), _UNUSED),
    Field("prompt_cache_key", _TALK, Text(256), _UNUSED + ": beginnings of prompts are found by their tokens"),
    Field("service_tier", _TALK, Choice(("auto", "default")), _UNUSED),
    Field("reasoning_effort", (CHAT,), Choice(EFFORTS), _NO_EFFORT),
    Field("reasoning", (RESPOND,), Reasoning(), _NO_EFFORT),
    Field("modalities", (CHAT,), Words(("text",)), "what an answer may be made of"),
    Field("best_of", (WRITE,), Whole(1, "n"), "as many as n: the answers are those that were drawn"),
)


def fields_of(path: str) -> dict[str, Field]:
    """The fields of one path's requests, by name."""
    return {field.name: field for field in FIELDS if path in field.paths}


_BY_PATH = {path: fields_of(path) for path in PATHS}


def read(path: str, body: Any, bounds: Bounds) -> dict[str, Any]:
    """The fields of a request with their defaults. Raises `ApiError` that names the field which is wrong."""
    known = _BY_PATH[path]
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_value")
    for name, value in body.items():
        if name not in known and value is not None:  # clients write null for what they leave out
            hint = did_you_mean(name[:64], known)
            raise ApiError(400, f"no field called {name[:64]!r} ({hint})", field=name[:64], code="unknown_field")
    found: dict[str, Any] = {}
    for name, field in known.items():
        value = body.get(name)
        if value is not None:
            found[name] = field.kind.read(value, name, bounds)
        elif field.required:
            raise wrong(name, "is missing")
        else:
            found[name] = field.default
    return found


def schema_of(path: str, bounds: Bounds) -> dict[str, Any]:
    """The JSON schema of one path's requests."""
    properties = {}
    for field in _BY_PATH[path].values():
        schema = field.kind.schema(bounds)
        if not field.required:
            schema = {"anyOf": [schema, {"type": "null"}]}
        properties[field.name] = schema | {"description": field.text}
    required = [field.name for field in _BY_PATH[path].values() if field.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def sampling_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are settings of `Sampling`, by its names."""
    names = (
        "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
        "logit_bias", "seed", "stop",
    )  # fmt: skip
    found = {name: fields[name] for name in names if fields.get(name) is not None}
    if found.get("top_k") == -1:  # vLLM's way to keep all
        found["top_k"] = 0
    return found
