"""Generation on a CPU: decode, prefill and many streams, beside llama.cpp, CTranslate2 and Transformers.

    python bench/generate.py                                    all sizes and formats, with the peers that are at hand
    python bench/generate.py --peers ~/peers/bin/python         the peers live in an environment of their own
    python bench/generate.py --sizes 125m --formats int8 --rounds 9
    python bench/generate.py --peers ~/peers/bin/python --vocabulary DIR     all peers: CTranslate2 wants GPT-2's words

Weights are random; the same go to every side, converted by its own tools or by ours (llama.cpp's from our GGUF). Sides
take turns within a round, each in a process of its own that sleeps while another works. Before every sample the machine
is probed: reading memory, and square products in bfloat16. A share of the bandwidth is the bytes of the weights that a
token reads, against the probe; a share of the roof is 2 operations per weight that a prefill multiplies, against the
products. Compare within a round; the ratio that counts is the median of the rounds' ratios. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from chatsmith.specs import ModelSpec, preset

SIDES = Path(__file__).with_name("generate_sides.py")
SIZES = {"125m": "gpt3-125m", "1.3b": "gpt3-1.3b"}
# Transformers computes in bfloat16 whatever the others do; CTranslate2 has no int4.
FORMATS = {
    "int8": ("llama.cpp", "ctranslate2", "transformers"),
    "int4": ("llama.cpp", "transformers"),
    "bf16": ("llama.cpp", "transformers"),
}
WORK = ("decode 1", "prefill 512", "decode 8", "decode 32")


@dataclass(frozen=True, slots=True)
class Side:
    """A program, the format it computes in, and the process that runs it."""

    name: str
    process: subprocess.Popen[str]

    def ask(self, request: str) -> float:
        """Tokens per second; the process answers in one line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended while asked for {request}")
        return float(answer)


def begin(name: str, python: str, model: Path, threads: int) -> Side | None:
    """Start a side; None, saying why, where its library is missing or it does not start."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        [python, str(SIDES), name, str(model), str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() == "ready\n":
        return Side(name, process)
    why = process.stderr.read().strip().splitlines()
    print(f"  without {name}: {why[-1] if why else 'it ended without a word'}")
    return None


def prepare(folder: Path, size: str, formats: list[str], vocabulary: Path | None) -> dict[str, dict[str, Path]]:
    """The same random weights for every side: format → side → path."""
    import torch

    from chatsmith.models.decoder import Decoder
    from chatsmith.store.folder import save_model
    from chatsmith.store.gguf_model import write_model
    from chatsmith.store.packed import save_packed
    from chatsmith.store.packing import Format, packed_parts

    spec = preset(SIZES[size])
    model = Decoder(spec)
    model.init_weights(0)
    known = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tokenizer = harness.vocabulary(vocabulary)
    found: dict[str, dict[str, Path]] = {}
    for name in formats:
        form = {"int8": Format("int8", 128), "int4": Format("int4", 32), "bf16": Format("bf16")}[name]
        ours, file = folder / f"{size}-{name}", folder / f"{size}-{name}.gguf"
        save_packed(ours, spec, packed_parts(spec, known.__getitem__, form), form, tokenizer, provenance={})
        write_model(file, spec, known.__getitem__, tokenizer, name, size)
        found[name] = {"chatsmith": ours, "llama.cpp": file}
    plain = save_model(folder / f"{size}-plain", model, tokenizer, provenance={}, dtype=torch.bfloat16)
    named = plain / "tokenizer_config.json"  # CTranslate2's converter wants all three of them
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    named.write_text(json.dumps(json.loads(named.read_text()) | ends))
    for name in formats:
        found[name] |= {"transformers": plain, "ctranslate2": plain}
    return found


def bytes_per_token(spec: ModelSpec, name: str) -> float:
    """Bytes of weights that one token reads: layers and output head, at the bits of our format."""
    layers = spec.matmul_parameters - spec.vocab_size * spec.width
    bits = {"int8": (8.125, 8.125), "int4": (4.375, 8.25), "bf16": (16, 16)}[name]
    return (layers * bits[0] + spec.vocab_size * spec.width * bits[1]) / 8


def measure(size: str, name: str, sides: list[Side], rounds: int, work: list[str]) -> list[dict[str, Any]]:
    """Every piece of work by every side in turn; a row per side and piece, with all rounds."""
    spec = preset(SIZES[size])
    by_name = {side.name: side for side in sides}
    rows = []
    for request in work:
        rates: dict[str, list[float]] = {side: [] for side in by_name}
        shares: dict[str, list[float]] = {side: [] for side in by_name}
        probes = []
        for number, side in harness.turns(list(by_name), rounds):
            probe = harness.probe()
            rate = by_name[side].ask(request)
            rates[side].append(rate)
            probes.append(probe)
            shares[side].append(share(spec, name, request, rate, probe))
            print(f"  round {number + 1} {side:13} {request:12} {rate:8.1f} tokens/s   {probe}", flush=True)
        for side, values in rates.items():
            ratios = [ours / theirs for ours, theirs in zip(rates["chatsmith"], values, strict=True)]
            row = {"size": size, "format": name, "work": request, "side": side, "rounds": values}
            row |= {"ratio": statistics.median(ratios), "share": statistics.median(shares[side])}
            row |= {"rate": harness.spread(values), "probes": probes}
            rows.append(row)
            print(
                f"{size} {name} {request:12} {side:13} {row['rate']['median']:8.1f} tokens/s"
                f" ({min(values):.1f} to {max(values):.1f}), chatsmith {row['ratio']:.2f}x, share {row['share']:.0%}"
            )
    return rows


def share(spec: ModelSpec, name: str, request: str, rate: float, probe: harness.Probe) -> float:
    """What part of the machine's limit a rate uses: of the bandwidth for decoding, of the products for the rest."""
    kind, count = request.split()
    if kind == "decode" and count == "1":
        return rate * bytes_per_token(spec, name) / 1e9 / probe.bandwidth
    layers = spec.matmul_parameters - spec.vocab_size * spec.width
    weights = layers + (spec.vocab_size * spec.width if kind == "decode" else 0)
    return rate * 2 * weights / 1e9 / probe.bfloat16


def start_time(folder: Path) -> dict[str, float]:
    """Seconds from the start of a process to its first token and its peak of memory, with a warm page cache."""
    times, memory = [], 0.0
    for _ in range(6):
        begin_ = time.perf_counter()
        command = [sys.executable, str(SIDES), "first", str(folder), "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - begin_)
        memory = float(done.stdout)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {"seconds": statistics.median(times[1:]), "peak_bytes": memory, "weight_bytes": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--work", nargs="+", default=list(WORK), help='such as "decode 1" "prefill 512"')
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--models", type=Path, help="keep the converted models here and use those that are there")
    parser.add_argument(
        "--vocabulary", type=Path, help="the folder of GPT-2's vocabulary: for the time of a start, and for CTranslate2"
    )
    given = parser.parse_args()
    results: dict[str, Any] = {
        "circumstances": harness.circumstances(),
        "threads": given.threads,
        "rows": [],
        "start": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for size in given.sizes:
            folder = given.models or Path(scratch)
            listing = folder / f"{size}.json"
            if not listing.exists():
                folder.mkdir(parents=True, exist_ok=True)
                made = prepare(folder, size, given.formats, given.vocabulary)
                listing.write_text(json.dumps({f: {s: str(p) for s, p in of.items()} for f, of in made.items()}))
            paths = json.loads(listing.read_text())
            for name in given.formats:
                sides = [begin("chatsmith", sys.executable, Path(paths[name]["chatsmith"]), given.threads)]
                for peer in FORMATS[name]:
                    python = sys.executable if peer == "transformers" else given.peers
                    sides.append(begin(peer, python, Path(paths[name][peer]), given.threads))
                present = [side for side in sides if side is not None]
                results["rows"] += measure(size, name, present, given.rounds, given.work)
                for side in present:
                    side.process.kill()
                    side.process.wait()
            if "int8" in given.formats:
                results["start"][size] = start_time(Path(paths["int8"]["chatsmith"]))
                print(f"{size} int8 start: {results['start'][size]}")
    print(harness.as_json(results))


if __name__ == "__main__":
    main()
