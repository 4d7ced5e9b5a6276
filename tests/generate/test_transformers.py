"""Greedy answers equal those of transformers' `generate` on the same folder, prompts of several lengths at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from chatsmith.generate.requests import Request
from chatsmith.generate.sampling import Sampling
from chatsmith.store.folder import save_model
from tiny import tiny_engine, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_transformers(kind: str, penalty: float, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(kind), tiny_tokenizer()
    with torch.no_grad():
        model.head.weight[268:] = 0  # transformers would choose rows that belong to no token
    save_model(tmp_path / "m", model, tokenizer, provenance={})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    sampling = Sampling(temperature=0, repetition_penalty=penalty, max_tokens=25)
    prompts = [tuple(tokenizer.encode(text)) for text in ("the sea", "x", "in the inn and the tin")]
    requests = [replace(Request(prompt), sampling=sampling, stop_ids=frozenset()) for prompt in prompts]
    for done, prompt in zip(tiny_engine(model).complete(requests), prompts, strict=True):
        ids = torch.tensor([prompt])
        expected = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            repetition_penalty=penalty,
            max_new_tokens=25,
            eos_token_id=None,
        )
        assert list(done.ids) == expected[0, len(prompt) :].tolist()
