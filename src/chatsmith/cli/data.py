"""`chatsmith data`: a corpus in parts, on as many machines as there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Duplicates, Field, Hidden, Json, Tests


def vocabulary(
    path: Annotated[Path, Parameter(help="A file or a folder.")],
    /,
    *paths: Annotated[Path, Parameter(help="More of them.")],
    size: Annotated[int, Parameter(help="Tokens in the vocabulary, special ones counted.")],
    out: Annotated[Path, Parameter(help="The folder to write it to.")],
    field: Field = None,
    json: Json = False,
) -> None:
    """Learn a vocabulary from documents.

    All parts of a corpus must be encoded with one vocabulary. A few files that are like all others are enough: a
    hundred megabytes teach it nearly what all of them would.
    """
    from chatsmith.cli.console import out as stdout
    from chatsmith.cli.console import print_json
    from chatsmith.text.bpe import train_tokenizer
    from chatsmith.text.documents import ReadReport, read_documents

    report = ReadReport()
    documents = read_documents([path, *paths], report=report, field=field)
    tokenizer = train_tokenizer((text for document in documents for text in document.texts), size)
    tokenizer.save(out)
    if json:
        print_json({"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint, "out": out})
    else:
        stdout().print(f"{tokenizer.vocab_size:,} tokens, learned from {report.summary()}", soft_wrap=True)
        stdout().print(f"chatsmith data shard … --tokenizer {out}", soft_wrap=True)


def quality(
    *,
    good: Annotated[tuple[Path, ...], Parameter(help="Files and folders of good text; may be given several times.")],
    raw: Annotated[tuple[Path, ...], Parameter(help="Files and folders of raw text, unfiltered.")],
    out: Annotated[Path, Parameter(help="The file to write the filter to.")],
    seed: Annotated[int, Parameter(help="Another seed measures it on other documents.")] = 0,
    json: Json = False,
) -> None:
    """Learn to tell good documents from raw ones, and measure it on a tenth of them.

    `chatsmith data shard --quality FILE` then keeps a document with the chance (2 - score)^-9, as GPT-3's Common Crawl
    was filtered: nearly all that score like the good ones, and a few of all others.
    """
    from chatsmith.cli.console import out as stdout
    from chatsmith.cli.console import print_json
    from chatsmith.text.documents import ReadReport, read_documents
    from chatsmith.text.quality import learn

    texts = [
        (text for document in read_documents(paths, report=ReadReport()) for text in document.texts)
        for paths in (good, raw)
    ]
    learned, report = learn(texts[0], texts[1], seed)
    learned.save(out)
    if json:
        print_json(report)
    else:
        stdout().print(str(report), soft_wrap=True)
        stdout().print(f"chatsmith data shard … --quality {out}", soft_wrap=True)


def shard(
    path: Annotated[Path, Parameter(help="A file or a folder.")],
    /,
    *paths: Annotated[Path, Parameter(help="More of them.")],
    tokenizer: Annotated[Path, Parameter(help="The folder of a vocabulary, or of a model.")],
    out: Annotated[Path, Parameter(help="The folder of all parts; each makes its own in it.")],
    part: Annotated[str, Parameter(help="Which part to make, and of how many: 3/64.")] = "1/1",
    field: Field = None,
    duplicates: Duplicates = "near",
    hidden: Hidden = False,
    clean_of: Tests = (),
    quality: Annotated[Path | None, Parameter(help="A filter that chatsmith data quality learned.")] = None,
    seed: Annotated[int, Parameter(help="Another seed holds other documents out of training.")] = 0,
    processes: Annotated[int | None, Parameter(help="Processes that read; by default one for each core.")] = None,
    overwrite: Annotated[bool, Parameter(help="Make the part again, though it is there.")] = False,
    json: Json = False,
) -> None:
    """Read and encode one part of a corpus, on all cores of this machine.

    The same bytes for the same files and settings, whatever else runs: so parts can be made in any order, by any
    scheduler, and a part whose work was killed is made by the same command again. A part that is there is left alone.
    `chatsmith data merge` makes one folder of tokens of them.
    """
    from chatsmith.cli.console import out as stdout
    from chatsmith.cli.console import print_json
    from chatsmith.text.parts import part_name
    from chatsmith.text.parts import shard as make_part

    record, new = make_part(
        [path, *paths],
        tokenizer,
        out,
        part,
        clean_of=clean_of,
        quality=quality,
        overwrite=overwrite,
        processes=processes,
        field=field,
        duplicates=duplicates,
        hidden=hidden,
        seed=seed,
    )
    number, count = record.number, record.parts
    folder = out / part_name(number, count)
    if json:
        shown = {"part": number, "parts": count, "documents": record.documents, "tokens": record.tokens}
        print_json(shown | {"folder": folder, "new": new, "read": record.report})
        return
    documents, files = record.documents, record.report["files"]
    counts = f"{documents:,} document{'' if documents == 1 else 's'}, {record.tokens:,} tokens"
    counts += f" from {files:,} file{'' if files == 1 else 's'}"
    stdout().print(f"part {number}/{count}{'' if new else ' is there already'}: {counts}, in {folder}", soft_wrap=True)
    reasons = record.report["skipped_by_reason"]
    if reasons:
        skipped = ", ".join(f"{times:,} {reason}" for reason, times in reasons.items())
        stdout().print(f"skipped {skipped}", soft_wrap=True)


def merge(
    folder: Annotated[Path, Parameter(help="A part, or a folder of parts.")],
    /,
    *folders: Annotated[Path, Parameter(help="More of them.")],
    out: Annotated[Path, Parameter(help="The folder of tokens to make.")],
    held_out: Annotated[float, Parameter(help="The share of documents kept from training.")] = 0.01,
    window: Annotated[int, Parameter(help="Near duplicates are looked for among so many kept documents at least.")] = 2
    ** 19,
    overwrite: Annotated[bool, Parameter(help="Replace tokens that the folder already holds.")] = False,
    json: Json = False,
) -> None:
    """Make one folder of tokens of all parts of a corpus, in the order of its files.

    Drops what is duplicate across parts and cuts out what is the tests' (--clean-of at `data shard`). What comes out
    does not depend on how many parts there were. Near duplicates take 700 bytes of memory for each document of the
    window.
    """
    from chatsmith.cli.console import out as stdout
    from chatsmith.cli.console import print_json
    from chatsmith.text.merge import merge as merge_parts

    report = merge_parts([folder, *folders], out, held_out=held_out, window=window, overwrite=overwrite)
    if json:
        print_json(report.to_json())
    else:
        stdout().print(report)
        stdout().print(f'train on it: sources = [{{path = "{out}"}}] under [data] in a recipe', soft_wrap=True)


def mixture(
    recipe: Annotated[str, Parameter(help="A recipe over folders of tokens, or gpt3 for the mixture of the paper.")],
    /,
    tokens: Annotated[str | None, Parameter(help="Tokens to train on, as 300B; by default the recipe's.")] = None,
    json: Json = False,
) -> None:
    """Show how much of each source a training reads, and how often it goes through it.

    A recipe names its sources by weight or by epochs, or takes GPT-3's mixture: mixture = "gpt3" in [data].
    """
    from chatsmith.cli.console import out as stdout
    from chatsmith.cli.console import print_json
    from chatsmith.plan.quantities import read_count
    from chatsmith.train.mixtures import mixture_of

    report = mixture_of(recipe, None if tokens is None else read_count(tokens, "--tokens", 1e16, "--tokens 300B"))
    if json:
        print_json(report)
    else:
        stdout().print(report)
