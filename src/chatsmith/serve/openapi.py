"""/openapi.json: the API described from the table of fields."""

from __future__ import annotations

from typing import Any

import chatsmith
from chatsmith.serve.fields import CHAT, DECODE, EMBED, ENCODE, NEXT, PATHS, RESPOND, WRITE, schema_of
from chatsmith.serve.kinds import Bounds

_SUMMARIES = {
    CHAT: "Answer a conversation",
    RESPOND: "Answer an input with typed items",
    WRITE: "Continue texts, or score them",
    NEXT: "The ranked next tokens at every stage of sampling",
    EMBED: "A vector for each text: the mean of the model's last hidden states",
    ENCODE: "The tokens of a text",
    DECODE: "The text of tokens",
}
_READS = {
    "/v1/models": "The model that is served, with its card",
    "/v1/limits": "The limits in force",
    "/health": "Whether requests are taken",
    "/metrics": "Counts for Prometheus",
}
_ERRORS = {
    "400": "The request is wrong; `param` names the field",
    "401": "A key is needed",
    "403": "Not this host, or not this origin",
    "404": "No such model",
    "408": "The body did not come in time",
    "413": "The body is too long",
    "415": "The content type is not application/json",
    "431": "The headers are too long",
    "429": "Too much at once; Retry-After says when to come back",
    "503": "The server is closing down or has too many connections, or the answer took too long",
}


def openapi(bounds: Bounds) -> dict[str, Any]:
    """The description, with the limits in force."""
    error = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    }
    failing = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in _ERRORS.items()
    }

    def done(*kinds: str) -> dict[str, Any]:
        return {"200": {"description": "Done", "content": {kind: {} for kind in kinds}}} | failing

    paths: dict[str, Any] = {}
    for path in PATHS:
        streams = ("text/event-stream",) if path in (CHAT, RESPOND, WRITE) else ()
        paths[path] = {
            "post": {
                "operationId": path.removeprefix("/v1/").replace("/", "_"),
                "summary": _SUMMARIES[path],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": schema_of(path, bounds)}},
                },
                "responses": done("application/json", *streams),
            }
        }
    for path, summary in _READS.items():
        kind = "text/plain" if path == "/metrics" else "application/json"
        paths[path] = {
            "get": {
                "operationId": path.strip("/").replace("/", "_"),
                "summary": summary,
                "responses": done(kind),
            }
        }
    paths["/health"]["get"]["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {"title": "chatsmith", "version": chatsmith.__version__},
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": {"Error": error},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
