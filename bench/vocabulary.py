"""Learning a vocabulary from more text than memory holds: peak memory over gigabytes of ever-new words.

    python bench/vocabulary.py                    10 GB of made text, a tenth of its words never seen before
    python bench/vocabulary.py --minutes 15       as much of it as is counted in that time

The text is made on the way from a seed and never stored: stretches of 32 MB of common words, and between them words of
random letters. What the process holds is shown for each gigabyte; the end, where merges are learned, counts too. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chatsmith.machine import usable_cores
from chatsmith.text.bpe import train_tokenizer
from harness import circumstances

PIECE = 1 << 16  # bytes of one text
LETTERS = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", np.uint8)


def random_words(generator: np.random.Generator, size: int) -> str:
    """About `size` letters as words of one to twelve, nearly all of them new where they are long."""
    letters = LETTERS[generator.integers(0, len(LETTERS), size)]
    letters[np.cumsum(generator.integers(3, 14, size // 8)).clip(max=size - 1)] = ord(" ")
    return letters.tobytes().decode("ascii")


class Text:
    """The made text, which says on the way what it has seen."""

    def __init__(self, gigabytes: float, new: float, minutes: float, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        vocabulary = random_words(self.generator, 400_000).split()
        chances = 1 / (np.arange(len(vocabulary)) + 2.7)
        ladder = np.cumsum(chances / chances.sum())
        self.common = ""
        for _ in range(40):
            chosen = np.searchsorted(ladder, self.generator.random(100_000))
            self.common += " ".join([vocabulary[place] for place in chosen.tolist()]) + "\n"
        self.limit, self.new, self.seconds = gigabytes * 1e9, new, minutes * 60
        self.bytes = self.new_bytes = 0
        self.began = time.perf_counter()
        self.resident: list[float] = []

    def __iter__(self) -> Iterator[str]:
        fresh = int(PIECE * self.new)
        while self.bytes < self.limit and time.perf_counter() - self.began < self.seconds:
            at = int(self.generator.integers(0, len(self.common) - PIECE))
            text = self.common[at : at + PIECE - fresh] + " " + random_words(self.generator, fresh)
            self.bytes += len(text)
            self.new_bytes += fresh
            if self.bytes // 10**9 > len(self.resident):
                self.resident.append(resident_mb())
                print(
                    f"{self.bytes / 1e9:4.0f} GB  {self.resident[-1]:5.0f} MB held  peak {peak_mb():5.0f} MB",
                    flush=True,
                )
            yield text


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--new", type=float, default=0.1, help="share of the text that is words of random letters")
    parser.add_argument("--vocab", type=int, default=32_768)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop counting after so long")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    text = Text(options.gigabytes, options.new, options.minutes, options.seed)
    base = resident_mb()
    print(f"{base:.0f} MB held before counting, {len(text.common) / 1e6:.0f} MB of them common text")
    tokenizer = train_tokenizer(text, options.vocab, threads=options.threads)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(f"{text.bytes / 1e9:.2f} GB in {time.perf_counter() - text.began:.0f} s, {cpu:.0f} s of CPU time")
    print(
        json.dumps(
            {
                "gigabytes": text.bytes / 1e9,
                "gigabytes_of_new_words": text.new_bytes / 1e9,
                "vocab": tokenizer.vocab_size,
                "threads": options.threads,
                "mb_before": base,
                "mb_at_each_gigabyte": text.resident,
                "peak_mb": peak_mb(),
                "cpu_seconds": cpu,
                "mb_per_cpu_second": text.bytes / 1e6 / cpu,
                "circumstances": circumstances(),
            }
        )
    )


if __name__ == "__main__":
    main()
