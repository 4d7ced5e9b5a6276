"""`chatsmith serve`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.console import out, say
from chatsmith.cli.options import Cache
from chatsmith.errors import MissingExtra


def serve(
    model: Annotated[Path | None, Parameter(help="A model folder; without one, the built-in model.")] = None,
    /,
    *,
    host: Annotated[
        str, Parameter(help="The address to listen on; another than this machine needs keys.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0 takes a free one.")] = 8000,
    allow_host: Annotated[tuple[str, ...], Parameter(help="A name by which others may call this server.")] = (),
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(help="A site whose pages may use the API (not the page's talks), as in https://app.example."),
    ] = (),
    require_key: Annotated[bool, Parameter(help="Ask for a key also on this machine, as behind a proxy.")] = False,
    insecure: Annotated[bool, Parameter(help="Listen on another address without keys.")] = False,
    limit: Annotated[
        tuple[str, ...], Parameter(help="Change a limit, as in n=4 or cache_bytes=512MiB; see --explain-limits.")
    ] = (),
    explain_limits: Annotated[bool, Parameter(help="Print every limit and what it is about.")] = False,
    cache: Cache = None,
    conversations: Annotated[Path | None, Parameter(help="The file that keeps the page's conversations.")] = None,
    minutes: Annotated[
        float | None, Parameter(help="Training time (default: 3), where the built-in model must be made first.")
    ] = None,
) -> None:
    """Open the page and the API of a model on this machine.

    The API is OpenAI's; /openapi.json describes it. Ctrl-C or SIGTERM ends the server when what it is saying is said.
    """
    from chatsmith.cli.built_in import named_or_built_in

    try:
        from chatsmith.serve.launch import launch
        from chatsmith.serve.limits import Limits
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "starlette", "serve", "the server") from None
    limits = Limits.of(limit)
    if explain_limits:
        out().print(limits.explain().rich())
        return
    launch(
        named_or_built_in(model, minutes),
        host=host,
        port=port,
        hosts=allow_host,
        origins=allow_origin,
        require_key=require_key,
        insecure=insecure,
        limits=limits,
        cache=cache,
        conversations=conversations,
        say=say,
    )
