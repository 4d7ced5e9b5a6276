"""How a model folder asks to be sampled from: generation_config.json as `Sampling`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatsmith.errors import RequestError
from chatsmith.generate.sampling import Sampling

# What generation_config.json calls the settings of `Sampling`.
_PUBLISHED = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


def published_sampling(generation: Mapping[str, Any]) -> Sampling:
    """The sampling settings that a generation_config.json publishes; what it does not name is the library's default.

    One that says `do_sample: false` asks for the likeliest tokens.
    """
    given = {ours: generation[theirs] for theirs, ours in _PUBLISHED.items() if generation.get(theirs) is not None}
    if generation.get("do_sample") is False:
        given["temperature"] = 0.0
    try:
        return Sampling.of(None, **given)
    except RequestError as error:  # nobody has typed these
        raise RequestError(f"generation_config.json: {error.message}", "put that file right, or leave it out") from None
