"""The conversations over HTTP, for the page: thin routes over the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatsmith.errors import RequestError
from chatsmith.serve.body import parse, read_body
from chatsmith.serve.conversations import Conversations, Json, NotThere
from chatsmith.serve.errors import ApiError
from chatsmith.serve.limits import Limits

_IMPORTED = 16 * 2**20  # bytes of a file: a conversation with all of its tokens


def conversation_routes(store: Conversations, limits: Limits) -> list[Route]:
    """Routes under /conversations. An owner's name is in `request.state.owner`, where keys are in use."""

    def route(path: str, method: str, answer: Callable[[Request, str, Any], Any], status: int = 200) -> Route:
        """`answer(request, owner, body)` runs in a thread, with the reading and writing of its JSON: a write waits for
        the disk, a conversation may be long, and other requests go on."""

        async def handle(request: Request) -> Response:
            owner = getattr(request.state, "owner", "")
            most = _IMPORTED if path.endswith("/import") else limits.body_bytes
            sent = await read_body(request, limits, most) if method in ("POST", "PATCH") else b""

            def work() -> Response:
                found = answer(request, owner, _object(sent, limits))
                if isinstance(found, Response):
                    return found
                return Response(status_code=204) if found is None else JSONResponse(found, status)

            try:
                return await asyncio.to_thread(work)
            except NotThere as error:
                raise ApiError(404, error.message, code="not_found") from None
            except RequestError as error:
                raise ApiError.of(error) from None

        return Route(path, handle, methods=[method])

    def name(request: Request) -> str:
        return str(request.path_params["conversation"])

    def listed(request: Request, owner: str, body: Json) -> Json:
        return {"conversations": store.search(request.query_params.get("search", ""), owner)}

    def create(request: Request, owner: str, body: Json) -> Json:
        return store.create(owner, **_only(body, "title", "system", "settings"))

    def add(request: Request, owner: str, body: Json) -> Json:
        return store.add(name(request), owner, **_only(body, "parent", "role", "content", "tokens", "settings"))

    def change(request: Request, owner: str, body: Json) -> Json:
        return store.change(name(request), owner, **_only(body, "title", "system", "settings", "leaf"))

    def export(request: Request, owner: str, body: Json) -> Response:
        attached = {"Content-Disposition": f'attachment; filename="conversation-{name(request)}.json"'}
        return JSONResponse(store.export(name(request), owner), headers=attached)

    one = "/conversations/{conversation:str}"
    return [
        route("/conversations", "GET", listed),
        route("/conversations", "POST", create, 201),
        route("/conversations/import", "POST", lambda request, owner, body: store.load(body, owner), 201),
        route(one, "GET", lambda request, owner, body: store.get(name(request), owner)),
        route(one, "PATCH", change),
        route(one, "DELETE", lambda request, owner, body: store.delete(name(request), owner)),
        route(f"{one}/messages", "POST", add, 201),
        route(f"{one}/export", "GET", export),
    ]


def _only(body: Json, *names: str) -> Json:
    """The body, of which every field is known (so none can name another argument of the store)."""
    unknown = [key for key in body if key not in names]
    if unknown:
        raise RequestError(f"unknown field {unknown[0][:40]!r}", "known: " + ", ".join(names))
    return body


def _object(sent: bytes, limits: Limits) -> Json:
    body = parse(sent or b"{}", limits.json_depth)
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    return body
