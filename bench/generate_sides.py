"""One side of bench/generate.py: waits for requests on stdin and answers with tokens per second, one line each.

    generate_sides.py SIDE MODEL THREADS        requests: "decode STREAMS" (64 tokens each), "prefill TOKENS"

It imports nothing of chatsmith but for the side of that name, so that it runs in an environment of peers alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[int], float]
TOKENS, PROMPT, VOCABULARY = 64, 32, 50257


def chatsmith(model: Path, threads: int) -> tuple[Run, Run]:
    """The native backend, fed as the engine feeds it."""
    import numpy as np

    from chatsmith.generate.backend import Step
    from chatsmith.generate.native import NativeBackend
    from chatsmith.store.parts import load_parts

    loaded = load_parts(model)
    backend = NativeBackend(loaded.spec, loaded.parts, threads=threads)
    draw = np.random.default_rng(0)

    def rows(streams: int, ids: Any, start: int, wanted: list[int]) -> float:
        each = len(ids) // streams
        places = np.tile(np.arange(start, start + each, dtype=np.int32), streams)
        starts = np.arange(0, len(ids) + 1, each, dtype=np.int32)
        tables = np.arange(streams * 32, dtype=np.int32).reshape(1, streams, 32)
        begin = time.perf_counter()
        backend.logits(Step(ids, places, starts, tables, np.array(wanted, np.int32)))
        return time.perf_counter() - begin

    def decode(streams: int) -> float:
        rows(streams, draw.integers(0, VOCABULARY, streams * PROMPT).astype(np.int32), 0, [])
        spent = 0.0
        for place in range(PROMPT, PROMPT + TOKENS):
            spent += rows(streams, draw.integers(0, VOCABULARY, streams).astype(np.int32), place, list(range(streams)))
        return streams * TOKENS / spent

    def prefill(count: int) -> float:
        ids, step = draw.integers(0, VOCABULARY, count).astype(np.int32), backend.step_tokens
        spent = 0.0
        for start in range(0, count, step):
            part = ids[start : start + step]
            spent += rows(1, part, start, [len(part) - 1] if start + step >= count else [])
        return count / spent

    return decode, prefill


def llama(model: Path, threads: int) -> tuple[Run, Run]:
    """llama.cpp through its C interface: one batch per step, all streams together."""
    import ctypes
    import random

    import llama_cpp as lib

    lib.llama_backend_init()
    quiet = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    loaded = lib.llama_model_load_from_file(str(model).encode(), lib.llama_model_default_params())
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 32 * 128, 2048, 512, 32
    settings.n_threads = settings.n_threads_batch = threads
    if hasattr(settings, "kv_unified"):
        settings.kv_unified = True
    context = lib.llama_init_from_model(loaded, settings)
    memory = lib.llama_get_memory(context)
    batch = lib.llama_batch_init(2048, 0, 1)
    draw = random.Random(0)

    def rows(streams: int, each: int, start: int, wanted: bool) -> float:
        batch.n_tokens = streams * each
        for stream in range(streams):
            for place in range(each):
                at = stream * each + place
                batch.token[at], batch.pos[at] = draw.randrange(VOCABULARY), start + place
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, stream
                batch.logits[at] = wanted and place == each - 1
        begin = time.perf_counter()
        if lib.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        lib.llama_get_logits_ith(context, batch.n_tokens - 1) if wanted else lib.llama_synchronize(context)
        return time.perf_counter() - begin

    def decode(streams: int) -> float:
        lib.llama_memory_clear(memory, True)
        rows(streams, PROMPT, 0, True)
        spent = sum(rows(streams, 1, place, True) for place in range(PROMPT, PROMPT + TOKENS))
        return streams * TOKENS / spent

    def prefill(count: int) -> float:
        lib.llama_memory_clear(memory, True)
        return count / rows(1, count, 0, True)

    return decode, prefill


def ctranslate2(model: Path, threads: int) -> tuple[Run, Run]:
    """CTranslate2 in int8, from the same weights by its converter for Transformers models."""
    import random
    import shutil
    import tempfile

    import ctranslate2 as ct

    made = Path(tempfile.mkdtemp()) / "model"
    ct.converters.TransformersConverter(str(model)).convert(str(made), quantization="int8")
    vocabulary = json.loads((made / "vocabulary.json").read_text())
    generator = ct.Generator(str(made), device="cpu", inter_threads=1, intra_threads=threads)
    shutil.rmtree(made.parent)
    draw = random.Random(0)

    def words(count: int) -> list[str]:
        return draw.choices(vocabulary, k=count)

    def run(prompts: list[list[str]], tokens: int) -> float:
        begin = time.perf_counter()
        generator.generate_batch(
            prompts, max_length=tokens, min_length=tokens, include_prompt_in_result=False, sampling_topk=1
        )
        return time.perf_counter() - begin

    def decode(streams: int) -> float:
        prompts = [words(PROMPT) for _ in range(streams)]
        return streams * TOKENS / (run(prompts, TOKENS + 1) - run(prompts, 1))

    return decode, lambda count: count / run([words(count)], 1)


def transformers(model: Path, threads: int) -> tuple[Run, Run]:
    """Transformers in bfloat16, eager, with its cache."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    draw = torch.Generator().manual_seed(0)

    def ids(streams: int, count: int) -> torch.Tensor:
        return torch.randint(0, VOCABULARY, (streams, count), generator=draw)

    @torch.inference_mode()
    def decode(streams: int) -> float:
        cache = loaded(ids(streams, PROMPT), use_cache=True, logits_to_keep=1).past_key_values
        spent = 0.0
        for _ in range(TOKENS):
            one, begin = ids(streams, 1), time.perf_counter()
            cache = loaded(one, past_key_values=cache, use_cache=True).past_key_values
            spent += time.perf_counter() - begin
        return streams * TOKENS / spent

    @torch.inference_mode()
    def prefill(count: int) -> float:
        text, begin = ids(1, count), time.perf_counter()
        loaded(text, use_cache=True, logits_to_keep=1)
        return count / (time.perf_counter() - begin)

    return decode, prefill


def first_token(model: Path) -> float:
    """Everything from opening the folder to a first token as text, without torch; the peak of memory in bytes."""
    import re

    import numpy as np

    from chatsmith.generate.backend import Step
    from chatsmith.generate.native import NativeBackend
    from chatsmith.store.parts import load_parts

    loaded = load_parts(model)
    backend, tokenizer = NativeBackend(loaded.spec, loaded.parts), loaded.tokenizer
    ids = np.array(tokenizer.encode("The quick brown fox"), np.int32)
    rows, one = np.arange(len(ids), dtype=np.int32), np.zeros((1, 1, 1), np.int32)
    logits = backend.logits(Step(ids, rows, np.array([0, len(ids)], np.int32), one, rows[-1:]))
    tokenizer.decode([int(logits[0, : tokenizer.vocab_size].argmax())])
    if "torch" in sys.modules:
        raise RuntimeError("the native path has loaded torch")
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return float(peak[1]) * 1024


def main() -> None:
    name, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if name == "first":
        print(first_token(model))
        return
    sides = {"chatsmith": chatsmith, "llama.cpp": llama, "ctranslate2": ctranslate2, "transformers": transformers}
    decode, prefill = sides[name](model, threads)
    decode(1)  # the first time allocates
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        print((decode if kind == "decode" else prefill)(int(count)), flush=True)


if __name__ == "__main__":
    main()
