"""Learning a vocabulary and encoding with it: MB of text a second, beside the tokenizers library, tiktoken and rustbpe.

    python bench/tokenizer.py                            books and Wikipedia from $CHATSMITH_SHARED, else made text
    python bench/tokenizer.py --data PATH …              your own files
    python bench/tokenizer.py --megabytes 20 --rounds 3  less, and quicker

All sides get the same texts, the same expression for words and the same number of threads, and take turns in each
round; every round is shown, then medians and spread. Beside each sample stand the rates that the machine gave just
before it, in matrix products and in reading memory: where they differ between samples, so did the machine. Rates per
second of CPU time (of all threads) hold on a machine that others use too. Our encoder
starts each sample with an empty cache. Encoding uses one vocabulary on all sides (rustbpe only knows its own), and the
ids must be equal. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from chatsmith.machine import usable_cores
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.documents import ReadReport, read_documents
from chatsmith.text.tokenizer import SPECIALS, Tokenizer
from chatsmith.text.tokenizer_words import QWEN2
from chatsmith.text.world import documents as world
from harness import circumstances, spread

CORPORA = ("books", "wikipedia")


def texts_of(paths: list[Path], megabytes: float) -> list[str]:
    """Up to `megabytes` of texts, from files or from the built-in corpus."""
    if paths:
        found = (document.text for document in read_documents(paths, report=ReadReport()))
    else:
        found = (document.text for document in world(seed=0, stage="text"))
    texts: list[str] = []
    left = megabytes * 1e6
    for text in found:
        if left <= 0:
            break
        texts.append(text)
        left -= len(text.encode())
    return texts


def default_paths() -> list[Path]:
    chosen = os.environ.get("CHATSMITH_SHARED")
    shared = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared"
    return [folder for name in CORPORA if (folder := shared / "data" / name).is_dir()]


def probes() -> tuple[float, float]:
    """GFLOP/s of a float32 matrix product and GB/s of reading memory, each the best of a few short tries."""
    square = np.ones((768, 768), np.float32)
    long = np.ones(1 << 24, np.float32)
    product = min(seconds(lambda: square @ square) for _ in range(5))
    reading = min(seconds(lambda: long.max()) for _ in range(3))
    return 2 * 768**3 / product / 1e9, long.nbytes / reading / 1e9


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def library_training(texts: list[str], size: int) -> Any:
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN2.regex), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def rustbpe_training(texts: list[str], size: int) -> Any:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), size - len(SPECIALS), pattern=QWEN2.regex)
    return tokenizer


class Contest:
    """Sides that do the same work in turns."""

    def __init__(self, name: str, megabytes: float, rounds: int) -> None:
        self.name, self.megabytes, self.rounds = name, megabytes, rounds
        self.rates: dict[str, list[float]] = {}
        self.cpu_rates: dict[str, list[float]] = {}
        self.results: dict[str, Any] = {}

    def run(self, sides: dict[str, Callable[[], Callable[[], Any]]]) -> None:
        """Each side prepares, unmeasured, and gives the work to measure."""
        names = list(sides)
        for number in range(self.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                work = sides[name]()
                gemm, bandwidth = probes()
                begin, cpu = time.perf_counter(), time.process_time()
                result = work()
                rate = self.megabytes / (time.perf_counter() - begin)
                by_cpu = self.megabytes / (time.process_time() - cpu)
                self.rates.setdefault(name, []).append(rate)
                self.cpu_rates.setdefault(name, []).append(by_cpu)
                self.results.setdefault(name, result)
                print(
                    f"{self.name:7} round {number + 1}  {name:26} {rate:7.1f} MB/s, {by_cpu:5.1f} per s of CPU"
                    f"   (machine: {gemm:5.0f} GFLOP/s, {bandwidth:4.1f} GB/s)",
                    flush=True,
                )

    def summary(self) -> dict[str, dict[str, float]]:
        table = {}
        print(f"\n{self.name}: median, lowest and highest of {self.rounds} rounds, MB/s; median per second of CPU time")
        for name, rates in self.rates.items():
            by_cpu = statistics.median(self.cpu_rates[name])
            table[name] = spread(rates) | {"median_per_cpu_second": by_cpu}
            row = "".join(f"{value:8.1f}" for value in table[name].values())
            print(f"  {name:26}{row}")
        print(flush=True)
        return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=None, help="files or folders to take text from")
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--vocab", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    # Both Rust libraries ask the environment when they first start their threads.
    os.environ |= {"RAYON_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "true"}
    paths = default_paths() if options.data is None else options.data
    texts = texts_of(paths, options.megabytes)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    source = ", ".join(map(str, paths)) or "the built-in corpus"
    print(f"{megabytes:.1f} MB in {len(texts):,} texts from {source}")
    print(f"{options.vocab:,} tokens, {options.threads} threads\n")
    train_tokenizer(["warm up. " * 100], 300)

    learning = Contest("learn", megabytes, options.rounds)
    learning.run(
        {
            "chatsmith": lambda: lambda: train_tokenizer(texts, options.vocab, threads=options.threads),
            "rustbpe": lambda: lambda: rustbpe_training(texts, options.vocab),
            "tokenizers": lambda: lambda: library_training(texts, options.vocab),
        }
    )
    learned = learning.summary()
    ours: Tokenizer = learning.results["chatsmith"]
    theirs = json.loads(learning.results["tokenizers"].to_str())["model"]
    same_vocabulary = theirs == ours._document["model"] | {
        key: theirs[key] for key in theirs if key not in ("vocab", "merges")
    }
    ranks = {bytes(token): rank for token, rank in learning.results["rustbpe"].get_mergeable_ranks()}
    same_as_rustbpe = len({ours.token_bytes(number) for number in range(len(SPECIALS), ours.vocab_size)} & ranks.keys())

    encoding = encode_contest(ours, learning.results["rustbpe"], texts, megabytes, options)
    encoded = encoding.summary()
    wanted = [list(ids) for ids in encoding.results["tokenizers"]]
    same_ids = {
        name: [list(map(int, ids)) for ids in result] == wanted
        for name, result in encoding.results.items()
        if not name.startswith(("rustbpe", "chatsmith, one"))
    }
    one = encoding.results["chatsmith, one long text"][0]
    print(
        f"the vocabulary is that of the tokenizers library: {same_vocabulary}; tokens shared with rustbpe: "
        f"{same_as_rustbpe:,} of {len(ranks):,}; ids equal the tokenizers library's: {same_ids}"
    )
    print(
        json.dumps(
            {
                "megabytes": megabytes,
                "vocab": options.vocab,
                "threads": options.threads,
                "learn": learned,
                "encode": encoded,
                "same_vocabulary_as_tokenizers": same_vocabulary,
                "tokens_shared_with_rustbpe": same_as_rustbpe,
                "same_ids": same_ids,
                "rounds": {contest.name: contest.rates for contest in (learning, encoding)},
                "circumstances": circumstances(),
                "one_text_decodes": ours.decode_bytes(one.tolist()) == "\n".join(texts).encode(),
            }
        )
    )


def encode_contest(
    ours: Tokenizer, rustbpe: Any, texts: list[str], megabytes: float, options: argparse.Namespace
) -> Contest:
    """Encode `texts` on all sides."""
    import tiktoken
    import tokenizers

    library = tokenizers.Tokenizer.from_str(json.dumps(ours._document | {"added_tokens": []}))
    ranks = {ours.token_bytes(number): number for number in range(len(SPECIALS), ours.vocab_size)}
    peer = tiktoken.Encoding("peer", pat_str=QWEN2.regex, mergeable_ranks=ranks, special_tokens={})
    whole = "\n".join(texts)

    def fresh() -> Tokenizer:
        """The same vocabulary, with nothing in its cache."""
        tokenizer = Tokenizer(ours._document)
        tokenizer.encode("")
        return tokenizer

    def chatsmith(threads: int) -> Callable[[], Any]:
        tokenizer = fresh()
        return lambda: tokenizer.encode_batch(texts, threads)

    def one_text() -> Callable[[], Any]:
        tokenizer = fresh()
        return lambda: [tokenizer.encode_array(whole, threads=options.threads)]

    def by_library() -> list[list[int]]:
        found: list[list[int]] = []
        left = iter(texts)
        while batch := list(islice(left, 1_000)):
            found += [each.ids for each in library.encode_batch_fast(batch, add_special_tokens=False)]
        return found

    contest = Contest("encode", megabytes, options.rounds)
    contest.run(
        {
            "chatsmith": lambda: chatsmith(options.threads),
            "tiktoken": lambda: lambda: peer.encode_ordinary_batch(texts, num_threads=options.threads),
            "tokenizers": lambda: by_library,
            "rustbpe (its vocabulary)": lambda: lambda: rustbpe.batch_encode(texts),
            "chatsmith, 1 thread": lambda: chatsmith(1),
            "tiktoken, 1 thread": lambda: lambda: [peer.encode_ordinary(text) for text in texts],
            "chatsmith, one long text": one_text,
        }
    )
    return contest


if __name__ == "__main__":
    main()
