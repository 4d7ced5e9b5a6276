"""The application: routes, the door before them, and the engine behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatsmith.generate.batch import Batch
from chatsmith.language_model import LanguageModel
from chatsmith.serve import looks, talk
from chatsmith.serve.desk import Desk
from chatsmith.serve.errors import ApiError
from chatsmith.serve.fields import CHAT, DECODE, EMBED, ENCODE, NEXT, PATHS, RESPOND, WRITE
from chatsmith.serve.files import file_routes
from chatsmith.serve.guard import Guard, site
from chatsmith.serve.keys import Keys
from chatsmith.serve.limits import Limits
from chatsmith.serve.openapi import openapi
from chatsmith.serve.replay import remember
from chatsmith.serve.room import Room, json_response
from chatsmith.serve.served import Served
from chatsmith.serve.tell import dumps


def create_app(
    model: LanguageModel,
    *,
    folder: Path | None = None,
    limits: Limits | None = None,
    keys: Keys | None = None,
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    metered: bool = False,
    routes: Sequence[Route] = (),
) -> Starlette:
    """The page and the API of one model.

    Args:
        model: The model, loaded.
        folder: Where it was loaded from: its fingerprint is that of the files.
        limits: The limits in force.
        keys: Who may come in; None lets everybody.
        hosts: Names that the server answers to besides those of this machine.
        origins: Other sites whose pages may use /v1, as in https://app.example; none unless given.
        metered: Count requests by address where there are no keys.
        routes: More routes, behind the same door (the conversations of the page).
    """
    limits = limits or Limits()
    room = Room(Served(model, folder, limits), limits)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        engine = model.engine
        room.desk = Desk(
            Batch(
                engine.backend,
                engine.tokenizer,
                max_rows=limits.running,
                max_waiting=limits.waiting,
                guesser=engine.batch.guesser,
            )
        )
        told = asyncio.ensure_future(_tell_where(room.served, folder))
        try:
            yield
        finally:
            told.cancel()
            await room.desk.close()

    async def described(request: Request) -> Response:
        return json_response(dumps(openapi(room.served.bounds)))

    api = [
        Route(CHAT, talk.chat, methods=["POST"]),
        Route(RESPOND, talk.respond, methods=["POST"]),
        Route(WRITE, talk.write, methods=["POST"]),
        Route(NEXT, looks.next_, methods=["POST"]),
        Route(EMBED, looks.embed, methods=["POST"]),
        Route(ENCODE, looks.encode, methods=["POST"]),
        Route(DECODE, looks.decode, methods=["POST"]),
        Route("/v1/models", looks.models),
        Route("/v1/limits", looks.limits),
        Route("/health", looks.health),
        Route("/metrics", looks.metrics),
        Route("/openapi.json", described),
    ]
    door = Middleware(
        Guard,
        room=room,
        hosts=hosts,
        origins=[site(origin) for origin in origins],
        keys=keys,
        metered=metered,
        known=(*api, *routes),
    )
    app = Starlette(
        routes=[*api, Route("/v1/models/{name}", looks.models), *file_routes(), *routes],
        middleware=[door],
        exception_handlers={HTTPException: _http, ApiError: _api},
        lifespan=life,
    )
    app.router.redirect_slashes = False
    app.state.room = room
    return app


async def _tell_where(served: Served, folder: Path | None) -> None:
    """Compute the fingerprint before anybody waits for it, and write down where that model lies."""
    fingerprint = await served.fingerprint()
    if folder is not None:
        await asyncio.to_thread(remember, fingerprint, folder)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    # /v1 is left out of addresses, or stands there twice.
    meant = next((one for one in (*PATHS, "/v1/models") if path.rstrip("/").endswith(one.removeprefix("/v1"))), None)
    words = {
        404: f"there is nothing at {path}; "
        + (f"did you mean {meant}?" if meant else "/openapi.json lists what there is"),
        405: f"{request.method} is not for this path",
    }
    told = ApiError(error.status_code, words.get(error.status_code, error.detail))
    return json_response(dumps(told.body()), told.status, dict(error.headers or {}))


async def _api(request: Request, error: Exception) -> Response:
    told = ApiError.of(error)
    return json_response(dumps(told.body()), told.status, told.headers())
