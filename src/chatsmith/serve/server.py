"""The server itself: sockets, slow and greedy connections, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from chatsmith.errors import RequestError, WorkError
from chatsmith.serve.errors import ApiError, crowded
from chatsmith.serve.guard import HEADERS, refusal
from chatsmith.serve.limits import Limits
from chatsmith.serve.metrics import Metrics


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `RequestError` where the address cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):  # the second for what no name can be
        raise RequestError(f"there is no host called {host!r}", "leave out --host for this machine alone") from None
    found = socket.socket(family, kind, proto)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise RequestError(f"cannot listen on {host}:{port}: {error.strerror}", "choose another --port") from None
    return found


def serve(app: Starlette, limits: Limits, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until a signal says to stop; then running requests have `drain_seconds`. Returns when all has ended."""
    metrics: Metrics = app.state.room.metrics
    config = uvicorn.Config(
        app,
        http=_protocol(limits, lambda: metrics.answered("other", 503, 0.0)),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",  # what a client does wrong is told to the client
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_keep_alive=int(limits.idle_seconds),
        timeout_graceful_shutdown=int(limits.drain_seconds),
        backlog=128,
    )
    server = _Server(config, app, ready)
    app.state.connections = lambda: len(server.server_state.connections)
    asyncio.run(server.serve(sockets=[listening]))
    if not server.started:
        raise WorkError("the server could not start")


class _Server(uvicorn.Server):
    """Ends on SIGTERM or SIGINT with exit code 0; a second signal ends at once."""

    def __init__(self, config: uvicorn.Config, app: Starlette, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._ready = app, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal once more at the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self._app.state.room.draining = True
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


_TURNED_AWAY = 64  # connections that are being told so at a time; further ones are cut
_GOODBYE_SECONDS = 2.0


def _last_words(error: ApiError) -> bytes:
    """A whole response to one who did not get as far as the application; the connection ends with it."""
    headers, body = refusal(error)
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    lines += [b"connection: close", b"cache-control: no-store"]
    lines += [name + b": " + value for name, value in [*headers, *HEADERS]]
    return b"\r\n".join([*lines, b"", body])


class _TurnedAway(asyncio.Protocol):
    """One connection too many: at its first words it is told when to come back. What it says is not read."""

    def __init__(self, transport: asyncio.Transport, others: set[_TurnedAway]) -> None:
        self._transport, self._others, self._told = transport, others, False
        others.add(self)
        # Closed at once, with words of the client unread, the answer would be lost: the client is to hang up.
        self._end = asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer once."""
        if self._told:
            return
        self._told = True
        self._transport.write(_last_words(crowded()))
        self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._end.cancel()
        self._others.discard(self)


def _protocol(limits: Limits, refused: Callable[[], None]) -> type[asyncio.Protocol]:
    """uvicorn's protocol, for whom slow headers and unread answers end a connection, and one too many is turned away;
    `refused` is called for each of these."""
    addresses: Counter[str] = Counter()
    turned_away: set[_TurnedAway] = set()

    class Bounded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None
        _address: str | None = None

        def connection_made(self, transport: Any) -> None:
            peer = transport.get_extra_info("peername")
            address = str(peer[0]) if peer else ""
            if len(self.connections) >= limits.connections or addresses[address] >= limits.connections_per_address:
                refused()
                if len(turned_away) < _TURNED_AWAY:
                    transport.set_protocol(_TurnedAway(transport, turned_away))
                else:
                    transport.abort()
                return
            super().connection_made(transport)
            self._address = address
            addresses[address] += 1
            self._deadline = self.loop.call_later(limits.header_seconds, transport.abort)

        def data_received(self, data: bytes) -> None:
            between = self._deadline is None and (self.cycle is None or self.cycle.response_complete)
            if between:
                self._deadline = self.loop.call_later(limits.header_seconds, self.transport.abort)
            super().data_received(data)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._stop(self._deadline)
                self._deadline = None

        def send_400_response(self, msg: str) -> None:
            fault = sys.exception()
            status = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else 400
            if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
                words = "the headers are too long" if status == 431 else "this is no HTTP request"
                self.transport.write(_last_words(ApiError(status, words, code="bad_request")))
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(limits.reader_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop(self._unread)
            self._unread = None
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._deadline, self._unread):
                self._stop(timer)
            if self._address is None:  # it was cut before it began
                return
            addresses[self._address] -= 1
            if not addresses[self._address]:
                del addresses[self._address]
            super().connection_lost(exc)

        @staticmethod
        def _stop(timer: asyncio.TimerHandle | None) -> None:
            if timer is not None:
                timer.cancel()

    return Bounded
