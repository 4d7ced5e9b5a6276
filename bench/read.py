"""Reading files of many kinds to a folder of tokens: MB of text per second, peak memory, and what the time goes to.

    python bench/read.py                       1 GB of made text in ten kinds of file
    python bench/read.py --megabytes 100       less of it
    python bench/read.py PATH …                your own files

Each figure comes from a process of its own, so that the peaks of memory are theirs alone: `list` reads and cleans the
files and drops duplicates, and encodes nothing; `encode` encodes the same documents, already in memory, up to 100 MB of
them; `whole` is what `write_corpus` does, both at once in every process; `feed` what it does for a few large files: one
process reads while others encode. Seconds of CPU time say what the work costs whoever else is running; `share_of_cpu`
is what of the whole goes to reading, to encoding, and to all the rest, and `cpu_of_first_process` the share of the CPU
time of the process that all documents go through, which no number of cores makes shorter. The last line is JSON.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.corpus import write_corpus
from chatsmith.text.documents import ReadReport, read_documents
from chatsmith.text.shards import write_shards
from chatsmith.text.tokenizer import Tokenizer
from harness import circumstances

SAMPLE_BYTES = 20 * 10**6
ENCODE_BYTES = 100 * 10**6
SYLLABLES = (
    "ba be bo da de di fa fi ga go ha hi ka ke ko la le li lo ma me mi na ne no pa po ra re ri sa se si ta te to"
)


def vocabulary(generator: np.random.Generator, words: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Made-up words and their chances: lengths and frequencies fall off about as in English (Zipf's law)."""
    syllables = np.array(SYLLABLES.split())
    made = ["".join(generator.choice(syllables, 1 + place % 5)) for place in range(words)]
    chances = 1 / (np.arange(words) + 2.7)
    return np.array(made), np.cumsum(chances / chances.sum())


def articles(megabytes: float, seed: int = 0) -> Iterator[str]:
    """Texts of some thousand bytes, up to `megabytes` in all, each of sentences drawn anew from many."""
    generator = np.random.default_rng(seed)
    words, ladder = vocabulary(generator)
    sentences = []
    for _ in range(int(min(megabytes, 50) * 10_000)):
        chosen = words[np.searchsorted(ladder, generator.random(generator.integers(5, 25)))]
        sentences.append(" ".join(chosen.tolist()).capitalize() + f" {generator.integers(3000)}.")
    left = megabytes * 10**6
    while left > 0:
        paragraphs = [
            " ".join([sentences[place] for place in generator.integers(0, len(sentences), length).tolist()])
            for length in generator.integers(2, 8, int(generator.integers(2, 12))).tolist()
        ]
        text = "\n\n".join(paragraphs)
        left -= len(text)
        yield text


def make_files(folder: Path, megabytes: float) -> None:
    """Files of about 8 MB of text in ten kinds, in turn; among them records of a sentence, and a page of many tags."""
    texts = articles(megabytes)
    number = 0
    while portion := list(_up_to(texts, 8 * 10**6)):
        name, make = KINDS[number % len(KINDS)]
        (folder / f"{number:05d}-{name}").write_bytes(make(portion))
        number += 1


def plain(texts: list[str]) -> bytes:
    return "\n\n\n".join(texts).encode()


def records(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": place, "text": text}) + "\n" for place, text in enumerate(texts)).encode()


def page(texts: list[str]) -> bytes:
    articles = (f"<article><h1>Item {place}</h1><p>{text}</p></article>" for place, text in enumerate(texts))
    return f"<!DOCTYPE html><html><body>{''.join(articles)}".encode()


def table(texts: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([("id", "text"), *enumerate(texts)])
    return out.getvalue().encode()


def sentences(texts: list[str]) -> list[str]:
    return [sentence for text in texts for sentence in re.split(r"(?<=\.)\s+", text)]


def tagged(sentence: str) -> str:
    """A sentence as an item of a list, every few words of it in tags."""
    words = sentence.split()
    inner = " ".join(f'<a href="/{word}">{word}</a>' if place % 4 == 0 else word for place, word in enumerate(words))
    return f'<li class="item"><span>{inner}</span></li>\n'


KINDS: tuple[tuple[str, Callable[[list[str]], bytes]], ...] = (
    ("notes.txt", plain),
    ("talks.jsonl", records),
    ("paper.md", lambda texts: b"# Title\n\n" + plain(texts)),
    ("table.csv", table),
    ("old.txt.gz", lambda texts: gzip.compress(plain(texts), 6)),
    ("page.html", page),
    ("archive.jsonl.xz", lambda texts: lzma.compress(records(texts), preset=1)),
    ("more.txt.bz2", lambda texts: bz2.compress(plain(texts), 1)),
    ("short.jsonl", lambda texts: records(sentences(texts))),
    ("links.html", lambda texts: "".join(map(tagged, sentences(texts))).encode()),
)


def _up_to(texts: Iterator[str], size: int) -> Iterator[str]:
    while size > 0 and (text := next(texts, None)) is not None:
        size -= len(text)
        yield text


def stage(name: str, paths: list[str], tokenizer: Tokenizer, out: Path) -> dict[str, float]:
    """Do one of the three things in this process and say what it took."""
    report = ReadReport()
    documents = read_documents(paths, report=report)
    if name == "encode":
        texts: list[str] = []
        for document in documents:
            texts.append(document.text)
            if report.bytes > ENCODE_BYTES:
                break
    start, cpu = time.perf_counter(), time.process_time()
    if name == "list":
        for _ in documents:
            pass
    elif name == "encode":
        for first in range(0, len(texts), 1000):
            tokenizer.encode_batch(texts[first : first + 1000])
    elif name == "feed":
        write_shards(documents, tokenizer, out / "tokens", overwrite=True)
    else:
        write_corpus(paths, tokenizer, out / "tokens", report=report, overwrite=True)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "megabytes": report.bytes / 1e6,
        "documents": report.documents,
        "seconds": time.perf_counter() - start,
        "first_process_seconds": time.process_time() - cpu,
        "cpu_seconds": time.process_time() - cpu + workers.ru_utime + workers.ru_stime,
    }


def run(name: str, paths: list[str], work: Path) -> dict[str, float]:
    """One stage in a process of its own, its memory and that of its workers watched from outside."""
    command = [sys.executable, __file__, "--stage", name, "--work", str(work), *paths]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(resident_mb, [process.pid, *children(process.pid)])))
        time.sleep(0.05)
    assert process.stdout is not None
    said = process.stdout.read()
    if process.returncode:
        sys.exit(f"{name} failed with exit code {process.returncode}")
    return json.loads(said.splitlines()[-1]) | {"peak_mb": peak}


def children(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def resident_mb(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except (OSError, IndexError):
        return 0.0


def sample(paths: list[str]) -> Iterator[str]:
    report = ReadReport()
    for document in read_documents(paths, report=report, duplicates="keep"):
        yield document.text
        if report.bytes > SAMPLE_BYTES:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files and folders to read (made ones where none are given)")
    parser.add_argument("--megabytes", type=float, default=1000, help="how much text to make")
    parser.add_argument("--vocabulary", type=int, default=8192, help="size of the vocabulary to encode with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for files under way, kept; else a temporary one")
    parser.add_argument("--stage", choices=["list", "encode", "feed", "whole"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        tokenizer = Tokenizer.load(options.work / "vocabulary")
        tokenizer.encode("warm")
        print(json.dumps(stage(options.stage, options.paths, tokenizer, options.work)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        paths = options.paths
        if not paths:
            made = work / f"made-{options.megabytes:g}"
            if not made.exists():
                unfinished = made.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                make_files(unfinished, options.megabytes)
                unfinished.rename(made)
            paths = [str(made)]
        train_tokenizer(sample(paths), options.vocabulary).save(work / "vocabulary")
        rounds: dict[str, list[dict[str, float]]] = {"list": [], "encode": [], "feed": [], "whole": []}
        for number in range(options.rounds):
            for name, results in rounds.items():
                result = run(name, paths, work)
                results.append(result)
                print(
                    f"round {number + 1} {name:7} {result['megabytes']:7.0f} MB {result['seconds']:7.1f} s "
                    f"{result['megabytes'] / result['seconds']:6.1f} MB/s  CPU {result['cpu_seconds']:6.1f} s  "
                    f"peak {result['peak_mb']:5.0f} MB",
                    flush=True,
                )
        print(json.dumps(summary(rounds)))


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Medians over the rounds."""

    def median(name: str, above: str, below: str) -> float:
        return statistics.median(result[above] / result[below] for result in rounds[name])

    whole = rounds["whole"]
    feed_over_whole = [feed["seconds"] / own["seconds"] for feed, own in zip(rounds["feed"], whole, strict=True)]
    cost = {name: median(name, "cpu_seconds", "megabytes") for name in rounds}
    shares = {"reading": cost["list"] / cost["whole"], "encoding": cost["encode"] / cost["whole"]}
    shares["rest"] = 1 - sum(shares.values())
    return {
        "megabytes": whole[0]["megabytes"],
        "documents": whole[0]["documents"],
        "whole_mb_per_second": round(median("whole", "megabytes", "seconds"), 1),
        "reading_alone_mb_per_second": round(median("list", "megabytes", "seconds"), 1),
        "encoding_alone_mb_per_second": round(median("encode", "megabytes", "seconds"), 1),
        "whole_mb_per_cpu_second": round(1 / cost["whole"], 1),
        "reading_mb_per_cpu_second": round(1 / cost["list"], 1),
        "encoding_mb_per_cpu_second": round(1 / cost["encode"], 1),
        "share_of_cpu": {name: round(share, 3) for name, share in shares.items()},
        "feed_mb_per_second": round(median("feed", "megabytes", "seconds"), 1),
        "seconds_of_feed_over_whole": round(statistics.median(feed_over_whole), 2),
        "cpu_of_first_process": {
            name: round(median(name, "first_process_seconds", "cpu_seconds"), 3) for name in ("feed", "whole")
        },
        "cores_busy": round(median("whole", "cpu_seconds", "seconds"), 2),
        "peak_mb": {name: round(max(one["peak_mb"] for one in results)) for name, results in rounds.items()},
        "rounds": rounds,
        "circumstances": circumstances(),
    }


if __name__ == "__main__":
    main()
