"""How soon a small model repeats a list that it has just read, with and without heads that begin by looking back.

    python bench/copying.py
    python bench/copying.py --heads 0 2 --tokens 1000000 --seeds 1 2 3

Each run reads nothing but the small world's lists of random words that come again ("echoes"). On the way it gets lists
that it never saw, once and again up to some word, and is asked for the next token: what is printed is the share of
right ones, against tokens read. Nothing here depends on time. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from chatsmith.models.decoder import Decoder
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.world.dice import Dice
from chatsmith.text.world.incontext import vocabulary
from chatsmith.train.recipe import Batch, Data, Evaluation, Optimizer, Recipe, Samples, Schedule, Source
from chatsmith.train.run import train

MEASURED = 12  # times in a run
LISTS, WORDS = 40, 8


def recipe(heads: int, tokens: int, seed: int, threads: int) -> Recipe:
    """The built-in model's shape, rates and first steps, on lists alone."""
    return Recipe(
        data=Data((Source("world", mixture={"echoes": 1.0}, tokens=int(1.1 * tokens)),), vocab_size=3072),
        schedule=Schedule(tokens=tokens, warmup=0.05),
        seed=seed,
        threads=threads,
        model={"preset": "modern", "width": 96, "layers": 4, "heads": 3, "context": 384, "induction_heads": heads},
        batch=Batch(micro_batch=2),
        optimizer=Optimizer(learning_rate=0.01, muon_learning_rate=0.01),
        evaluation=Evaluation(times=0),
        samples=Samples(prompts=("",), times=MEASURED),
    )


def repeated(model: Decoder, tokenizer: Tokenizer) -> float:
    """The share of tokens of a list's second half that are foretold where the list comes again."""
    dice, right, asked = Dice(77), 0, 0
    for _ in range(LISTS):
        words = dice.sample(vocabulary(), WORDS)
        once, half = " ".join(words), " ".join(words[: WORDS // 2])
        known = len(tokenizer.encode(f"{once}\n{half}"))
        ids = torch.tensor([tokenizer.encode(f"{once}\n{once}")])
        with torch.no_grad():
            foretold = model(ids)[0, known - 1 : -1].argmax(-1)
        right += int((foretold == ids[0, known:]).sum())
        asked += len(foretold)
    return right / asked


def run(heads: int, tokens: int, seed: int, threads: int) -> list[float]:
    """The shares along one run."""
    shares: list[float] = []

    def measure(
        model: Decoder, tokenizer: Tokenizer, prompts: Sequence[str], length: int, temperature: float
    ) -> list[str]:
        shares.append(repeated(model, tokenizer))
        return [""] * len(prompts)

    with tempfile.TemporaryDirectory() as folder:
        train(recipe(heads, tokens, seed, threads), Path(folder) / "run", sampler=measure)
    return shares


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="how soon a small model repeats a list, by the heads that look back")
    parser.add_argument("--heads", type=int, nargs="+", choices=range(4), default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    found = {}
    for seed in asked.seeds:
        for heads in asked.heads:
            found[f"{heads} heads, seed {seed}"] = shares = run(heads, asked.tokens, seed, asked.threads)
            print(f"{heads} heads, seed {seed}: {' '.join(f'{share:4.0%}' for share in shares)}", flush=True)
    print(json.dumps({"tokens": asked.tokens, "repeated": found}))


if __name__ == "__main__":
    main()
