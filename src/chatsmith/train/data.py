"""From a recipe's sources to a vocabulary and folders of tokens.

out/tokens/tokenizer.json, tokenizer_config.json     the vocabulary, learned or taken over
out/tokens/0, out/tokens/1, …                        one folder of tokens per source that was read
out/tokens/prepared.json                             written last: what all this was made from
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from chatsmith.errors import ChatsmithError, RequestError, WorkError
from chatsmith.paths import atomic_write, sync_dir
from chatsmith.plan.quantities import bytes_text
from chatsmith.settings import to_mapping
from chatsmith.text import world
from chatsmith.text.corpus import write_corpus
from chatsmith.text.documents import Document, ReadReport, read_documents
from chatsmith.text.shards import TokenFolder, write_shards
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.mixtures import weights
from chatsmith.train.recipe import Recipe, Source

TOKENS = "tokens"
_PREPARED = "prepared.json"
# How much of the built-in corpus a vocabulary is learned from, in documents: more changes nothing that matters.
_WORLD_SAMPLE = 10_000
_WORLD_TOKENS_A_MINUTE = 60 * 30_000
_WORLD_LEAST, _WORLD_MOST = 500_000, 50_000_000

MOST_VERIFIED = 4 * 2**30
"""Bytes of tokens that are read before a run to compare them with their checksums: some seconds."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a run reads: a vocabulary, a folder of tokens per source, and reports on the documents that were read."""

    tokenizer: Tokenizer
    folders: tuple[TokenFolder, ...]
    reports: tuple[ReadReport, ...] = field(default=())

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """One SHA-256 per source: equal for equal text, vocabulary and settings."""
        return tuple(folder.manifest.fingerprint for folder in self.folders)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens of each source that are there to train on."""
        return tuple(len(folder.split("train")) for folder in self.folders)

    def lies_in(self, place: Path) -> bool:
        """Whether tokens of it are in the folder `place`."""
        return any(folder.folder.is_relative_to(place) for folder in self.folders)

    def moved(self, before: Path, after: Path) -> None:
        """Say that what lay in the folder `before` lies in `after` now."""
        for folder in self.folders:
            if folder.folder.is_relative_to(before):
                folder.folder = after / folder.folder.relative_to(before)


def prepare(
    recipe: Recipe,
    out: Path,
    *,
    into: Path | None = None,
    reuse: bool = False,
    verify: bool = True,
    note: Note = lambda text: None,
) -> Corpus:
    """Read the sources of a run in `out` into `into`/tokens (`out`/tokens); `reuse` takes what was made from the same.

    Tokens that exist already are compared with their checksums (unless not to `verify`), up to `MOST_VERIFIED` bytes.
    Raises `RequestError` for paths that are not there, sources without text, vocabularies that do not fit, and where
    the recipe records fingerprints that the text no longer has, and `WorkError` for tokens that are damaged.
    """
    out = Path(out)
    place = (into or out) / TOKENS
    made_from = json.dumps({"data": to_mapping(recipe.data), "seed": recipe.seed, "model": recipe.starts_from})
    prepared = place / _PREPARED
    if reuse and prepared.is_file() and prepared.read_text(encoding="utf-8", errors="replace") == made_from:
        return _reused(recipe, place, out, note if verify else None)
    fresh = place.with_name(f".{TOKENS}")  # what is there goes when this is whole
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        sources = _Sources(recipe, out, note)
        tokenizer = sources.tokenizer()
        tokenizer.save(fresh)
        reports: list[ReadReport] = []
        indices = range(len(recipe.data.sources))
        folders = tuple(sources.write(index, tokenizer, fresh / str(index), reports) for index in indices)
        if verify:
            _check_sums([folder for folder in folders if not folder.folder.is_relative_to(fresh)], note)
        with atomic_write(fresh / _PREPARED, "w") as file:
            file.write(made_from)
        corpus = Corpus(tokenizer, folders, tuple(reports))
        _check_record(recipe, corpus)
        if place.exists():
            shutil.rmtree(place)
        os.rename(fresh, place)
    except BaseException:  # half of it is of no use, and an empty folder in the way of nobody
        shutil.rmtree(fresh, ignore_errors=True)
        with suppress(OSError):
            out.rmdir()
        raise
    sync_dir(place.parent)
    corpus.moved(fresh, place)
    return corpus


def _reused(recipe: Recipe, place: Path, out: Path, note: Note | None) -> Corpus:
    """The tokens in `place` that were made for the run in `out`; with `note`, they are what their checksums say."""
    try:
        tokenizer = Tokenizer.load(place)
    except ChatsmithError as error:
        raise WorkError(error.message, _remedy(out)) from None
    folders = []
    for index, source in enumerate(recipe.data.sources):
        if source.holds_tokens:
            folders.append(TokenFolder.open(Path(source.path)))
            continue
        if not (source.is_world or (place / str(index)).exists() or Path(source.path).exists()):
            # A folder of tokens, or documents to write the tokens from again: either way it is needed.
            raise RequestError(
                f"{source.path} does not exist, and the run in {out} reads it",
                "put it back, or go on from the folder in which the run was begun",
            )
        folders.append(folder := _own(source, place / str(index), out))
        if folder.manifest.tokenizer != tokenizer.fingerprint:
            raise folder.damaged("manifest.json", f"it was written with another vocabulary than the one in {place}")
    if note is not None:
        _check_sums(folders, note)
    return Corpus(tokenizer, tuple(folders))


def _own(source: Source, written: Path, out: Path) -> TokenFolder:
    """A folder of tokens that was made for the run in `out` alone."""
    try:
        folder = TokenFolder.open(written)
    except ChatsmithError as error:
        raise WorkError(error.message, _remedy(out)) from None
    folder.name, folder.remedy = "the built-in corpus" if source.is_world else source.path, _remedy(out)
    return folder


def _remedy(out: Path) -> str:
    """What to do where the tokens of the run in `out` are damaged."""
    return f"remove {out / TOKENS}; this then reads the documents again: chatsmith train --resume {out}"


def _check_sums(folders: Sequence[TokenFolder], note: Note) -> None:
    """Compare tokens that were there already with their checksums, as far as that takes seconds."""
    read = total = 0
    for folder in {folder.folder: folder for folder in folders}.values():
        read += folder.check_sums(MOST_VERIFIED - read)
        total += sum(record.size for record in folder.manifest.files.values())
    if read < total:
        note(f"the contents of {bytes_text(read)} of tokens were checked, of {bytes_text(total - read)} only the sizes")


@dataclass(frozen=True, slots=True)
class _Sources:
    """The sources of the run in `out`, by their places in its recipe, on their way to tokens."""

    recipe: Recipe
    out: Path
    note: Note

    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the run: the model's, the one named, that of the tokens, or a new one."""
        data = self.recipe.data
        chosen = self.recipe.starts_from or data.tokenizer
        if chosen is not None:
            return Tokenizer.load(Path(chosen))
        if data.vocab_size is not None:
            from chatsmith.text.bpe import train_tokenizer

            self.note(f"learning a vocabulary of {data.vocab_size:,}")
            texts = chain.from_iterable(map(self.texts, range(len(data.sources))))
            return train_tokenizer(texts, data.vocab_size, threads=self.recipe.threads or None)
        for source in data.sources:
            for place in (Path(source.path), Path(source.path).parent):
                if source.holds_tokens and (place / "tokenizer.json").is_file():
                    return Tokenizer.load(place)
        raise RequestError(
            "the recipe names no vocabulary", "add data.vocab_size = 4096 to learn one, or data.tokenizer = a folder"
        )

    def texts(self, index: int) -> Iterator[str]:
        """What a vocabulary is learned from."""
        sources = self.recipe.data.sources
        source = sources[index]
        if source.holds_tokens:
            raise RequestError(
                f"{source.path} is a folder of tokens, whose vocabulary exists already",
                "leave out data.vocab_size, and name its tokenizer in data.tokenizer",
            )
        documents = self.documents(index, ReadReport())
        if source.is_world:
            documents = islice(documents, _WORLD_SAMPLE // sum(part.is_world for part in sources))
        for document in documents:
            yield from document.texts

    def documents(self, index: int, report: ReadReport) -> Iterator[Document]:
        """The documents of a source that holds no tokens."""
        source = self.recipe.data.sources[index]
        if source.is_world:
            # Another seed for each source, so that no two of them tell the same stories.
            seed = self.recipe.seed + 1_000_003 * index
            return world.documents(seed, mixture=source.mixture or None, stage=source.part)
        return read_documents(
            [source.path, *source.also],
            report=report,
            field=source.field or None,
            duplicates=source.duplicates,
            leave_out=self.out,
        )

    def write(self, index: int, tokenizer: Tokenizer, written: Path, reports: list[ReadReport]) -> TokenFolder:
        """The tokens of a source, in the folder `written` unless they exist; what was read is added to `reports`."""
        source, data, seed = self.recipe.data.sources[index], self.recipe.data, self.recipe.seed
        if source.holds_tokens:
            return self._written(source, tokenizer)
        self.note(f"reading {'the built-in corpus' if source.is_world else source.path}")
        report = ReadReport()
        if source.is_world:
            documents = _enough(self.documents(index, report), tokenizer, world_tokens(self.recipe, index))
            write_shards(documents, tokenizer, written, held_out=data.held_out, seed=seed)
        else:
            reports.append(report)
            write_corpus(
                [source.path, *source.also],
                tokenizer,
                written,
                report=report,
                field=source.field or None,
                duplicates=source.duplicates,
                clean_of=data.clean_of,
                held_out=data.held_out,
                seed=seed,
                leave_out=self.out,
            )
        return _own(source, written, self.out)

    def _written(self, source: Source, tokenizer: Tokenizer) -> TokenFolder:
        """A folder of tokens that was there before the run."""
        if Path(source.path).resolve().is_relative_to((self.out / TOKENS).resolve()):
            raise RequestError(
                f"{source.path} lies in the folder that the tokens of this run are written to",
                "train into another folder",
            )
        folder = TokenFolder.open(Path(source.path))
        if folder.manifest.tokenizer != tokenizer.fingerprint:
            raise RequestError(
                f"{source.path} was written with another vocabulary than the one this run uses",
                "write the tokens again, or name their tokenizer in data.tokenizer",
            )
        return folder


def world_tokens(recipe: Recipe, index: int) -> int:
    """How many tokens of the built-in corpus a source gives: as many as the run will read of it, within bounds."""
    source, data, schedule = recipe.data.sources[index], recipe.data, recipe.schedule
    if source.tokens:
        return source.tokens
    # Sources in epochs count as one: how many tokens they have is not known yet, and it is a rough figure.
    shares = [stage.weights for stage in data.stages] or [weights(data, [1] * len(data.sources))]
    share = max(part[index] / sum(part) for part in shares)
    if schedule.minutes is not None:
        wanted = schedule.minutes * _WORLD_TOKENS_A_MINUTE
    else:
        wanted = schedule.tokens or (schedule.steps or 0) * recipe.batch.rows * (recipe.batch.context or 1024)
    return int(min(max(share * wanted, _WORLD_LEAST), _WORLD_MOST))


def _enough(documents: Iterator[Document], tokenizer: Tokenizer, tokens: int) -> Iterator[Document]:
    """Documents until they hold about so many tokens."""
    head = list(islice(documents, 500))
    texts = ["\n".join(document.texts) for document in head]
    encoded = sum(map(len, tokenizer.encode_batch(texts)))
    characters = sum(map(len, texts))
    left = tokens * characters / max(1, encoded)
    for document in chain(head, documents):
        if left <= 0:
            return
        left -= len("\n".join(document.texts))
        yield document


def _check_record(recipe: Recipe, corpus: Corpus) -> None:
    """A recipe that records what it was run on is repeated on the same, or not at all."""
    record = recipe.record
    pairs = [("the vocabulary", record.tokenizer, corpus.tokenizer.fingerprint)]
    if record.corpora:
        names = [source.path for source in recipe.data.sources]
        pairs += list(zip(names, record.corpora, corpus.fingerprints, strict=False))
    for name, recorded, found in pairs:
        if recorded and recorded != found:
            raise RequestError(
                f"{name} is not what this recipe was run with (its fingerprint is {found[:12]}, not {recorded[:12]})",
                "to train on what is there now, delete the [record] table from the recipe",
            )
