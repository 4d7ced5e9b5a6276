"""lm-eval over HTTP gives the scores of the same model in this process. Its task is written here, nothing fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import chatsmith
from chatsmith.generate.requests import Request

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: make test-clients")

QUESTIONS = [
    {"question": "Once upon a time there was a", "choices": [" fox.", " hello.", " time."], "answer": 0},
    {"question": "The fox said", "choices": [" there", " hello.", " upon a"], "answer": 1},
    {"question": "Once upon", "choices": [" fox", " said", " a time there was a fox."], "answer": 2},
    {"question": "The", "choices": [" fox said hello.", " a", " there was"], "answer": 0},
]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task of four questions, from a file."""
    from lm_eval.tasks import TaskManager

    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (tmp_path / "tiny.yaml").write_text(
        "task: tiny\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs:\n  cache_dir: {tmp_path / 'cache'}\n  data_files:\n    test: {data}\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: answer\ntarget_delimiter: ""\n'
        "metric_list:\n  - metric: acc\n"
    )
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


def scores(told: Any) -> list[tuple[float, bool]]:
    """(log-likelihood, greedy) of every choice of every question."""
    samples = sorted(told["samples"]["tiny"], key=lambda sample: sample["doc_id"])
    return [(float(value), str(greedy) == "True") for one in samples for value, greedy in one["filtered_resps"]]


def test_scores_over_http_are_those_in_process(folder: Path, listening: Any, task: Any) -> None:
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = chatsmith.load(folder, device="cpu")
    greedily = chatsmith.Sampling(temperature=0, max_tokens=1, seed=0)

    class InProcess(TemplateLM):
        """The engine itself, asked by lm-eval."""

        eot_token_id = model.tokenizer.end_of_text

        def tok_encode(self, string: str, **_: Any) -> list[int]:
            return list(model.tokenizer.encode(string))

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            found = []
            for _texts, context, continuation in requests:
                ids = [*context, *continuation]
                logprobs = model.engine.score(ids)[len(context) - 1 :]
                asked = [Request(tuple(ids[:end]), greedily) for end in range(len(context), len(ids))]
                likeliest = [done.ids[0] for done in model.engine.complete(asked)]
                found.append((float(logprobs.sum()), likeliest == list(continuation)))
            return found

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> Any:
            raise NotImplementedError

        def generate_until(self, requests: Any, **_: Any) -> Any:
            raise NotImplementedError

    over_http = LocalCompletionsAPI(
        base_url=f"{listening.url}/v1/completions",
        model="tiny",
        tokenizer=str(folder),
        tokenizer_backend="huggingface",
        max_length=512,
        batch_size=4,
    )
    http, here = (
        lm_eval.simple_evaluate(asked, tasks=["tiny"], task_manager=task, log_samples=True, bootstrap_iters=0)
        for asked in (over_http, InProcess())
    )
    assert len(scores(http)) == 12
    for (one, greedy), (other, also) in zip(scores(http), scores(here), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert greedy == also
    assert http["results"]["tiny"]["acc,none"] == here["results"]["tiny"]["acc,none"]
