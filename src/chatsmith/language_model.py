"""A model you can talk with: `chatsmith.load("folder")`, then write, chat, next and score."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from chatsmith import arguments
from chatsmith.dialogue import Dialogue, read_messages
from chatsmith.errors import RequestError
from chatsmith.generate.backend import CACHE_BYTES, Backend, CacheKind, Floats
from chatsmith.generate.backends import BackendKind, open_folder
from chatsmith.generate.checks import TooLong
from chatsmith.generate.constraints import Constraint
from chatsmith.generate.engine import Engine
from chatsmith.generate.published import published_sampling
from chatsmith.generate.requests import Beams, Request
from chatsmith.generate.sampling import Sampling
from chatsmith.generate.speculation import DraftModel, Guesser, PromptLookup
from chatsmith.look.answers import Answer, Reply, Score, Stream, Writing
from chatsmith.look.next import NextReport, next_tokens
from chatsmith.specs import ModelSpec
from chatsmith.tables import Column, Table
from chatsmith.text.chat import Message, encode_conversation
from chatsmith.text.tokenizer import SPECIALS, Tokenizer

if TYPE_CHECKING:
    import torch
    from rich.console import RenderableType

    from chatsmith.models.decoder import Decoder

# Settings of `Sampling` by which a token is drawn; a beam search takes the likeliest.
_OF_CHANCE = ("temperature", "top_k", "top_p", "min_p")


def load(
    folder: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    draft: str | Path | None = None,
    lookup: bool = False,
    backend: BackendKind | None = None,
    cache: CacheKind | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> LanguageModel:
    """Load a model folder, made by chatsmith or published in Hugging Face layout.

        model = chatsmith.load("my-model")
        print(model.write("Once upon a time", temperature=0.5))

    Args:
        folder: The model folder.
        device: As PyTorch names it; by default the GPU where there is one, else the CPU.
        dtype: What torch computes in, "bfloat16" say; by default what the weights are stored in.
        draft: The folder of a smaller model of the same vocabulary, which guesses what comes next. Guesses are checked:
            they change the speed and no token.
        lookup: Guess from what the text itself said before.
        backend: "native" or "torch"; by default native on a CPU, where it serves.
        cache: What the native backend keeps keys and values in, "bf16" or "int8" (half the memory); by default
            bfloat16, for weights in float32 float32.
        cache_bytes: The most memory that keys and values take, with those of beginnings that may be read again; but one
            whole context always fits. What was longest out of use makes room.

    Raises `RequestError` when a part is missing or unknown, `WorkError` when one is damaged.
    """
    if draft is not None and lookup:
        raise RequestError("a draft model and prompt look-up cannot both guess", "leave out draft or lookup")
    folder = arguments.path("folder", folder)
    cache_bytes = arguments.whole("cache_bytes", cache_bytes, 0, 2**62)
    opened = open_folder(folder, backend=backend, device=device, dtype=dtype, cache=cache, cache_bytes=cache_bytes)
    guesser: Guesser | None = PromptLookup() if lookup else None
    if draft is not None:
        small = load(draft, device=device, dtype=dtype, backend=backend, cache=cache, cache_bytes=cache_bytes)
        if small.tokenizer.fingerprint != opened.tokenizer.fingerprint:
            raise RequestError(
                f"{small.name} has another vocabulary than {folder.name}: it cannot draft for it",
                "a draft model must have been trained with the same tokenizer",
            )
        guesser = DraftModel(small.engine.backend, opened.tokenizer.vocab_size)
    return LanguageModel(
        opened.model,
        opened.tokenizer,
        generation=opened.generation,
        provenance=opened.provenance,
        name=folder.resolve().name,
        backend=opened.backend,
        guesser=guesser,
        folder=folder,
    )


class LanguageModel:
    """A decoder and its tokenizer, with everything one may ask of them.

    Settings of `Sampling` (temperature, top_k, top_p, min_p, the penalties, seed, stop, max_tokens) may be given to
    each call by name; what is left out is the model's published setting (`generation`), else the library's default.
    `backend` computes in the model's place, if given; `model` may then be None, and is loaded from `folder` when asked
    for.
    """

    def __init__(
        self,
        model: Decoder | None,
        tokenizer: Tokenizer,
        *,
        generation: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        name: str = "model",
        backend: Backend | None = None,
        guesser: Guesser | None = None,
        folder: Path | None = None,
    ) -> None:
        self._model, self._folder = model, folder
        self.engine = Engine(backend or _backend(self.model), tokenizer, guesser=guesser)
        self.tokenizer, self.name = tokenizer, name
        self.generation, self.provenance = dict(generation or {}), dict(provenance or {})
        self.sampling = published_sampling(self.generation)
        self.begin = document_start(tokenizer)

    @property
    def model(self) -> Decoder:
        """The decoder in torch; where another backend computes, it is loaded from the folder now."""
        if self._model is None:
            from chatsmith.store.folder import load_decoder

            if self._folder is None:
                raise RequestError("this model has neither a decoder in torch nor a folder to load one from")
            self._model = load_decoder(self._folder)
        return self._model

    @property
    def spec(self) -> ModelSpec:
        """The shape of the model."""
        return self.engine.backend.spec

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the shape, the weights and the vocabulary: equal for equal models, wherever they are stored."""
        import torch

        digest = hashlib.sha256(f"{self.spec!r}\n{self.tokenizer.fingerprint}\n".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def prompt_ids(self, text: str) -> list[int]:
        """The ids a text is continued from: the token that begins documents, where the model wants one, and the text.

        An empty text begins a new document.
        """
        ids = [*self.begin, *self.tokenizer.encode(arguments.text("text", text))]
        return ids or [self.tokenizer.end_of_text]

    @overload
    def write(
        self,
        text: str = "",
        *,
        samples: int = 1,
        beams: int | None = None,
        length_penalty: float | None = None,
        constraint: Constraint | None = None,
        rolling: bool = False,
        stream: Literal[False] = False,
        **sampling: Any,
    ) -> Writing: ...

    @overload
    def write(
        self,
        text: str = "",
        *,
        samples: int = 1,
        constraint: Constraint | None = None,
        rolling: bool = False,
        stream: Literal[True],
        **sampling: Any,
    ) -> Stream: ...

    def write(
        self,
        text: str = "",
        *,
        samples: int = 1,
        beams: int | None = None,
        length_penalty: float | None = None,
        constraint: Constraint | None = None,
        rolling: bool = False,
        stream: bool = False,
        **sampling: Any,
    ) -> Writing | Stream:
        """Continue a text; with an empty one, begin a document.

        `samples` answers are drawn at once, each with a seed of its own that gives it again; with `beams` they are the
        likeliest that a search of that width finds, by log probability over ((5 + length) / 6)^length_penalty (0.6).
        A search draws nothing, so settings of chance do not go with it; it is the same for every seed.
        `constraint` gives the answer a form. A full context ends an answer, unless a `rolling` window is asked for: the
        model then reads the newer half of it again and goes on. With `stream` the pieces of one answer come as they
        are made.
        """
        search = _search(beams, length_penalty, sampling)
        settings = Sampling.of(self.sampling, **sampling)
        request = Request(
            tuple(self.prompt_ids(text)),
            settings,
            samples,
            beams=search,
            constraint=constraint,
            rolling=rolling,
        )
        if stream and (samples != 1 or search is not None):
            raise RequestError("only one sample can be streamed", "leave out stream, samples and beams")
        try:
            if stream:
                return Stream(self.engine.stream([request]), settings)
            answers = tuple(Answer.of(done, settings) for done in self.engine.complete([request]))
        except TooLong as error:
            if settings.max_tokens == 0 or search is not None:
                raise
            hint = f"{error.hint}, or have the oldest forgotten: --rolling (in Python: rolling=True)"
            raise TooLong(error.message, hint) from None
        return Writing(text, answers, settings, search)

    def complete(
        self,
        prompts: Sequence[str | Iterable[Message]],
        max_tokens: int = 200,
        stop: Sequence[str] = (),
        *,
        temperature: float = 0.0,
        **sampling: Any,
    ) -> list[str]:
        """What follows each prompt, worked on together: a text is continued, a conversation answered.

        The likeliest tokens are taken unless `temperature` says otherwise.
        """
        settings = Sampling.of(self.sampling, max_tokens=max_tokens, stop=stop, temperature=temperature, **sampling)
        requests = [
            Request(tuple(self.prompt_ids(prompt)), settings)
            if isinstance(prompt, str)
            else self.chat_request(read_messages(prompt), settings)
            for prompt in arguments.several("prompts", prompts, "texts or conversations")
        ]
        return [done.text for done in self.engine.complete(requests)]

    def fits(self, prompt: str | Iterable[Message], max_tokens: int = 1) -> bool:
        """Whether the context has room for a text or conversation and an answer of so many tokens."""
        arguments.whole("max_tokens", max_tokens, 0, 2**24, "it counts the tokens of the answer")
        ids = self.prompt_ids(prompt) if isinstance(prompt, str) else self.chat_ids(read_messages(prompt))
        return len(ids) + max_tokens <= self.spec.context

    @cached_property
    def turn_ends(self) -> frozenset[int]:
        """What ends a reply: the tokenizer's own endings, and any sign that someone else's turn begins."""
        roles = {self.tokenizer.specials[name] for name in SPECIALS if name in self.tokenizer.specials}
        return self.tokenizer.stop_ids | roles

    def chat_request(self, messages: Sequence[Message], sampling: Sampling) -> Request:
        """What to ask the engine for the next reply in a conversation."""
        return Request(tuple(self.chat_ids(messages)), sampling, stop_ids=self.turn_ends)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation up to where the model's words begin."""
        if not self.tokenizer.chat_template:
            raise RequestError(
                f"{self.name} has no chat template: it was not taught to talk",
                "use write to continue a text, or tune it to chat first",
            )
        ids, _ = encode_conversation(self.tokenizer, tuple(messages), add_generation_prompt=True)
        return ids

    @overload
    def chat(
        self, messages: str | Iterable[Message | Mapping[str, str]], *, stream: Literal[False] = False, **sampling: Any
    ) -> Reply: ...

    @overload
    def chat(
        self, messages: str | Iterable[Message | Mapping[str, str]], *, stream: Literal[True], **sampling: Any
    ) -> Stream: ...

    def chat(
        self, messages: str | Iterable[Message | Mapping[str, str]], *, stream: bool = False, **sampling: Any
    ) -> Reply | Stream:
        """Answer a conversation: one text from the user, or all messages so far (nothing is remembered between calls).

        Messages are `Message(role, content)` or mappings with these keys. For a talk that remembers, see
        `conversation`. Raises `RequestError` for a model without a chat template.
        """
        settings = Sampling.of(self.sampling, **sampling)
        request = self.chat_request(read_messages(messages), settings)
        if stream:
            return Stream(self.engine.stream([request]), settings)
        [done] = self.engine.complete([request])
        return Reply(Answer.of(done, settings), settings)

    def conversation(self, system: str = "", **sampling: Any) -> Dialogue:
        """A talk that remembers what was said; `sampling` holds for all of it."""
        return Dialogue(self, system, **sampling)

    def next(self, text: str = "", *, top: int = 10, steps: int = 1, **sampling: Any) -> NextReport:
        """The ranked next tokens with probability and bits, before and after temperature and the other stages.

        With `steps` the likeliest token is added each time and the text grows. `stop` and `max_tokens`, which end an
        answer, have nothing to end here.
        """
        _refuse(
            sampling, ("stop", "max_tokens"), "ends an answer, and there is none here", "steps says how far to look"
        )
        begin = self.begin if arguments.text("text", text) else self.prompt_ids("")
        settings = Sampling.of(self.sampling, **sampling)
        return next_tokens(self.engine, text, begin=begin, sampling=settings, top=top, steps=steps)

    def score(self, text: str) -> Score:
        """How well the model foresees a text, from its first token on: bits per byte, perplexity, every logprob."""
        ids = self.tokenizer.encode(arguments.text("text", text))
        if not ids:
            raise RequestError("an empty text has no score", "give at least one character")
        begin = self.prompt_ids("")
        logprobs = self.engine.score(begin + ids)[len(begin) - 1 :]
        pieces = tuple(self.tokenizer.token_text(token) for token in ids)
        return Score(text, tuple(ids), pieces, tuple(logprobs.tolist()))

    def embed(self, texts: Sequence[str]) -> Floats:
        """A vector for each text, [texts, E]: the mean of the model's last states over the text's tokens."""
        asked = [self.prompt_ids(text) for text in arguments.several("texts", texts, "texts")]
        if not asked:
            raise RequestError("there is no text to embed", "give at least one")
        return self.engine.embed(asked)

    def table(self) -> Table:
        """What this model is, in a few rows."""
        spec = self.spec
        shape = f"{spec.layers} layers of width {spec.width}, {spec.heads} heads"
        rows = (
            ("parameters", f"{spec.parameters:,}"),
            ("computed by", self.engine.backend.name),
            ("shape", f"{spec.architecture or 'own'}: {shape}"),
            ("context", f"{spec.context:,} tokens"),
            ("vocabulary", f"{self.tokenizer.vocab_size:,} tokens"),
            ("talks", "yes" if self.tokenizer.chat_template else "no, it continues texts"),
        )
        return Table(self.name, (Column("", "left"), Column("", "left", wrap=True)), rows)

    def __repr__(self) -> str:
        talks = "talks" if self.tokenizer.chat_template else "writes"
        return f"<LanguageModel {self.name}: {self.spec.parameters:,} parameters, {talks}>"

    def __rich__(self) -> RenderableType:
        return self.table().rich()

    def _repr_html_(self) -> str:
        return self.table().html()


def _search(width: int | None, length_penalty: float | None, sampling: Mapping[str, Any]) -> Beams | None:
    """The beam search that was asked for, if any."""
    given = {"length_penalty": length_penalty} if length_penalty is not None else {}
    if width is None:
        _refuse(given, ("length_penalty",), "is for a search with beams", "give beams, too")
        return None
    chance = {name: value for name, value in sampling.items() if (name, value) != ("temperature", 0)}
    _refuse(chance, _OF_CHANCE, "does nothing in a search with beams, which draws nothing", "or leave out beams")
    return Beams(width, **given)


def _refuse(settings: Mapping[str, Any], names: Sequence[str], why: str, hint: str) -> None:
    """Raise `RequestError` for the first of `names` that was given: it would be without effect."""
    for name in names:
        if settings.get(name) is not None:
            raise RequestError(f"{name} {why}", f"leave out {name}; {hint}")


def _backend(model: Decoder) -> Backend:
    """What computes a model that is in memory."""
    from chatsmith.generate.torch_backend import TorchBackend

    return TorchBackend(model)


def document_start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids before every text: Llama's begin-of-text, say, or none.

    In the vocabularies we train it is the end of the document before: a text is read as the beginning of one.
    """
    if tokenizer.begin_of_text is not None:
        return (tokenizer.begin_of_text,)
    return (tokenizer.end_of_text,) if tokenizer.specials.keys() >= set(SPECIALS) else ()
