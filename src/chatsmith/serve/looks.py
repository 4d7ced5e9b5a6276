"""What a model knows without writing: ranked next tokens, vectors, tokens, and what it says of itself."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

import chatsmith
from chatsmith.errors import ChatsmithError
from chatsmith.generate import requests as engine
from chatsmith.generate.distribution import Distribution
from chatsmith.generate.sampling import Sampling
from chatsmith.serve.card import card
from chatsmith.serve.errors import ApiError, wrong
from chatsmith.serve.fields import DECODE, EMBED, ENCODE, NEXT
from chatsmith.serve.prepare import conversation_ids, encode_conversation
from chatsmith.serve.room import Room, json_response
from chatsmith.serve.served import Served
from chatsmith.serve.tell import dumps, short

_SLICE = 1000  # tokens of a long list that are written at a time
_READ_ONLY = Sampling(temperature=0.0, max_tokens=0, seed=0)


async def next_(request: Request) -> Response:
    """POST /v1/next"""
    room = Room.of(request)
    fields = await room.read(request, NEXT)
    asked = await asyncio.to_thread(_next_request, room.served, fields, room.owner(request))
    [event] = await _events(room, request, [asked])
    assert event.distribution is not None
    told = await asyncio.to_thread(_ranked, room.served, event.distribution, fields)
    told |= {
        "object": "next",
        "model": room.served.name,
        "system_fingerprint": short(await room.served.fingerprint()),
        "prompt_tokens": len(asked.prompt),
    }
    return json_response(dumps(told))


def _next_request(served: Served, fields: dict[str, Any], isolation: str) -> engine.Request:
    given = _only_one(fields, "text", "tokens", "messages")
    if given == "messages":
        ids = conversation_ids(served, fields["messages"], None)
    else:
        ids = served.ids(fields[given], given)
    ids += fields["prefix_ids"] or ()
    sampling = served.sampling(fields | {"max_tokens": 1}, len(ids), given, "max_tokens")
    return engine.Request(tuple(ids), sampling, stop_ids=frozenset(), look=True, isolation=isolation)


def _only_one(fields: dict[str, Any], *names: str) -> str:
    """Which of these fields is given. Raises `ApiError` unless it is one and no other."""
    given = [name for name in names if fields[name] is not None]
    if len(given) != 1:
        raise wrong(given[1] if given else names[0], "is missing" if not given else f"does not go with {given[0]}")
    return given[0]


def _ranked(served: Served, seen: Distribution, fields: dict[str, Any]) -> dict[str, Any]:
    """The distribution at every stage, ranked by the model's own probability."""
    tempered, final = seen.probabilities("temperature"), seen.after
    rows = seen.ranked(fields["count"])
    candidates = [
        served.token(row.id)
        | {
            "logit": row.logit,
            "raw": row.before,
            "tempered": float(tempered[row.id]),
            "final": float(final[row.id]),
            "bits": None if np.isinf(row.bits) else row.bits,
            "cumulative": row.cumulative,
        }
        for row in rows
    ]
    told: dict[str, Any] = {
        "candidates": candidates,
        "entropy_bits": {
            "raw": seen.entropy("logits"),
            "tempered": seen.entropy("temperature"),
            "final": seen.entropy("min_p"),
        },
        "kept": {stage: seen.kept(stage) for stage in ("top_k", "top_p", "min_p")},
        "settings": {name: getattr(seen.sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")},
    }
    if fields["logits"]:
        told["logits_base64"] = base64.b64encode(seen.logits.astype("<f4").tobytes()).decode()
    return told


async def embed(request: Request) -> Response:
    """POST /v1/embeddings: for each text the mean of the model's last hidden states over its tokens, of length 1."""
    room = Room.of(request)
    served = room.served
    fields = await room.read(request, EMBED)

    def prepare() -> list[engine.Request]:
        ids = [served.ids(one, "input") for one in fields["input"]]
        for one in ids:
            if len(one) > served.context:
                raise ApiError(
                    400,
                    f"a text of {len(one):,} tokens does not fit the context of {served.context:,}",
                    field="input",
                    code="context_length_exceeded",
                )
        return [engine.Request(tuple(one), _READ_ONLY, embed=True) for one in ids]

    asked = await asyncio.to_thread(prepare)
    events = await _events(room, request, asked)
    read = sum(len(one.prompt) for one in asked)
    data = []
    for place, event in enumerate(events):
        assert event.embedding is not None
        # Clients take the dot product of two for their cosine, as they may with OpenAI's.
        vector = (event.embedding / max(float(np.linalg.norm(event.embedding)), 1e-12)).astype("<f4")
        packed = fields["encoding_format"] == "base64"
        told_as: Any = base64.b64encode(vector.tobytes()).decode() if packed else vector.tolist()
        data.append({"object": "embedding", "index": place, "embedding": told_as})
    usage = {"prompt_tokens": read, "total_tokens": read}
    told = {"object": "list", "data": data, "model": served.name, "usage": usage}
    return json_response(dumps(told | {"system_fingerprint": short(await served.fingerprint())}))


async def _events(room: Room, request: Request, asked: list[engine.Request]) -> list[engine.Event]:
    """The one event of each of these requests."""
    tokens = sum(len(one.prompt) for one in asked)
    room.spend(request, tokens)
    answers = room.desk.ask([(one, None) for one in asked])

    async def gather() -> dict[int, engine.Event]:
        await answers.taken()
        found: dict[int, engine.Event] = {}
        while events := await answers.next():
            found.update(events)
        return found

    try:
        found = await room.within(request, gather())
    except ChatsmithError:  # it was refused, and cost nothing
        room.give_back(request, tokens)
        raise
    finally:
        answers.close()
    room.metrics.told({"prompt_tokens": tokens})
    return [found[place] for place in range(len(asked))]


async def encode(request: Request) -> Response:
    """POST /v1/tokenize"""
    room = Room.of(request)
    served = room.served
    fields = await room.read(request, ENCODE)
    _only_one(fields, "text", "messages")
    named = short(await served.fingerprint())

    def encoded() -> str:
        if fields["text"] is not None:
            ids = served.tokenizer.encode(fields["text"])
        else:
            ids = encode_conversation(served, fields["messages"], None)
        # Of a long text they are many megabytes: written in slices, so that nobody else waits for them.
        slices = [ids[place : place + _SLICE] for place in range(0, len(ids), _SLICE)]
        tokens = ",".join(dumps([served.token(number) for number in few])[1:-1] for few in slices)
        numbers = ",".join(dumps(few)[1:-1] for few in slices)
        rest = dumps({"count": len(ids), "model": served.name, "system_fingerprint": named})
        return f'{{"ids":[{numbers}],"tokens":[{tokens}],{rest[1:]}'

    return json_response(await asyncio.to_thread(encoded))


async def decode(request: Request) -> Response:
    """POST /v1/detokenize"""
    room = Room.of(request)
    fields = await room.read(request, DECODE)
    served = room.served
    told = {"text": served.tokenizer.decode(fields["ids"]), "model": served.name}
    return json_response(dumps(told | {"system_fingerprint": short(await served.fingerprint())}))


async def models(request: Request) -> Response:
    """GET /v1/models, and GET /v1/models/NAME"""
    room = Room.of(request)
    name = request.path_params.get("name")
    room.served.check_name(name)
    fingerprint = await room.served.fingerprint()
    told = {
        "id": room.served.name,
        "object": "model",
        "created": room.served.created,
        "owned_by": "chatsmith",
        "fingerprint": fingerprint,
        "system_fingerprint": short(fingerprint),
        "card": await asyncio.to_thread(card, room.served, room.desk.batch),
    }
    return json_response(dumps(told if name else {"object": "list", "data": [told]}))


async def limits(request: Request) -> Response:
    """GET /v1/limits"""
    return json_response(dumps({"object": "limits", **Room.of(request).served.bounds}))


async def health(request: Request) -> Response:
    """GET /health: 200 while requests are taken."""
    room = Room.of(request)
    told = {"status": "closing" if room.draining else "ok", "version": chatsmith.__version__}
    return json_response(dumps(told), 503 if room.draining else 200)


async def metrics(request: Request) -> Response:
    """GET /metrics"""
    room = Room.of(request)
    text = room.metrics.text(room.desk.batch, getattr(request.app.state, "connections", int)())
    return Response(text, media_type="text/plain; version=0.0.4")
