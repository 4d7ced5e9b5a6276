"""Loss against wall time: chatsmith's defaults, the same model under a plain AdamW loop, and nanoGPT's recipe.

    python bench/learn.py characters --shakespeare input.txt.gz --nanogpt ~/nanoGPT
    python bench/learn.py text --data books.jsonl.xz --minutes 3 --nanogpt ~/nanoGPT

All contenders read the same training text, in one vocabulary, and are measured by one function on the same held-out
text: every token once, in windows of the contender's own context. Time stands still while they are measured. `--rounds`
repeats the whole comparison in alternation; the last line is JSON. nanoGPT is imported from a checkout given by path:
its model with the recipe that its README documents for a CPU.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from chatsmith import machine
from chatsmith.plan import budget
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.documents import ReadReport, read_documents
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.train.precision import keep_memory
from chatsmith.train.recipe import Batch, Data, Evaluation, Optimizer, Recipe, Samples, Schedule, Source
from chatsmith.train.run import train
from chatsmith.train.speed import TrainingSpeed, matrix_rate

Logits = Callable[[torch.Tensor], torch.Tensor]
CURVE = 24  # measurements along a run


class Watch:
    """A clock that can stand still."""

    def __init__(self) -> None:
        self._lost = 0.0

    def __call__(self) -> float:
        return time.perf_counter() - self._lost

    def pause(self, work: Callable[[], Any]) -> Any:
        """Do something outside the measured time."""
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._lost += time.perf_counter() - began


@dataclass(frozen=True)
class Text:
    """Training and held-out tokens of one text, and the bytes that the held-out ones stand for."""

    tokenizer: Tokenizer
    train: np.ndarray
    held_out: np.ndarray
    held_out_bytes: int
    folder: Path


def loss_on(logits: Logits, tokens: np.ndarray, context: int) -> float:
    """Mean nats per token over windows that lie one behind another."""
    count = (len(tokens) - 1) // context
    inputs = torch.from_numpy(tokens[: count * context].astype(np.int64)).view(count, context)
    targets = torch.from_numpy(tokens[1 : count * context + 1].astype(np.int64)).view(count, context)
    total = 0.0
    rows = max(1, 8192 // context)
    with torch.no_grad():
        for first in range(0, count, rows):
            found = logits(inputs[first : first + rows]).float()
            wanted = targets[first : first + rows]
            total += float(F.cross_entropy(found.reshape(-1, found.shape[-1]), wanted.reshape(-1), reduction="sum"))
    return total / targets.numel()


Curve = list[tuple[float, float]]


def chatsmith_run(text: Text, recipe: Recipe) -> Curve:
    """Train by a recipe; (seconds, held-out loss) along the way."""
    watch, curve = Watch(), Curve()
    begun: list[float] = []

    def measure(model: Any, *_: Any) -> list[str]:
        def work() -> float:
            return loss_on(lambda ids: model(ids), text.held_out, recipe.batch.context)

        now = watch() - begun[0]
        curve.append((now, watch.pause(work)))
        return [""]

    class Begin:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: begun.append(watch()) if name == "on_start" else None

    with tempfile.TemporaryDirectory() as out:
        train(recipe, Path(out, "run"), sampler=measure, callbacks=[Begin()], clock=watch)  # type: ignore[list-item]
    return curve


def recipe_for(
    text: Text, choice: budget.Choice, minutes: float, *, optimizer: str = "muon", seed: int = 1, **changes: Any
) -> Recipe:
    """What `chatsmith new` would train in so many minutes; `adamw` is the plain loop on the same model."""
    spec = choice.spec
    rates = {"learning_rate": choice.learning_rate, "muon_learning_rate": choice.muon_learning_rate}
    plain = {"learning_rate": 1e-3 if spec.width < 512 else 6e-4, "betas": (0.9, 0.95)}
    return Recipe(
        name="bench",
        seed=seed,
        data=Data(sources=(Source(path=str(text.folder / "train.txt"), duplicates="keep"),), held_out=0.0,
                  tokenizer=str(text.folder)),
        model={"preset": "modern", "context": spec.context, "width": spec.width, "layers": spec.layers,
               "heads": spec.heads, "dropout": spec.dropout},
        batch=Batch(micro_batch=choice.rows, context=spec.context),
        optimizer=Optimizer(name=optimizer, **(rates if optimizer == "muon" else plain)),  # type: ignore[arg-type]
        schedule=Schedule(minutes=minutes, decay="linear" if optimizer == "muon" else "cosine",
                          final_fraction=0.0 if optimizer == "muon" else 0.1),
        evaluation=Evaluation(times=0),
        samples=Samples(prompts=("",), times=CURVE),
        **changes,
    )  # fmt: skip


def nanogpt_run(text: Text, checkout: Path, seconds: float | None, shape: tuple[int, int, int], context: int,
                rows: int, steps: int = 2000) -> Curve:  # fmt: skip
    """nanoGPT's recipe for a CPU: AdamW 1e-3 (0.9, 0.99), decay 0.1, 100 steps of warm-up, cosine to 1e-4, clip 1.

    With `seconds` it is stopped then, and its schedule is given the number of steps that fit, measured beforehand, so
    that it too ends with a low learning rate.
    """
    sys.path.insert(0, str(checkout))
    from model import GPT, GPTConfig

    torch.manual_seed(1337)
    layers, heads, width = shape
    vocab = -(-text.tokenizer.vocab_size // 64) * 64
    config = GPTConfig(block_size=context, vocab_size=vocab, n_layer=layers, n_head=heads, n_embd=width, dropout=0.0,
                       bias=False)  # fmt: skip
    model = GPT(config)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    data = torch.from_numpy(text.train.astype(np.int64))
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.randint(len(data) - context - 1, (rows,), generator=generator)
        return (
            torch.stack([data[i : i + context] for i in at]),
            torch.stack([data[i + 1 : i + context + 1] for i in at]),
        )

    def step(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        _, loss = model(*batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if seconds is not None:
        for _ in range(3):
            step(0.0)
        began = time.perf_counter()
        for _ in range(10):
            step(0.0)
        steps = max(20, int(seconds / ((time.perf_counter() - began) / 10)))
    warmup = min(100, steps // 10)
    watch, curve = Watch(), Curve()
    start = watch()
    marks = {round((k + 1) * steps / CURVE) for k in range(CURVE)}

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(ids, ids)[0]

    for k in range(1, steps + 1):
        rate = (
            1e-3 * k / warmup
            if k <= warmup
            else 1e-4 + 0.45e-3 * 2 * 0.5 * (1 + math.cos(math.pi * (k - warmup) / max(1, steps - warmup)))
        )
        step(rate)
        over = seconds is not None and watch() - start >= seconds
        if k in marks or k == steps or over:
            now = watch() - start

            def measure() -> float:
                model.eval()
                found = loss_on(logits, text.held_out, context)
                model.train()
                return found

            curve.append((now, watch.pause(measure)))
        if over:
            break
    return curve


def time_to(curve: Curve, loss: float) -> float | None:
    """Seconds until the held-out loss is at most `loss`; None when it never is."""
    return next((seconds for seconds, found in curve if found <= loss), None)


def character_text(path: Path, folder: Path) -> Text:
    """Tiny Shakespeare by character (its text is ASCII, so bytes are characters), the last tenth held out."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return _text(raw.decode("utf-8"), folder, 261, 0.1)


def document_text(paths: Sequence[Path], folder: Path, characters: int, vocab_size: int) -> Text:
    """Documents one behind another, up to so many characters, the last fiftieth held out."""
    parts, size = [], 0
    for document in read_documents(list(paths), report=ReadReport()):
        parts.append(document.text)
        size += len(document.text)
        if size >= characters:
            break
    return _text("\n\n".join(parts), folder, vocab_size, 0.02)


def _text(whole: str, folder: Path, vocab_size: int, held_out: float) -> Text:
    cut = int(len(whole) * (1 - held_out))
    first, rest = whole[:cut], whole[cut:]
    (folder / "train.txt").write_text(first, encoding="utf-8")
    tokenizer = train_tokenizer([first], vocab_size)
    tokenizer.save(folder)
    return Text(tokenizer, tokenizer.encode_array(first), tokenizer.encode_array(rest), len(rest.encode()), folder)


def characters(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """nanoGPT's documented CPU run against ours of 20 seconds, 3 and 10 minutes (or the lengths asked for)."""
    text = character_text(arguments.shakespeare, folder)
    speed = TrainingSpeed()
    lengths = {f"{minutes * 60:.0f} s": minutes for minutes in arguments.lengths}
    curves: dict[str, list[Curve]] = {}
    for turn in range(arguments.rounds):
        for name, minutes in lengths.items():
            choice = budget.choose(minutes * 60, speed, text.tokenizer.vocab_size, len(text.train))
            curves.setdefault(name, []).append(chatsmith_run(text, recipe_for(text, choice, minutes, seed=turn + 1)))
            _show(name, curves[name][-1])
        if arguments.nanogpt:
            curve = nanogpt_run(text, arguments.nanogpt, None, (4, 4, 128), 64, 12)
            curves.setdefault("nanoGPT", []).append(curve)
            _show("nanoGPT", curve)
    target = 1.88
    result: dict[str, Any] = {"final_loss": {name: [c[-1][1] for c in found] for name, found in curves.items()}}
    result["seconds"] = {name: [c[-1][0] for c in found] for name, found in curves.items()}
    result["seconds_to_1.88"] = {name: [time_to(c, target) for c in found] for name, found in curves.items()}
    return result


def text(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Equal minutes on documents in one BPE vocabulary: ours, plain AdamW, nanoGPT's recipe at three sizes."""
    seconds = arguments.minutes * 60
    peak = matrix_rate(seconds=2.0)
    vocab = arguments.vocab_size or budget.vocabulary_size(arguments.characters, seconds, peak)
    found = document_text(arguments.data, folder, arguments.characters, vocab)
    choice = budget.choose(seconds, TrainingSpeed(), vocab, len(found.train))
    print(f"vocabulary {vocab}, {len(found.train):,} tokens, chose {choice.spec.parameters:,} parameters")
    runs: dict[str, Callable[[], Curve]] = {
        "chatsmith": lambda: chatsmith_run(found, recipe_for(found, choice, arguments.minutes)),
        "plain AdamW": lambda: chatsmith_run(found, recipe_for(found, choice, arguments.minutes, optimizer="adamw")),
    }
    if arguments.nanogpt:
        for shape in ((4, 4, 128), (6, 6, 192), (6, 6, 384)):
            name = f"nanoGPT {shape[0]}x{shape[2]}"
            runs[name] = lambda shape=shape: nanogpt_run(found, arguments.nanogpt, seconds, shape, 256, 8)
    bits: dict[str, list[float]] = {}
    per_byte = len(found.held_out) / found.held_out_bytes / math.log(2)
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            curve = run()
            _show(name, curve)
            bits.setdefault(name, []).append(curve[-1][1] * per_byte)
    for name, values in bits.items():
        print(f"{name:16} {statistics.median(values):.4f} bits per byte  (all rounds: {_list(values)})")
    peers = [statistics.median(values) for name, values in bits.items() if name.startswith("nanoGPT")]
    ours = statistics.median(bits["chatsmith"])
    ratio = ours / min(peers) if peers else None
    return {
        "bits_per_byte": bits,
        "of_best_nanogpt": ratio,
        "of_plain_adamw": ours / statistics.median(bits["plain AdamW"]),
    }


def _show(name: str, curve: Curve) -> None:
    points = "  ".join(f"{seconds:.0f}s {loss:.3f}" for seconds, loss in _some(curve))
    print(f"{name:16} {points}", flush=True)


def _some(curve: Curve) -> Iterator[tuple[float, float]]:
    step = max(1, len(curve) // 8)
    yield from curve[step - 1 :: step]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("characters", "text"))
    parser.add_argument("--shakespeare", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--characters", type=int, default=20_000_000)
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lengths", type=float, nargs="+", default=[1 / 3, 3.0, 10.0], help="minutes of our runs")
    arguments = parser.parse_args()
    torch.set_num_threads(machine.usable_cores())
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        result = {"characters": characters, "text": text}[arguments.what](arguments, Path(folder))
    result |= {"what": arguments.what, "machine": machine.describe().cpu, "torch": torch.__version__}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
