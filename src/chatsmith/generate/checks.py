"""What can be asked at all: a request that could never be met is refused when it is made."""

from __future__ import annotations

from chatsmith.arguments import number, short, whole
from chatsmith.errors import RequestError
from chatsmith.generate.backend import Backend
from chatsmith.generate.constraints import Constraint
from chatsmith.generate.requests import Request

MAX_SAMPLES = 1024
MAX_TOP = 100


class TooLong(RequestError):
    """A prompt that the context cannot hold, with what is to be written after it."""


def check(request: Request, backend: Backend, vocab_size: int, max_rows: int) -> None:
    """Raises `RequestError` for a request that could never be met."""
    context, size = backend.spec.context, len(request.prompt)
    if not size:
        raise RequestError("an empty prompt gives the model nothing to go on", "begin with the end-of-text token")
    writes = request.sampling.max_tokens > 0 and not request.embed
    if size + writes > context and not request.rolling:
        raise TooLong(
            f"the prompt has {size} tokens, and the model's context of {context} "
            + ("leaves no room for an answer" if writes else "holds no more"),
            f"shorten it to at most {context - writes} tokens",
        )
    if min(request.prompt) < 0 or max(request.prompt) >= vocab_size:
        raise RequestError(f"the prompt has ids outside the vocabulary of {vocab_size}")
    if any(token >= vocab_size for token, _ in request.sampling.logit_bias):
        raise RequestError(f"logit_bias has ids outside the vocabulary of {vocab_size}")
    whole("samples", request.samples, 1, MAX_SAMPLES)
    whole("top", request.top, 0, MAX_TOP)
    if request.constraint is not None and not isinstance(request.constraint, Constraint):
        raise RequestError(
            f"constraint must be a Constraint, not {short(request.constraint)}", 'for example Constraint("regex", "a+")'
        )
    if request.rolling and (request.score_prompt or request.embed or request.beams):
        raise RequestError(
            "a rolling window does not go with beams, scores of the prompt or embeddings", "leave out rolling or those"
        )
    if not writes and (request.samples > 1 or request.beams):
        raise RequestError("there is one answer where nothing is written", "leave out samples and beams")
    _check_room(request, backend)
    if request.beams:
        _check_beams(request, backend, max_rows)


def _check_room(request: Request, backend: Backend) -> None:
    """An answer that would not fit an empty cache could never be finished."""
    longest = min(len(request.prompt) + request.sampling.max_tokens, backend.spec.context)
    need = len(backend.bands) * -(-longest // backend.block_size)
    if need > backend.blocks:
        raise RequestError(
            f"{longest} tokens need {need} blocks, and the cache has {backend.blocks}",
            "ask for fewer tokens, or give the engine more memory",
        )


def _check_beams(request: Request, backend: Backend, max_rows: int) -> None:
    beams = request.beams
    assert beams is not None
    whole("beams", beams.width, 1, max_rows)
    number("length_penalty", beams.length_penalty, 0, 10)
    if request.samples > beams.width:
        raise RequestError(f"{beams.width} beams give at most as many answers, not {request.samples}")
    if request.look or request.top or request.score_prompt:
        raise RequestError("a search shows no distributions: its tokens were not drawn from them")
    longest = min(len(request.prompt) + request.sampling.max_tokens, backend.spec.context)
    need = 2 * beams.width * len(backend.bands) * -(-longest // backend.block_size)
    if need > backend.blocks:
        raise RequestError(
            f"{beams.width} beams of {longest} tokens may need {need} blocks; the cache has {backend.blocks}",
            "ask for fewer beams or tokens, or give the engine more memory",
        )
