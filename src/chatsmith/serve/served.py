"""The model that is served: its names, its bounds, what it says of itself, and requests made for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError
from chatsmith.generate.constraints import Matcher
from chatsmith.generate.noise import fresh_seed
from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import MAX_SEED, Sampling
from chatsmith.language_model import LanguageModel
from chatsmith.serve.desk import Asked
from chatsmith.serve.errors import ApiError, wrong
from chatsmith.serve.fields import sampling_of
from chatsmith.serve.kinds import Bounds
from chatsmith.serve.limits import Limits
from chatsmith.store.contents import weight_files, weights_fingerprint


class Served:
    """A loaded model, ready to be asked over HTTP."""

    def __init__(self, model: LanguageModel, folder: Path | None, limits: Limits) -> None:
        self.model, self.tokenizer, self.limits = model, model.tokenizer, limits
        self.name, self.context = model.name, model.spec.context
        self.created = int(time.time())
        self.bounds: Bounds = {entry.name: getattr(limits, entry.name) for entry in fields(limits)} | {
            "context": self.context,
            "vocab_size": self.tokenizer.vocab_size,
            "width": model.spec.width,
        }
        self.folder = folder
        self.speed = Speed()
        self.weight_bytes = 0 if folder is None else sum(path.stat().st_size for path in weight_files(folder))
        self._fingerprint: asyncio.Future[str] | None = None
        self.token = lru_cache(maxsize=2**16)(self._token)

    async def fingerprint(self) -> str:
        """SHA-256 of the shape, the vocabulary and the stored weights; computed once, beside everything else."""
        known = self._fingerprint
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            # A disk that could not be read then may be readable now.
            self._fingerprint = known = asyncio.ensure_future(asyncio.to_thread(self._compute))
        return await asyncio.shield(known)

    def _compute(self) -> str:
        if self.folder is None:
            return self.model.fingerprint
        return weights_fingerprint(self.folder, self.model.spec, self.tokenizer)

    def _token(self, number: int) -> dict[str, Any]:
        """{"id", "token", "bytes"}: bytes that are no text are spelled out in "token", so that it names one token."""
        data = self.tokenizer.decode_bytes([number])
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
        return {"id": number, "token": text, "bytes": list(data)}

    @cached_property
    def _longest(self) -> int:
        """The most bytes of a token."""
        return max(len(self.tokenizer.decode_bytes([number])) for number in range(self.tokenizer.vocab_size))

    def ids(self, prompt: str | tuple[int, ...], field: str) -> list[int]:
        """The ids of a prompt, or of a text as the model is to read it, given in `field`. Raises `ApiError` for a text
        that is too long for the context whatever its tokens are: it is not encoded."""
        if not isinstance(prompt, str):
            return list(prompt)
        self.check_length(len(prompt), field)
        return self.model.prompt_ids(prompt)

    def check_length(self, characters: int, field: str) -> None:
        """Raises `ApiError` for more characters in `field` than the context can hold."""
        if characters > self.context * self._longest:
            raise ApiError(
                400,
                f"a text of {characters:,} characters does not fit the context of {self.context:,} tokens",
                field=field,
                code="context_length_exceeded",
            )

    # ---- requests --------------------------------------------------------------------------------------------------

    def check_name(self, name: str | None) -> None:
        """Refuse a request for another model."""
        if name is not None and name != self.name:
            raise ApiError(
                404, f"there is no model {name!r} here, only {self.name!r}", field="model", code="model_not_found"
            )

    def sampling(self, given: Mapping[str, Any], size: int, field: str, *names: str) -> Sampling:
        """The settings of a request whose prompt, given in `field`, has `size` tokens. `names` are the fields that may
        limit the length; without any of them it is the model's own length, as far as there is room."""
        room = self.context - size
        limits = {name: given[name] for name in names if given.get(name) is not None}
        settings = sampling_of(given)
        # OpenAI's seeds may be negative, the engine's are not.
        settings["seed"] = fresh_seed() if settings.get("seed") is None else settings["seed"] & MAX_SEED
        if len(set(limits.values())) > 1:
            raise wrong(names[0], f"and {names[1]} are two names of one thing, and differ")
        most = next(iter(limits.values()), min(self.model.sampling.max_tokens, max(room, 1)))
        if size + most > self.context:
            asked = f"and {most:,} are asked for; the context holds {self.context:,}"
            full = f"which leave no room for an answer in the context of {self.context:,}"
            raise ApiError(
                400,
                f"the prompt has {size:,} tokens{f' {asked}' if limits else f', {full}'}",
                field=field if size >= self.context else next(iter(limits), field),
                code="context_length_exceeded",
            )
        return Sampling.of(self.model.sampling, **settings | {"max_tokens": most})

    def ready(self, request: Request, field: str = "response_format") -> Asked:
        """A request with its constraint, which `field` asks for, made ready; may take long. Raises `ApiError` for a
        constraint that cannot be used."""
        if request.constraint is None:
            return request, None
        try:
            return request, Matcher(request.constraint, self.tokenizer)
        except RequestError as error:
            raise ApiError(400, ApiError.of(error).message, field=field, code="invalid_value") from None


class Speed:
    """Tokens a second while one answer alone was being made, as it was measured in serving."""

    def __init__(self) -> None:
        self.tokens, self.seconds = 0, 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """So many tokens after the first took so long; the older half of what is known fades."""
        if self.tokens > 2000:
            self.tokens, self.seconds = self.tokens // 2, self.seconds / 2
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + seconds

    def told(self) -> dict[str, float]:
        """What the card shows."""
        return {"tokens_per_second": self.tokens / self.seconds} if self.seconds else {}
