"""The door: which hosts the server answers to, who may come in, how often, and what every response must say.

Everything is shut but what is opened here: without a key, only the page's files and /health.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatsmith.errors import RequestError
from chatsmith.serve.body import ClientGone
from chatsmith.serve.errors import ApiError
from chatsmith.serve.keys import Keys
from chatsmith.serve.room import Room
from chatsmith.serve.tell import dumps

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]


_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"*, authorization"),  # the star does not stand for this one
    (b"access-control-max-age", b"600"),
)


class Guard:
    """Wraps the application. `hosts` are the names it answers to, `origins` the other sites whose pages may use /v1;
    `keys` is None where nobody needs one; `metered` says whether those without a key are counted by their address."""

    def __init__(
        self,
        app: ASGIApp,
        room: Room,
        hosts: Iterable[str],
        origins: Iterable[str],
        keys: Keys | None,
        metered: bool,
        known: Iterable[Route],
    ) -> None:
        self._app, self._room, self._keys, self._metered = app, room, keys, metered
        self._hosts = (LOCAL | {_name(host) for host in hosts}) - {""}
        self._origins = frozenset(origin.encode() for origin in origins)
        self._known: dict[str, set[str]] = {}
        for route in known:
            self._known.setdefault(route.path, set()).update(route.methods or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        page = self._welcome(scope)

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in HEADERS if name not in names]
                if scope["path"] != "/" and not scope["path"].startswith("/page/") and b"cache-control" not in names:
                    more.append((b"cache-control", b"no-store"))
                if self._origins:
                    more.append((b"vary", b"origin"))
                if page:
                    more += [(b"access-control-allow-origin", page), (b"access-control-expose-headers", b"retry-after")]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        scope.setdefault("state", {})["began"] = began
        try:
            self._admit(scope, page)
            if page and scope["method"] == "OPTIONS":
                await told({"type": "http.response.start", "status": 204, "headers": list(_PREFLIGHT)})
                await told({"type": "http.response.body", "body": b""})
            else:
                await self._app(scope, receive, told)
        except ClientGone:
            status = 499
        except Exception as error:
            answer = ApiError.of(error)
            if answer.status == 500:
                self._room.metrics.failed(error)
            if status:
                raise
            await _refuse(answer, told)
        finally:
            path = scope["path"] if scope["path"] in self._known else "other"
            self._room.metrics.answered(path, status or 499, time.perf_counter() - began)

    def _welcome(self, scope: Scope) -> bytes:
        """The origin of a page of another site that may use this path; empty for all others."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        return origin if origin in self._origins and scope["path"].startswith("/v1/") else b""

    def _admit(self, scope: Scope, page: bytes) -> None:
        """Raises `ApiError` for a request that may not come in; sets the owner of one that may."""
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._room.limits.header_bytes:
            raise ApiError(431, f"the headers may have {self._room.limits.header_bytes:,} bytes")
        headers = dict(scope["headers"])
        self._check_host(headers, page)
        state = scope["state"]
        state["owner"] = state["payer"] = ""
        method, path = scope["method"], scope["path"]
        open_ = path in ("/", "/health") or path.startswith("/page/")
        if (open_ and method in ("GET", "HEAD")) or (page and method == "OPTIONS"):  # browsers ask without a key
            return
        self._check_key(scope, headers)
        takes = path not in self._known or method in self._known[path]  # else it is answered with 405
        if takes and method in ("POST", "PATCH"):  # no path takes any other body
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise ApiError(415, "the content type must be application/json", code="unsupported_media_type")
        if method != "GET" and state["payer"]:
            self._room.rates.request(state["payer"])

    def _check_host(self, headers: dict[bytes, bytes], page: bytes) -> None:
        host = _name(headers.get(b"host", b"").decode("latin-1"))
        if host not in self._hosts:
            raise ApiError(403, f"this server is not called {host[:100]!r}", code="host_not_allowed")
        origin = headers.get(b"origin")
        if origin is not None and not page and _origin(origin.decode("latin-1")) not in self._hosts:
            raise ApiError(403, "pages of other sites may not use this server", code="origin_not_allowed")

    def _check_key(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"").decode("latin-1")
        kind, _, key = given.partition(" ")
        state = scope["state"]
        if self._keys is None:
            if self._metered and scope.get("client"):
                state["payer"] = f"address {scope['client'][0]}"
            return
        name = self._keys.find(key.strip()) if kind.lower() == "bearer" else None
        if name is None:
            what = "this key opens nothing here" if given else "a key is needed: Authorization: Bearer KEY"
            raise ApiError(401, what, code="invalid_api_key")
        state["owner"] = state["payer"] = name


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    host = host.lower().rstrip(".")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _origin(origin: str) -> str:
    try:
        return _name(urlsplit(origin).netloc)
    except ValueError:
        return ""


def site(origin: str) -> str:
    """An origin as browsers write it. Raises `RequestError` for anything else; there is no word for all sites."""
    try:
        parts = urlsplit(origin.lower())
        fits = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and f"{parts.scheme}://{parts.netloc}" == origin.lower()
        )
    except ValueError:
        fits = False
    if not fits or "@" in origin or "*" in origin:
        raise RequestError(f"{origin[:100]!r} is no origin of pages", "give scheme and name, as in https://app.example")
    return origin.lower()


def refusal(error: ApiError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of an answer that is an error."""
    body = dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
    return [(name.encode(), value.encode()) for name, value in headers.items()], body


async def _refuse(error: ApiError, send: Send) -> None:
    headers, body = refusal(error)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
