"""A request's body: read within its bounds of size, time and depth, and from JSON of the strict kind."""

from __future__ import annotations

import asyncio
import codecs
import json
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.types import Message

from chatsmith.serve.errors import ApiError
from chatsmith.serve.limits import Limits


async def read_body(request: Request, limits: Limits, most: int) -> bytes:
    """The whole body. Raises `ApiError` for one that is too long or too slow, `ClientGone` where nobody is left."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > most):
        raise too_long(most)  # before it is sent
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.header_seconds):
            while True:
                message: Message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise too_long(most)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {limits.header_seconds:g} seconds") from None


class ClientGone(Exception):
    """Nobody waits for an answer any more."""


def too_long(most: int) -> ApiError:
    """A body beyond the limit."""
    return ApiError(413, f"a body may have {most:,} bytes", code="body_too_long")


def parse(body: bytes, depth: int) -> Any:
    """The JSON value of a body: UTF-8, no NaN, no infinity, no key twice, and at most so many levels."""
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, object_pairs_hook=_object)
    except RecursionError:
        raise _too_deep(depth) from None
    except ApiError:
        raise
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start:,} is no UTF-8") from None
    except json.JSONDecodeError as error:
        marked = body.startswith(codecs.BOM_UTF8)
        raise _not_json("it begins with a byte order mark" if marked else str(error)[:200]) from None
    except ValueError:  # Python's own bound on numbers
        raise _not_json("a number in it has thousands of digits") from None
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return value
    raise _too_deep(depth)


def _not_json(why: str) -> ApiError:
    return ApiError(400, f"the body is not JSON: {why}", code="invalid_json")


def _too_deep(depth: int) -> ApiError:
    return ApiError(400, f"the body has more than {depth} levels", code="too_deep")


def _refuse(constant: str) -> NoReturn:
    raise ApiError(400, f"{constant} is not a number of JSON", code="invalid_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ApiError(400, "an object of the body has a key twice", code="invalid_json")
    return found
