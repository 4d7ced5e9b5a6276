"""From a model folder to a running server: what must be true before it listens, and what is said when it does."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path

from chatsmith.errors import RequestError
from chatsmith.generate.backend import CacheKind
from chatsmith.language_model import load
from chatsmith.serve.app import create_app
from chatsmith.serve.conversation_routes import conversation_routes
from chatsmith.serve.conversations import Conversations, default_path
from chatsmith.serve.keys import Keys
from chatsmith.serve.limits import Limits
from chatsmith.serve.server import bind, serve


def launch(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    require_key: bool = False,
    insecure: bool = False,
    limits: Limits | None = None,
    cache: CacheKind | None = None,
    conversations: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a model folder until a signal ends it. Raises `RequestError` where that would not be safe.

    `cache` is what keys and values are kept in, if not what suits the weights (`chatsmith.load`). `conversations` is
    the file in which the page keeps what is said; None is the one of this user.
    """
    if not 0 <= port < 2**16:
        raise RequestError(f"a port must be from 0 to 65535, not {port}", "leave out --port for 8000")
    limits = limits or Limits()
    local = is_local(host)
    keys = Keys() if require_key or not (local or insecure) else None
    if keys is not None and not keys.all():
        raise RequestError(
            "there is no key yet, and without one nobody could use the server",
            "chatsmith keys new NAME" + ("" if local else ", or --insecure to let everybody in"),
        )
    listening = bind(host, port)
    store = Conversations(conversations or default_path())
    app = create_app(
        load(folder, cache=cache, cache_bytes=limits.cache_bytes),
        folder=Path(folder),
        limits=limits,
        keys=keys,
        hosts=[*hosts, _bracketed(host)],
        origins=origins,
        metered=not local,
        routes=conversation_routes(store, limits),
    )
    port = listening.getsockname()[1]
    shown = "localhost" if local else _bracketed(host)
    with contextlib.closing(store):
        serve(
            app, limits, listening, lambda: say(f"serving {Path(folder).name} at http://{shown}:{port}/ (Ctrl-C ends)")
        )


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
