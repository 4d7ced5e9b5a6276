"""The conversations over HTTP, for the page: thin routes over the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatsmith.errors import RequestError
from chatsmith.serve.conversations import Conversations, Json, NotThere

Handler = Callable[[Request], Awaitable[Response]]


def conversation_routes(store: Conversations) -> list[Route]:
    """Routes under /conversations. An owner's name is in `request.state.owner`, where keys are in use."""

    def route(path: str, method: str, answer: Callable[[Request, str, Any], Any], status: int = 200) -> Route:
        """`answer(request, owner, body)` runs in a thread: a write waits for the disk, and other requests go on."""

        async def handle(request: Request) -> Response:
            owner = getattr(request.state, "owner", "")
            try:
                body = await _object(request) if method in ("POST", "PATCH") else {}
                found = await asyncio.to_thread(answer, request, owner, body)
            except NotThere as error:
                return _error(error, 404)
            except RequestError as error:
                return _error(error, 400)
            if isinstance(found, Response):
                return found
            return Response(status_code=204) if found is None else JSONResponse(found, status)

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


async def _object(request: Request) -> Json:
    def refuse(constant: str) -> None:
        raise RequestError(f"{constant} is no number of JSON")

    try:
        body = json.loads(await request.body() or b"{}", parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON") from error
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    return body


def _error(error: RequestError, status: int) -> Response:
    """An error in OpenAI's shape."""
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    message = error.message if error.hint is None else f"{error.message}: {error.hint}"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
