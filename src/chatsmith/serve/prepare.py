"""From the fields of a request to what the engine is asked. May take long: it encodes, renders and compiles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from chatsmith.generate.constraints import Constraint
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.serve.desk import Asked
from chatsmith.serve.errors import ApiError, wrong
from chatsmith.serve.served import Served
from chatsmith.serve.toolcalls import CallFormat, call_format, offered
from chatsmith.text.chat import Message
from chatsmith.text.chat_tools import encode_with_tools, has_tools

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Requests for the engine, and what is needed to tell of their answers.

    `texts` are the prompts as they were given, for an echo; `begins` counts the tokens before each that the server has
    put there. `calls` is set where the answer may call tools.
    """

    asked: tuple[Asked, ...]
    samples: int
    prompt_tokens: int
    texts: tuple[str | None, ...] = ()
    begins: tuple[int, ...] = ()
    calls: CallFormat | None = None

    @property
    def requests(self) -> list[Request]:
        """The requests, in the order of the prompts."""
        return [request for request, _ in self.asked]

    @property
    def sampling(self) -> Sampling:
        """The settings, which all of them share."""
        return self.asked[0][0].sampling

    @property
    def planned_tokens(self) -> int:
        """The most tokens that are read and written."""
        return self.prompt_tokens + len(self.asked) * self.samples * self.sampling.max_tokens


def prepare_chat(served: Served, fields: Fields, isolation: str) -> Prepared:
    """A conversation to answer."""
    tools, choice = offered(fields["tools"], fields["tool_choice"])
    calls = call_format(served.tokenizer, tools, choice)
    ids = conversation_ids(served, fields["messages"], tools if calls else None)
    ids += fields["prefix_ids"] or ()
    constraint, asks = fields["response_format"], "response_format"
    if calls is not None and calls.constraint is not None:
        if constraint is not None:
            raise wrong("response_format", "does not go with a tool that must be called")
        constraint, asks = calls.constraint, "tools"
    if fields["top_logprobs"] and not fields["logprobs"]:
        raise wrong("top_logprobs", "needs logprobs to be true")
    request = Request(
        tuple(ids),
        served.sampling(fields, len(ids), "messages", "max_completion_tokens", "max_tokens"),
        samples=_answers(served, fields, 1),
        stop_ids=served.model.turn_ends,
        top=fields["top_logprobs"],
        constraint=constraint,
        isolation=isolation,
    )
    return Prepared((served.ready(request, asks),), request.samples, len(ids), calls=calls)


def conversation_ids(served: Served, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
    """The ids of a conversation up to where the model's words begin; one that cannot fit is not even encoded."""
    served.check_length(sum(len(message["content"]) for message in messages), "messages")
    return encode_conversation(served, messages, tools)


def encode_conversation(
    served: Served, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> list[int]:
    """The same, however long it is."""
    plain = tools is None and all(message.keys() == {"role", "content"} for message in messages)
    if not served.tokenizer.chat_template:
        raise ApiError(
            400, f"{served.name} was not taught to talk: use /v1/completions", field="messages", code="no_chat_template"
        )
    if not plain and not has_tools(served.tokenizer):
        raise wrong("messages", "have tools in them, and this model's chat template has no place for them")
    if plain:
        return served.model.chat_ids([Message(**message) for message in messages])
    return encode_with_tools(served.tokenizer, messages, tools)


def prepare_text(served: Served, fields: Fields, isolation: str) -> Prepared:
    """Texts to continue."""
    prompts = fields["prompt"]
    samples = _answers(served, fields, len(prompts))
    shown = fields["logprobs"]
    if fields["best_of"] not in (None, fields["n"]):
        raise wrong("best_of", f"must be n, here {fields['n']}: none of the answers that are drawn is left out")
    if fields["prefix_ids"] and fields["echo"]:
        raise wrong("prefix_ids", "does not go with echo")
    asked, texts, begins = [], [], []
    settings: Fields = dict(fields)
    tokens = 0
    for prompt in prompts:
        begin = len(served.model.begin) if isinstance(prompt, str) else 0
        ids = served.ids(prompt, "prompt")
        if prompt == "":
            begin = len(ids)
        ids = [*ids, *(fields["prefix_ids"] or ())]
        sampling = served.sampling(settings, len(ids), "prompt", "max_tokens")
        settings["seed"] = sampling.seed  # the same for all prompts
        request = Request(
            tuple(ids),
            sampling,
            samples=samples,
            top=shown or 0,
            score_prompt=fields["echo"] and shown is not None,
            constraint=_constraint(fields),
            isolation=isolation,
        )
        asked.append(served.ready(request))
        texts.append(
            (prompt if isinstance(prompt, str) else served.tokenizer.decode(prompt)) if fields["echo"] else None
        )
        begins.append(begin)
        tokens += len(ids)
    return Prepared(tuple(asked), samples, tokens, tuple(texts), tuple(begins))


def _constraint(fields: Fields) -> Constraint | None:
    found: Constraint | None = fields["response_format"]
    return found


def _answers(served: Served, fields: Fields, prompts: int) -> int:
    n: int = fields["n"]
    if n > 1 and 0 in (fields["max_tokens"], fields.get("max_completion_tokens")):
        raise wrong("n", "must be 1 where no token is to be made")
    if n * prompts > served.limits.answers:
        raise wrong("n", f"times the prompts must be at most {served.limits.answers}, not {n * prompts}")
    return n


def record(request: Request) -> dict[str, Any]:
    """A request as JSON can say it, from which `replay` makes it again."""
    return {
        "prompt": list(request.prompt),
        "sampling": asdict(request.sampling),
        "samples": request.samples,
        "stop_ids": None if request.stop_ids is None else sorted(request.stop_ids),
        "constraint": None if request.constraint is None else asdict(request.constraint),
    }
